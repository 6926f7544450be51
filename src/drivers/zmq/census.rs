//! Connections to a publishing end, and their subscriptions.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::update::Topic;

use super::topics::Topics;

/// Counts subscribers by libzmq's reports of connections and subscriptions.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// The file descriptors of all connections; those of `subscribers` have subscribed to something.
    connections: HashSet<u32>,
    subscribers: HashMap<u32, Subscriber>,
    /// Number of subscribers at each [`Stage`].
    stages: [usize; 3],
    /// Number of subscriptions to each topic by peers of ZMTP 2 and older, whose connections libzmq does not name. A
    /// peer subscribes to a topic once.
    nameless: HashMap<u64, usize>,
    topics: Topics,
    hasher: RandomState,
}

/// The origin of a subscription.
#[derive(Debug)]
pub(super) struct Who {
    /// The file descriptor of the connection; another connection gets it once this one is closed.
    connection: u32,
    /// Address of the message's own copy of it, which all messages of a connection share.
    place: usize,
    /// Keeps that address from being reused for another connection.
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
    stage: Stage,
}

/// What the topics of a subscriber have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It is not known to be of this library. Which of its topics is the last one is not known either.
    Stranger,
    /// It has one of the library's own topics, which all subscribers of tablecast have, and only they. Others follow.
    Ours,
    /// It has subscribed to all its topics: its first probe comes behind them.
    Ready,
}

impl Stage {
    fn shown_by(topic: &[u8]) -> Stage {
        match Topic::is_own(topic) {
            false => Stage::Stranger,
            true if Topic::is_probe(topic) => Stage::Ready,
            true => Stage::Ours,
        }
    }
}

/// Maximum of counted topics of nameless peers; further topics of the same peer do not change the count.
const MAX_NAMELESS: usize = 256;

impl Census {
    pub(super) fn opened(&mut self, connection: u32) {
        self.connections.insert(connection);
    }

    pub(super) fn closed(&mut self, connection: u32) {
        self.connections.remove(&connection);
        self.remove(connection);
        // The closed connection of a nameless peer is not known, but there cannot be more such peers than connections.
        let most = self.others();
        self.nameless.retain(|_, count| {
            *count = most.min(*count);
            *count > 0
        });
    }

    /// Counts a subscription; all earlier reports of connections must have been counted.
    pub(super) fn subscribed(&mut self, who: Option<Who>, topic: &[u8]) {
        match who {
            Some(who) if self.connections.contains(&who.connection) => {
                let connection = who.connection;
                self.know(who, Stage::shown_by(topic));
                self.topics.add(topic, Some(connection));
            }
            // It is closed already, and libzmq gives up its topics next.
            Some(_) => {}
            None => {
                self.topics.add(topic, None);
                let topic = self.hasher.hash_one(topic);
                let most = self.others();
                if self.nameless.len() < MAX_NAMELESS || self.nameless.contains_key(&topic) {
                    let count = self.nameless.entry(topic).or_default();
                    *count = most.min(*count + 1);
                }
            }
        }
    }

    fn know(&mut self, who: Who, stage: Stage) {
        let connection = who.connection;
        let known = self.subscribers.get_mut(&connection);
        if let Some(known) = known.filter(|known| known.who.place == who.place) {
            self.stages[known.stage as usize] -= 1;
            known.stage = known.stage.max(stage);
            self.stages[known.stage as usize] += 1;
            return;
        }
        // The known subscriber was another connection with this number.
        self.remove(connection);
        self.stages[stage as usize] += 1;
        self.subscribers.insert(connection, Subscriber { who, stage });
    }

    fn remove(&mut self, connection: u32) {
        self.topics.closed(connection);
        if let Some(subscriber) = self.subscribers.remove(&connection) {
            self.stages[subscriber.stage as usize] -= 1;
        }
    }

    /// True if a subscriber is not known to be of this library.
    pub(super) fn has_strangers(&self) -> bool {
        self.stages[Stage::Stranger as usize] > 0 || !self.nameless.is_empty()
    }

    /// Notes that libzmq has passed up the end of a subscription to this topic; all earlier reports of connections must
    /// have been counted.
    pub(super) fn unsubscribed(&mut self, who: Option<Who>, topic: &[u8]) {
        let Some(who) = who else {
            return self.topics.given_up(topic);
        };
        let known = self.subscribers.get(&who.connection);
        match known.is_some_and(|known| known.who.place == who.place) {
            true => self.topics.remove(topic, who.connection),
            // It is closed already, or never had a topic.
            false => self.topics.given_up_late(topic),
        }
    }

    /// The number of peers that have subscribed to something; those of this library count once they have subscribed to
    /// all their topics.
    pub(super) fn subscribers(&self) -> usize {
        let nameless = self.nameless.values().max().copied().unwrap_or(0);
        self.subscribers.len() - self.stages[Stage::Ours as usize] + nameless.min(self.others())
    }

    /// True if there is a subscription to exactly this topic.
    pub(super) fn is_subscribed(&self, topic: &[u8]) -> bool {
        self.topics.contains(topic)
    }

    /// Returns the connection to end, or `Some(None)` for all, if the topics take too much memory.
    pub(super) fn excess(&mut self, now: Instant) -> Option<Option<u32>> {
        if self.others() == 0 {
            self.topics.all_known();
        }
        self.topics.excess(now)
    }

    /// The number of connections not known to be a subscriber's.
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
        // This connection is closed already.
        census.subscribed(who(3), b"b");
        assert_eq!(census.subscribers(), 1);
        census.closed(1);
        assert_eq!(census.subscribers(), 0);
    }

    /// Its topics come one by one, and an update on one that is still to come would not reach it.
    #[test]
    fn a_subscriber_of_the_library_counts_once_it_has_all_its_topics() {
        let (mut census, hello) = (Census::default(), Topic::hello());
        let (hello, probe) = (hello.as_str().as_bytes(), Topic::probe(1, 1));
        census.opened(1);
        census.subscribed(who(1), hello);
        census.subscribed(who(1), b"a");
        assert_eq!(census.subscribers(), 0);
        census.subscribed(who(1), probe.as_str().as_bytes());
        census.subscribed(who(1), b"b");
        assert_eq!(census.subscribers(), 1);
        // The next connection with its number has topics of its own.
        census.subscribed(at(1, 1), hello);
        assert_eq!(census.subscribers(), 0);
        census.subscribed(at(1, 1), probe.as_str().as_bytes());
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
        // The subscriber comes back, together with another one.
        census.closed(1);
        assert_eq!(census.subscribers(), 0);
        census.opened(1);
        census.subscribed(None, b"a");
        assert_eq!(census.subscribers(), 1);
        census.opened(2);
        census.subscribed(None, b"a");
        assert_eq!(census.subscribers(), 2);
        // A subscriber of the current protocol, and a stranger without subscriptions.
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
        assert!(census.is_subscribed(b"a"));
        assert!(!census.is_subscribed(b"ab"));
        census.opened(2);
        census.subscribed(who(2), b"b");
        census.unsubscribed(who(2), b"a");
        census.unsubscribed(at(1, 1), b"a");
        census.unsubscribed(None, b"a");
        assert!(census.is_subscribed(b"a"), "only who has it gives it up");
        census.unsubscribed(who(1), b"a");
        assert!(!census.is_subscribed(b"a"));
    }

    /// A connection counts as a stranger's until it subscribes to one of the library's own topics.
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
        // A peer of an old protocol.
        census.opened(3);
        census.subscribed(None, b"a");
        assert!(census.has_strangers());
        census.closed(3);
        assert!(!census.has_strangers());
    }

    /// A descriptor is reused by another connection, and subscriptions of the earlier one may be read late.
    #[test]
    fn a_stranger_is_not_taken_for_who_had_its_number_before() {
        let (mut census, hello) = (Census::default(), Topic::hello());
        let hello = hello.as_str().as_bytes();
        census.opened(1);
        census.subscribed(at(1, 10), hello);
        census.closed(1);
        census.opened(1);
        // From the earlier connection.
        census.subscribed(at(1, 10), hello);
        census.subscribed(at(1, 20), b"a");
        assert!(census.has_strangers());
        census.closed(1);
        assert!(!census.has_strangers());
        census.subscribed(at(1, 20), b"a");
        assert!(!census.has_strangers(), "closed already");
    }
}
