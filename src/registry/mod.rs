//! Members: rows that their owners renew, and the judgement of others about them.
//!
//! - A [`Registration`] keeps a row in a table of the store: it creates the row, writes it again at a third of the
//!   timeout, with jitter, and deletes it when it stops. Nothing of this is published. One that stops before all can
//!   have seen it leaves its row, marked as leaving, to the observer that removes those of the dead.
//! - A [`Watch`] reads the table again and again and reports the members. Each write gives a row another version, so a
//!   row whose version stays the same for the timeout has an owner that is gone. The time is the observer's own, and
//!   counts only while it looks, and while the store can be read and written; no two clocks are compared. The first
//!   observer to notice removes the row, only in the version that was seen: one that its owner wrote meanwhile stays.
//! - A [`Discovery`] makes a [`Subscriber`](crate::Subscriber) follow the publishers of such a table.
//!
//! If the store went back to an earlier state, by `FLUSHALL` or an older file, the missing rows were not removed by any
//! process: their owners count as there for the timeout, within which those that live write their rows again.
//!
//! A member that was taken for dead, for example because its process was stopped for long, registers again with its
//! next renewal.

mod discovery;
mod registration;
mod roster;
mod watch;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorHook, ErrorKind, Result};
use crate::store::Row;
use crate::update::Name;

pub use discovery::Discovery;
pub use registration::Registration;
pub use roster::{Presence, PresenceState};
pub use watch::Watch;

/// The table in which publishers are registered.
pub const PUBLISHERS: &str = "publisher";

/// Contents of a row about its owner; the row's key is the owner's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Unique among those that run at a time, and the same after a restart.
    #[serde(skip)]
    pub id: String,
    /// Which run of it; later runs have higher ones.
    pub epoch: u64,
    /// Its address: a publisher's listen address.
    pub address: String,
    /// Its role, if it has one: a subscriber may follow some roles only.
    #[serde(default)]
    pub role: String,
    /// Load when it last renewed the row.
    #[serde(default)]
    pub load: Load,
    /// It is about to end, and takes nothing new, or has just ended.
    #[serde(default)]
    pub leaving: bool,
    /// Other data, by kind of member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Load of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Number of updates that it has handled, or sent, since it began.
    pub handled: u64,
    /// Number of updates that wait.
    pub waiting: u64,
}

impl Member {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if this is no row of a member.
    pub fn from_row(row: &Row) -> Result<Member> {
        let member: Member = serde_json::from_str(&row.value).map_err(|e| {
            let context = format!("row {:?} describes no member", row.key);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })?;
        Ok(Member {
            id: row.key.to_string(),
            ..member
        })
    }

    fn to_value(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a member").with_source(e))
    }

    /// True if this is the same run at the same place.
    fn is_run_of(&self, other: &Member) -> bool {
        self.epoch == other.epoch && self.address == other.address
    }
}

/// Times of the registry.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Time after which a member that has not renewed its row is gone; at least 10 ms. The same for all that share a
    /// table. Default: 30 s.
    pub timeout: Duration,
    /// Interval at which followers read the table, but at least four times within the timeout, and at most every
    /// millisecond. Default: 1 s.
    pub interval: Duration,
    /// Called with every failure. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            timeout: Duration::from_secs(30),
            interval: Duration::from_secs(1),
            hook: None,
        }
    }
}

/// Within less no store is written and read.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);

/// Tables are read no more often than that.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

impl RegistryOptions {
    /// How often the table is read.
    pub(crate) fn look(&self) -> Duration {
        self.interval.min(self.timeout / 4).max(MIN_INTERVAL)
    }

    /// Refuses a time within which no member could renew its row.
    fn check(&self) -> Result<()> {
        if self.timeout >= MIN_TIMEOUT {
            return Ok(());
        }
        let context = format!(
            "timeout of the registry: expected at least {MIN_TIMEOUT:?}, got {:?}",
            self.timeout
        );
        Err(Error::new(ErrorKind::Config, context))
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOptions")
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// A row as it was seen.
type Version = (Name, u64);
