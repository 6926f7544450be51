//! The time of the send in progress, watched from outside, so that sending needs no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The sends of one thread.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Counts begins and ends: odd during a send.
    count: AtomicU64,
    /// The count at the last look, and when it was first seen.
    seen: Mutex<Option<(u64, Instant)>>,
}

/// A send in progress.
pub(super) struct Sending<'a>(&'a Progress);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The time that a send may take beyond its limit.
const SLACK: Duration = Duration::from_secs(1);

impl Progress {
    /// Notes that a send begins; it ends as the result is dropped.
    pub(super) fn begin(&self) -> Sending<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        Sending(self)
    }

    /// True during a send that was first seen no longer ago than its time limit and a second.
    pub(super) fn is_sending(&self, limit: Duration, now: Instant) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        if count.is_multiple_of(2) {
            return false;
        }
        let mut seen = self.seen.lock();
        let before = seen.filter(|(before, _)| *before == count);
        let (_, since) = *seen.insert(before.unwrap_or((count, now)));
        now.saturating_duration_since(since) <= limit.saturating_add(SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_life_for_as_long_as_it_may_take() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let limit = Duration::from_secs(5);
        let progress = Progress::default();
        assert!(!progress.is_sending(limit, start));
        let sending = progress.begin();
        assert!(progress.is_sending(limit, start));
        assert!(progress.is_sending(limit, at(6_000)));
        assert!(!progress.is_sending(limit, at(6_001)), "it hangs");
        drop(sending);
        assert!(!progress.is_sending(limit, at(6_002)));
        let _sending = progress.begin();
        assert!(progress.is_sending(limit, at(7_000)), "another one");
        assert!(progress.is_sending(Duration::MAX, at(70_000)));
    }
}
