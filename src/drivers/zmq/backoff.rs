//! The wait before an ended connection is begun anew.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double, each shortened by up to a half at random, so that many peers do not come back together.
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        let first = first.clamp(SHORTEST, LONGEST);
        Backoff {
            first,
            longest: longest.clamp(first, LONGEST),
            next: first,
        }
    }

    /// Returns the wait that is due now.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        let random = RandomState::new().hash_one(0) as u32;
        wait.mul_f64(1.0 - 0.5 * f64::from(random) / f64::from(u32::MAX))
    }

    /// Called after a connection has lasted for `time`. Returns true if that is long enough for the waits to begin
    /// anew.
    pub(super) fn lasted(&mut self, time: Duration) -> bool {
        let enough = time >= self.next;
        if enough {
            self.next = self.first;
        }
        enough
    }
}

/// A shorter wait would only keep a processor busy.
const SHORTEST: Duration = Duration::from_millis(1);

const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        for longest in [100, 200, 400, 800, 1000, 1000].map(ms) {
            let wait = backoff.wait();
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
        }
        assert!(!backoff.lasted(ms(999)));
        assert!(backoff.wait() >= ms(500));
        assert!(backoff.lasted(ms(1000)));
        assert!(backoff.wait() <= ms(100));
    }

    #[test]
    fn waits_differ() {
        let waits = std::iter::repeat_with(|| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).wait());
        let waits: std::collections::HashSet<_> = waits.take(10).collect();
        assert!(waits.len() > 1);
    }

    #[test]
    fn every_duration_will_do() {
        for first in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for longest in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let mut backoff = Backoff::new(first, longest);
                for _ in 0..100 {
                    assert!(backoff.wait() >= SHORTEST / 2);
                }
            }
        }
    }
}
