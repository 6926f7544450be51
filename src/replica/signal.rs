//! Waiting for something to become true that others change.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Wakes those who wait; it costs next to nothing while there are none.
#[derive(Default)]
pub(super) struct Signal {
    waiting: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    /// Something has changed.
    pub(super) fn notify(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let _lock = self.lock.lock();
            self.changed.notify_all();
        }
    }

    /// Waits until this is true; false if it is not by `deadline`.
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
