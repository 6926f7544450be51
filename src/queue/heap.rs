//! The order of the queue: urgency, lifting, ageing and holding. Without threads or a clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::lane::{Lane, Pending, Urgency};
use super::ranking::Ranking;
use crate::update::{DbUpdate, Name};

/// An emptied heap with storage for more rows or updates than this frees it.
const KEPT: usize = 1024;

/// Pending updates, in one lane for each row.
///
/// A lane ranks by its most urgent update and hands out its oldest. So a more urgent update lifts the earlier ones of
/// its row and never overtakes them.
#[derive(Debug)]
pub(super) struct Heap {
    max_overtake: Duration,
    /// Pending updates while none of them is more urgent than an earlier one: they are handed out in order of arrival
    /// and need no lanes. Filled only while `rows` is empty.
    straight: VecDeque<(Instant, DbUpdate)>,
    /// Rows were held, so each row needs its lane.
    holds: bool,
    /// The number of updates that have ever arrived, which numbers them.
    arrivals: u64,
    /// The slot in `lanes` of each row that is pending or held, by [`Heap::hash`].
    rows: HashTable<usize>,
    hasher: DefaultHashBuilder,
    lanes: Vec<Lane>,
    free: Vec<usize>,
    /// The lanes that may be handed out, by urgency, then by arrival.
    urgent: Ranking,
    /// All arrivals, oldest first. Entries of handed-out updates are removed when they come first, or when there are
    /// too many.
    ages: VecDeque<Age>,
    /// The last arrival removed from `ages` while still pending: it was the oldest, but its row was held.
    passed_over: u64,
    /// Released lanes with the arrival of their oldest update, if that was passed over.
    late: BinaryHeap<Reverse<(u64, usize)>>,
}

/// When an update arrived.
#[derive(Debug, Clone, Copy)]
struct Age {
    arrival: u64,
    slot: usize,
    arrived: Instant,
}

impl Age {
    fn is_pending(&self, lanes: &[Lane]) -> bool {
        lanes[self.slot].arrival().is_some_and(|oldest| oldest <= self.arrival)
    }
}

impl Heap {
    pub(super) fn new(max_overtake: Duration) -> Heap {
        Heap {
            max_overtake,
            straight: VecDeque::new(),
            holds: false,
            arrivals: 0,
            rows: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            lanes: Vec::new(),
            free: Vec::new(),
            urgent: Ranking::new(),
            ages: VecDeque::new(),
            passed_over: 0,
            late: BinaryHeap::new(),
        }
    }

    /// Adds an update that arrives `now`.
    pub(super) fn push(&mut self, update: DbUpdate, now: Instant) {
        if self.rows.is_empty() && !self.holds {
            let last = self.straight.back().map(|(_, last)| Urgency::of(last));
            if last.is_none_or(|last| last <= Urgency::of(&update)) {
                return self.straight.push_back((now, update));
            }
        }
        self.straighten();
        self.put(update, now);
    }

    /// Moves the updates of `straight` into lanes.
    fn straighten(&mut self) {
        for (arrived, update) in std::mem::take(&mut self.straight) {
            self.put(update, arrived);
        }
    }

    fn put(&mut self, update: DbUpdate, now: Instant) {
        let slot = self.slot(&update);
        self.append(slot, Urgency::of(&update), update, now);
    }

    /// As [`Heap::push`], but replaces the pending updates of the row. Returns their number.
    pub(super) fn coalesce(&mut self, urgency: Urgency, update: DbUpdate, now: Instant) -> usize {
        self.straighten();
        let slot = self.slot(&update);
        if self.lanes[slot].is_empty() {
            self.append(slot, urgency, update, now);
            return 0;
        }
        let replaced = self.lanes[slot].replace(urgency, update);
        self.rank(slot);
        replaced
    }

    /// True if an update of the same row is pending.
    pub(super) fn is_pending(&mut self, update: &DbUpdate) -> bool {
        self.straighten();
        let row = self.find(&update.table, &update.key);
        row.is_some_and(|slot| !self.lanes[slot].is_empty())
    }

    /// Removes the pending updates for which `is_it` is true. Returns their number.
    pub(super) fn remove(&mut self, is_it: impl Fn(&DbUpdate) -> bool) -> usize {
        self.straighten();
        self.late.clear();
        let slots: Vec<usize> = self.rows.iter().copied().collect();
        let mut removed = 0;
        for slot in slots {
            removed += self.lanes[slot].remove(&is_it);
            self.resettle(slot);
        }
        removed
    }

    /// The next updates, while they come in order of arrival.
    pub(super) fn coming(&self) -> impl Iterator<Item = &DbUpdate> {
        self.straight.iter().map(|(_, update)| update)
    }

    /// The next update that is not of a held row. With `hold` its row is held until [`Heap::release`].
    ///
    /// `clock` is read only if the most urgent update is not the oldest.
    pub(super) fn pop(&mut self, clock: impl Fn() -> Instant, hold: bool) -> Option<DbUpdate> {
        if hold && !self.holds {
            self.holds = true;
            self.straighten();
        }
        if let Some((_, update)) = self.straight.pop_front() {
            if self.straight.is_empty() && self.straight.capacity() > KEPT {
                self.straight = VecDeque::new();
            }
            return Some(update);
        }
        let slot = self.next(clock)?;
        let lane = &mut self.lanes[slot];
        let update = lane.pop()?;
        if hold {
            lane.hold(&update);
        }
        self.resettle(slot);
        Some(update)
    }

    /// Ends the hold of a row.
    pub(super) fn release(&mut self, table: &Name, key: &Name) {
        if let Some(slot) = self.find(table, key)
            && self.lanes[slot].release()
        {
            self.resettle(slot);
        }
    }

    /// The lane to hand out next.
    fn next(&mut self, clock: impl Fn() -> Instant) -> Option<usize> {
        let most_urgent = self.urgent.first()?;
        if let Some(Reverse((_, slot))) = self.late.pop() {
            return Some(slot);
        }
        while let Some(oldest) = self.ages.front() {
            if oldest.is_pending(&self.lanes) {
                let may_be_overtaken = || clock().saturating_duration_since(oldest.arrived) <= self.max_overtake;
                if oldest.slot == most_urgent || may_be_overtaken() {
                    break;
                }
                if !self.lanes[oldest.slot].is_held() {
                    return Some(oldest.slot);
                }
                self.passed_over = oldest.arrival;
            }
            self.ages.pop_front();
        }
        Some(most_urgent)
    }

    fn find(&self, table: &Name, key: &Name) -> Option<usize> {
        let hash = self.hash(table, key);
        let is_it = |&slot: &usize| self.lanes[slot].is_of(table, key);
        self.rows.find(hash, is_it).copied()
    }

    /// The slot of the update's row, which may be new.
    fn slot(&mut self, update: &DbUpdate) -> usize {
        let (table, key) = (&update.table, &update.key);
        let hash = self.hash(table, key);
        let is_it = |&slot: &usize| self.lanes[slot].is_of(table, key);
        match self.rows.entry(hash, is_it, |&slot| self.lanes[slot].hash) {
            Entry::Occupied(row) => *row.get(),
            Entry::Vacant(row) => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.lanes.push(Lane::default());
                    self.lanes.len() - 1
                });
                self.lanes[slot].hash = hash;
                *row.insert(slot).get()
            }
        }
    }

    fn hash(&self, table: &Name, key: &Name) -> u64 {
        self.hasher.hash_one((table, key))
    }

    fn append(&mut self, slot: usize, urgency: Urgency, update: DbUpdate, now: Instant) {
        self.arrivals += 1;
        self.note_age(slot, now);
        let rank = (urgency, self.arrivals);
        if self.lanes[slot].push(Pending { update, rank }) {
            self.rank(slot);
        }
    }

    fn note_age(&mut self, slot: usize, arrived: Instant) {
        if self.ages.len() == self.ages.capacity() {
            let lanes = &self.lanes;
            self.ages.retain(|age| age.is_pending(lanes));
            // Doubles the room, so that this is seldom needed.
            self.ages.reserve(self.ages.len() + 1);
        }
        let arrival = self.arrivals;
        self.ages.push_back(Age { arrival, slot, arrived });
    }

    /// Updates the rank of a changed lane.
    fn rank(&mut self, slot: usize) {
        let lane = &self.lanes[slot];
        match lane.rank() {
            Some(rank) if !lane.is_held() => self.urgent.set(slot, rank),
            _ => self.urgent.remove(slot),
        }
    }

    /// Updates the rank of a lane after its oldest update was handed out, or after its release.
    fn resettle(&mut self, slot: usize) {
        self.rank(slot);
        let lane = &mut self.lanes[slot];
        if lane.is_held() {
            return;
        }
        if let Some(arrival) = lane.arrival() {
            if arrival <= self.passed_over {
                self.late.push(Reverse((arrival, slot)));
            }
            return;
        }
        lane.shrink();
        if let Ok(row) = self.rows.find_entry(lane.hash, |&other| other == slot) {
            row.remove();
        }
        self.free.push(slot);
        if self.rows.is_empty() && self.lanes.len().max(self.ages.capacity()) > KEPT {
            *self = Heap {
                holds: self.holds,
                ..Heap::new(self.max_overtake)
            };
        }
    }
}

#[cfg(test)]
mod tests;
