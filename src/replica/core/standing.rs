//! A replica's standing on a topic: its position, early updates, holes and proofs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock;
use crate::store::TableVersion;

/// The most runs of early updates that are remembered; others do not move the position.
const MAX_EARLY: usize = 1 << 16;

/// The most checks that wait for the position to reach their version.
const MAX_PROOFS: usize = 8;

/// The highest versions heard of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// Of any topic, from any source; a monitor's delete has the version of the table.
    pub(super) of_table: u64,
    /// From the store, and from updates that name the version before: the topic had this version.
    pub(super) of_topic: u64,
}

/// The position on a topic, and what is known to be above it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Everything up to here is included; `None` before the first listing.
    pub(super) position: Option<TableVersion>,
    /// The highest version that the topic is known to have had.
    pub(super) heard: u64,
    /// The runs of updates above the position, each of which follows the one before: the version before the first, and
    /// that of the last.
    early: BTreeMap<u64, u64>,
    /// The version before the first early update; the replica catches up unless the position reaches it by this time.
    hole: Option<(u64, Instant)>,
    /// The version that a check found in the store, likewise.
    owed: Option<(u64, Instant)>,
    /// When the store was asked, and the version that the position must reach to prove that nothing was missing then.
    proofs: Vec<(Instant, u64)>,
    /// Everything written before this time is proven to be included.
    pub(super) proven: Option<Instant>,
}

impl Standing {
    /// True if everything up to this version is included.
    pub(super) fn covers(&self, version: u64) -> bool {
        self.position.is_some_and(|position| version <= position.version)
    }

    /// The topic has had this version.
    pub(super) fn had(&mut self, version: u64) {
        self.heard = self.heard.max(version);
    }

    /// Takes note of a merged write. Returns true if it shows a hole where none was known.
    pub(super) fn merged(&mut self, after: Option<u64>, version: u64, now: Instant, patience: Duration) -> bool {
        let Some(after) = after.filter(|after| *after < version) else {
            return false;
        };
        self.had(version);
        // The common case: the next one, and nothing waits for the position.
        if let Some(position) = &mut self.position
            && after <= position.version
            && self.early.is_empty()
            && self.hole.is_none()
            && self.owed.is_none()
            && self.proofs.is_empty()
        {
            position.version = position.version.max(version);
            return false;
        }
        match self.position {
            Some(position) if after <= position.version => {
                self.advance(version, now, patience);
                false
            }
            Some(_) => {
                self.note_early(after, version);
                self.find_hole(now, patience)
            }
            None => {
                self.note_early(after, version);
                false
            }
        }
    }

    fn note_early(&mut self, after: u64, version: u64) {
        // For as long as the store is silent, everything may follow the same hole.
        if let Some((_, last)) = self.early.range_mut(..=after).next_back()
            && after <= *last
        {
            *last = version.max(*last);
        } else if self.early.len() < MAX_EARLY {
            self.early.insert(after, version);
        }
    }

    /// Forgets the early updates: only a catch-up moves the position past them.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }

    /// The store has this version: the position must reach it by `due`.
    pub(super) fn owe(&mut self, version: u64, due: Instant) {
        if !self.covers(version) {
            let (owed, before) = self.owed.unwrap_or((version, due));
            self.owed = Some((owed.max(version), before.min(due)));
        }
    }

    /// The store had this version at `asked`: once the position reaches it, nothing was missing then.
    pub(super) fn prove(&mut self, asked: Instant, version: u64) {
        // Beyond that the last one gives way: the others are reached earlier, and someone may wait for the newest.
        self.proofs.truncate(MAX_PROOFS - 1);
        self.proofs.push((asked, version));
        self.settle();
    }

    /// Moves the position to at least this version, and on along the early updates.
    pub(super) fn advance(&mut self, version: u64, now: Instant, patience: Duration) {
        let Some(position) = &mut self.position else { return };
        position.version = position.version.max(version);
        while let Some(early) = self.early.first_entry()
            && *early.key() <= position.version
        {
            position.version = position.version.max(early.remove());
        }
        self.settle();
        self.find_hole(now, patience);
    }

    /// Returns true if there is a hole and none was known.
    fn find_hole(&mut self, now: Instant, patience: Duration) -> bool {
        let first = self.early.first_key_value().map(|(after, _)| *after);
        let known = self.hole.is_some();
        match (first, self.hole) {
            (None, None) => {}
            // The early updates were forgotten: the hole stays until the position has passed it.
            (None, Some((hole, _))) if !self.covers(hole) => {}
            (first, Some((hole, _))) if first == Some(hole) => {}
            (Some(first), Some((hole, due))) if !self.covers(hole) => self.hole = Some((first.min(hole), due)),
            (first, _) => self.hole = first.map(|first| (first, clock::after(now, patience))),
        }
        self.hole.is_some() && !known
    }

    /// Forgets everything but the proof: only a listing shows the store's state.
    pub(super) fn distrust(&mut self) {
        *self = Standing {
            proven: self.proven,
            ..Standing::default()
        };
    }

    /// When the replica catches up, unless the position moves.
    pub(super) fn owed_by(&self) -> Option<Instant> {
        let due = |owed: Option<(u64, Instant)>| owed.map(|(_, due)| due);
        due(self.hole).into_iter().chain(due(self.owed)).min()
    }

    fn settle(&mut self) {
        let Some(TableVersion { version, .. }) = self.position else {
            return;
        };
        self.owed = self.owed.filter(|(owed, _)| *owed > version);
        let reached = self.proofs.extract_if(.., |(_, proof)| *proof <= version);
        let proven = reached.map(|(asked, _)| asked).max();
        self.proven = self.proven.max(proven);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many updates follow one that is missing, they take the room of one.
    #[test]
    fn updates_in_a_row_are_one_run() {
        let now = clock::now();
        let mut standing = Standing {
            position: Some(TableVersion::default()),
            ..Standing::default()
        };
        let mut merge = |after, version| {
            standing.merged(Some(after), version, now, Duration::ZERO);
            (standing.position.unwrap().version, standing.early.len())
        };
        let count = 2 * MAX_EARLY as u64;
        assert!((1..count).all(|after| merge(after, after + 1) == (0, 1)));
        // Behind another hole, and one of them again.
        assert_eq!(merge(count + 1, count + 2), (0, 2));
        assert_eq!(merge(5, 6), (0, 2));
        assert_eq!(merge(0, 1), (count, 1));
        assert_eq!(merge(count, count + 1), (count + 2, 0));
    }

    /// However many checks wait, the newest counts once its version is reached.
    #[test]
    fn the_newest_of_many_checks_is_proven() {
        let start = clock::now();
        let mut standing = Standing {
            position: Some(TableVersion::default()),
            ..Standing::default()
        };
        let asked = |number| start + Duration::from_secs(number);
        (1..=3 * MAX_PROOFS as u64).for_each(|number| standing.prove(asked(number), number));
        standing.advance(2, start, Duration::ZERO);
        assert_eq!(standing.proven, Some(asked(2)));
        standing.advance(3 * MAX_PROOFS as u64, start, Duration::ZERO);
        assert_eq!(standing.proven, Some(asked(3 * MAX_PROOFS as u64)));
    }
}
