//! The options of a replica.

use std::fmt;
use std::time::Duration;

use super::core::Times;
use crate::error::ErrorHook;
use crate::registry::RegistryOptions;
use crate::update::{Name, Topic};

/// Times and limits of a [`Replica`](super::Replica).
#[derive(Clone)]
pub struct ReplicaOptions {
    /// The topics at the start; more can be [added](super::Replica::add_topic). Default: none.
    pub topics: Vec<Topic>,
    /// The time between checks, shortened at random by up to a fifth. Each check asks the store for the last versions
    /// of the topics, with one small request per table. Changes that were stored but not received are found within this
    /// time. At least 10 ms. Default: 3 s.
    pub check_interval: Duration,
    /// How long an update that overtook earlier ones waits for them before the replica catches up; at random up to
    /// twice as long, since many replicas may miss the same update. Default: 200 ms.
    pub patience: Duration,
    /// The span over which replicas spread their reads after a common loss. Default: 1 s.
    pub spread: Duration,
    /// The time between comparisons with the store, each of which reads all rows. Default: never; see
    /// [`Replica::verify`](super::Replica::verify).
    pub self_check: Option<Duration>,
    /// The unique id under which writers can wait for this replica; see
    /// [`Database::barrier`](crate::Database::barrier). Default: none; writers do not wait for it.
    pub id: Option<Name>,
    /// The options of its registration under the id. Without a hook of its own it has the replica's. Default: those of
    /// [`RegistryOptions`].
    pub registry: RegistryOptions,
    /// Called with every failure in the background, every row that does not decode, every store that went back, and
    /// every difference found by a comparison. Default: none; all of them are logged in any case.
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
