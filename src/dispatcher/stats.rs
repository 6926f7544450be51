//! Counters of the dispatcher.

use crate::counter::Counter;
use crate::queue::QueueStats;

/// Counts of a dispatcher since it started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DispatcherStats {
    /// Updates taken from the queue.
    pub updates: u64,
    /// Updates without a callback.
    pub unhandled: u64,
    /// Sync events taken from the queue.
    pub syncs: u64,
    /// Calls of callbacks, for updates and sync events, whatever their result.
    pub calls: u64,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Typed callbacks not called because the value was not the table's row type.
    pub mismatches: u64,
    /// Events that a handler did not take, for example because a channel stayed full.
    pub refused: u64,
    /// Counts of the queue in front of the dispatcher.
    pub queue: QueueStats,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) updates: Counter,
    pub(super) unhandled: Counter,
    pub(super) syncs: Counter,
    pub(super) calls: Counter,
    pub(super) panics: Counter,
    pub(super) mismatches: Counter,
    pub(super) refused: Counter,
}

impl Counters {
    pub(super) fn stats(&self, queue: QueueStats) -> DispatcherStats {
        DispatcherStats {
            updates: self.updates.get(),
            unhandled: self.unhandled.get(),
            syncs: self.syncs.get(),
            calls: self.calls.get(),
            panics: self.panics.get(),
            mismatches: self.mismatches.get(),
            refused: self.refused.get(),
            queue,
        }
    }
}
