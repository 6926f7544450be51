//! Where a replica stands on a topic: its position, what came early, and what it is owed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock;
use crate::store::TableVersion;

/// How many early updates are remembered; the others do not move the position.
const MAX_EARLY: usize = 1 << 16;

/// How many checks may wait for the position to reach what they have found.
const MAX_PROOFS: usize = 8;

/// Where a replica stands on a topic.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Everything up to here is included; `None` until it was listed.
    pub(super) position: Option<TableVersion>,
    /// The highest version of the topic of which was heard, from whomever.
    pub(super) heard: u64,
    /// Of the updates above the position: the version before each, and its own.
    early: BTreeMap<u64, u64>,
    /// The version before the first early update, which the position must have reached by this time, or it catches up.
    hole: Option<(u64, Instant)>,
    /// What the store was found to have, likewise.
    owed: Option<(u64, Instant)>,
    /// When the store was asked, and what the position must reach to prove that nothing was missing then.
    proofs: Vec<(Instant, u64)>,
    /// Since when nothing is missing, as far as is proven.
    pub(super) proven: Option<Instant>,
}

impl Standing {
    /// True if everything up to this version is included.
    pub(super) fn covers(&self, version: u64) -> bool {
        self.position.is_some_and(|position| version <= position.version)
    }

    /// Takes note of a write that was merged. True if something may be missing before it that was not so before.
    pub(super) fn merged(&mut self, after: Option<u64>, version: u64, now: Instant, patience: Duration) -> bool {
        self.heard = self.heard.max(version);
        let Some(after) = after.filter(|after| *after < version) else {
            return false;
        };
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
        if self.early.len() < MAX_EARLY {
            self.early.insert(after, version);
        }
    }

    /// What came early does not move the position any more: only a catch-up does.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }

    /// Something of this version is in the store: the position must have reached it by `due`.
    pub(super) fn owe(&mut self, version: u64, due: Instant) {
        if !self.covers(version) {
            let (owed, before) = self.owed.unwrap_or((version, due));
            self.owed = Some((owed.max(version), before.min(due)));
        }
    }

    /// The store was asked at `asked` and had this version: once the position is there, nothing was missing then.
    pub(super) fn prove(&mut self, asked: Instant, version: u64) {
        if self.proofs.len() < MAX_PROOFS {
            self.proofs.push((asked, version));
        }
        self.settle();
    }

    /// Moves the position to at least this version, and on along what came early.
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

    /// True if there is a hole where none was before.
    fn find_hole(&mut self, now: Instant, patience: Duration) -> bool {
        let first = self.early.first_key_value().map(|(after, _)| *after);
        let known = self.hole.is_some();
        match (first, self.hole) {
            (None, None) => {}
            // What came early was forgotten: the hole stays until the position has passed it.
            (None, Some((hole, _))) if !self.covers(hole) => {}
            (first, Some((hole, _))) if first == Some(hole) => {}
            (Some(first), Some((hole, due))) if !self.covers(hole) => self.hole = Some((first.min(hole), due)),
            (first, _) => self.hole = first.map(|first| (first, clock::after(now, patience))),
        }
        self.hole.is_some() && !known
    }

    /// Forgets everything: only a listing shows what there is.
    pub(super) fn distrust(&mut self) {
        *self = Standing {
            proven: self.proven,
            ..Standing::default()
        };
    }

    /// When it catches up, unless the position moves.
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
