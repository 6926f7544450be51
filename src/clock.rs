//! The time as a subscriber and a publisher count it: it goes on while the host is suspended.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A time that no deadline outlives.
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The time now. [`Instant::now`] stands still while the host sleeps, so an age taken with it may be too small, and a
/// moment computed from it too early.
pub(crate) fn now() -> Instant {
    static BASE: OnceLock<(Instant, Duration)> = OnceLock::new();
    let time = since_boot();
    let (base, at_base) = BASE.get_or_init(|| (Instant::now(), time));
    *base + time.saturating_sub(*at_base)
}

/// `time` after `now`; one beyond the range of the clock, such as [`Duration::MAX`], means in a century.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or_else(|| now + CENTURY)
}

/// The time since boot, sleep included.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_with_the_system_s() {
        let (ours, system) = (now(), Instant::now());
        let (ours_later, system_later) = (now(), Instant::now());
        assert!(ours_later >= ours);
        assert!(ours_later - ours <= system_later.saturating_duration_since(system) + Duration::from_secs(1));
        assert_eq!(after(ours, Duration::MAX), ours + CENTURY);
    }
}
