//! The times of the registry.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorHook, ErrorKind, Result};

/// The times of the registry.
#[derive(Clone)]
pub struct RegistryOptions {
    /// The time without a renewal after which a member counts as gone; at least 10 ms. The same for all processes that
    /// share a table. Default: 30 s.
    pub timeout: Duration,
    /// The interval at which observers read the table; a quarter of the timeout if that is shorter, and at least 1 ms.
    /// Default: 1 s.
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
    pub(super) fn check(&self) -> Result<()> {
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

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Observers connect to the member: if it ends before they can have seen it, the row stays, as leaving. A row that
    /// others have removed is written again.
    Followed,
    /// A row that others have removed is written again; the member's end deletes it.
    Present,
    /// The run ends with its row: if others have declared it dead and removed the row, it is not registered again, and
    /// [`is_lost`](super::Registration::is_lost); a row that the store has lost is written again. A registered earlier
    /// run of its id stays registered under another key, as leaving, until it stops or does not renew its row.
    ForOneRun,
}

impl Keep {
    pub(super) fn rejoins(self) -> bool {
        self != Keep::ForOneRun
    }
}
