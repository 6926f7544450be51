//! Updates and their lags, by topic and publisher.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tablecast::{DbUpdate, Name};

/// The most pairs of topic and publisher that are told apart; others are one.
const MAX: usize = 10_000;

/// The topic and the publisher; `None`: it sends no numbers.
pub(crate) type Key = (Name, Option<Name>);

/// Counts since the last time that they were taken.
#[derive(Debug, Default)]
pub(crate) struct Tally(HashMap<Key, Count>);

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Count {
    pub(crate) updates: u64,
    /// Of all updates together.
    lag: Duration,
}

impl Count {
    pub(crate) fn mean_lag(&self) -> Option<Duration> {
        let updates = u32::try_from(self.updates).unwrap_or(u32::MAX);
        self.lag.checked_div(updates)
    }
}

impl Tally {
    pub(crate) fn add(&mut self, update: &DbUpdate, now: SystemTime) {
        let topic = Name::from(update.topic.as_str());
        let mut key = (topic, update.origin.as_ref().map(|origin| origin.publisher.clone()));
        if self.0.len() >= MAX && !self.0.contains_key(&key) {
            key = ("(others)".into(), None);
        }
        let sent = UNIX_EPOCH + Duration::from_micros(u64::try_from(update.timestamp).unwrap_or(0));
        let count = self.0.entry(key).or_default();
        count.updates += 1;
        // A sender's clock may be ahead.
        count.lag += now.duration_since(sent).unwrap_or_default();
    }

    pub(crate) fn take(&mut self) -> HashMap<Key, Count> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_bounded_and_lags_are_means() {
        let mut tally = Tally::default();
        let at = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        let mut update = DbUpdate::new("t", "k", "set".into());
        for (sent, now) in [(100, 200), (100, 400), (500, 400)] {
            update.timestamp = sent;
            tally.add(&update, at(now));
        }
        let counts = tally.take();
        let count = counts[&("D".into(), None)];
        assert_eq!(
            (count.updates, count.mean_lag()),
            (3, Some(Duration::from_nanos(133_333)))
        );
        for n in 0..2 * MAX {
            update.topic = tablecast::Topic::new(format!("t{n}")).unwrap();
            tally.add(&update, at(600));
        }
        let counts = tally.take();
        assert_eq!(counts.len(), MAX + 1);
        assert_eq!(counts[&("(others)".into(), None)].updates, MAX as u64);
        assert!(tally.take().is_empty());
        assert_eq!(Count::default().mean_lag(), None);
    }
}
