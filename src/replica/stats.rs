//! The counters of a table, and of a replica.

/// The counters of a replica, summed over its tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStats {
    /// Rows held now.
    pub rows: u64,
    /// Those of [`ReplicaStats::rows`] that do not decode.
    pub malformed: u64,
    /// Updates that changed a row.
    pub applied: u64,
    /// Updates that were older than the held state.
    pub old: u64,
    /// Updates without a version, or without the value that they set, whose row was read.
    pub unversioned: u64,
    /// Requests for the last versions of the topics of a table.
    pub checks: u64,
    /// Reads of the changes of a topic since its position.
    pub catch_ups: u64,
    /// Rows and deletes read in [`ReplicaStats::catch_ups`].
    pub changes: u64,
    /// Reads of all rows of a topic.
    pub listings: u64,
    /// Rows read in [`ReplicaStats::listings`].
    pub listed: u64,
    /// Keys and values read from the store, in bytes.
    pub read_bytes: u64,
    /// Times the store went back to an earlier state.
    pub went_back: u64,
    /// Failed reads of the store.
    pub failures: u64,
    /// Differences found by comparisons with the store, each a bug of the library or a store that went back unnoticed.
    pub differences: u64,
}

impl ReplicaStats {
    pub(crate) fn add(&mut self, other: &ReplicaStats) {
        self.rows += other.rows;
        self.malformed += other.malformed;
        self.applied += other.applied;
        self.old += other.old;
        self.unversioned += other.unversioned;
        self.checks += other.checks;
        self.catch_ups += other.catch_ups;
        self.changes += other.changes;
        self.listings += other.listings;
        self.listed += other.listed;
        self.read_bytes += other.read_bytes;
        self.went_back += other.went_back;
        self.failures += other.failures;
        self.differences += other.differences;
    }
}
