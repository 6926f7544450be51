//! The counters of one table.

/// The counters of a [`Core`](super::Core).
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::replica) struct Counts {
    pub(in crate::replica) applied: u64,
    pub(in crate::replica) old: u64,
    pub(in crate::replica) unversioned: u64,
    pub(in crate::replica) checks: u64,
    pub(in crate::replica) catch_ups: u64,
    pub(in crate::replica) changes: u64,
    pub(in crate::replica) listings: u64,
    pub(in crate::replica) listed: u64,
    pub(in crate::replica) went_back: u64,
    pub(in crate::replica) failures: u64,
}
