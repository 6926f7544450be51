//! Who is connected to a publishing end, and what was subscribed to there.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// Counts subscribers by what libzmq tells of connections and subscriptions.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// The file descriptors of all connections, and of those that have subscribed to something.
    connections: HashSet<u32>,
    subscribers: HashSet<u32>,
    /// How often each topic was subscribed to by peers of ZMTP 2 and older, of whom libzmq does not say which connection is
    /// theirs. One peer subscribes to a topic once.
    nameless: HashMap<u64, usize>,
    /// The topics that somebody has subscribed to.
    topics: HashSet<u64>,
    hasher: RandomState,
}

/// So many topics of nameless peers are counted: more of one peer add nothing.
const MAX_NAMELESS: usize = 256;

/// So many topics are known; libzmq keeps a hundred times as much of each.
const MAX_TOPICS: usize = 1 << 20;

impl Census {
    pub(super) fn opened(&mut self, connection: u32) {
        self.connections.insert(connection);
    }

    pub(super) fn closed(&mut self, connection: u32) {
        self.connections.remove(&connection);
        self.subscribers.remove(&connection);
        // Whose it was is not known, but there cannot be more of them than connections.
        let most = self.others();
        self.nameless.retain(|_, count| {
            *count = most.min(*count);
            *count > 0
        });
    }

    /// Somebody has subscribed, after all that was told of connections so far.
    pub(super) fn subscribed(&mut self, connection: Option<u32>, topic: &[u8]) {
        let topic = self.hasher.hash_one(topic);
        if self.topics.len() < MAX_TOPICS {
            self.topics.insert(topic);
        }
        match connection {
            // It may be closed already.
            Some(connection) if self.connections.contains(&connection) => {
                self.subscribers.insert(connection);
            }
            Some(_) => {}
            None => {
                let most = self.others();
                if self.nameless.len() < MAX_NAMELESS || self.nameless.contains_key(&topic) {
                    let count = self.nameless.entry(topic).or_default();
                    *count = most.min(*count + 1);
                }
            }
        }
    }

    /// Nobody is subscribed to this any more.
    pub(super) fn unsubscribed(&mut self, topic: &[u8]) {
        self.topics.remove(&self.hasher.hash_one(topic));
    }

    /// How many have subscribed to something.
    pub(super) fn subscribers(&self) -> usize {
        let nameless = self.nameless.values().max().copied().unwrap_or(0);
        self.subscribers.len() + nameless.min(self.others())
    }

    /// Whether somebody has subscribed to exactly this; `None` if there is too much to know.
    pub(super) fn is_subscribed(&self, topic: &[u8]) -> Option<bool> {
        let is_known = self.topics.contains(&self.hasher.hash_one(topic));
        (is_known || self.topics.len() < MAX_TOPICS).then_some(is_known)
    }

    /// The connections that are not known to be a subscriber's.
    fn others(&self) -> usize {
        self.connections.len() - self.subscribers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_are_counted_by_connection() {
        let mut census = Census::default();
        census.opened(1);
        census.opened(2);
        assert_eq!(census.subscribers(), 0);
        census.subscribed(Some(1), b"a");
        census.subscribed(Some(1), b"b");
        // Closed already.
        census.subscribed(Some(3), b"b");
        assert_eq!(census.subscribers(), 1);
        census.closed(1);
        assert_eq!(census.subscribers(), 0);
    }

    #[test]
    fn subscribers_without_a_name_are_counted_by_topic() {
        let mut census = Census::default();
        census.opened(1);
        for topic in [&b""[..], b"a", b"b"] {
            census.subscribed(None, topic);
        }
        assert_eq!(census.subscribers(), 1);
        // It has come back, and another one.
        census.closed(1);
        assert_eq!(census.subscribers(), 0);
        census.opened(1);
        census.subscribed(None, b"a");
        assert_eq!(census.subscribers(), 1);
        census.opened(2);
        census.subscribed(None, b"a");
        assert_eq!(census.subscribers(), 2);
        // One of today, and a stranger who subscribes to nothing.
        census.opened(3);
        census.opened(4);
        census.subscribed(Some(3), b"a");
        assert_eq!(census.subscribers(), 3);
        census.closed(2);
        census.closed(4);
        assert_eq!(census.subscribers(), 2);
        census.closed(1);
        assert_eq!(census.subscribers(), 1);
    }

    #[test]
    fn topics_are_known_while_somebody_has_them() {
        let mut census = Census::default();
        census.opened(1);
        census.subscribed(Some(1), b"a");
        assert_eq!(census.is_subscribed(b"a"), Some(true));
        assert_eq!(census.is_subscribed(b"ab"), Some(false));
        census.unsubscribed(b"a");
        assert_eq!(census.is_subscribed(b"a"), Some(false));
    }
}
