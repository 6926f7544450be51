//! What a replica can be told, and what it counts.

use std::fmt;
use std::time::Duration;

use super::core::{Counts, Times};
use crate::error::ErrorHook;
use crate::registry::RegistryOptions;
use crate::update::{Name, Topic};

/// Times and limits of a [`Replica`](super::Replica).
#[derive(Clone)]
pub struct ReplicaOptions {
    /// The topics that it begins with; more can be [added](super::Replica::add_topic). Default: none.
    pub topics: Vec<Topic>,
    /// How often it asks the store for the last versions of its topics, less up to a fifth: one small request for each table. What was
    /// stored and never told is found within this time. At least 10 ms. Default: 3 s.
    pub check_interval: Duration,
    /// How long an update that came before those it follows waits for them before the replica catches up. Default: 200 ms.
    pub patience: Duration,
    /// Over how long the replicas spread that hear of one loss, so that they do not all ask at once. Default: 1 s.
    pub spread: Duration,
    /// How often it compares its rows with the store's, which reads all of them. Default: never; see
    /// [`Replica::verify`](super::Replica::verify).
    pub self_check: Option<Duration>,
    /// The id under which writers find it that wait for replicas; see [`Database::barrier`](crate::Database::barrier). No other
    /// one has it. Default: none; writers do not wait for it.
    pub id: Option<Name>,
    /// How it is registered under its id.
    pub registry: RegistryOptions,
    /// Is told of every failure in the background, of rows that do not decode, of a store that went back, and of differences that
    /// a comparison finds. Default: none; they are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for ReplicaOptions {
    fn default() -> ReplicaOptions {
        ReplicaOptions {
            topics: Vec::new(),
            check_interval: Duration::from_secs(3),
            patience: Duration::from_millis(200),
            spread: Duration::from_secs(1),
            self_check: None,
            id: None,
            registry: RegistryOptions::default(),
            hook: None,
        }
    }
}

impl ReplicaOptions {
    pub(super) fn times(&self) -> Times {
        Times {
            patience: self.patience,
            check_interval: self.check_interval.max(Duration::from_millis(10)),
            spread: self.spread,
            max_backoff: Duration::from_secs(3),
        }
    }
}

impl fmt::Debug for ReplicaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaOptions")
            .field("topics", &self.topics)
            .field("check_interval", &self.check_interval)
            .field("patience", &self.patience)
            .field("spread", &self.spread)
            .field("self_check", &self.self_check)
            .field("id", &self.id)
            .field("registry", &self.registry)
            .field("hook", &self.hook.as_ref().map(|_| ".."))
            .finish()
    }
}

/// What a replica did, all its tables together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStats {
    /// Rows that it has now.
    pub rows: u64,
    /// Those of [`ReplicaStats::rows`] that do not decode.
    pub malformed: u64,
    /// Updates that changed a row.
    pub applied: u64,
    /// Updates that were older than what it had.
    pub old: u64,
    /// Updates without a version, whose row was read.
    pub unversioned: u64,
    /// How often the store was asked for the last versions of the topics of a table.
    pub checks: u64,
    /// How often the changes of a topic since its position were read.
    pub catch_ups: u64,
    /// Rows and deletes read in [`ReplicaStats::catch_ups`].
    pub changes: u64,
    /// How often all rows of a topic were read.
    pub listings: u64,
    /// Rows read in [`ReplicaStats::listings`].
    pub listed: u64,
    /// Keys and values read from the store, in bytes.
    pub read_bytes: u64,
    /// How often the store went back to an earlier state.
    pub went_back: u64,
    /// How often the store failed.
    pub failures: u64,
    /// Differences that comparisons with the store have found, each a bug of the library or a store that went back unseen.
    pub differences: u64,
}

impl ReplicaStats {
    pub(super) fn add(&mut self, counts: &Counts) {
        self.applied += counts.applied;
        self.old += counts.old;
        self.unversioned += counts.unversioned;
        self.checks += counts.checks;
        self.catch_ups += counts.catch_ups;
        self.changes += counts.changes;
        self.listings += counts.listings;
        self.listed += counts.listed;
        self.went_back += counts.went_back;
        self.failures += counts.failures;
    }
}
