//! A heap of slots whose ranks can be changed or removed at any time.

use super::lane::{Rank, Urgency};

/// Marks a slot without a rank in [`Ranking::places`].
const NOWHERE: usize = usize::MAX;

/// Number of children of an entry: more than two make the heap flatter, with fewer cache misses when it is deep.
const CHILDREN: usize = 4;

/// Slots (small numbers) by rank, the smallest first.
#[derive(Debug)]
pub(super) struct Ranking {
    /// No entry ranks before its parent.
    heap: Vec<Entry>,
    /// Place of each slot in `heap`.
    places: Vec<usize>,
}

/// Flat, which makes it a third smaller than a rank beside a slot. No two arrivals are equal, so the order never
/// depends on the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    urgency: Urgency,
    arrival: u64,
    slot: usize,
}

impl Ranking {
    pub(super) fn new() -> Ranking {
        Ranking {
            heap: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The slot with the smallest rank.
    pub(super) fn first(&self) -> Option<usize> {
        self.heap.first().map(|entry| entry.slot)
    }

    /// Sets the rank of `slot`.
    pub(super) fn set(&mut self, slot: usize, (urgency, arrival): Rank) {
        if slot >= self.places.len() {
            self.places.resize(slot + 1, NOWHERE);
        }
        let entry = Entry { urgency, arrival, slot };
        let mut place = self.places[slot];
        if place == NOWHERE {
            place = self.heap.len();
            self.heap.push(entry);
        }
        self.settle(place, entry);
    }

    /// Removes `slot`, if it has a rank.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.places.get_mut(slot) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place != NOWHERE
            && let Some(last) = self.heap.pop()
            && place < self.heap.len()
        {
            self.settle(place, last);
        }
    }

    /// Replaces the entry at `place` by `entry`, and moves that to where it belongs.
    fn settle(&mut self, mut place: usize, entry: Entry) {
        while place > 0 && entry < self.heap[(place - 1) / CHILDREN] {
            place = self.fill(place, (place - 1) / CHILDREN);
        }
        loop {
            let first = CHILDREN * place + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let least = |a: usize, b: usize| if self.heap[b] < self.heap[a] { b } else { a };
            let Some(child) = children.reduce(least) else { break };
            if entry < self.heap[child] {
                break;
            }
            place = self.fill(place, child);
        }
        self.heap[place] = entry;
        self.places[entry.slot] = place;
    }

    /// Moves the entry at `from` to `place`, and returns `from`.
    fn fill(&mut self, place: usize, from: usize) -> usize {
        let entry = self.heap[from];
        self.heap[place] = entry;
        self.places[entry.slot] = place;
        from
    }
}
