//! Updates in MessagePack as encoders write them, read in one go.

use std::time::Duration;

use super::fields::{Collect, Sink, Spares};
use super::limits::{MAX_ACTION_BYTES, MAX_ID_BYTES};
use super::pattern::{Common, Patterns};
use super::token::Reader;
use crate::update::{Action, DbUpdate, Origin};

/// Number of fields that are always there.
const FIELDS: u32 = 10;

/// Reads a map of `len` fields if they are an update's in an encoder's order, with texts and integers of the usual
/// forms. Takes nothing of any other map, which may be well-formed too.
pub(super) fn read(
    reader: &mut Reader<'_>,
    len: u32,
    patterns: &mut Patterns,
    spares: &mut Spares,
    sink: &mut Sink<'_, impl Collect>,
) -> Option<()> {
    let mut left = len.checked_sub(FIELDS)?;
    let mut rest = Reader(reader.0);
    let table = rest.text_of(b"table")?;
    let key = rest.text_of(b"key")?;
    let action = rest.text_of(b"action")?;
    let value = rest.takes(b"value").then(|| rest.text_or_nil())??;
    let topic = rest.text_of(b"topic")?;
    let Common {
        priority,
        publisher,
        epoch,
    } = common(&mut rest, patterns)?;
    let version = rest.optional(b"version", &mut left)?;
    let after = rest.optional(b"after", &mut left)?;
    let timestamp = rest.number_of(b"timestamp")?.try_into().ok()?;
    let seq = rest.number_of(b"seq").filter(|seq| *seq > 0)?;
    let idle = rest.optional(b"idle", &mut left)?.unwrap_or(0);
    if left > 0 || sink.is_full() {
        return None;
    }
    if topic != sink.topic().as_str().as_bytes() {
        utf8(topic)?;
    }
    let table = spares.table(table)?;
    let (key, action) = (utf8(key)?.into(), self::action(action)?);
    let value = match value {
        Some(value) => Some(spares.owned(utf8(value)?)),
        None => None,
    };
    sink.add(DbUpdate {
        table,
        key,
        action,
        value,
        topic: sink.topic().clone(),
        priority,
        timestamp,
        version,
        after,
        origin: Some(Origin {
            publisher,
            epoch,
            seq,
            idle: Duration::from_millis(idle),
        }),
    });
    reader.0 = rest.0;
    Some(())
}

fn action(word: &[u8]) -> Option<Action> {
    utf8(word)
        .filter(|word| word.len() <= MAX_ACTION_BYTES)
        .map(Action::from)
}

/// The fields that most maps of a publisher have in common.
#[inline]
fn common(reader: &mut Reader<'_>, patterns: &mut Patterns) -> Option<Common> {
    if let Some((common, rest)) = patterns.find(reader.0) {
        reader.0 = rest;
        return Some(common.clone());
    }
    let bytes = reader.0;
    let priority = reader.number_of(b"priority")?.try_into().ok()?;
    let publisher = reader.text_of(b"publisher").filter(|id| id.len() <= MAX_ID_BYTES)?;
    let common = Common {
        priority,
        publisher: utf8(publisher)?.into(),
        epoch: reader.number_of(b"epoch")?,
    };
    patterns.missed(bytes.get(..bytes.len() - reader.0.len())?, &common);
    Some(common)
}

fn utf8(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

impl<'a> Reader<'a> {
    #[inline(always)]
    fn text_of<const N: usize>(&mut self, name: &[u8; N]) -> Option<&'a [u8]> {
        self.takes(name).then(|| self.text_or_nil())??
    }

    #[inline(always)]
    fn number_of<const N: usize>(&mut self, name: &[u8; N]) -> Option<u64> {
        self.takes(name).then(|| self.number())?
    }

    /// A number that may be left out, one of `left` fields that may be.
    #[inline(always)]
    fn optional<const N: usize>(&mut self, name: &[u8; N], left: &mut u32) -> Option<Option<u64>> {
        if *left == 0 || !self.takes(name) {
            return Some(None);
        }
        *left -= 1;
        self.number().map(Some)
    }

    #[inline(always)]
    fn text_or_nil(&mut self) -> Option<Option<&'a [u8]>> {
        let length = match self.u8().ok()? {
            0xc0 => return Some(None),
            marker @ 0xa0..=0xbf => u32::from(marker - 0xa0),
            0xd9 => self.u8().ok()?.into(),
            0xda => self.u16().ok()?.into(),
            _ => return None,
        };
        self.take(length).ok().map(Some)
    }

    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        let number = match self.u8().ok()? {
            number @ 0..=0x7f => number.into(),
            0xcc => self.u8().ok()?.into(),
            0xcd => self.u16().ok()?.into(),
            0xce => self.u32().ok()?.into(),
            0xcf => u64::from_be_bytes(self.bytes().ok()?),
            _ => return None,
        };
        Some(number)
    }
}
