//! Detection of a dead peer by TCP options that libzmq does not set, or only in some builds.

use super::options::ZmqOptions;

/// When the system declares a connection dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keepalive {
    /// An idle connection is checked at this interval, in seconds, and is dead after this many unanswered checks.
    pub(super) interval: u16,
    pub(super) checks: u8,
    /// It is dead if data is not acknowledged for this time, in milliseconds.
    pub(super) user_timeout: u32,
}

/// A stopped or slow receiver acknowledges nothing new; how many times longer it may do so before it is cut off.
const SLOW: u32 = 20;

impl Keepalive {
    pub(super) fn of(options: &ZmqOptions, sends: bool) -> Keepalive {
        // Within the system's limits; its shortest interval is a second.
        let interval = options.heartbeat_interval.as_secs_f64().ceil().clamp(1.0, 32_767.0);
        let checks = (options.heartbeat_timeout.as_secs_f64() / interval)
            .ceil()
            .clamp(1.0, 127.0);
        let timeout = u32::try_from(options.heartbeat_timeout.as_millis()).unwrap_or(u32::MAX);
        let timeout = timeout.max(1).saturating_mul(if sends { SLOW } else { 1 });
        Keepalive {
            interval: interval as u16,
            checks: checks as u8,
            user_timeout: timeout.min(i32::MAX as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keepalive(interval: Duration, timeout: Duration, sends: bool) -> Keepalive {
        let options = ZmqOptions {
            heartbeat_interval: interval,
            heartbeat_timeout: timeout,
            ..ZmqOptions::default()
        };
        Keepalive::of(&options, sends)
    }

    #[test]
    fn seconds_are_rounded_up_and_milliseconds_kept() {
        let ms = Duration::from_millis;
        let expected = |interval, checks, user_timeout| Keepalive {
            interval,
            checks,
            user_timeout,
        };
        assert_eq!(keepalive(ms(1000), ms(3000), false), expected(1, 3, 3000));
        assert_eq!(keepalive(ms(1001), ms(3000), false), expected(2, 2, 3000));
        assert_eq!(keepalive(ms(10), ms(20), false), expected(1, 1, 20));
        assert_eq!(keepalive(ms(1000), ms(3000), true), expected(1, 3, 60_000));
    }

    #[test]
    fn every_duration_is_one_that_the_system_takes() {
        let all = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(3),
            Duration::MAX,
        ];
        for (interval, timeout) in all.iter().flat_map(|interval| all.map(|timeout| (*interval, timeout))) {
            for sends in [false, true] {
                let keepalive = keepalive(interval, timeout, sends);
                assert!((1..=32_767).contains(&keepalive.interval), "{keepalive:?}");
                assert!((1..=127).contains(&keepalive.checks), "{keepalive:?}");
                assert!((1..=i32::MAX as u32).contains(&keepalive.user_timeout), "{keepalive:?}");
            }
        }
    }
}
