//! The counters of parts that come and go.

use crate::listener::{Latency, ListenerOutline, ListenerStats, NotifierOutline, NotifierStats};
use crate::replica::{Outline, ReplicaStats};

/// A look at a part.
pub(super) trait Look {
    type Stats: Default + Clone;

    /// The last counters of a part that is gone.
    fn last(&self) -> Option<Self::Stats>;

    /// Adds what another part has counted, not its state.
    fn add(total: &mut Self::Stats, other: Self::Stats);
}

/// The parts of a kind, and what those counted that are gone: counters of a process never fall.
pub(super) struct Kept<L: Look> {
    parts: Vec<L>,
    gone: Option<L::Stats>,
}

impl<L: Look> Kept<L> {
    pub(super) fn push(&mut self, part: L) {
        self.settle();
        self.parts.push(part);
    }

    /// The parts that are there, and the counters of the others, if there were any.
    pub(super) fn parts(&mut self) -> (&[L], Option<L::Stats>) {
        self.settle();
        (&self.parts, self.gone.clone())
    }

    fn settle(&mut self) {
        self.parts.retain(|part| {
            let last = part.last();
            let is_there = last.is_none();
            if let Some(last) = last {
                L::add(self.gone.get_or_insert_default(), last);
            }
            is_there
        });
    }
}

impl<L: Look> Default for Kept<L> {
    fn default() -> Kept<L> {
        Kept {
            parts: Vec::new(),
            gone: None,
        }
    }
}

impl Look for Outline {
    type Stats = ReplicaStats;

    fn last(&self) -> Option<ReplicaStats> {
        (!self.is_there()).then(|| self.ended())
    }

    fn add(total: &mut ReplicaStats, other: ReplicaStats) {
        total.add(&other);
    }
}

impl Look for ListenerOutline {
    type Stats = ListenerStats;

    fn last(&self) -> Option<ListenerStats> {
        (!self.is_there()).then(|| self.stats())
    }

    fn add(total: &mut ListenerStats, other: ListenerStats) {
        total.handled += other.handled;
        total.failed += other.failed;
        total.taken_over += other.taken_over;
        total.left += other.left;
        total.repeated += other.repeated;
        total.moved += other.moved;
        total.dropped += other.dropped;
    }
}

impl Look for NotifierOutline {
    type Stats = (NotifierStats, Latency);

    fn last(&self) -> Option<(NotifierStats, Latency)> {
        (!self.is_there()).then(|| self.stats())
    }

    fn add((total, times): &mut (NotifierStats, Latency), (other, latency): (NotifierStats, Latency)) {
        total.notified += other.notified;
        total.sent += other.sent;
        total.retried += other.retried;
        total.acknowledged += other.acknowledged;
        total.failed += other.failed;
        times.merge(&latency);
    }
}
