//! The times from send to callback.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::histogram::Histogram;
use crate::update::{DbUpdate, now_micros};

/// In a burst one update of this number is measured and stands for all of them, since the system's clock costs as much
/// as a quick callback.
const EACH: u64 = 16;

/// The times from send to callback of all updates from its creation on.
pub(super) struct Lag {
    pub(super) times: Histogram,
    /// The number of the last update that is counted in `times`.
    counted: AtomicU64,
    /// The last measured time, in microseconds.
    last: AtomicU64,
    /// The next update is measured in any case.
    is_idle: AtomicBool,
}

impl Lag {
    /// `taken` is the number of updates before.
    pub(super) fn new(taken: u64) -> Lag {
        Lag {
            times: Histogram::default(),
            counted: AtomicU64::new(taken),
            last: AtomicU64::new(0),
            is_idle: AtomicBool::new(true),
        }
    }

    /// Takes an update as its callbacks are called; the numbers count all updates.
    pub(super) fn take(&self, number: u64, update: &DbUpdate) {
        if number.is_multiple_of(EACH) || self.is_idle.load(Ordering::Relaxed) {
            self.is_idle.store(false, Ordering::Relaxed);
            let micros = now_micros().saturating_sub(update.timestamp);
            let micros = u64::try_from(micros).unwrap_or(0);
            self.last.store(micros, Ordering::Relaxed);
            self.count(number, micros);
        }
    }

    /// Nothing waits after the update of this number.
    pub(super) fn rest(&self, number: u64) {
        self.is_idle.store(true, Ordering::Relaxed);
        self.count(number, self.last.load(Ordering::Relaxed));
    }

    /// Counts the updates up to this number that are not counted yet.
    fn count(&self, number: u64, micros: u64) {
        let counted = self.counted.fetch_max(number, Ordering::Relaxed);
        if number > counted {
            self.times.record_many(micros, number - counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_update_counts_once_measured_or_not() {
        let update = DbUpdate {
            timestamp: now_micros() - 2_000_000,
            ..DbUpdate::new("t", "k", "set".into())
        };
        let lag = Lag::new(5);
        let count = || lag.times.counts().count;
        lag.take(6, &update);
        assert_eq!(count(), 1);
        (7..=15).for_each(|number| lag.take(number, &update));
        assert_eq!(count(), 1);
        lag.take(16, &update);
        assert_eq!(count(), 11);
        lag.take(17, &update);
        lag.rest(17);
        lag.rest(17);
        assert_eq!(count(), 12);
        lag.take(18, &update);
        // One that was overtaken on another thread.
        lag.take(16, &update);
        let counts = lag.times.counts();
        assert_eq!(counts.count, 13);
        assert!((26.0..60.0).contains(&counts.sum), "{}", counts.sum);
    }
}
