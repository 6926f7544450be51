//! Encoding of updates in two steps, so that only the second one needs the publisher's lock.

use std::sync::Arc;
use std::time::Duration;

use rmp::encode::{write_array_len, write_map_len, write_nil, write_sint, write_str, write_uint};

use super::format::Codec;
use super::json;
use crate::update::{DbUpdate, Name, Topic};

/// Writes the messages of one publisher.
///
/// Timestamp and sequence number come last in an update: [`Encoder::begin`] writes everything else without a lock, and
/// [`Encoder::finish`] appends them under the lock that assigns them. A batch has the same two steps, [`Encoder::push`]
/// and [`Encoder::finish_batch`].
#[derive(Debug, Clone)]
pub struct Encoder {
    codec: Codec,
    /// The format of the maps.
    maps: Codec,
    /// The fields `publisher` and `epoch`, ready to be copied into every message.
    sender: Arc<[u8]>,
}

impl Encoder {
    /// Creates an encoder in this format for this run (`epoch`) of this publisher.
    pub fn new(codec: Codec, publisher: Name, epoch: u64) -> Encoder {
        let (maps, mut sender) = (codec.of_maps(), Vec::new());
        let mut writer = Writer {
            codec: maps,
            buf: &mut sender,
        };
        writer.text("publisher", Some(&publisher));
        writer.unsigned("epoch", epoch);
        let sender = sender.into();
        Encoder { codec, maps, sender }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the update without timestamp and number. The payload names `topic` instead of `update.topic`;
    /// `update.origin` is ignored.
    pub fn begin(&self, update: &DbUpdate, topic: &Topic, buf: &mut Vec<u8>) {
        let versions = [("version", update.version), ("after", update.after)];
        let fields = 10 + versions.iter().filter(|(_, version)| version.is_some()).count();
        let mut writer = self.begin_fields(length(fields), update, topic, buf);
        for (name, version) in versions {
            if let Some(version) = version {
                writer.unsigned(name, version);
            }
        }
    }

    /// As [`Encoder::begin`], but leaves out the version and the field `after` behind it, which the store adds. Returns
    /// where in the finished `buf` they belong.
    pub(crate) fn begin_without_version(&self, update: &DbUpdate, topic: &Topic, buf: &mut Vec<u8>) -> usize {
        self.begin_fields(12, update, topic, buf).name("version");
        buf.len()
    }

    fn begin_fields<'a>(&self, fields: u32, update: &DbUpdate, topic: &Topic, buf: &'a mut Vec<u8>) -> Writer<'a> {
        let texts = [
            &update.table,
            &update.key,
            update.value.as_deref().unwrap_or(""),
            topic.as_str(),
        ];
        buf.reserve(200 + self.sender.len() + texts.iter().map(|text| text.len()).sum::<usize>());
        let mut writer = self.writer(buf);
        writer.open(fields);
        writer.text("table", Some(&update.table));
        writer.text("key", Some(&update.key));
        writer.text("action", Some(update.action.as_str()));
        writer.text("value", update.value.as_deref());
        writer.text("topic", Some(topic.as_str()));
        writer.signed("priority", update.priority.into());
        writer.buf.extend_from_slice(&self.sender);
        writer
    }

    /// Completes what [`Encoder::begin`] wrote from `start` to the end of `buf`. Numbers count from 1; `idle` is the
    /// time since the previous number was sent.
    pub fn finish(&self, start: usize, timestamp: i64, seq: u64, idle: Duration, buf: &mut Vec<u8>) {
        self.complete(start, timestamp, seq, idle, buf);
        self.wrap(start, buf);
    }

    fn complete(&self, start: usize, timestamp: i64, seq: u64, idle: Duration, buf: &mut Vec<u8>) {
        let mut writer = self.writer(buf);
        writer.signed("timestamp", timestamp);
        writer.unsigned("seq", seq);
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        if idle > 0 {
            writer.unsigned("idle", idle);
            writer.add_field(start);
        }
        writer.close();
    }

    /// Appends an update, without timestamp and number, to `batch`; see [`Encoder::begin`].
    pub fn push(&self, update: &DbUpdate, topic: &Topic, batch: &mut Batch) {
        self.begin(update, topic, &mut batch.bodies);
        batch.updates.push((batch.bodies.len(), update.timestamp));
    }

    /// Appends the batch as one payload. Its updates are numbered from `first` on; `idle` is the time since the number
    /// before `first` was sent. `stamp` turns each update's timestamp, in order, into the one to send. The batch is not
    /// changed.
    pub fn finish_batch(
        &self,
        first: u64,
        idle: Duration,
        mut stamp: impl FnMut(i64) -> i64,
        batch: &Batch,
        buf: &mut Vec<u8>,
    ) {
        buf.reserve(batch.max_payload_len());
        let (payload, is_json) = (buf.len(), self.maps == Codec::Json);
        match is_json {
            true => buf.push(b'['),
            false => written(write_array_len(buf, length(batch.len()))),
        }
        let mut begin = 0;
        for (seq, &(end, timestamp)) in (first..).zip(&batch.updates) {
            if is_json && begin > 0 {
                buf.push(b',');
            }
            let start = buf.len();
            buf.extend_from_slice(&batch.bodies[begin..end]);
            let idle = if begin == 0 { idle } else { Duration::ZERO };
            self.complete(start, stamp(timestamp), seq, idle, buf);
            begin = end;
        }
        if is_json {
            buf.push(b']');
        }
        self.wrap(payload, buf);
    }

    /// Appends a message without a table, for example a hello. It is complete and has no number.
    pub fn control(&self, action: &str, value: Option<&str>, topic: &Topic, buf: &mut Vec<u8>) {
        let start = buf.len();
        let mut writer = self.writer(buf);
        writer.open(7);
        writer.text("table", None);
        writer.text("key", None);
        writer.text("action", Some(action));
        writer.text("value", value);
        writer.text("topic", Some(topic.as_str()));
        writer.buf.extend_from_slice(&self.sender);
        writer.close();
        self.wrap(start, buf);
    }

    /// Makes a MessagePack string of what stands from `start` on, if the codec asks for one. A string of 8 bits' length
    /// is younger than Dragonflow's first releases, so that the next longer one stands for it.
    fn wrap(&self, start: usize, buf: &mut Vec<u8>) {
        if self.codec != Codec::Dragonflow1 {
            return;
        }
        let length = length(buf.len() - start);
        let head = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..32), _) => vec![0xa0 | length],
            (_, Ok(length)) => [&[0xda][..], &length.to_be_bytes()].concat(),
            _ => [&[0xdb][..], &length.to_be_bytes()].concat(),
        };
        buf.splice(start..start, head);
    }

    fn writer<'a>(&self, buf: &'a mut Vec<u8>) -> Writer<'a> {
        let codec = self.maps;
        Writer { codec, buf }
    }
}

/// Updates of one topic for one payload; filled with [`Encoder::push`] of one encoder.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bodies: Vec<u8>,
    /// For each update its end in `bodies`, and its timestamp.
    updates: Vec<(usize, i64)>,
}

impl Batch {
    /// Creates an empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Returns the number of updates.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Returns true if there is no update.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Returns an upper bound, in bytes, of the payload that [`Encoder::finish_batch`] writes; close enough to split
    /// by.
    pub fn max_payload_len(&self) -> usize {
        /// A comma, `,"timestamp":` and `,"seq":` with 20 digits each, and a brace; MessagePack needs less.
        const NUMBER: usize = 62;
        /// MessagePack's longest array header, or JSON's two brackets in its longest string, and one `,"idle":` with 20
        /// digits.
        const FRAME: usize = 7 + 28;
        FRAME + self.bodies.len() + NUMBER * self.len()
    }

    /// Removes the updates and keeps the memory.
    pub fn clear(&mut self) {
        self.bodies.clear();
        self.updates.clear();
    }
}

/// Fields in either format.
struct Writer<'a> {
    /// Of the two formats of maps.
    codec: Codec,
    buf: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Begins a map of this many fields.
    fn open(&mut self, fields: u32) {
        match self.codec {
            Codec::Json => self.buf.push(b'{'),
            _ => written(write_map_len(self.buf, fields)),
        }
    }

    /// Counts one more field in the map opened at `start`. The count of so small a map is in the low bits of one byte.
    fn add_field(&mut self, start: usize) {
        if self.codec == Codec::MessagePack
            && let Some(header) = self.buf.get_mut(start)
        {
            *header += 1;
        }
    }

    fn close(&mut self) {
        if self.codec == Codec::Json {
            self.buf.push(b'}');
        }
    }

    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        match self.codec {
            Codec::Json => {
                let first = self.buf.last() == Some(&b'{');
                self.buf.extend_from_slice(if first { b"\"" } else { b",\"" });
                self.buf.extend_from_slice(name.as_bytes());
                self.buf.extend_from_slice(b"\":");
            }
            _ => written(write_str(self.buf, name)),
        }
    }

    #[inline(always)]
    fn text(&mut self, name: &'static str, text: Option<&str>) {
        self.name(name);
        match (self.codec, text) {
            (Codec::Json, text) => json::write(&text, self.buf),
            (_, Some(text)) => written(write_str(self.buf, text)),
            (_, None) => written(write_nil(self.buf)),
        }
    }

    #[inline(always)]
    fn unsigned(&mut self, name: &'static str, number: u64) {
        self.name(name);
        match self.codec {
            Codec::Json => json::write(&number, self.buf),
            _ => written(write_uint(self.buf, number)),
        }
    }

    #[inline(always)]
    fn signed(&mut self, name: &'static str, number: i64) {
        self.name(name);
        match self.codec {
            Codec::Json => json::write(&number, self.buf),
            _ => written(write_sint(self.buf, number)),
        }
    }
}

/// Writing to memory cannot fail.
fn written<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok());
}

/// MessagePack has no longer arrays, and no transport would carry one.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
