//! How long what is received now was on its way, compared with what came when the way was free.

use std::time::{Duration, Instant};

/// The clocks of two machines may drift apart by a thousandth.
const DRIFT: u32 = 1_000;

/// Compares when hellos and answers come with when their publisher says that it said them, by its own clock. No two clocks
/// are ever compared: only by how much more one of them has gone on.
#[derive(Debug, Default)]
pub(super) struct Delay {
    /// When what was least delayed came, and when its publisher said it.
    least: Option<(Instant, Duration)>,
    /// That was on its way for at most so long: less than an answer and its question together.
    bound: Option<Duration>,
}

impl Delay {
    /// An answer came now that was said at this time of its publisher, so long after it was asked for.
    pub(super) fn answer(&mut self, said: Duration, took: Duration, now: Instant) {
        self.late(said, now);
        self.bound = Some(self.bound.map_or(took, |bound| bound.min(took)));
    }

    /// Something came now that was said at this time of its publisher: how long it was on its way, at most. Without an answer
    /// before nobody knows: what came so far may all have stood behind one backlog.
    pub(super) fn hear(&mut self, said: Duration, now: Instant) -> Option<Duration> {
        let late = self.late(said, now);
        self.bound.map(|bound| late + bound)
    }

    /// How much longer it was on its way than what was least delayed.
    fn late(&mut self, said: Duration, now: Instant) -> Duration {
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
        delay.answer(millis(5_000), Duration::ZERO, start);
        let mut late = |said, heard| delay.hear(millis(said), start + millis(heard)).unwrap();
        assert_eq!(late(6_000, 1_000), Duration::ZERO);
        assert_eq!(late(7_000, 5_000), millis(3_000));
        assert_eq!(late(8_000, 6_000), millis(3_000), "a backlog that stays");
        assert_eq!(late(12_000, 7_004), Duration::ZERO);
        // A clock that is slower by a part in ten thousand, for a day.
        for hour in 1..24 {
            assert_eq!(
                late(12_000 + hour * 3_600_000, 7_004 + hour * 3_600_360),
                Duration::ZERO
            );
        }
        // It began anew.
        assert_eq!(late(1, 100_000_000), Duration::ZERO);
    }

    #[test]
    fn only_an_answer_says_how_long_the_way_is() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut delay = Delay::default();
        assert_eq!(delay.hear(millis(1_000), start), None);
        assert_eq!(delay.hear(millis(2_000), start + millis(1_000)), None);
        delay.answer(millis(3_000), millis(40), start + millis(1_500));
        assert_eq!(delay.hear(millis(4_000), start + millis(2_500)), Some(millis(40)));
        assert_eq!(delay.hear(millis(5_000), start + millis(4_000)), Some(millis(540)));
        delay.answer(millis(6_000), millis(900), start + millis(5_000));
        assert_eq!(delay.hear(millis(7_000), start + millis(5_500)), Some(millis(40)));
    }
}
