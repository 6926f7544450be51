//! How long what is received now was on its way, compared with what came when the way was free.

use std::time::{Duration, Instant};

/// The clocks of two machines may drift apart by a thousandth.
const DRIFT: u32 = 1_000;

/// Compares when hellos come with when their publisher says that it said them, by its own clock. No two clocks are ever
/// compared: only by how much more one of them has gone on.
#[derive(Debug, Default)]
pub(super) struct Delay {
    /// When what was least delayed came, and when its publisher said it.
    least: Option<(Instant, Duration)>,
}

impl Delay {
    /// Something came now that was said at this time of its publisher: how long it was on its way, beyond the least.
    pub(super) fn hear(&mut self, said: Duration, now: Instant) -> Duration {
        let Some((heard, first)) = self.least.filter(|(_, first)| said >= *first) else {
            self.least = Some((now, said));
            return Duration::ZERO;
        };
        let (ours, theirs) = (now.saturating_duration_since(heard), said - first);
        let late = ours.saturating_sub(theirs);
        if late <= theirs / DRIFT {
            self.least = Some((now, said));
            return Duration::ZERO;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delayed_is_seen_and_drift_is_not() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut delay = Delay::default();
        assert_eq!(delay.hear(millis(5_000), start), Duration::ZERO);
        assert_eq!(delay.hear(millis(6_000), start + millis(1_000)), Duration::ZERO);
        assert_eq!(delay.hear(millis(7_000), start + millis(5_000)), millis(3_000));
        assert_eq!(
            delay.hear(millis(8_000), start + millis(6_000)),
            millis(3_000),
            "a backlog that stays"
        );
        assert_eq!(delay.hear(millis(12_000), start + millis(7_004)), Duration::ZERO);
        // A clock that is slower by a part in ten thousand, for a day.
        for hour in 1..24 {
            let said = millis(12_000 + hour * 3_600_000);
            let heard = start + millis(7_004 + hour * 3_600_360);
            assert_eq!(delay.hear(said, heard), Duration::ZERO);
        }
        // It began anew.
        assert_eq!(
            delay.hear(millis(1), start + Duration::from_secs(100_000)),
            Duration::ZERO
        );
    }
}
