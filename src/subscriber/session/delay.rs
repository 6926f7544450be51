//! Estimates how long messages are delayed, relative to the least delayed message.

use std::time::{Duration, Instant};

/// The clocks of two machines may drift apart by a thousandth.
const DRIFT: u32 = 1_000;

/// Compares when hellos and answers arrive with the time their publisher's own clock gives for sending them. Two clocks
/// are never compared, only how far each has advanced.
#[derive(Debug, Default)]
pub(super) struct Delay {
    /// When the least delayed message arrived, and when its publisher sent it.
    least: Option<(Instant, Duration)>,
    /// Upper bound of the delay of that message: less than the round trip of a question and its answer.
    bound: Option<Duration>,
}

impl Delay {
    /// Takes an answer sent at `said` by the publisher's clock and received `took` after its question.
    pub(super) fn answer(&mut self, said: Duration, took: Duration, now: Instant) {
        self.late(said, now);
        self.bound = Some(self.bound.map_or(took, |bound| bound.min(took)));
    }

    /// Takes a message sent at `said` by the publisher's clock. Returns an upper bound of its delay. There is no bound
    /// before the first answer, since everything so far may have stood behind one backlog.
    pub(super) fn hear(&mut self, said: Duration, now: Instant) -> Option<Duration> {
        let late = self.late(said, now);
        self.bound.map(|bound| late + bound)
    }

    /// How much longer the message was delayed than the least delayed one.
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
        // A clock that is slow by one part in ten thousand, for a day.
        for hour in 1..24 {
            assert_eq!(
                late(12_000 + hour * 3_600_000, 7_004 + hour * 3_600_360),
                Duration::ZERO
            );
        }
        // The publisher's clock began anew.
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
