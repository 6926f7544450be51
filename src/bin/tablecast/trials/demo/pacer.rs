//! Limits the writers, since PUB/SUB does not hold them back, and drops updates that a subscriber is too slow for.

use std::collections::BTreeMap;
use std::time::Duration;

/// The most updates under way to a subscriber. Every buffer in between holds more; a larger window would only add
/// waiting.
const WINDOW: u64 = 4_000;

#[derive(Debug)]
pub(super) struct Pacer {
    writers: Vec<Writer>,
    subscribers: Vec<Subscriber>,
    /// The most updates a second from all writers together.
    rate: Option<u64>,
}

#[derive(Debug, Default)]
struct Writer {
    granted: u64,
    sent: BTreeMap<String, u64>,
    done: bool,
}

#[derive(Debug)]
struct Subscriber {
    topics: Vec<String>,
    delivered: u64,
}

impl Writer {
    fn sent(&self) -> u64 {
        self.sent.values().sum()
    }
}

impl Pacer {
    /// A pacer for this many writers, and for subscribers of these topics.
    pub(super) fn new(writers: usize, subscribers: &[Vec<String>], rate: Option<u64>) -> Pacer {
        let subscriber = |topics: &Vec<String>| Subscriber {
            topics: topics.clone(),
            delivered: 0,
        };
        Pacer {
            writers: (0..writers).map(|_| Writer::default()).collect(),
            subscribers: subscribers.iter().map(subscriber).collect(),
            rate,
        }
    }

    /// Takes a writer's numbers of updates sent on each topic; returns true if they are new.
    pub(super) fn sent(&mut self, writer: usize, sent: BTreeMap<String, u64>, done: bool) -> bool {
        let writer = &mut self.writers[writer];
        let news = writer.sent != sent || writer.done != done;
        (writer.sent, writer.done) = (sent, done);
        if done {
            writer.granted = writer.sent();
        }
        news
    }

    /// Takes a subscriber's number of updates received; returns true if it is new.
    pub(super) fn delivered(&mut self, subscriber: usize, delivered: u64) -> bool {
        let subscriber = &mut self.subscribers[subscriber];
        std::mem::replace(&mut subscriber.delivered, delivered) != delivered
    }

    /// Returns the writers that may go on, and up to how many updates, `elapsed` after the start.
    pub(super) fn grants(&mut self, elapsed: Duration) -> Vec<(usize, u64)> {
        let active = self.writers.iter().filter(|writer| !writer.done).count() as u64;
        let in_flight = self
            .subscribers
            .iter()
            .map(|subscriber| self.in_flight(subscriber))
            .max();
        let mut room = WINDOW.saturating_sub(in_flight.unwrap_or(0));
        if let Some(rate) = self.rate {
            let granted: u64 = self.writers.iter().map(|writer| writer.granted).sum();
            let allowed = (rate as f64 * elapsed.as_secs_f64()) as u64;
            room = room.min(allowed.saturating_sub(granted));
        }
        let share = room.checked_div(active).unwrap_or(0);
        if share == 0 {
            return Vec::new();
        }
        let active = self.writers.iter_mut().enumerate().filter(|(_, writer)| !writer.done);
        let grant = |(number, writer): (usize, &mut Writer)| {
            writer.granted += share;
            (number, writer.granted)
        };
        active.map(grant).collect()
    }

    /// The most updates under way to this subscriber: any that a writer has not reported yet may be for it.
    fn in_flight(&self, subscriber: &Subscriber) -> u64 {
        let unreported = self
            .writers
            .iter()
            .map(|writer| writer.granted.saturating_sub(writer.sent()));
        (unreported.sum::<u64>() + self.sent_to(subscriber)).saturating_sub(subscriber.delivered)
    }

    fn sent_to(&self, subscriber: &Subscriber) -> u64 {
        let sent = self.writers.iter().flat_map(|writer| &writer.sent);
        let wanted = sent.filter(|(topic, _)| subscriber.topics.contains(topic));
        wanted.map(|(_, sent)| sent).sum()
    }

    /// True when the writers have sent everything and the subscribers have received it.
    pub(super) fn is_done(&self) -> bool {
        let arrived = |subscriber: &Subscriber| subscriber.delivered >= self.sent_to(subscriber);
        self.writers.iter().all(|writer| writer.done) && self.subscribers.iter().all(arrived)
    }

    /// The number of subscribers.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// The number of updates sent by all writers.
    pub(super) fn total_sent(&self) -> u64 {
        self.writers.iter().map(Writer::sent).sum()
    }

    /// The number of updates that each writer has sent on each topic.
    pub(super) fn into_sent(self) -> Vec<BTreeMap<String, u64>> {
        self.writers.into_iter().map(|writer| writer.sent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(topic: &str, updates: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([(topic.to_owned(), updates)])
    }

    #[test]
    fn the_slowest_subscriber_holds_the_writers_back() {
        let mut pacer = Pacer::new(2, &[vec!["a".into(), "b".into()], vec!["b".into()]], None);
        let half = WINDOW / 2;
        assert_eq!(pacer.grants(Duration::ZERO), [(0, half), (1, half)]);
        assert_eq!(pacer.grants(Duration::ZERO), []);
        // Updates on a are not for the second subscriber; the first has received none yet.
        assert!(pacer.sent(0, on("a", half), false));
        assert_eq!(pacer.grants(Duration::ZERO), []);
        assert!(pacer.delivered(0, 1_000));
        assert_eq!(pacer.grants(Duration::ZERO), [(0, half + 500), (1, half + 500)]);
        // A writer that ends early gives its grant back to the others.
        assert!(pacer.sent(0, on("a", half), true));
        assert_eq!(pacer.grants(Duration::ZERO), [(1, half + 1_000)]);
        assert!(pacer.sent(1, on("b", half + 1_000), true) && !pacer.sent(1, on("b", half + 1_000), true));
        assert!(pacer.delivered(0, WINDOW + 1_000) && !pacer.is_done());
        assert!(pacer.delivered(1, half + 1_000) && pacer.is_done());
        assert_eq!(
            (pacer.total_sent(), pacer.grants(Duration::ZERO)),
            (WINDOW + 1_000, vec![])
        );
    }

    #[test]
    fn the_rate_holds_the_writers_back() {
        let mut pacer = Pacer::new(2, &[vec!["a".into()]], Some(100));
        assert_eq!(pacer.grants(Duration::from_millis(15)), []);
        assert_eq!(pacer.grants(Duration::from_millis(50)), [(0, 2), (1, 2)]);
        assert_eq!(pacer.grants(Duration::from_millis(60)), [(0, 3), (1, 3)]);
    }
}
