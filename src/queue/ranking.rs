//! A heap of slots whose ranks can be changed and taken out at any time.

use std::cmp::Ordering;

/// What [`Ranking::places`] says of a slot that has no rank.
const NOWHERE: usize = usize::MAX;

/// How many children an entry of the heap has: more than two make it flatter, with fewer cache misses when it is deep.
const CHILDREN: usize = 4;

/// Slots (small numbers) by rank, the smallest first.
///
/// What changes it is given `tie`, which compares two slots of equal rank: what that looks at is not in the heap,
/// which makes the heap small.
#[derive(Debug)]
pub(super) struct Ranking<R> {
    /// No entry ranks before its parent.
    heap: Vec<(R, usize)>,
    /// Where in `heap` each slot stands.
    places: Vec<usize>,
}

impl<R: Ord + Copy> Ranking<R> {
    pub(super) fn new() -> Ranking<R> {
        Ranking {
            heap: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The slot with the smallest rank.
    pub(super) fn first(&self) -> Option<usize> {
        self.heap.first().map(|entry| entry.1)
    }

    /// Gives `slot` this rank instead of the one that it had, if any.
    pub(super) fn set(&mut self, slot: usize, rank: R, tie: impl Fn(usize, usize) -> Ordering) {
        if slot >= self.places.len() {
            self.places.resize(slot + 1, NOWHERE);
        }
        let mut place = self.places[slot];
        if place == NOWHERE {
            place = self.heap.len();
            self.heap.push((rank, slot));
        }
        self.settle(place, (rank, slot), tie);
    }

    /// Takes `slot` out, if it is in.
    pub(super) fn remove(&mut self, slot: usize, tie: impl Fn(usize, usize) -> Ordering) {
        let Some(place) = self.places.get_mut(slot) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place != NOWHERE
            && let Some(last) = self.heap.pop()
            && place < self.heap.len()
        {
            self.settle(place, last, tie);
        }
    }

    /// Puts `entry` where it belongs instead of the one at `place`.
    fn settle(&mut self, mut place: usize, entry: (R, usize), tie: impl Fn(usize, usize) -> Ordering) {
        let before = |a: &(R, usize), b: &(R, usize)| a.0 < b.0 || (a.0 == b.0 && tie(a.1, b.1).is_lt());
        while place > 0 && before(&entry, &self.heap[(place - 1) / CHILDREN]) {
            place = self.fill(place, (place - 1) / CHILDREN);
        }
        loop {
            let first = CHILDREN * place + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let least = |a: usize, b: usize| if before(&self.heap[b], &self.heap[a]) { b } else { a };
            let Some(child) = children.reduce(least) else { break };
            if !before(&self.heap[child], &entry) {
                break;
            }
            place = self.fill(place, child);
        }
        self.heap[place] = entry;
        self.places[entry.1] = place;
    }

    /// Moves the entry at `from` to `place`, and returns `from`.
    fn fill(&mut self, place: usize, from: usize) -> usize {
        let entry = self.heap[from];
        self.heap[place] = entry;
        self.places[entry.1] = place;
        from
    }
}
