//! A member's own row, as the handle and the thread share it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::member::Load;
use crate::clock;

/// See the [module](self).
pub(super) struct OwnRow {
    pub(super) lease: Mutex<Lease>,
    pub(super) load: Mutex<Load>,
    pub(super) changed: Condvar,
}

/// The state of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// The row was not written yet.
    Wanted,
    /// The start of the last write that is known to have succeeded.
    Held(Instant),
    /// Another process has removed or replaced the row.
    Lost,
}

impl OwnRow {
    pub(super) fn set(&self, lease: Lease) {
        *self.lease.lock() = lease;
        self.changed.notify_all();
    }
}

impl Lease {
    pub(super) fn is_held(self, timeout: Duration) -> bool {
        match self {
            Lease::Held(since) => clock::now().saturating_duration_since(since) < timeout,
            Lease::Wanted | Lease::Lost => false,
        }
    }
}
