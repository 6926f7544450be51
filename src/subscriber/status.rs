//! State of a subscriber: its addresses, topics and publishers.

use std::fmt;
use std::time::Duration;

use crate::update::{Name, Topic};

/// Result of [`Subscriber::status`](super::Subscriber::status).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStatus {
    /// Every registered listen address.
    pub addresses: Vec<AddressStatus>,
    /// Every registered topic; empty while the subscriber does not run, and without the option `continuity`.
    pub topics: Vec<TopicStatus>,
}

/// State of a listen address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressStatus {
    /// The address as it was registered.
    pub address: Name,
    /// Its state.
    pub state: AddressState,
    /// True if a connection comes about only once the publisher has proven who it is, by a key or a certificate.
    pub authenticates: bool,
}

/// State of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStatus {
    /// The topic.
    pub topic: Topic,
    /// Live if every listen address is live and has confirmed the topic. Stale if the topic is confirmed, but some
    /// address is not live. Otherwise unconfirmed.
    pub state: TopicState,
    /// Publishers heard on it.
    pub publishers: Vec<PublisherStatus>,
}

/// State of a publisher on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStatus {
    /// Its id.
    pub publisher: Name,
    /// Identifies the run of the publisher.
    pub epoch: u64,
    /// Live if its hellos arrive, stale if they have ceased, unconfirmed if it sends none.
    pub state: TopicState,
    /// The last number that was delivered, or declared missing.
    pub last: u64,
    /// Time since something of this publisher was last received.
    pub age: Duration,
}

/// State of a topic: live, or exposed to silent losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TopicState {
    /// Nothing is missed silently.
    Live,
    /// An address is not live, or the publisher was not heard for too long.
    Stale,
    /// There is no proof, or none yet; or updates without numbers have come, whose losses do not show.
    Unconfirmed,
}

impl fmt::Display for TopicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicState::Live => "live",
            TopicState::Stale => "stale",
            TopicState::Unconfirmed => "unconfirmed",
        })
    }
}

/// State of one listen address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressState {
    /// There is no connection.
    Connecting,
    /// There is a connection, but no proof yet that the subscriptions are in force.
    Unconfirmed,
    /// The publisher has confirmed every topic: nothing more is missed silently.
    Live,
    /// The publisher does not answer, as one that sends no hellos (such as Dragonflow's): updates arrive, but a loss
    /// may go unnoticed.
    NoHello,
}

impl fmt::Display for AddressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressState::Connecting => "not connected",
            AddressState::Unconfirmed => "has not answered yet",
            AddressState::Live => "live",
            AddressState::NoHello => "sends no hellos",
        })
    }
}
