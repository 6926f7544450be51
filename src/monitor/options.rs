//! The options and counters of a monitor.

use std::fmt;
use std::time::Duration;

use crate::counter::Counter;
use crate::error::ErrorHook;
use crate::update::Action;

/// The times of a [`Monitor`](super::Monitor).
#[derive(Clone)]
pub struct MonitorOptions {
    /// The pause between two polls, at least a millisecond. Default: 1 s.
    pub interval: Duration,
    /// The pause before the first poll, so that subscribers can connect. Default: none.
    pub delay: Duration,
    /// Called with every failure. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for MonitorOptions {
    fn default() -> MonitorOptions {
        MonitorOptions {
            interval: Duration::from_secs(1),
            delay: Duration::ZERO,
            hook: None,
        }
    }
}

impl fmt::Debug for MonitorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorOptions")
            .field("interval", &self.interval)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// The counters of a [`Monitor`](super::Monitor).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MonitorStats {
    /// Polls, successful or not.
    pub polls: u64,
    /// Those of [`MonitorStats::polls`] that read no row, since the table had not changed.
    pub skipped: u64,
    /// Rows read from the table.
    pub rows_read: u64,
    /// Published creates.
    pub created: u64,
    /// Published sets.
    pub set: u64,
    /// Published deletes.
    pub deleted: u64,
    /// Times the store went back to an earlier state.
    pub went_back: u64,
    /// Failed polls, and rows that cannot be published since they break a limit of the publisher.
    pub failures: u64,
}

/// The counts of a monitor, written by its thread and read by others.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) polls: Counter,
    pub(super) skipped: Counter,
    pub(super) rows_read: Counter,
    created: Counter,
    set: Counter,
    deleted: Counter,
    pub(super) went_back: Counter,
    pub(super) failures: Counter,
}

impl Counters {
    pub(super) fn stats(&self) -> MonitorStats {
        MonitorStats {
            polls: self.polls.get(),
            skipped: self.skipped.get(),
            rows_read: self.rows_read.get(),
            created: self.created.get(),
            set: self.set.get(),
            deleted: self.deleted.get(),
            went_back: self.went_back.get(),
            failures: self.failures.get(),
        }
    }

    /// The counter for updates of this action.
    pub(super) fn of(&self, action: &Action) -> &Counter {
        match action {
            Action::Create => &self.created,
            Action::Delete => &self.deleted,
            _ => &self.set,
        }
    }
}
