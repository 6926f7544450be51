//! The topics that peers have subscribed to, and how much memory they take.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

// Keys are hashes already, with a random key.
use hashbrown::{HashMap, HashSet};

/// The topics with at least one subscription.
#[derive(Debug, Default)]
pub(super) struct Topics {
    all: HashMap<u64, Topic>,
    /// The charge for all.
    total: usize,
    /// The part of it that stands for topics which an unknown peer had, and that a peer has given up.
    spent: usize,
    /// There was an unknown peer with a topic.
    had_nameless: bool,
    /// What each known connection has.
    of: HashMap<u32, Held>,
    /// When the charge was first found too high.
    exceeded: Option<Instant>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Topic {
    charge: usize,
    /// The connection that was the first to subscribe to it.
    first: Option<u32>,
    /// The number of known connections that have it.
    holders: u32,
    /// An unknown peer has subscribed to it.
    is_nameless: bool,
    /// An unknown peer, or a connection that is closed, has given it up.
    is_given_up: bool,
}

/// The topics of a connection, and the charge for them: as a whole for those that it was the first to subscribe to.
#[derive(Debug, Default)]
struct Held {
    charge: usize,
    topics: HashSet<u64>,
}

/// The most that all topics together may be charged, in bytes; libzmq takes about 35 times as much memory.
pub(super) const MAX_CHARGE: usize = 16 << 20;

/// The charge for a topic beyond its length.
const EACH: usize = 32;

/// The charge for each known connection that has a topic.
const HOLDER: usize = 1;

/// The least charge for which a connection is ended.
const LEAST: usize = MAX_CHARGE / 128;

/// How long the charge may be too high before the connection with the highest is ended, and before all are, since none
/// has a high one. The topics of a closed connection are removed a moment after its end.
const PATIENCE: Duration = Duration::from_millis(100);
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// The time in which an ended connection closes and its topics are removed.
const REST: Duration = Duration::from_secs(1);

impl Topics {
    /// Adds a topic that this connection, if it is known, has subscribed to.
    pub(super) fn add(&mut self, topic: &[u8], connection: Option<u32>) {
        let hash = self.hasher.hash_one(topic);
        let mut charge = 0;
        let topic = self.all.entry(hash).or_insert_with(|| {
            charge = topic.len() + EACH;
            Topic {
                charge,
                first: connection,
                holders: 0,
                is_nameless: false,
                is_given_up: false,
            }
        });
        topic.is_given_up = false;
        match connection {
            Some(connection) => {
                let held = self.of.entry(connection).or_default();
                if held.topics.insert(hash) {
                    topic.holders += 1;
                    charge += HOLDER;
                }
                held.charge += charge;
            }
            None => (topic.is_nameless, self.had_nameless) = (true, true),
        }
        self.total += charge;
    }

    /// Called when libzmq says that this connection has given up a topic. It says so if no other has it, but also of a
    /// connection that never had it.
    pub(super) fn remove(&mut self, topic: &[u8], connection: u32) {
        let hash = self.hasher.hash_one(topic);
        if let Some(held) = self.of.get_mut(&connection)
            && held.topics.remove(&hash)
        {
            held.charge = held.charge.saturating_sub(HOLDER);
            self.release(hash, connection);
            self.forget(hash, true);
        }
    }

    /// As [`Topics::remove`], for a connection that is closed, or that never had a topic.
    pub(super) fn given_up_late(&mut self, topic: &[u8]) {
        let hash = self.hasher.hash_one(topic);
        if self.all.get(&hash).is_some_and(|topic| !topic.is_nameless) {
            self.forget(hash, true);
        }
    }

    /// Called when libzmq says that an unknown peer, or a connection that was closed, was the last to give up a topic.
    /// An unknown peer may never have had it.
    pub(super) fn given_up(&mut self, topic: &[u8]) {
        let hash = self.hasher.hash_one(topic);
        self.forget(hash, true);
    }

    /// Called when a connection is closed; libzmq gives up its topics one by one, as far as no other has them.
    pub(super) fn closed(&mut self, connection: u32) {
        for hash in self.of.remove(&connection).unwrap_or_default().topics {
            self.release(hash, connection);
            self.forget(hash, false);
        }
    }

    /// Called when there is no unknown peer: those that were have taken their topics along.
    pub(super) fn all_known(&mut self) {
        self.total -= std::mem::take(&mut self.spent);
        if std::mem::take(&mut self.had_nameless) {
            self.all.retain(|_, topic| {
                topic.is_nameless = false;
                let is_held = topic.holders > 0;
                self.total -= if is_held { 0 } else { topic.charge };
                is_held
            });
        }
    }

    fn release(&mut self, hash: u64, connection: u32) {
        let Some(topic) = self.all.get_mut(&hash) else {
            return;
        };
        topic.holders -= 1;
        self.total -= HOLDER;
        // The descriptor may be another connection's next.
        if topic.first.take_if(|first| *first == connection).is_some()
            && let Some(held) = self.of.get_mut(&connection)
        {
            held.charge = held.charge.saturating_sub(topic.charge);
        }
    }

    /// Removes a topic that was given up, now or before, and that no known connection has.
    fn forget(&mut self, hash: u64, is_given_up: bool) {
        let Some(topic) = self.all.get_mut(&hash) else {
            return;
        };
        topic.is_given_up |= is_given_up;
        if !topic.is_given_up || topic.holders > 0 {
            return;
        }
        match topic.is_nameless {
            // One unknown peer may have it, and another may have given it up.
            true => self.spent += topic.charge,
            false => self.total -= topic.charge,
        }
        self.all.remove(&hash);
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
        let largest = self.of.iter().max_by_key(|(_, held)| held.charge);
        let largest = largest.filter(|(_, held)| held.charge >= LEAST);
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
        // What another has brought hardly counts.
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
        topics.given_up(&large(1));
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
        topics.given_up(&vec![0; MAX_CHARGE]);
        assert_eq!(topics.excess(start + 2 * LONG_PATIENCE), None);
        topics.add(&vec![1; MAX_CHARGE], None);
        assert_eq!(topics.excess(start + 3 * LONG_PATIENCE), None);
    }

    #[test]
    fn only_who_has_a_topic_gives_it_up() {
        let mut topics = Topics::default();
        topics.add(b"a", Some(1));
        topics.add(b"a", Some(1));
        topics.remove(b"a", 2);
        assert!(topics.contains(b"a"));
        topics.given_up(b"a");
        assert!(topics.contains(b"a"), "an unknown peer never had it");
        topics.remove(b"a", 1);
        assert!(!topics.contains(b"a"));
        // A connection that is closed has given it up before.
        topics.add(b"a", Some(1));
        topics.closed(1);
        topics.given_up_late(b"a");
        assert!(!topics.contains(b"a"));
        // libzmq's word may come before that of the closed connection, or after.
        for is_closed_first in [true, false] {
            topics.add(b"b", Some(1));
            match is_closed_first {
                true => topics.closed(1),
                false => topics.given_up(b"b"),
            }
            assert!(topics.contains(b"b"));
            match is_closed_first {
                true => topics.given_up(b"b"),
                false => topics.closed(1),
            }
            assert!(!topics.contains(b"b"));
        }
        assert_eq!(
            (topics.total, topics.of.values().map(|held| held.charge).sum::<usize>()),
            (0, 0)
        );
    }

    #[test]
    fn each_connection_is_charged_for_what_others_have_too() {
        let (mut topics, start) = (Topics::default(), Instant::now());
        let mut connection = 0;
        while topics.total <= MAX_CHARGE {
            connection += 1;
            (0..200_000_u32).for_each(|topic| topics.add(&topic.to_le_bytes(), Some(connection)));
            assert!(connection < 100);
        }
        assert_eq!(topics.excess(start), None);
        assert!(matches!(topics.excess(start + PATIENCE), Some(Some(_))));
        topics.remove(&0_u32.to_le_bytes(), 1);
        (1..=connection).for_each(|connection| topics.closed(connection));
        (0..200_000_u32).for_each(|topic| topics.given_up(&topic.to_le_bytes()));
        assert_eq!((topics.total, topics.all.len(), topics.of.len()), (0, 0, 0));
    }

    /// Two that libzmq does not name: one subscribes, and the other gives up what it never had.
    #[test]
    fn what_an_unknown_peer_may_still_have_stays_charged_until_none_is_left() {
        let mut topics = Topics::default();
        for number in 0..10_u8 {
            topics.add(&[number], None);
            topics.given_up(&[number]);
        }
        assert!(!topics.contains(&[0]));
        assert_eq!(topics.total, 10 * (1 + EACH));
        // A known connection has one too, and gives it up last.
        topics.add(b"both", None);
        topics.add(b"both", Some(7));
        topics.closed(7);
        topics.given_up_late(b"both");
        topics.add(b"known", Some(8));
        topics.all_known();
        assert_eq!((topics.total, topics.all.len()), (5 + EACH + HOLDER, 1));
    }
}
