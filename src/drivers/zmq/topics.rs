//! The topics that peers have subscribed to, and how much memory they take.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The topics with at least one subscription.
#[derive(Debug, Default)]
pub(super) struct Topics {
    all: HashMap<u64, Topic>,
    /// The charge for all.
    total: usize,
    /// The charge for those that each connection was the first to subscribe to.
    of: HashMap<u32, usize>,
    /// When the charge was first found too high.
    exceeded: Option<Instant>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Topic {
    charge: usize,
    first: Option<u32>,
}

/// The most that all topics together may be charged, in bytes; libzmq takes about 35 times as much memory.
pub(super) const MAX_CHARGE: usize = 16 << 20;

/// The charge for a topic beyond its length.
const EACH: usize = 32;

/// The least charge for which a connection is ended.
const LEAST: usize = MAX_CHARGE / 64;

/// How long the charge may be too high before the connection with the highest is ended, and before all are, since none
/// has a high one. The topics of a closed connection are removed a moment after its end.
const PATIENCE: Duration = Duration::from_millis(100);
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// The time in which an ended connection closes and its topics are removed.
const REST: Duration = Duration::from_secs(1);

impl Topics {
    /// Adds a topic that this connection, if it is known, has subscribed to.
    pub(super) fn add(&mut self, topic: &[u8], connection: Option<u32>) {
        let charge = topic.len() + EACH;
        if let Entry::Vacant(entry) = self.all.entry(self.hasher.hash_one(topic)) {
            entry.insert(Topic {
                charge,
                first: connection,
            });
            self.total += charge;
            if let Some(connection) = connection {
                *self.of.entry(connection).or_default() += charge;
            }
        }
    }

    /// Removes a topic whose last subscription is gone.
    pub(super) fn remove(&mut self, topic: &[u8]) {
        let Some(Topic { charge, first }) = self.all.remove(&self.hasher.hash_one(topic)) else {
            return;
        };
        self.total -= charge;
        if let Some(of) = first.and_then(|connection| self.of.get_mut(&connection)) {
            // The descriptor may be another connection's by now.
            *of = of.saturating_sub(charge);
        }
    }

    /// Called when a connection is closed; its topics are removed one by one, as far as no other has them.
    pub(super) fn closed(&mut self, connection: u32) {
        self.of.remove(&connection);
    }

    pub(super) fn contains(&self, topic: &[u8]) -> bool {
        self.all.contains_key(&self.hasher.hash_one(topic))
    }

    /// Returns the connection to end, which has brought most topics, or `Some(None)` for all, if there are too many
    /// topics.
    pub(super) fn excess(&mut self, now: Instant) -> Option<Option<u32>> {
        if self.total <= MAX_CHARGE {
            self.exceeded = None;
            return None;
        }
        let since = *self.exceeded.get_or_insert(now);
        let largest = self.of.iter().max_by_key(|(_, charge)| **charge);
        let largest = largest.filter(|(_, charge)| **charge >= LEAST);
        let patience = if largest.is_some() { PATIENCE } else { LONG_PATIENCE };
        if now.saturating_duration_since(since) < patience {
            return None;
        }
        self.exceeded = Some(now + REST);
        Some(largest.map(|(connection, _)| *connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_with_most_topics_is_ended_when_they_are_too_many() {
        let (mut topics, start) = (Topics::default(), Instant::now());
        let large = |number: u8| vec![number; MAX_CHARGE / 4];
        topics.add(b"small", Some(1));
        for number in 0..2 {
            topics.add(&large(number), Some(2));
        }
        // What another has brought does not count.
        topics.add(&large(0), Some(3));
        topics.add(&large(2), Some(3));
        assert_eq!(topics.excess(start), None);
        topics.add(&large(3), Some(1));
        assert_eq!(topics.excess(start), None);
        let end = start + PATIENCE;
        assert_eq!(topics.excess(end), Some(Some(2)));
        // Until its topics are removed, others are not blamed for them.
        topics.closed(2);
        assert_eq!(topics.excess(end + REST), None);
        topics.remove(&large(1));
        assert_eq!(topics.excess(end + REST + PATIENCE), None);
    }

    #[test]
    fn all_connections_are_ended_when_none_has_many_topics() {
        let (mut topics, start) = (Topics::default(), Instant::now());
        topics.add(&vec![0; MAX_CHARGE], Some(1));
        topics.closed(1);
        topics.add(b"small", Some(2));
        assert_eq!(topics.excess(start), None);
        assert_eq!(topics.excess(start + PATIENCE), None);
        assert_eq!(topics.excess(start + LONG_PATIENCE), Some(None));
        assert_eq!(topics.excess(start + LONG_PATIENCE + REST), None);
        // Another excess is one anew.
        topics.remove(&vec![0; MAX_CHARGE]);
        assert_eq!(topics.excess(start + 2 * LONG_PATIENCE), None);
        topics.add(&vec![1; MAX_CHARGE], None);
        assert_eq!(topics.excess(start + 3 * LONG_PATIENCE), None);
    }
}
