//! A heap of slots whose ranks can be changed and taken out at any time.

/// What [`Ranking::places`] says of a slot that has no rank.
const NOWHERE: usize = usize::MAX;

/// How many children an entry of the heap has: more than two make it flatter, with fewer cache misses when it is deep.
const CHILDREN: usize = 4;

/// Slots (small numbers) by rank, the smallest first. Equal ranks are allowed, in no particular order.
#[derive(Debug)]
pub(super) struct Ranking<R> {
    /// No entry ranks before its parent.
    heap: Vec<(R, usize)>,
    /// Where in `heap` each slot stands.
    places: Vec<usize>,
}

impl<R: Ord> Ranking<R> {
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
    pub(super) fn set(&mut self, slot: usize, rank: R) {
        if slot >= self.places.len() {
            self.places.resize(slot + 1, NOWHERE);
        }
        let mut place = self.places[slot];
        if place == NOWHERE {
            place = self.heap.len();
            self.heap.push((rank, slot));
        } else {
            self.heap[place].0 = rank;
        }
        self.settle(place);
    }

    /// Takes `slot` out, if it is in.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.places.get_mut(slot) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place != NOWHERE {
            self.heap.swap_remove(place);
            if place < self.heap.len() {
                self.settle(place);
            }
        }
    }

    /// Moves the entry at `place`, the only one that may be wrong, to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.before(place, (place - 1) / CHILDREN) {
            place = self.exchange(place, (place - 1) / CHILDREN);
        }
        loop {
            let first = CHILDREN * place + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let Some(child) = children.min_by(|&a, &b| self.heap[a].0.cmp(&self.heap[b].0)) else {
                break;
            };
            if !self.before(child, place) {
                break;
            }
            place = self.exchange(place, child);
        }
        self.places[self.heap[place].1] = place;
    }

    fn before(&self, a: usize, b: usize) -> bool {
        self.heap[a].0 < self.heap[b].0
    }

    /// Swaps two entries and returns the new place of the first; that one's `places` is left to [`Ranking::settle`].
    fn exchange(&mut self, from: usize, to: usize) -> usize {
        self.heap.swap(from, to);
        self.places[self.heap[from].1] = from;
        to
    }
}
