//! The pending updates of one row.

use std::collections::VecDeque;

use crate::update::{DbUpdate, Name};

/// Urgency of an update: its priority, then its timestamp. Between equal urgencies the arrival decides.
///
/// It is one number, since comparing urgencies is most of the work of a deep queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency(i128);

impl Urgency {
    pub(super) fn of(update: &DbUpdate) -> Urgency {
        Urgency((i128::from(update.priority) << 64) + i128::from(update.timestamp))
    }
}

/// An update's urgency, then its arrival. No two ranks are equal.
pub(super) type Rank = (Urgency, u64);

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) update: DbUpdate,
    pub(super) rank: Rank,
}

/// The pending updates of one row, oldest first. Most rows have one at a time, which needs no allocation.
#[derive(Debug, Default)]
pub(super) struct Lane {
    head: Option<Pending>,
    rest: VecDeque<Pending>,
    /// The ranks of the updates in `rest` that are more urgent than the one before them, and than all behind them; the
    /// first is the most urgent of the lane, unless `head` is.
    lifts: VecDeque<Rank>,
    /// The row, while it is held.
    held: Option<(Name, Name)>,
    /// Hash of the row.
    pub(super) hash: u64,
}

impl Lane {
    pub(super) fn is_of(&self, table: &Name, key: &Name) -> bool {
        match (&self.head, &self.held) {
            (Some(head), _) => head.update.key == *key && head.update.table == *table,
            (None, Some(held)) => held.1 == *key && held.0 == *table,
            (None, None) => false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn hold(&mut self, update: &DbUpdate) {
        self.held = Some((update.table.clone(), update.key.clone()));
    }

    /// Returns true if the row was held.
    pub(super) fn release(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// The arrival of the oldest update.
    pub(super) fn arrival(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.rank.1)
    }

    /// The rank of the most urgent update.
    pub(super) fn rank(&self) -> Option<Rank> {
        self.head.as_ref().map(|head| self.most_urgent(head))
    }

    /// Returns true if the rank has changed.
    pub(super) fn push(&mut self, pending: Pending) -> bool {
        let Some(head) = &self.head else {
            self.head = Some(pending);
            return true;
        };
        let changes = pending.rank < self.most_urgent(head);
        let before = self.rest.back().unwrap_or(head).rank;
        if pending.rank < before {
            self.lift(pending.rank);
        }
        self.rest.push_back(pending);
        changes
    }

    /// The oldest update.
    pub(super) fn pop(&mut self) -> Option<DbUpdate> {
        let next = self.rest.pop_front();
        if let (Some(next), Some(lift)) = (&next, self.lifts.front())
            && next.rank == *lift
        {
            self.lifts.pop_front();
        }
        std::mem::replace(&mut self.head, next).map(|head| head.update)
    }

    /// Removes the updates for which `is_it` is true. Returns their number.
    pub(super) fn remove(&mut self, is_it: impl Fn(&DbUpdate) -> bool) -> usize {
        self.lifts.clear();
        let rest = std::mem::take(&mut self.rest);
        let (removed, kept): (Vec<_>, Vec<_>) =
            (self.head.take().into_iter().chain(rest)).partition(|pending| is_it(&pending.update));
        for pending in kept {
            self.push(pending);
        }
        removed.len()
    }

    /// Frees the storage of an empty lane.
    pub(super) fn shrink(&mut self) {
        self.rest = VecDeque::new();
        self.lifts = VecDeque::new();
    }

    /// Replaces all pending updates by this one. It takes the arrival of the oldest and the highest of all urgencies.
    /// Returns the number of replaced updates.
    pub(super) fn replace(&mut self, urgency: Urgency, update: DbUpdate) -> usize {
        let Some(head) = &mut self.head else { return 0 };
        let lifted = self.lifts.front().map_or(urgency, |lift| urgency.min(lift.0));
        head.rank.0 = head.rank.0.min(lifted);
        head.update = update;
        let replaced = 1 + self.rest.len();
        self.rest.clear();
        self.lifts.clear();
        replaced
    }

    /// Notes the rank of the last update in `rest`.
    fn lift(&mut self, rank: Rank) {
        while self.lifts.back().is_some_and(|lift| *lift > rank) {
            self.lifts.pop_back();
        }
        self.lifts.push_back(rank);
    }

    fn most_urgent(&self, head: &Pending) -> Rank {
        self.lifts.front().map_or(head.rank, |lift| head.rank.min(*lift))
    }
}
