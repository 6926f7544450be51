//! The checker: one function per promise, over the logs of writers and programs.
//!
//! A function returns the violations of its promise, each with the lines that show it. The checker knows nothing of how
//! the library works: a writer's own count of its updates decides which update a number belongs to.

mod index;
mod once;
mod promises;
mod replica;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::history::{Change, History, Row, Time, micros};
use super::store::WRITER;
pub(crate) use index::Sends;
pub(crate) use once::{Tally, once};
pub(crate) use promises::{filter, leaks, loss, order, unique};
pub(crate) use replica::{Proof, Told, kept, told_right, understated};

/// Beginning of the names of the programs' files.
pub(crate) const PROGRAM: &str = "program-";

/// The histories of one scenario.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histories {
    pub(crate) writers: Vec<History>,
    pub(crate) programs: Vec<History>,
    /// The rows stored at the end.
    pub(crate) stored: BTreeMap<Row, Change>,
}

/// A line of a history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) history: String,
    /// From 1.
    pub(crate) line: usize,
}

/// A violation of a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// C1: these two updates of one row came in another order than they were sent in.
    Disorder { first: Place, second: Place },
    /// C2: one number came twice.
    Twice { first: Place, second: Place },
    /// C2: a number came with another update than its own, or was never used.
    Foreign { came: Place, sent: Option<Place> },
    /// C3: an update sent on a live topic never came, and no sync event followed.
    Lost { program: String, sent: Place },
    /// C3: more updates were replaced by newer ones than the queue counts.
    Replaced {
        program: String,
        replaced: u64,
        declared: u64,
    },
    /// C4: an update came whose topic was not registered.
    Unasked { came: Place },
    /// C5: more was held after the end than before the beginning.
    Leak {
        after: Place,
        what: &'static str,
        more: u64,
    },
    /// C7: the replica's last state of this row is not the store's.
    Diverged {
        program: String,
        row: Row,
        stored: Option<u64>,
        ended: Option<u64>,
    },
    /// C7: the replica had the store's content too late.
    Late { settled: Place, by: Time },
    /// C8: this change does not follow from the row's changes before it.
    Untrue { told: Place, last: Option<u64> },
    /// C8: the last change of this row is not the replica's last state.
    Untold {
        program: String,
        row: Row,
        told: Option<u64>,
        ended: Option<u64>,
    },
    /// C9: processed again, though it had been acknowledged.
    Again { acknowledged: Place, begun: Place },
    /// C9: processed after a newer state of its row.
    Older { newer: Place, begun: Place },
    /// C9: acknowledged before it was processed.
    Unprocessed { acknowledged: Place },
    /// C9: never acknowledged.
    Unacknowledged { notified: Place },
    /// C5, C7: the line needed to judge is missing in the history.
    Missing { program: String, promise: &'static str },
}

impl Violation {
    /// The promise that it breaks.
    pub(crate) fn promise(&self) -> &'static str {
        match self {
            Violation::Disorder { .. } => "C1",
            Violation::Twice { .. } | Violation::Foreign { .. } => "C2",
            Violation::Lost { .. } | Violation::Replaced { .. } => "C3",
            Violation::Unasked { .. } => "C4",
            Violation::Leak { .. } => "C5",
            Violation::Diverged { .. } | Violation::Late { .. } => "C7",
            Violation::Untrue { .. } | Violation::Untold { .. } => "C8",
            Violation::Again { .. }
            | Violation::Older { .. }
            | Violation::Unprocessed { .. }
            | Violation::Unacknowledged { .. } => "C9",
            Violation::Missing { promise, .. } => promise,
        }
    }
}

/// The time by which everything must have arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Time);

impl Histories {
    /// Reads the histories in this folder.
    pub(crate) fn read(folder: &Path, stored: BTreeMap<Row, Change>) -> Histories {
        Histories {
            stored,
            writers: History::read_all(folder, WRITER),
            programs: History::read_all(folder, PROGRAM),
        }
    }

    /// All violations.
    pub(crate) fn check(&self, deadline: Deadline) -> Vec<Violation> {
        let sends = Sends::of(&self.writers);
        let mut violations = order(self, &sends);
        violations.extend(unique(self, &sends));
        violations.extend(loss(self, &sends));
        violations.extend(filter(self, &sends));
        violations.extend(leaks(self));
        violations.extend(kept(self, deadline));
        violations.extend(told_right(self));
        violations
    }

    /// The figures of these histories.
    pub(crate) fn figures(&self) -> Figures {
        let sends = Sends::of(&self.writers);
        let mut figures = promises::figures(self, &sends);
        figures.sent = sends.len() as u64;
        figures.longest_call = sends.longest_call;
        figures
    }
}

/// Counts of a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Updates that the library accepted.
    pub(crate) sent: u64,
    /// Callbacks of all programs.
    pub(crate) delivered: u64,
    /// Updates that did not come, but were covered by a sync event.
    pub(crate) declared: u64,
    /// Updates that were replaced by newer ones.
    pub(crate) replaced: u64,
    /// Sync events of all programs.
    pub(crate) syncs: u64,
    /// Row changes of replicas.
    pub(crate) changes: u64,
    /// The longest call to publish, in microseconds.
    pub(crate) longest_call: Time,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            sent,
            delivered,
            declared,
            replaced,
            syncs,
            changes,
            longest_call,
        } = self;
        write!(
            f,
            "sent {sent}, delivered {delivered}, declared lost {declared}, coalesced {replaced}, syncs {syncs}, row changes {changes}, \
             longest publish {:.1} ms",
            *longest_call as f64 / 1e3,
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.history, self.line)
    }
}

impl Place {
    pub(crate) fn new(history: &History, index: usize) -> Place {
        Place {
            history: history.name.clone(),
            line: index + 1,
        }
    }
}

/// How long after a topic was unregistered an update sent meanwhile may still come.
pub(crate) const GRACE: Time = 500_000;

/// Memory in KiB that a process may keep at its end, since the allocator keeps some.
pub(crate) const SPARE_KIB: u64 = 32 << 10;

impl Deadline {
    /// This long after `start`.
    pub(crate) fn after(start: Time, bound: std::time::Duration) -> Deadline {
        Deadline(start + micros(bound))
    }
}
