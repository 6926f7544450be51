//! The order of the queue: urgency, lifting, ageing and holding. No threads and no clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::ranking::Ranking;
use crate::update::{DbUpdate, Name};

/// An emptied heap whose storage is larger than this many rows gives it back.
const KEPT_ROWS: usize = 1024;

/// How urgent an update is among those of its row; between rows the key and the arrival decide where this is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    priority: i32,
    timestamp: i64,
}

impl Urgency {
    pub(super) fn of(update: &DbUpdate) -> Urgency {
        Urgency {
            priority: update.priority,
            timestamp: update.timestamp,
        }
    }
}

/// Pending updates, in one lane for each row.
///
/// A lane stands where its most urgent update puts it and hands out its oldest: thus a more urgent update lifts the
/// earlier ones of its row, and never overtakes them.
#[derive(Debug)]
pub(super) struct Heap {
    max_overtake: Duration,
    /// How many updates have ever arrived: numbers them in order.
    arrivals: u64,
    /// The slot in `lanes` of each row that is pending or held.
    rows: HashMap<(Name, Name), usize>,
    lanes: Vec<Lane>,
    free: Vec<usize>,
    /// The lanes that may be handed out by urgency, key, arrival: [`DbUpdate::urgency`], and first come first served.
    urgent: Ranking<(Urgency, Name, u64)>,
    /// The same lanes by the arrival of their oldest update.
    oldest: Ranking<u64>,
}

impl Heap {
    pub(super) fn new(max_overtake: Duration) -> Heap {
        Heap {
            max_overtake,
            arrivals: 0,
            rows: HashMap::new(),
            lanes: Vec::new(),
            free: Vec::new(),
            urgent: Ranking::new(),
            oldest: Ranking::new(),
        }
    }

    /// Puts in an update that arrives `now`.
    pub(super) fn push(&mut self, update: DbUpdate, now: Instant) {
        let slot = self.slot(&update);
        self.append(slot, Urgency::of(&update), update, now);
    }

    /// As [`Heap::push`], but replaces the last pending update of the row, if there is one: true if so.
    ///
    /// It takes the arrival of the one that it replaces, and the more urgent of both urgencies.
    pub(super) fn coalesce(&mut self, urgency: Urgency, update: DbUpdate, now: Instant) -> bool {
        let slot = self.slot(&update);
        if self.lanes[slot].head.is_none() {
            self.append(slot, urgency, update, now);
            return false;
        }
        if self.lanes[slot].replace_last(urgency, update) {
            self.rank(slot);
        }
        true
    }

    /// The next update that is not of a held row; `hold` holds its row until [`Heap::release`].
    pub(super) fn pop(&mut self, now: Instant, hold: bool) -> Option<DbUpdate> {
        let oldest = self.oldest.first()?;
        let slot = match &self.lanes[oldest].head {
            Some(head) if now.saturating_duration_since(head.arrived) > self.max_overtake => oldest,
            _ => self.urgent.first()?,
        };
        let lane = &mut self.lanes[slot];
        let update = lane.pop()?.update;
        lane.held = hold;
        self.rank(slot);
        self.free_if_unused(slot, &update.table, &update.key);
        Some(update)
    }

    /// Hands out the row's updates again.
    pub(super) fn release(&mut self, table: &Name, key: &Name) {
        if let Some(&slot) = self.rows.get(&(table.clone(), key.clone())) {
            self.lanes[slot].held = false;
            self.rank(slot);
            self.free_if_unused(slot, table, key);
        }
    }

    /// The slot of the update's row, which may be a new one.
    fn slot(&mut self, update: &DbUpdate) -> usize {
        let row = (update.table.clone(), update.key.clone());
        *self.rows.entry(row).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.lanes.push(Lane::default());
                self.lanes.len() - 1
            })
        })
    }

    fn append(&mut self, slot: usize, urgency: Urgency, update: DbUpdate, now: Instant) {
        self.arrivals += 1;
        let pending = Pending {
            update,
            rank: (urgency, self.arrivals),
            arrived: now,
        };
        if self.lanes[slot].push(pending) {
            self.rank(slot);
        }
    }

    /// Puts a changed lane where it now belongs.
    fn rank(&mut self, slot: usize) {
        let lane = &self.lanes[slot];
        match (&lane.head, lane.held) {
            (Some(head), false) => {
                let (urgency, arrival) = lane.most_urgent(head);
                self.urgent.set(slot, (urgency, head.update.key.clone(), arrival));
                self.oldest.set(slot, head.rank.1);
            }
            _ => {
                self.urgent.remove(slot);
                self.oldest.remove(slot);
            }
        }
    }

    fn free_if_unused(&mut self, slot: usize, table: &Name, key: &Name) {
        let lane = &mut self.lanes[slot];
        if lane.head.is_some() || lane.held {
            return;
        }
        lane.rest = VecDeque::new();
        lane.lifts = VecDeque::new();
        self.free.push(slot);
        self.rows.remove(&(table.clone(), key.clone()));
        if self.rows.is_empty() && self.lanes.len() > KEPT_ROWS {
            *self = Heap::new(self.max_overtake);
        }
    }
}

/// An update's urgency, then its arrival: no two are equal.
type Rank = (Urgency, u64);

#[derive(Debug)]
struct Pending {
    update: DbUpdate,
    rank: Rank,
    arrived: Instant,
}

/// The pending updates of one row, the oldest first. Most rows have one at a time, which needs no allocation.
#[derive(Debug, Default)]
struct Lane {
    head: Option<Pending>,
    rest: VecDeque<Pending>,
    /// The ranks of those in `rest` that are more urgent than all behind them: the first is the most urgent of `rest`.
    lifts: VecDeque<Rank>,
    held: bool,
}

impl Lane {
    /// True if this changes where the lane belongs.
    fn push(&mut self, pending: Pending) -> bool {
        let Some(head) = &self.head else {
            self.head = Some(pending);
            return true;
        };
        let changes = pending.rank < self.most_urgent(head);
        self.lift(pending.rank);
        self.rest.push_back(pending);
        changes
    }

    fn pop(&mut self) -> Option<Pending> {
        let next = self.rest.pop_front();
        if let (Some(next), Some(lift)) = (&next, self.lifts.front())
            && next.rank == *lift
        {
            self.lifts.pop_front();
        }
        std::mem::replace(&mut self.head, next)
    }

    /// True if this changes where the lane belongs.
    fn replace_last(&mut self, urgency: Urgency, update: DbUpdate) -> bool {
        let Some(last) = self.rest.back_mut().or(self.head.as_mut()) else {
            return false;
        };
        last.update = update;
        if urgency >= last.rank.0 {
            return false;
        }
        last.rank.0 = urgency;
        let rank = last.rank;
        if !self.rest.is_empty() {
            self.lift(rank);
        }
        true
    }

    /// Notes the rank of the last in `rest`.
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
