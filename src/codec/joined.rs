//! Several maps in one payload: joined to an array, and split again, as bytes.

use super::format::Codec;
use super::limits::MAX_UPDATES;
use super::msgpack;

/// Limits of bytes and maps that are joined. Receivers take an array of this size whatever their limit for one message.
pub(crate) const MAX_JOINED: usize = 64 << 10;
pub(crate) const MOST_JOINED: usize = 256;

/// A payload to which maps are added one by one. A single map stays a map.
#[derive(Debug)]
pub(crate) struct Joined {
    codec: Codec,
    /// The whole array, complete after each map.
    bytes: Vec<u8>,
    count: u16,
}

/// Space before the first map: in MessagePack the marker of an array and two bytes of its length.
const HEAD: [u8; 3] = [0xdc, 0, 0];

/// The initial capacity: a frame on one of many topics has one or two maps.
const ROOM: usize = 512;

impl Joined {
    pub(crate) fn new(codec: Codec) -> Joined {
        let mut joined = Joined {
            codec: codec.of_maps(),
            bytes: Vec::with_capacity(ROOM),
            count: 0,
        };
        joined.clear();
        joined
    }

    /// Adds the map that `write` appends.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match self.codec {
            Codec::Json => {
                if let Some(end @ b']') = self.bytes.last_mut() {
                    *end = b',';
                }
                write(&mut self.bytes);
                self.bytes.push(b']');
            }
            _ => write(&mut self.bytes),
        }
        self.count += 1;
        if let (Codec::MessagePack, Some(length)) = (self.codec, self.bytes.get_mut(1..3)) {
            length.copy_from_slice(&self.count.to_be_bytes());
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        let alone = match self.codec {
            Codec::Json => 1..self.bytes.len() - 1,
            _ => HEAD.len()..self.bytes.len(),
        };
        self.bytes.get(alone).filter(|_| self.count == 1).unwrap_or(&self.bytes)
    }

    /// Number of maps.
    pub(crate) fn count(&self) -> usize {
        self.count.into()
    }

    /// Size of the maps in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Removes the maps and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        match self.codec {
            Codec::Json => self.bytes.push(b'['),
            _ => self.bytes.extend(HEAD),
        }
    }
}

/// True if the first byte of the payload begins an array.
#[inline]
pub(crate) fn is_joined(payload: &[u8]) -> bool {
    matches!(
        payload.trim_ascii_start().first(),
        Some(b'[' | 0x90..=0x9f | 0xdc | 0xdd)
    )
}

/// True if a payload is too large for a receiver with this limit for one message.
#[inline]
pub(crate) fn is_too_large(payload: &[u8], limit: usize) -> bool {
    payload.len() > limit && (payload.len() > MAX_JOINED || !is_joined(payload))
}

/// The maps of a payload that is an array of maps; `None` if a receiver would not take it.
pub(crate) fn parts(payload: &[u8]) -> Option<Vec<&[u8]>> {
    match payload.first()? {
        0x80.. => msgpack::parts(payload),
        _ => json_parts(payload),
    }
}

fn json_parts(payload: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = payload.trim_ascii().strip_prefix(b"[")?;
    let mut parts = Vec::new();
    loop {
        let length = json_value(rest)?;
        let (part, after) = rest.split_at_checked(length)?;
        let part = part.trim_ascii();
        if !(part.starts_with(b"{") && part.ends_with(b"}")) || parts.len() == MAX_UPDATES {
            return None;
        }
        parts.push(part);
        rest = match after {
            [b',', rest @ ..] => rest,
            [b']'] => return Some(parts),
            _ => return None,
        };
    }
}

/// The end of a value in an array.
fn json_value(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_text, mut is_escaped) = (0_u32, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b',' | b']' if depth == 0 => return Some(at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, Encoder, Message};
    use crate::update::{Action, DbUpdate, Topic};
    use std::time::Duration;

    fn joined(codec: Codec, count: u64) -> (Joined, Vec<Vec<u8>>) {
        let encoder = Encoder::new(codec, "p".into(), 1);
        let (mut joined, mut maps) = (Joined::new(codec), Vec::new());
        for seq in 1..=count {
            let update = DbUpdate::new("t", format!("],[\\\"{{{seq}"), Action::Set).value("{\"a\": [1, \"}]\"]}");
            let mut map = Vec::new();
            encoder.begin(&update, &Topic::ALL, &mut map);
            encoder.finish(0, 7, seq, Duration::ZERO, &mut map);
            joined.push(|bytes| bytes.extend_from_slice(&map));
            maps.push(map);
        }
        (joined, maps)
    }

    #[test]
    fn what_is_joined_is_decoded_and_taken_apart() {
        for codec in [Codec::Json, Codec::MessagePack] {
            for count in [2, 3, 15, 16, 300] {
                let (mut joined, maps) = joined(codec, count);
                assert!(is_joined(joined.payload()));
                assert_eq!(parts(joined.payload()).unwrap(), maps);
                let mut messages = Vec::new();
                Decoder::new()
                    .decode(&Topic::ALL, joined.payload(), &mut messages)
                    .unwrap();
                let number = |message: &Message| match message {
                    Message::Update(update) => update.origin.as_ref().unwrap().seq,
                    Message::Control(_) => 0,
                };
                let numbers: Vec<_> = messages.iter().map(number).collect();
                assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
                joined.clear();
                joined.push(|bytes| bytes.extend_from_slice(&maps[0]));
                assert_eq!(joined.payload(), maps[0]);
            }
        }
    }

    #[test]
    fn what_is_no_array_of_maps_is_not_taken_apart() {
        let wrong: [&[u8]; 12] = [
            b"",
            b"{}",
            b"[",
            b"[]",
            b"[{}",
            b"[{}] {}",
            b"[1]",
            b"[{},]",
            b"[{\"a\":\"]}",
            b"[}{]",
            &[0x92, 0x80],
            &[0x91, 0x01],
        ];
        for payload in wrong {
            assert_eq!(parts(payload), None, "{payload:?}");
        }
        assert_eq!(parts(b" [ {\"a\" : 1} , {} ] ").unwrap(), [&b"{\"a\" : 1}"[..], b"{}"]);
        assert_eq!(
            parts(&[0x92, 0x80, 0x81, 0xa1, b'a', 0xc0]).unwrap(),
            [&[0x80][..], &[0x81, 0xa1, b'a', 0xc0]]
        );
    }
}
