//! Fields that the maps of one publisher have in common byte by byte: they are compared instead of read.

use crate::update::Name;

/// The fields `priority`, `publisher` and `epoch` of a map.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) priority: i32,
    pub(super) publisher: Name,
    pub(super) epoch: u64,
}

/// Number of patterns kept, of about 600 bytes at most.
const KEPT: usize = 4;

/// Of this many maps without a pattern the first is remembered: many senders by turns cost little.
const RARELY: u32 = 16;

/// The fields of some maps read before, with their bytes. MessagePack has lengths before its texts, so that equal bytes
/// are equal fields.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    kept: Vec<(Box<[u8]>, Common)>,
    /// The one found last, which is most likely the next one too.
    last: usize,
    misses: u32,
}

impl Patterns {
    /// The fields that `bytes` begins with, if they are known, and the bytes behind them.
    #[inline]
    pub(super) fn find<'a>(&mut self, bytes: &'a [u8]) -> Option<(&Common, &'a [u8])> {
        let is_it = |(pattern, _): &(Box<[u8]>, Common)| bytes.starts_with(pattern);
        if !self.kept.get(self.last).is_some_and(is_it) {
            self.last = self.kept.iter().position(is_it)?;
        }
        let (pattern, fields) = self.kept.get(self.last)?;
        Some((fields, bytes.get(pattern.len()..)?))
    }

    /// Called with fields that are not known, and their bytes.
    #[cold]
    pub(super) fn missed(&mut self, bytes: &[u8], fields: &Common) {
        if self.misses.is_multiple_of(RARELY) {
            let pattern = (bytes.into(), fields.clone());
            let place = (self.misses / RARELY) as usize % KEPT;
            match self.kept.get_mut(place) {
                Some(kept) => *kept = pattern,
                None => self.kept.push(pattern),
            }
        }
        self.misses = self.misses.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(epoch: u64) -> Common {
        Common {
            priority: 5,
            publisher: "p".into(),
            epoch,
        }
    }

    #[test]
    fn some_are_kept_and_replaced_by_turns() {
        let mut patterns = Patterns::default();
        let bytes = |number: u32| number.to_be_bytes();
        let count = KEPT as u32 + 1;
        for number in 0..count * RARELY {
            assert!(patterns.find(&bytes(number)).is_none());
            patterns.missed(&bytes(number), &fields(number.into()));
            assert!(patterns.kept.len() <= KEPT);
        }
        let kept: Vec<_> = (0..count * RARELY)
            .filter(|number| patterns.find(&bytes(*number)).is_some())
            .collect();
        assert_eq!(kept, [1, 2, 3, 4].map(|place| place * RARELY));
        let longer = [&bytes(RARELY)[..], b"rest"].concat();
        let (found, rest) = patterns.find(&longer).unwrap();
        assert_eq!((found.epoch, rest), (RARELY.into(), &b"rest"[..]));
        assert!(patterns.find(&longer[..3]).is_none());
    }
}
