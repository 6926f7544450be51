//! Received bytes that are not consumed yet.

use std::io;

/// A buffer that is filled at its end and consumed from its beginning.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The number of bytes to drop when they arrive.
    skip: usize,
}

/// The size of a read.
const CHUNK: usize = 64 << 10;

/// A buffer larger than this is freed when it is empty.
const MAX_KEPT: usize = 1 << 20;

impl Buffer {
    /// The received bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Consumes `count` bytes; missing ones are dropped when they arrive. They stay for [`Buffer::consumed_part`] until
    /// the next read.
    pub(crate) fn consume(&mut self, count: usize) {
        let there = self.end - self.start;
        self.start += count.min(there);
        self.skip += count.saturating_sub(there);
    }

    /// A part of the bytes just consumed, counted from their beginning, `consumed` bytes ago.
    pub(crate) fn consumed_part(&self, consumed: usize, (from, to): (usize, usize)) -> &[u8] {
        let begin = self.start - consumed.min(self.start);
        self.bytes.get(begin + from..begin + to).unwrap_or_default()
    }

    /// Reads once. Returns the number of bytes read, and true if there may be more.
    pub(crate) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<(usize, bool)> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > MAX_KEPT {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.len() - self.end < CHUNK / 2 {
            // The rest moves to the beginning, and if that is not enough, the buffer doubles.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < CHUNK / 2 {
                self.bytes.resize((self.bytes.len() * 2).max(CHUNK), 0);
            }
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let length = room.len();
        let count = read(room)?;
        self.end += count.min(length);
        let skipped = self.skip.min(count);
        self.skip -= skipped;
        self.start += skipped;
        Ok((count, count == length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut buffer = Buffer::default();
        let (mut written, mut expected) = (0_u32, 0_u32);
        for round in 0..2000 {
            let (count, _) = buffer
                .fill(|room| {
                    let count = room.len().min(round % 977);
                    for byte in &mut room[..count] {
                        *byte = written as u8;
                        written += 1;
                    }
                    Ok(count)
                })
                .unwrap();
            assert_eq!(count, round % 977);
            let used = buffer.bytes().len().min(round % 701);
            buffer.consume(used);
            assert_eq!(buffer.consumed_part(used, (0, used)).len(), used);
            for byte in buffer.consumed_part(used, (0, used)) {
                assert_eq!(*byte, expected as u8);
                expected += 1;
            }
        }
        assert_eq!(buffer.bytes().len(), (written - expected) as usize);
    }

    #[test]
    fn what_is_not_wanted_is_never_kept() {
        let mut buffer = Buffer::default();
        buffer.consume(3 * CHUNK + 1);
        for _ in 0..3 {
            assert!(buffer.fill(|room| Ok(room.len())).unwrap().1);
            assert!(buffer.bytes().is_empty());
        }
        buffer
            .fill(|room| {
                room[..2].copy_from_slice(b"xy");
                Ok(2)
            })
            .unwrap();
        assert_eq!(buffer.bytes(), b"y");
    }
}
