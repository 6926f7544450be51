//! Connections to a publishing end, and their subscriptions.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::update::Topic;

/// Counts subscribers by libzmq's reports of connections and subscriptions.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// The file descriptors of all connections, and of those that have subscribed to something.
    connections: HashSet<u32>,
    subscribers: HashMap<u32, Subscriber>,
    /// How many of the subscribers have not shown that they are of this library.
    strangers: usize,
    /// How often each topic was subscribed to by peers of ZMTP 2 and older, whose connections libzmq does not name. One
    /// peer subscribes to a topic once.
    nameless: HashMap<u64, usize>,
    /// The topics with at least one subscription.
    topics: HashSet<u64>,
    hasher: RandomState,
}

/// The origin of a subscription.
#[derive(Debug)]
pub(super) struct Who {
    /// The file descriptor of the connection: another's once it is closed.
    connection: u32,
    /// The message's own copy of that, which is in one place for all messages of a connection.
    place: usize,
    /// Keeps the place from becoming another connection's.
    _message: Option<zmq::Message>,
}

impl Who {
    /// The origin of this message, if it is known.
    pub(super) fn sent(mut message: zmq::Message) -> Option<Who> {
        let (connection, place) = {
            let text = message.gets("__fd")?;
            (text.parse().ok()?, text.as_ptr().addr())
        };
        Some(Who {
            connection,
            place,
            _message: Some(message),
        })
    }
}

#[derive(Debug)]
struct Subscriber {
    who: Who,
    /// It has subscribed to one of the library's own topics, as all of tablecast's subscribers do and no others.
    is_ours: bool,
}

/// Maximum of counted topics of nameless peers: more of one peer add nothing.
const MAX_NAMELESS: usize = 256;

/// Maximum of known topics; libzmq keeps a hundred times as much of each.
const MAX_TOPICS: usize = 1 << 20;

impl Census {
    pub(super) fn opened(&mut self, connection: u32) {
        self.connections.insert(connection);
    }

    pub(super) fn closed(&mut self, connection: u32) {
        self.connections.remove(&connection);
        self.remove(connection);
        // Its connection is not known, but there cannot be more of them than connections.
        let most = self.others();
        self.nameless.retain(|_, count| {
            *count = most.min(*count);
            *count > 0
        });
    }

    /// A subscription, after all earlier reports of connections.
    pub(super) fn subscribed(&mut self, who: Option<Who>, topic: &[u8]) {
        let is_own = Topic::is_own(topic);
        let topic = self.hasher.hash_one(topic);
        if self.topics.len() < MAX_TOPICS {
            self.topics.insert(topic);
        }
        match who {
            // It may be closed already.
            Some(who) if self.connections.contains(&who.connection) => self.know(who, is_own),
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

    fn know(&mut self, who: Who, is_ours: bool) {
        let connection = who.connection;
        let known = self.subscribers.get_mut(&connection);
        if let Some(known) = known.filter(|known| known.who.place == who.place) {
            self.strangers -= usize::from(is_ours && !known.is_ours);
            known.is_ours |= is_ours;
            return;
        }
        // Earlier knowledge of this number was of another connection.
        self.remove(connection);
        self.strangers += usize::from(!is_ours);
        self.subscribers.insert(connection, Subscriber { who, is_ours });
    }

    fn remove(&mut self, connection: u32) {
        if let Some(Subscriber { is_ours: false, .. }) = self.subscribers.remove(&connection) {
            self.strangers -= 1;
        }
    }

    /// True if there is a subscription by a peer that has not shown to be of this library.
    pub(super) fn has_strangers(&self) -> bool {
        self.strangers > 0 || !self.nameless.is_empty()
    }

    /// The last subscription to this topic is gone.
    pub(super) fn unsubscribed(&mut self, topic: &[u8]) {
        self.topics.remove(&self.hasher.hash_one(topic));
    }

    /// How many have subscribed to something.
    pub(super) fn subscribers(&self) -> usize {
        let nameless = self.nameless.values().max().copied().unwrap_or(0);
        self.subscribers.len() + nameless.min(self.others())
    }

    /// True if there is a subscription to exactly this topic; `None` if there are too many to know.
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

    fn who(connection: u32) -> Option<Who> {
        at(connection, 0)
    }

    fn at(connection: u32, place: usize) -> Option<Who> {
        Some(Who {
            connection,
            place,
            _message: None,
        })
    }

    #[test]
    fn subscribers_are_counted_by_connection() {
        let mut census = Census::default();
        census.opened(1);
        census.opened(2);
        assert_eq!(census.subscribers(), 0);
        census.subscribed(who(1), b"a");
        census.subscribed(who(1), b"b");
        // Closed already.
        census.subscribed(who(3), b"b");
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
        // One of today, and a stranger without subscriptions.
        census.opened(3);
        census.opened(4);
        census.subscribed(who(3), b"a");
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
        census.subscribed(who(1), b"a");
        assert_eq!(census.is_subscribed(b"a"), Some(true));
        assert_eq!(census.is_subscribed(b"ab"), Some(false));
        census.unsubscribed(b"a");
        assert_eq!(census.is_subscribed(b"a"), Some(false));
    }

    /// A connection is a stranger's until it subscribes to one of the library's own topics.
    #[test]
    fn strangers_are_those_who_never_ask_for_the_library_s_topics() {
        let (mut census, hello) = (Census::default(), Topic::hello());
        let (hello, probe) = (hello.as_str().as_bytes(), Topic::probe(1, 1));
        census.opened(1);
        census.opened(2);
        census.subscribed(at(1, 10), hello);
        census.subscribed(at(1, 10), b"a");
        assert!(!census.has_strangers());
        census.subscribed(at(2, 20), b"");
        census.subscribed(at(2, 20), b"a");
        assert!(census.has_strangers());
        census.subscribed(at(2, 20), probe.as_str().as_bytes());
        assert!(!census.has_strangers());
        // One of an old protocol.
        census.opened(3);
        census.subscribed(None, b"a");
        assert!(census.has_strangers());
        census.closed(3);
        assert!(!census.has_strangers());
    }

    /// The number of a connection becomes another's, and what it has asked for may be read late.
    #[test]
    fn a_stranger_is_not_taken_for_who_had_its_number_before() {
        let (mut census, hello) = (Census::default(), Topic::hello());
        let hello = hello.as_str().as_bytes();
        census.opened(1);
        census.subscribed(at(1, 10), hello);
        census.closed(1);
        census.opened(1);
        // Of the one before.
        census.subscribed(at(1, 10), hello);
        census.subscribed(at(1, 20), b"a");
        assert!(census.has_strangers());
        census.closed(1);
        assert!(!census.has_strangers());
        census.subscribed(at(1, 20), b"a");
        assert!(!census.has_strangers(), "closed already");
    }
}
