//! Waiting for a condition that other threads change.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Wakes waiting threads; it costs next to nothing while there are none.
#[derive(Default)]
pub(super) struct Signal {
    waiting: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    /// Wakes all waiting threads to look again.
    pub(super) fn notify(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let _lock = self.lock.lock();
            self.changed.notify_all();
        }
    }

    /// Waits until `is_true`; returns false if it is not by `deadline`.
    pub(super) fn wait(&self, deadline: Instant, is_true: impl Fn() -> bool) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut lock = self.lock.lock();
        let result = loop {
            if is_true() {
                break true;
            }
            if self.changed.wait_until(&mut lock, deadline).timed_out() {
                break is_true();
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        result
    }
}
