//! Targets of the fuzzer: payloads and hellos.

use std::time::Duration;

use rmp::encode;
use serde_json::Value;

use super::{Batch, Codec, Decoder, Encoder, Hello, Joined, MAX_PERIOD, MAX_TOPICS, MAX_UPDATES, MOST_JOINED, Message};
use super::{is_joined, parts};
use crate::update::{DbUpdate, Origin, Topic, now_micros};

const CODECS: [Codec; 3] = [Codec::Json, Codec::MessagePack, Codec::Dragonflow1];

/// How many messages of a payload are written again.
const SOME: usize = 16;

/// A payload, in any format.
pub(crate) fn decode(payload: &[u8]) {
    let decoding = Decoding { start: now_micros() };
    decoding.warm(payload);
    let Some(messages) = decoding.messages(payload) else {
        return;
    };
    let kept: usize = messages.iter().map(kept).sum();
    assert!(kept <= 8 * payload.len() + 64, "{kept} bytes are kept");
    assert!(messages.len() <= MAX_UPDATES && messages.capacity() <= 2 * messages.len().max(4));
    decoding.again(payload, &messages);
    decoding.apart(payload, &messages);
    decoding.as_other_format(payload, &messages);
    let some = messages.get(..SOME.min(messages.len())).unwrap_or_default();
    for codec in CODECS {
        some.iter().for_each(|message| decoding.written(codec, message));
        decoding.written_together(codec, some);
    }
}

/// Decodes as if every update had been sent before the start.
struct Decoding {
    start: i64,
}

impl Decoding {
    fn messages(&self, payload: &[u8]) -> Option<Vec<Message>> {
        let mut out = Vec::new();
        self.append(&mut Decoder::new(), payload, &mut out).then_some(out)
    }

    /// What a decoder read before, and the quick way for an encoder's own maps, make no difference: not even if a byte
    /// differs.
    fn warm(&self, payload: &[u8]) {
        let mut warm = Decoder::new();
        let mut changed = payload.to_vec();
        let _ = self.outcome(&mut warm, &changed);
        for at in (0..payload.len()).step_by(1 + payload.len() / SOME) {
            for bits in [0, 1] {
                changed[at] ^= bits;
                let outcome = self.outcome(&mut Decoder::new(), &changed);
                assert_eq!(self.outcome(&mut warm, &changed), outcome);
                // With an unknown field before it, no map is an encoder's own.
                if let Some((head @ 0x80..=0x8e, fields)) = changed.split_first() {
                    let other = [&[head + 1, 0xa1, b'x', 0xc0], fields].concat();
                    assert_eq!(self.outcome(&mut warm, &other), outcome);
                }
                changed[at] ^= bits;
            }
        }
    }

    fn outcome(&self, decoder: &mut Decoder, payload: &[u8]) -> Result<Vec<Message>, String> {
        let mut out = Vec::new();
        decoder
            .decode(&Topic::ALL, payload, &mut out)
            .map_err(|e| e.to_string())?;
        self.receive(&mut out);
        Ok(out)
    }

    /// An update without a time has that of its receipt.
    fn receive(&self, messages: &mut [Message]) {
        for message in messages {
            if let Message::Update(update) = message {
                update.timestamp = update.timestamp.min(self.start);
            }
        }
    }

    fn append(&self, decoder: &mut Decoder, payload: &[u8], out: &mut Vec<Message>) -> bool {
        if let Err(e) = decoder.decode(&Topic::ALL, payload, out) {
            assert!(out.is_empty(), "a part of a refused payload");
            assert!(e.to_string().len() < 150, "{e}");
            return false;
        }
        self.receive(out);
        true
    }

    /// A decoder that was used gives the same.
    fn again(&self, payload: &[u8], messages: &[Message]) {
        let (mut decoder, mut out) = (Decoder::new(), Vec::new());
        let _ = decoder.decode(&Topic::ALL, br#"[{"table":"t","key":"k","value":"\n","#, &mut out);
        decoder.reuse(vec![String::from("spare"), String::new()]);
        assert!(self.append(&mut decoder, payload, &mut out));
        assert_eq!(out, messages);
    }

    /// An array taken apart, and joined again, is the same messages.
    fn apart(&self, payload: &[u8], messages: &[Message]) {
        if messages.is_empty() || !is_joined(payload) {
            return;
        }
        let parts = parts(payload).expect("it was decoded");
        assert_eq!(parts.len(), messages.len());
        if parts.len() > MOST_JOINED {
            return;
        }
        let codec = match payload.first() {
            Some(0x80..) => Codec::MessagePack,
            _ => Codec::Json,
        };
        let mut joined = Joined::new(codec);
        for (part, message) in parts.iter().zip(messages) {
            assert_eq!(self.messages(part).as_deref(), Some(std::slice::from_ref(message)));
            joined.push(|bytes| bytes.extend_from_slice(part));
        }
        assert_eq!(self.messages(joined.payload()).as_deref(), Some(messages));
    }

    /// JSON that was decoded is decoded the same in MessagePack.
    fn as_other_format(&self, payload: &[u8], messages: &[Message]) {
        let Some(json) = serde_json::from_slice::<Value>(payload).ok().filter(is_exact) else {
            return;
        };
        let mut packed = Vec::new();
        pack(&json, &mut packed);
        let others = self.messages(&packed).expect("it was decoded from JSON");
        assert_eq!(others.len(), messages.len());
        for (other, message) in others.into_iter().zip(messages) {
            let (other, value) = without_value(other);
            let (message, expected) = without_value(message.clone());
            assert_eq!(other, message);
            // What is no text has other blanks.
            if value != expected {
                let document = |text: Option<String>| serde_json::from_str::<Value>(&text.unwrap_or_default()).ok();
                let value = document(value);
                assert!(value.is_some() && value == document(expected));
            }
        }
    }

    /// A message that is written is read.
    fn written(&self, codec: Codec, message: &Message) {
        let mut buf = Vec::new();
        match message {
            Message::Update(update) => {
                let update = with_origin(update);
                let Some(origin) = &update.origin else { return };
                let encoder = Encoder::new(codec, origin.publisher.clone(), origin.epoch);
                encoder.begin(&update, &update.topic, &mut buf);
                encoder.finish(0, update.timestamp, origin.seq, origin.idle, &mut buf);
                assert_eq!(self.messages(&buf), Some(vec![Message::Update(update)]));
            }
            Message::Control(control) => {
                let publisher = control.publisher.clone().unwrap_or_else(|| "p".into());
                let epoch = control.epoch.unwrap_or(1);
                let encoder = Encoder::new(codec, publisher.clone(), epoch);
                encoder.control(&control.action, control.value.as_deref(), &Topic::ALL, &mut buf);
                let mut expected = control.clone();
                (expected.publisher, expected.epoch) = (Some(publisher), Some(epoch));
                assert_eq!(self.messages(&buf), Some(vec![Message::Control(expected)]));
            }
        }
    }

    /// Updates that are written as one payload are read, within the stated size.
    fn written_together(&self, codec: Codec, messages: &[Message]) {
        let updates = messages.iter().filter_map(|message| match message {
            Message::Update(update) => Some(with_origin(update)),
            Message::Control(_) => None,
        });
        let mut updates: Vec<_> = updates.collect();
        let Some(Origin {
            publisher, epoch, idle, ..
        }) = updates.first().and_then(|update| update.origin.clone())
        else {
            return;
        };
        let encoder = Encoder::new(codec, publisher.clone(), epoch);
        let (mut batch, mut buf) = (Batch::new(), Vec::new());
        updates
            .iter()
            .for_each(|update| encoder.push(update, &update.topic, &mut batch));
        encoder.finish_batch(1, idle, |timestamp| timestamp, &batch, &mut buf);
        assert!(buf.len() <= batch.max_payload_len());
        let mut idle = Some(idle);
        for (update, seq) in updates.iter_mut().zip(1..) {
            update.origin = Some(Origin {
                publisher: publisher.clone(),
                epoch,
                seq,
                idle: idle.take().unwrap_or_default(),
            });
        }
        let expected: Vec<_> = updates.into_iter().map(Message::Update).collect();
        assert_eq!(self.messages(&buf), Some(expected));
    }
}

/// The bytes of text that a message keeps.
fn kept(message: &Message) -> usize {
    let (value, names) = match message {
        Message::Update(update) => {
            let publisher = update.origin.as_ref().map_or(0, |origin| origin.publisher.len());
            let names = update.table.len() + update.key.len() + update.action.as_str().len();
            (&update.value, names + publisher)
        }
        Message::Control(control) => {
            let publisher = control.publisher.as_ref().map_or(0, |publisher| publisher.len());
            (&control.value, control.action.len() + publisher)
        }
    };
    names + value.as_ref().map_or(0, String::capacity)
}

fn with_origin(update: &DbUpdate) -> DbUpdate {
    let mut update = update.clone();
    update.origin.get_or_insert_with(|| Origin {
        publisher: "p".into(),
        epoch: 1,
        seq: 1,
        idle: Duration::ZERO,
    });
    update
}

fn without_value(mut message: Message) -> (Message, Option<String>) {
    let value = match &mut message {
        Message::Update(update) => update.value.take(),
        Message::Control(control) => control.value.take(),
    };
    (message, value)
}

/// True without fractions, which the two ways round differently.
fn is_exact(json: &Value) -> bool {
    match json {
        Value::Number(number) => !number.is_f64(),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Writes JSON as MessagePack; writing to memory cannot fail.
fn pack(json: &Value, buf: &mut Vec<u8>) {
    let length = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    match json {
        Value::Null => encode::write_nil(buf).unwrap_or_default(),
        Value::Bool(truth) => encode::write_bool(buf, *truth).unwrap_or_default(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => _ = encode::write_uint(buf, number),
            (_, number) => _ = encode::write_sint(buf, number.unwrap_or_default()),
        },
        Value::String(text) => encode::write_str(buf, text).unwrap_or_default(),
        Value::Array(items) => {
            _ = encode::write_array_len(buf, length(items.len()));
            items.iter().for_each(|item| pack(item, buf));
        }
        Value::Object(fields) => {
            _ = encode::write_map_len(buf, length(fields.len()));
            for (name, value) in fields {
                encode::write_str(buf, name).unwrap_or_default();
                pack(value, buf);
            }
        }
    }
}

/// The text of a hello.
pub(crate) fn hello(text: &[u8]) {
    let Some(hello) = str::from_utf8(text).ok().and_then(|text| Hello::parse(Some(text)).ok()) else {
        return;
    };
    assert!(hello.topics.len() <= MAX_TOPICS);
    assert!((1..=MAX_PERIOD.as_millis()).contains(&hello.period().as_millis()));
    assert_eq!(Hello::parse(Some(&hello.to_text())).ok(), Some(hello));
}
