//! Decoding of payloads of all formats.

use super::fields::{Collect, Fault, Scratch, Sink};
use super::limits::MAX_UPDATES;
use super::message::{Control, Message};
use super::pattern::Patterns;
use super::{json, msgpack};
use crate::error::{Error, ErrorKind};
use crate::update::{DbUpdate, Topic};

/// Reads payloads. An update costs one allocation for its value, and one for each name of more than 23 bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    scratch: Scratch,
    patterns: Patterns,
    /// The latest time of receipt given to an update without a timestamp.
    received: i64,
}

/// A scratch buffer that has grown beyond this is freed.
const MAX_SCRATCH: usize = 64 << 10;

/// Room for messages kept after a payload that was refused.
const MAX_ROOM: usize = 64;

impl Decoder {
    /// Creates a decoder for any number of payloads.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Appends the messages of one payload to `out`; all or nothing. Every update gets `topic`, the frame's.
    ///
    /// Memory is bounded by a small multiple of the payload's length, whatever lengths it declares, and by the size of
    /// [`MAX_UPDATES`](super::MAX_UPDATES) messages.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the payload is not as the [module](super) describes. The text is short and names the
    /// wrong field, if it is a field; it repeats no text of the payload.
    pub fn decode(&mut self, topic: &Topic, payload: &[u8], out: &mut Vec<Message>) -> crate::Result<()> {
        let before = out.len();
        self.read(topic, payload, out).inspect_err(|_| {
            out.truncate(before);
            out.shrink_to(before + MAX_ROOM);
        })
    }

    /// As [`Decoder::decode`], with the updates apart from the control messages.
    pub(crate) fn decode_apart(
        &mut self,
        topic: &Topic,
        payload: &[u8],
        updates: &mut Vec<DbUpdate>,
        controls: &mut Vec<Control>,
    ) -> crate::Result<()> {
        let before = (updates.len(), controls.len());
        self.read(topic, payload, &mut Apart { updates, controls })
            .inspect_err(|_| {
                updates.truncate(before.0);
                updates.shrink_to(before.0 + MAX_ROOM);
                controls.truncate(before.1);
                controls.shrink_to(before.1 + MAX_ROOM);
            })
    }

    fn read(&mut self, topic: &Topic, payload: &[u8], out: &mut impl Collect) -> crate::Result<()> {
        let mut sink = Sink::new(topic, &mut self.received, out.count() + MAX_UPDATES, out);
        // In MessagePack a map, an array or a string begins above ASCII, so a payload that begins with ASCII can only
        // be JSON.
        let (format, decoded) = match payload.first() {
            None => ("payload", Err(Fault("payload", "empty"))),
            Some(0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb) => {
                let text = msgpack::text(payload).map_err(|what| Fault("payload", what));
                let decoded = text.and_then(|text| json::decode(text, &mut self.scratch, &mut sink));
                ("JSON in MessagePack", decoded)
            }
            Some(0x80..) => (
                "MessagePack",
                msgpack::decode(payload, &mut self.patterns, &mut self.scratch.spares, &mut sink),
            ),
            Some(_) => ("JSON", json::decode(payload, &mut self.scratch, &mut sink)),
        };
        self.scratch.text.truncate(MAX_SCRATCH);
        self.scratch.text.shrink_to(MAX_SCRATCH);
        decoded.map_err(|fault| Error::new(ErrorKind::Malformed, format!("{format}: {fault}")))
    }

    /// Number of values that can be read without an allocation.
    pub(crate) fn spares(&self) -> usize {
        self.scratch.spares.texts.len()
    }

    /// Takes texts whose memory can be reused for values.
    pub(crate) fn reuse(&mut self, mut texts: Vec<String>) {
        self.scratch.spares.texts.append(&mut texts);
    }
}

struct Apart<'o> {
    updates: &'o mut Vec<DbUpdate>,
    controls: &'o mut Vec<Control>,
}

impl Collect for Apart<'_> {
    fn count(&self) -> usize {
        self.updates.len() + self.controls.len()
    }

    #[inline]
    fn update(&mut self, update: DbUpdate) {
        self.updates.push(update);
    }

    fn control(&mut self, control: Control) {
        self.controls.push(control);
    }

    fn reserve(&mut self, updates: usize) {
        self.updates.reserve(updates);
    }
}

impl Collect for Vec<Message> {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn update(&mut self, update: DbUpdate) {
        self.push(Message::Update(update));
    }

    fn control(&mut self, control: Control) {
        self.push(Message::Control(control));
    }

    fn reserve(&mut self, updates: usize) {
        Vec::reserve(self, updates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::now_micros;

    /// Also if the fault comes behind hundreds of good maps, and whatever they are.
    #[test]
    fn a_refused_payload_leaves_what_was_there() {
        let update = r#"{"table":"t","key":"k","action":"set"}"#;
        let control = r#"{"table":null,"action":"sync"}"#;
        let (mut decoder, mut updates, mut controls) = (Decoder::new(), Vec::new(), Vec::new());
        let good = format!("[{update},{control},{update}]");
        let mut decode = |payload: &str| {
            let decoded = decoder.decode_apart(&Topic::ALL, payload.as_bytes(), &mut updates, &mut controls);
            (decoded.is_ok(), updates.clone(), controls.clone())
        };
        let (is_good, updates, controls) = decode(&good);
        assert_eq!((is_good, updates.len(), controls.len()), (true, 2, 1));
        for times in [1, 500] {
            let bad = format!("[{}{{}}]", format!("{update},{control},").repeat(times));
            assert_eq!(decode(&bad), (false, updates.clone(), controls.clone()));
        }
        let (is_good, updates, controls) = decode(&good);
        assert_eq!((is_good, updates.len(), controls.len()), (true, 4, 2));
        let many = format!("[{}{update}]", format!("{control},").repeat(MAX_UPDATES));
        assert_eq!(decode(&many), (false, updates, controls));
    }

    #[test]
    fn the_time_of_receipt_never_goes_back_though_the_clock_does() {
        let ahead = now_micros() + 3_600_000_000;
        let mut decoder = Decoder {
            received: ahead,
            ..Decoder::default()
        };
        let mut out = Vec::new();
        let payload = br#"{"table":"t","key":"k","action":"set"}"#;
        decoder.decode(&Topic::ALL, payload, &mut out).unwrap();
        assert!(matches!(&out[..], [Message::Update(update)] if update.timestamp == ahead));
    }
}
