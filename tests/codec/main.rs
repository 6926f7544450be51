//! The wire format, seen by a sender and a receiver.

mod malformed;
mod plain;

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use tablecast::codec::{Batch, Codec, Control, Decoder, Encoder, Message};
use tablecast::{Action, DbUpdate, Error, ErrorKind, Origin, Topic};

const ALL: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Dragonflow1];

fn decode(payload: &[u8]) -> Result<Vec<Message>, Error> {
    let mut out = Vec::new();
    Decoder::new().decode(&Topic::ALL, payload, &mut out)?;
    Ok(out)
}

fn update(payload: &[u8]) -> DbUpdate {
    match decode(payload).expect("well-formed").pop() {
        Some(Message::Update(update)) => update,
        other => panic!("{other:?} is not an update"),
    }
}

fn control(payload: &[u8]) -> Control {
    match decode(payload).expect("well-formed").pop() {
        Some(Message::Control(control)) => control,
        other => panic!("{other:?} is not a control message"),
    }
}

/// A document encoded by other code than the library's.
fn foreign(codec: Codec, document: &Value) -> Vec<u8> {
    match codec {
        Codec::Json => serde_json::to_vec_pretty(document).expect("JSON"),
        Codec::MessagePack => rmp_serde::to_vec_named(document).expect("MessagePack"),
        _ => rmp_serde::to_vec(&document.to_string()).expect("MessagePack"),
    }
}

fn encode(codec: Codec, update: &DbUpdate) -> Vec<u8> {
    let origin = update.origin.as_ref().expect("the tests number their updates");
    let encoder = Encoder::new(codec, origin.publisher.clone(), origin.epoch);
    let mut payload = Vec::new();
    encoder.begin(update, &update.topic, &mut payload);
    encoder.finish(0, update.timestamp, origin.seq, origin.idle, &mut payload);
    payload
}

/// Zero, which is not written, or some milliseconds.
fn any_idle() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), any::<u64>()].prop_map(Duration::from_millis)
}

prop_compose! {
    fn any_update()(
        (table, key, action, topic) in (any::<String>(), any::<String>(), any::<String>(), "\\PC{1,40}"),
        value in option::of(any::<String>()),
        (priority, timestamp, version) in (any::<i32>(), any::<i64>(), option::of(any::<u64>())),
        (publisher, epoch, seq, idle) in (any::<String>(), any::<u64>(), 1..=u64::MAX, any_idle()),
    ) -> DbUpdate {
        let mut update = DbUpdate::new(table, key, Action::from(&*action)).priority(priority);
        update.value = value;
        update.topic = Topic::new(topic).expect("a topic");
        update.timestamp = timestamp;
        update.version = version;
        update.origin = Some(Origin { publisher: publisher.into(), epoch, seq, idle });
        update
    }
}

proptest! {
    #[test]
    fn an_update_survives_the_wire(update in any_update()) {
        for codec in ALL {
            let mut out = Vec::new();
            Decoder::new().decode(&update.topic, &encode(codec, &update), &mut out).expect("our own payload");
            prop_assert_eq!(out, [Message::Update(update.clone())]);
        }
    }

    #[test]
    fn a_batch_survives_the_wire(updates in vec(any_update(), 0..20), first in 1..u64::MAX / 2, idle in any_idle()) {
        let topic = Topic::new("tenant1").expect("a topic");
        for codec in ALL {
            let encoder = Encoder::new(codec, "host1".into(), 7);
            let (mut batch, mut payload, mut out) = (Batch::new(), Vec::new(), Vec::new());
            updates.iter().for_each(|update| encoder.push(update, &topic, &mut batch));
            encoder.finish_batch(first, idle, |own| own, &batch, &mut payload);
            prop_assert!(payload.len() <= batch.max_payload_len());
            Decoder::new().decode(&topic, &payload, &mut out).expect("our own payload");
            let expected = updates.iter().zip(first..).map(|(update, seq)| {
                let idle = if seq == first { idle } else { Duration::ZERO };
                let origin = Some(Origin { publisher: "host1".into(), epoch: 7, seq, idle });
                Message::Update(DbUpdate { topic: topic.clone(), origin, ..update.clone() })
            });
            prop_assert_eq!(out, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn others_read_what_we_write(update in any_update()) {
        let json: Value = serde_json::from_slice(&encode(Codec::Json, &update)).expect("JSON");
        let msgpack: Value = rmp_serde::from_slice(&encode(Codec::MessagePack, &update)).expect("MessagePack");
        let text: String = rmp_serde::from_slice(&encode(Codec::Dragonflow1, &update)).expect("MessagePack");
        prop_assert_eq!(&json, &msgpack);
        prop_assert_eq!(&json, &serde_json::from_str::<Value>(&text).expect("JSON"));
        for (field, content) in update.to_dict() {
            prop_assert_eq!(&json[&field], &content);
        }
        prop_assert_eq!(&json["timestamp"], &json!(update.timestamp));
        prop_assert_eq!(&json["seq"], &json!(update.origin.expect("numbered").seq));
        prop_assert_eq!(json.get("version").cloned(), update.version.map(Value::from));
    }
}

#[test]
fn fields_stand_in_the_documented_order() {
    let mut update = DbUpdate::new("lport", "port-1", Action::Create).value("{}").priority(1);
    update.timestamp = 1_700_000_000_000_000;
    update.version = Some(3);
    let encoder = Encoder::new(Codec::Json, "host1".into(), 7);
    let mut payload = Vec::new();
    encoder.begin(&update, &Topic::ALL, &mut payload);
    encoder.finish(0, update.timestamp, 42, Duration::ZERO, &mut payload);
    let expected = r#"{"table":"lport","key":"port-1","action":"create","value":"{}","topic":"D","priority":1,"#
        .to_owned()
        + r#""publisher":"host1","epoch":7,"version":3,"timestamp":1700000000000000,"seq":42}"#;
    assert_eq!(String::from_utf8(payload).expect("text"), expected);
}

#[test]
fn dragonflow_is_understood() {
    let text =
        b"\x85\xa5table\xa5lport\xa3key\xa6port-1\xa6action\xa6create\xa5value\xa8{\x22id\x22:1}\xa5topic\xa7tenant1";
    let bin = b"\x85\xc4\x05table\xc4\x05lport\xc4\x03key\xc4\x06port-1\xc4\x06action\xc4\x06create\
        \xc4\x05value\xc4\x08{\x22id\x22:1}\xc4\x05topic\xc4\x07tenant1";
    for payload in [&text[..], bin] {
        let received = update(payload);
        let mut expected = DbUpdate::new("lport", "port-1", Action::Create).value(r#"{"id":1}"#);
        assert!(
            (0..60_000_000).contains(&(expected.timestamp - received.timestamp)),
            "the time of receipt"
        );
        expected.timestamp = received.timestamp;
        assert_eq!(received, expected, "the frame's topic counts");
    }
    let delete = update(b"\x85\xa5table\xa5lport\xa3key\xc0\xa6action\xa6delete\xa5value\xc0\xa5topic\xa1D");
    assert_eq!(
        (delete.key.as_str(), delete.action, delete.value),
        ("", Action::Delete, None)
    );
    let sync = control(b"\x85\xa5table\xc0\xa3key\xc0\xa6action\xa4sync\xa5value\xc0\xa5topic\xa1D");
    assert_eq!(
        sync,
        Control {
            action: "sync".into(),
            value: None,
            publisher: None,
            epoch: None
        }
    );
}

#[test]
fn control_messages_survive_the_wire() {
    for codec in ALL {
        let mut payload = Vec::new();
        Encoder::new(codec, "host1".into(), 7).control("hello", Some("now"), &Topic::ALL, &mut payload);
        let (value, publisher) = (Some("now".to_owned()), Some("host1".into()));
        assert_eq!(
            control(&payload),
            Control {
                action: "hello".into(),
                value,
                publisher,
                epoch: Some(7)
            }
        );
    }
}

#[test]
fn a_value_that_is_no_text_is_taken_as_its_json_text() {
    for value in [
        r#"{ "b" : [1.50, "x\"]}\\"],  "a":{}}"#,
        "[ ]",
        "1.0e5",
        "-7",
        "true",
        "{\"a\":1}",
    ] {
        let payload = format!("\n {{\"table\":\"t\",\"key\":\"k\",\"action\":\"set\",\"value\": {value} }}\r\n");
        assert_eq!(update(payload.as_bytes()).value.as_deref(), Some(value));
    }
    let payload = b"\x85\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set\xa5topic\xa1D\xa5value\
        \x82\xa1a\x95\x01\xfe\xcb?\xf8\x00\x00\x00\x00\x00\x00\xc3\xc0\xa1b\x81\xa1c\xa3x\x22y";
    assert_eq!(
        update(payload).value.as_deref(),
        Some(r#"{"a":[1,-2,1.5,true,null],"b":{"c":"x\"y"}}"#)
    );
}

/// What grows most as JSON.
#[test]
fn a_long_value_of_messagepack_becomes_json() {
    const COUNT: u32 = 1 << 18;
    let head = b"\x84\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set\xa5value";
    let mut text = [&head[..], b"\x91\xdb", &COUNT.to_be_bytes()].concat();
    text.resize(text.len() + COUNT as usize, 1);
    let expected = format!("[\"{}\"]", r"\u0001".repeat(COUNT as usize));
    assert_eq!(update(&text).value, Some(expected));
    let float = [&b"\xca"[..], &(-f32::MIN_POSITIVE).to_be_bytes()].concat();
    for (part, as_json) in [
        (&b"\xc0"[..], "null"),
        (b"\xc2", "false"),
        (&float, "-1.1754943508222875e-38"),
    ] {
        let array = [&head[..], b"\xdd", &COUNT.to_be_bytes(), &part.repeat(COUNT as usize)].concat();
        let expected = format!("[{}]", vec![as_json; COUNT as usize].join(","));
        assert_eq!(update(&array).value, Some(expected));
    }
}

#[test]
fn json_escapes_are_read_wherever_text_stands() {
    let payload = r#"{"t\u0061ble":"\t\/\b\f\r","key":"\ud83d\ude00\n","action":"\u0073et","value":"\"\\\u0000"}"#;
    let update = update(payload.as_bytes());
    assert_eq!(update.table, "\t/\u{8}\u{c}\r");
    assert_eq!(update.key, "\u{1f600}\n");
    assert_eq!(update.action, Action::Set);
    assert_eq!(update.value.as_deref(), Some("\"\\\0"));
}

#[test]
fn what_is_optional_may_be_missing_or_null() {
    let nulls = json!({"table": "t", "key": "k", "action": "set", "priority": null, "timestamp": null,
        "publisher": null, "epoch": null, "seq": null, "version": null});
    let incomplete = json!({"table": "t", "key": "k", "action": "set", "publisher": "p", "epoch": 1});
    let unknown = json!({"table": "t", "key": "k", "action": "set", "x": {"y": [1, 2.5, {"z": null}]}, "": [[]]});
    for codec in ALL {
        for document in [&nulls, &incomplete, &unknown] {
            let update = update(&foreign(codec, document));
            let optional = (update.priority, update.version, update.origin);
            assert_eq!(optional, (DbUpdate::DEFAULT_PRIORITY, None, None));
        }
    }
    let extension = b"\x84\xa5table\xa1t\xa3key\xa1k\xa6action\xa3set\xa4when\xd6\xff\x00\x00\x00\x01";
    assert_eq!(update(extension).key, "k");
}

#[test]
fn long_names_survive_the_wire() {
    for len in [31, 32, 255, 256, 65_535, 65_536, 200_000] {
        let text = "k".repeat(len);
        // These two are bounded.
        let short = &text[..len.min(255)];
        let mut update = DbUpdate::new(&*text, &*text, Action::from(short)).value(&*text);
        update.origin = Some(Origin {
            publisher: short.into(),
            epoch: 1,
            seq: 1,
            idle: Duration::ZERO,
        });
        for codec in ALL {
            assert_eq!(
                decode(&encode(codec, &update)).expect("our own payload"),
                [Message::Update(update.clone())]
            );
        }
    }
}

#[test]
fn names_that_share_a_slot_stay_apart() {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    for i in (0..1000).chain(0..1000) {
        let payload = foreign(
            Codec::Json,
            &json!({"table": format!("table-{i}"), "key": "k", "action": "set"}),
        );
        decoder.decode(&Topic::ALL, &payload, &mut out).expect("well-formed");
        let Some(Message::Update(update)) = out.last() else {
            panic!("no update")
        };
        assert_eq!(update.table, *format!("table-{i}"));
    }
}

#[test]
fn the_option_has_two_words() {
    for codec in ALL {
        assert_eq!(codec.to_string().parse::<Codec>().expect("its own word"), codec);
    }
    assert_eq!(Codec::default().to_string(), "msgpack");
    assert_eq!("xml".parse::<Codec>().expect_err("unknown").kind(), ErrorKind::Config);
}
