//! The number of subscribers, as threads read it and wait for it.

use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The subscribers of a sending end.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// The driver knows them.
    is_known: bool,
    count: Mutex<usize>,
    changed: Condvar,
}

impl Crowd {
    pub(super) fn new(is_known: bool) -> Crowd {
        Crowd {
            is_known,
            count: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    /// Their number, where the driver knows.
    pub(crate) fn count(&self) -> Option<usize> {
        self.is_known.then(|| *self.count.lock())
    }

    /// Wakes those that wait, even if the number is the same: a subscriber may have subscribed to more.
    pub(super) fn set(&self, count: usize) {
        *self.count.lock() = count;
        self.changed.notify_all();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock()
    }

    /// Waits for the next change. Returns false if none came in time.
    pub(super) fn wait(&self, count: &mut MutexGuard<'_, usize>, deadline: Instant) -> bool {
        !self.changed.wait_until(count, deadline).timed_out()
    }
}
