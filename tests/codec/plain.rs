//! MessagePack as encoders write it is read in one go. Neither that nor what was read before makes a difference.

use std::time::Duration;

use tablecast::codec::{Batch, Codec, Decoder, Encoder, MAX_UPDATES, Message};
use tablecast::{Action, DbUpdate, Topic};

/// What a payload gives: its messages, or the error.
fn outcome(decoder: &mut Decoder, payload: &[u8]) -> Result<Vec<Message>, String> {
    let mut out = Vec::new();
    let decoded = decoder.decode(&Topic::ALL, payload, &mut out);
    decoded.map(|()| out).map_err(|e| e.to_string())
}

/// A map with an unknown field before the others, so that it is not as an encoder writes it.
fn roundabout(map: &[u8]) -> Option<Vec<u8>> {
    let (head @ 0x80..=0x8e, fields) = map.split_first()? else {
        return None;
    };
    Some([&[head + 1, 0xa1, b'x', 0xc0], fields].concat())
}

fn updates() -> Vec<DbUpdate> {
    let plain = DbUpdate::new("lport", "port-1", Action::Set).value("{\"a\":\"\u{e9}\"}");
    let versioned = DbUpdate {
        version: Some(70_000),
        after: Some(3),
        ..plain.clone()
    };
    let deleted = DbUpdate {
        value: None,
        after: Some(300),
        ..DbUpdate::new("lport", "port-1", Action::Delete)
    };
    let own = DbUpdate::new("t\u{e9}", "k".repeat(40), Action::Other("reboot".into())).priority(-1);
    let named = DbUpdate {
        topic: Topic::new("tenant\u{e9}").expect("a topic"),
        ..DbUpdate::new("", "", Action::Create)
            .value("x".repeat(300))
            .priority(200)
    };
    vec![plain, versioned, deleted, own, named]
}

#[test]
fn changed_anywhere_it_is_read_as_any_other_map() {
    let encoder = Encoder::new(Codec::MessagePack, "host1".into(), 1_700_000_000_000_000);
    for (update, idle) in updates().iter().zip([0, 5, 0, 70_000, 1]) {
        let (mut payload, mut warm) = (Vec::new(), Decoder::new());
        encoder.begin(update, &update.topic, &mut payload);
        encoder.finish(0, 1_700_000_000_000_000, 7, Duration::from_millis(idle), &mut payload);
        let whole = outcome(&mut warm, &payload).expect("our own payload");
        assert_eq!(outcome(&mut warm, &payload).as_ref(), Ok(&whole));
        assert_eq!(
            outcome(&mut Decoder::new(), &roundabout(&payload).expect("a map")),
            Ok(whole)
        );
        for length in 0..payload.len() {
            check(&mut warm, &payload[..length]);
        }
        check(&mut warm, &[&payload[..], b"x"].concat());
        for at in 0..payload.len() {
            let before = payload[at];
            // Other fields, other lengths, other types, and what is not UTF-8.
            for byte in [
                before ^ 1,
                before.wrapping_add(2),
                0,
                0xc0,
                0xc1,
                0xcf,
                0xd3,
                0xd9,
                0xff,
            ] {
                payload[at] = byte;
                check(&mut warm, &payload);
            }
            payload[at] = before;
        }
    }
}

/// Times of receipt cannot be compared.
fn check(warm: &mut Decoder, payload: &[u8]) {
    let without_time = |outcome: Result<Vec<Message>, String>| {
        outcome.map(|mut messages| {
            for message in &mut messages {
                if let Message::Update(update) = message
                    && update.timestamp > 1_700_000_000_000_000
                {
                    update.timestamp = 0;
                }
            }
            messages
        })
    };
    let cold = without_time(outcome(&mut Decoder::new(), payload));
    assert_eq!(without_time(outcome(warm, payload)), cold, "{payload:x?}");
    if let Some(roundabout) = roundabout(payload) {
        assert_eq!(
            without_time(outcome(&mut Decoder::new(), &roundabout)),
            cold,
            "{payload:x?}"
        );
    }
}

#[test]
fn too_many_are_refused() {
    let encoder = Encoder::new(Codec::MessagePack, "host1".into(), 7);
    let (mut batch, mut decoder) = (Batch::new(), Decoder::new());
    let mut decode = |count| {
        while batch.len() < count {
            encoder.push(&DbUpdate::new("t", "k", Action::Set), &Topic::ALL, &mut batch);
        }
        let mut payload = Vec::new();
        encoder.finish_batch(1, Duration::ZERO, |own| own, &batch, &mut payload);
        outcome(&mut decoder, &payload).map(|messages| messages.len())
    };
    assert_eq!(decode(MAX_UPDATES), Ok(MAX_UPDATES));
    let refused = decode(MAX_UPDATES + 1).expect_err("one too many");
    assert!(refused.ends_with("payload: too many updates"), "{refused}");
}

/// Publishers by turns, each in its own run.
#[test]
fn many_senders_do_not_mix() {
    let (mut decoder, mut batch) = (Decoder::new(), Batch::new());
    for turn in 0..20 {
        for number in 0..7 {
            let encoder = Encoder::new(Codec::MessagePack, format!("host{number}").into(), turn / 10);
            let update = DbUpdate::new("t", "k", Action::Set).priority(number);
            let mut payload = Vec::new();
            batch.clear();
            (0..3).for_each(|_| encoder.push(&update, &Topic::ALL, &mut batch));
            encoder.finish_batch(1, Duration::ZERO, |own| own, &batch, &mut payload);
            let messages = outcome(&mut decoder, &payload).expect("our own payload");
            assert_eq!(messages.len(), 3);
            for (message, seq) in messages.iter().zip(1..) {
                let Message::Update(update) = message else {
                    panic!("no update")
                };
                let origin = update.origin.as_ref().expect("numbered");
                assert_eq!(
                    (&*origin.publisher, origin.epoch, origin.seq),
                    (&*format!("host{number}"), turn / 10, seq)
                );
                assert_eq!(update.priority, number);
            }
        }
    }
}
