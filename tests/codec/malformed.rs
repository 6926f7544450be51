//! Malformed payloads are refused and do no harm.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tablecast::codec::{Codec, Decoder, MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_UPDATES};
use tablecast::{ErrorKind, Topic};

use super::{ALL, any_update, control, decode, encode, foreign};

#[track_caller]
fn refused(payload: &[u8]) -> String {
    let error = decode(payload).expect_err("malformed");
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().len() < 100, "{error}");
    error.to_string()
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(payload in vec(any::<u8>(), 0..200)) {
        let _ = decode(&payload);
        for field in ["value", "table", "unknown", "seq"] {
            let head = [0x81, 0xa0 | field.len() as u8];
            let _ = decode(&[&head, field.as_bytes(), &payload].concat());
        }
    }

    #[test]
    fn damaged_payloads_do_no_harm(update in any_update(), flips in vec((any::<usize>(), any::<u8>()), 1..4)) {
        for codec in ALL {
            let mut payload = encode(codec, &update);
            prop_assert!(decode(&payload[..payload.len() - 1]).is_err());
            for (at, byte) in &flips {
                let at = at % payload.len();
                payload[at] = *byte;
            }
            let accepted = decode(&payload).is_ok();
            if codec == Codec::Json && accepted {
                serde_json::from_slice::<serde::de::IgnoredAny>(&payload).expect("nothing is accepted that is no JSON");
            }
        }
    }

    #[test]
    fn json_is_accepted_exactly_where_it_is_json(text in "[ \\[\\]{}:,\"\\\\/bnu0-9a-f.eE+\\-\t\n]{0,12}") {
        let payload = format!(r#"{{"table":"t","key":"k","action":"set","unknown":{text}}}"#);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&payload).is_ok();
        prop_assert_eq!(decode(payload.as_bytes()).is_ok(), is_json);
        let payload = format!(r#"{{"table":"t","key":"{text}","action":"set"}}"#);
        let is_json = serde_json::from_str::<std::collections::HashMap<String, String>>(&payload).is_ok();
        prop_assert_eq!(decode(payload.as_bytes()).is_ok(), is_json);
    }
}

#[test]
fn an_array_is_all_or_nothing() {
    let good = json!({"table": "t", "key": "k", "action": "set"});
    for codec in ALL {
        let mut out = Vec::new();
        let mut decoder = Decoder::new();
        decoder
            .decode(&Topic::ALL, &foreign(codec, &json!([])), &mut out)
            .expect("an empty batch");
        assert!(out.is_empty());
        decoder
            .decode(&Topic::ALL, &foreign(codec, &json!([good, good])), &mut out)
            .expect("a batch");
        assert_eq!(out.len(), 2);
        decoder
            .decode(&Topic::ALL, &foreign(codec, &json!([good, {"table": "t"}])), &mut out)
            .expect_err("malformed");
        assert_eq!(out.len(), 2);
    }
}

#[test]
fn a_wrong_field_is_named() {
    let mut cases: Vec<(Value, &str)> = vec![
        (json!({"key": "k", "action": "set"}), "table: missing"),
        (json!({"table": "t", "action": "set"}), "key: missing"),
        (json!({"table": "t", "key": "k"}), "action: missing"),
        (json!({"table": "t", "key": "k", "action": null}), "action: missing"),
        (json!({"table": null, "key": null, "action": null}), "action: missing"),
        (json!({}), "table: missing"),
    ];
    let with = |field: &str, content: Value| {
        let mut document = json!({"table": "t", "key": "k", "action": "set"});
        document[field] = content;
        document
    };
    for field in ["table", "key", "action", "topic", "publisher"] {
        for content in [json!(1), json!(true), json!([]), json!({}), json!(1.5)] {
            cases.push((with(field, content), field));
        }
    }
    for field in ["priority", "timestamp", "epoch", "seq", "version"] {
        for content in [json!("1"), json!(1.0), json!(true), json!([1]), json!({}), json!(1e300)] {
            cases.push((with(field, content), field));
        }
    }
    cases.push((with("priority", json!(1_i64 << 31)), "priority"));
    cases.push((with("priority", json!(-(1_i64 << 31) - 1)), "priority"));
    cases.push((with("timestamp", json!(1_u64 << 63)), "timestamp"));
    cases.push((with("epoch", json!(-1)), "epoch"));
    cases.push((with("version", json!(-1)), "version"));
    cases.push((with("seq", json!(0)), "seq"));
    for (document, field) in &cases {
        for codec in ALL {
            let error = refused(&foreign(codec, document));
            assert!(error.contains(field), "{document}: {error}");
        }
    }
}

#[test]
fn what_is_no_map_is_refused() {
    for document in [
        json!(null),
        json!("text"),
        json!(1),
        json!(1.5),
        json!([[]]),
        json!([1]),
        json!(["t"]),
        json!([null]),
    ] {
        for codec in ALL {
            refused(&foreign(codec, &document));
        }
    }
}

#[test]
fn malformed_json_is_refused() {
    let good = r#"{"table":"t","key":"k","action":"set"}"#;
    for payload in ["", " ", "{", "[", "[,]", "]", "{]", "x", "null", "\u{feff}{}"] {
        refused(payload.as_bytes());
    }
    for tail in ["x", ",", "]", good, "\0"] {
        refused(format!("{good}{tail}").as_bytes());
    }
    for array in [
        format!("[{good},]"),
        format!("[{good}"),
        format!("[{good} {good}]"),
        format!("[[{good}]]"),
    ] {
        refused(array.as_bytes());
    }
    for field in [
        "",
        "1:2",
        "x:1",
        "\"x\"",
        "\"x\":",
        "\"x\":x",
        "\"x\":01",
        "\"x\":1.",
        "\"x\":\"\t\"",
        "\"x\" 1",
        "\"key\":\"\\ud800\"",
        "\"key\":\"\\x\"",
        "\"key\":\"\n\"",
        "\"key\":'k'",
        "\"key\":nul",
        "\"key\":nullnull",
        "\"value\":01",
        "\"value\":nil",
        "\"value\":[1,]",
        "\"value\":{\"a\"}",
        "\"value\":tru",
        "\"value\":\"",
        "\"seq\":01",
        "\"seq\":+1",
        "\"seq\":1e3",
        "\"seq\":-0",
        "\"seq\":",
        "\"seq\":-",
        "\"seq\":1 1",
        "\"seq\":18446744073709551616",
        "\"timestamp\":-01",
        "\"timestamp\":-+1",
        "\"timestamp\":0x1",
    ] {
        refused(format!(r#"{{"table":"t","key":"k","action":"set",{field}}}"#).as_bytes());
    }
    refused(b"{\"table\":\"\xff\",\"key\":\"k\",\"action\":\"set\"}");
    refused(b"{\"table\":\"t\",\"key\":\"k\",\"action\":\"set\",\"x\":\"\xc3\"}");
}

#[test]
fn malformed_messagepack_is_refused() {
    let good = b"\x83\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set";
    assert!(decode(good).is_ok());
    for cut in 1..good.len() {
        refused(&good[..cut]);
    }
    refused(&[good, &b"\xc0"[..]].concat());
    let with = |head: u8, field: &[u8]| [&[head], &good[1..], field].concat();
    for field in [
        &b"\x01\x02"[..],     // a name that is a number
        b"\xc0\xc0",          // or null
        b"\xa1x\xc1",         // the byte that means nothing
        b"\xa1x\xd9\x05abc",  // truncated text,
        b"\xa1x\xc7\x05\x01", // extension,
        b"\xa1x\xcd\x01",     // number
        b"\xa3key\xa2\xc3(",  // not UTF-8
        b"\xa5value\xa1\xff",
        b"\xa5value\x91\xa1\xff",
        b"\xa5value\xd4\x01\x00",                         // an extension as a value
        b"\xa5value\x81\x01\x02",                         // a number as a key
        b"\xa5value\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", // not a number
        b"\xa3seq\xca\x3f\x80\x00\x00",                   // a float
    ] {
        refused(&with(0x84, field));
    }
}

#[test]
fn declared_lengths_cost_nothing() {
    for bomb in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xdb\xff\xff\xff\xff",
        b"\x81\xa3key\xdb\xff\xff\xff\xff",
        b"\x81\xa3key\xc6\xff\xff\xff\xff",
        b"\x81\xa5value\xdd\xff\xff\xff\xff",
        b"\x81\xa5value\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xc9\xff\xff\xff\xff\x01",
    ] {
        assert!(refused(bomb).contains("truncated"));
    }
}

#[test]
fn nesting_is_bounded_alike_in_both_formats() {
    let nested = |depth: usize, open: &[u8], close: &[u8]| [open.repeat(depth), close.repeat(depth)].concat();
    for field in ["value", "unknown"] {
        for (open, close) in [("[", "]"), ("[{\"a\":[", "]}]")] {
            let levels = open.matches(['[', '{']).count();
            let json = |depth| {
                let content = nested(depth, open.as_bytes(), close.as_bytes());
                let head = format!(r#"{{"table":"t","key":"k","action":"set","{field}":"#);
                [head.as_bytes(), &content, b"}"].concat()
            };
            assert!(decode(&json(32 / levels)).is_ok());
            assert!(refused(&json(32 / levels + 1)).contains(field));
            refused(&json(1_000_000));
        }
        for open in [&b"\x91"[..], b"\x81\xa1a"] {
            let msgpack = |depth| {
                let head = [
                    b"\x84\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set",
                    &[0xa0 | field.len() as u8][..],
                ]
                .concat();
                [&head, field.as_bytes(), &nested(depth, open, b""), b"\xc0"].concat()
            };
            assert!(decode(&msgpack(32)).is_ok());
            assert!(refused(&msgpack(33)).contains(field));
            refused(&msgpack(1_000_000));
        }
    }
    for open in [&b"["[..], b"{\"value\":", b"\x91", b"\x81\xa5value"] {
        refused(&open.repeat(1_000_000));
    }
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let with = |field: &str, length: usize| {
        let mut document = json!({"table": null, "key": null, "action": "hello", "publisher": "p", "epoch": 1});
        // In JSON one of them has an escape, and is read by other code.
        document[field] = json!("x".repeat(length));
        let escaped = json!(format!("\n{}", "x".repeat(length - 1)));
        let mut other = document.clone();
        other[field] = escaped;
        [document, other]
    };
    for (field, limit) in [("publisher", MAX_ID_BYTES), ("action", MAX_ACTION_BYTES)] {
        for codec in ALL {
            for document in with(field, limit) {
                assert!(decode(&foreign(codec, &document)).is_ok());
            }
            for document in with(field, limit + 1) {
                assert!(refused(&foreign(codec, &document)).contains(field));
            }
        }
    }
    let batch = |count: usize| Value::from(vec![json!({"table": "t", "key": "k", "action": "set"}); count]);
    for codec in ALL {
        assert_eq!(decode(&foreign(codec, &batch(MAX_UPDATES))).unwrap().len(), MAX_UPDATES);
        assert!(refused(&foreign(codec, &batch(MAX_UPDATES + 1))).contains("too many updates"));
    }
}

/// A service that decodes and re-encodes only the fields it knows, such as Dragonflow's, drops a hello's sender.
#[test]
fn a_hello_without_its_sender_is_still_a_message() {
    for codec in ALL {
        let document =
            json!({"table": null, "key": null, "action": "hello", "value": "{\"every\":1000}", "topic": "D"});
        let control = control(&foreign(codec, &document));
        assert_eq!(
            (&*control.action, &control.publisher, control.epoch),
            ("hello", &None, None)
        );
    }
}

#[test]
fn errors_repeat_nothing_of_the_payload() {
    let secret = "s3cret".repeat(100_000);
    for codec in ALL {
        for document in [
            json!(secret),
            json!([secret]),
            json!({"seq": secret}),
            json!({&secret: 1}),
            json!({"table": [secret]}),
        ] {
            assert!(!refused(&foreign(codec, &document)).contains("s3cret"));
        }
    }
    let unknown = format!(r#"{{"{secret}":}}"#);
    assert!(!refused(unknown.as_bytes()).contains("s3cret"));
}
