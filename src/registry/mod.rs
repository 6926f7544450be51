//! Members: rows that their owners renew, and by which others judge them.
//!
//! - A [`Registration`] keeps a row in a table of the store: it creates the row, renews it at a third of the timeout,
//!   with jitter, and deletes it when it stops. None of this is published. If it stops before all observers can have
//!   seen it, it marks its row as leaving instead, and an observer removes the row later.
//! - A [`Watch`] reads the table periodically and reports the members. Each write gives a row a new version, so a row
//!   whose version stays the same for the timeout has an owner that is gone. The time is the observer's own, and counts
//!   only while it looks, and while the store can be read and written; no two clocks are compared. The first observer
//!   to notice removes the row, but only in the version that it saw: a row renewed meanwhile stays.
//! - A [`Discovery`] makes a [`Subscriber`](crate::Subscriber) follow the publishers of a table.
//!
//! If the store went back to an earlier state, by `FLUSHALL` or an older file, no process has removed the missing rows:
//! their owners count as present for the timeout, within which the live ones write their rows again.
//!
//! A member that was declared dead, for example because its process was stopped for long, registers again with its next
//! renewal.

mod discovery;
mod registration;
mod roster;
mod watch;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::split_key;
use crate::error::{Error, ErrorHook, ErrorKind, Result};
use crate::store::Row;
use crate::update::Name;

pub use discovery::Discovery;
pub use registration::Registration;
pub use roster::{Presence, PresenceState};
pub use watch::Watch;

/// The table of registered publishers.
pub const PUBLISHERS: &str = "publisher";

/// The contents of a member's row; the row's key is the member's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The id, unique among running members, and the same after a restart.
    #[serde(skip)]
    pub id: String,
    /// The epoch of its run; later runs have higher ones.
    pub epoch: u64,
    /// Its address: a publisher's listen address, with its public key if it has one.
    pub address: String,
    /// Its role, if it has one; a subscriber may follow only some roles.
    #[serde(default)]
    pub role: String,
    /// Its load at the last renewal.
    #[serde(default)]
    pub load: Load,
    /// True if it is stopping and accepts no new work, or has just ended.
    #[serde(default)]
    pub leaving: bool,
    /// Other data, by kind of member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The load of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Updates handled, or sent, since it began.
    pub handled: u64,
    /// Updates waiting.
    pub waiting: u64,
}

impl Member {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the row is not a member's.
    pub fn from_row(row: &Row) -> Result<Member> {
        let member: Member = serde_json::from_str(&row.value).map_err(|e| {
            let context = format!("row {:?} does not describe a member", row.key);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })?;
        Ok(Member {
            id: row.key.to_string(),
            ..member
        })
    }

    /// True if the address states the public key by which the publisher proves who it is.
    pub fn is_authenticated(&self) -> bool {
        split_key(&self.address).1.is_some()
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

/// The times of the registry.
#[derive(Clone)]
pub struct RegistryOptions {
    /// The time without a renewal after which a member counts as gone; at least 10 ms. The same for all processes that
    /// share a table. Default: 30 s.
    pub timeout: Duration,
    /// The interval at which observers read the table, but at least four times within the timeout, and at most every
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

/// Stores need this long to be written and read.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);

/// The least interval at which tables are read.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

impl RegistryOptions {
    /// The interval at which the table is read.
    pub(crate) fn look(&self) -> Duration {
        self.interval.min(self.timeout / 4).max(MIN_INTERVAL)
    }

    /// Refuses a timeout within which no member could renew its row.
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

/// A row's key and version, as seen.
type Version = (Name, u64);
