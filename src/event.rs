//! Events for a program: updates, and the reasons to read the store again.

use std::fmt;

use serde::Serialize;

use crate::update::{DbUpdate, Name, Topic};

/// An event for a program.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A row changed.
    Update(DbUpdate),
    /// Something may have been missed: read the store again.
    Sync(SyncReason),
}

/// Why a program must read the store again.
///
/// Serialized, it is an object with its fields behind `reason`, which is [`SyncReason::as_str`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SyncReason {
    /// The publisher at this address is live for the first time, or has not answered in time and counts as one without
    /// hellos ([`AddressState::NoHello`](crate::AddressState::NoHello)): read the store; its updates arrive from now
    /// on.
    Connected {
        /// The listen address.
        address: Name,
    },
    /// The connection was lost and is live again.
    Reconnected {
        /// The listen address.
        address: Name,
    },
    /// The connection was lost; changes are missed until [`SyncReason::Reconnected`]. Emitted again if discovery stops
    /// listening there before that, and also if a discovered publisher came and went without ever being live.
    AddressLost {
        /// The listen address.
        address: Name,
    },
    /// The connection to this address was lost, and all topics were unregistered, because the option `resubscribe` is
    /// `manual`. Emitted once an address is live: register again the topics that are still wanted. Until then no update
    /// arrives on them; [`SyncReason::Resubscribed`] follows.
    Cleared {
        /// The listen address.
        address: Name,
        /// The topics that were unregistered, in order.
        topics: Vec<Topic>,
    },
    /// Topics that were cleared and then registered again are in force.
    Resubscribed {
        /// The topics, in order.
        topics: Vec<Topic>,
    },
    /// Updates of this publisher on this topic were lost.
    Gap {
        /// The publisher's id.
        publisher: Name,
        /// The topic.
        topic: Topic,
        /// The first number that is missing.
        from: u64,
        /// The last number that is missing; of those in between some may have come.
        to: u64,
    },
    /// The first updates heard from some publishers were not the first that they sent, and earlier ones may have been
    /// lost after these topics became live. Emitted once for all publishers first heard at about the same time.
    Unproven {
        /// The topics, in order.
        topics: Vec<Topic>,
    },
    /// A publisher restarted without a goodbye: the last updates that it sent, or wrote but did not send, may be
    /// missing.
    Restarted {
        /// The publisher's id.
        publisher: Name,
    },
    /// Nothing was heard of these publishers for three hello periods: they have died, or are cut off.
    Silence {
        /// The publishers' ids, in order. While the program is busy those of several events are joined, up to 1,024.
        publishers: Vec<Name>,
    },
    /// Too many hellos of these publishers were missed in a row, or a part of their goodbye: their last updates may
    /// have been lost without any hello that shows it.
    HellosMissed {
        /// The publishers' ids, in order. While the program is busy those of several events are joined, up to 1,024.
        publishers: Vec<Name>,
    },
    /// A publisher that sends no hellos is connected, or updates without numbers have arrived on a registered topic, so
    /// that their losses cannot be detected. Emitted once per `resync_without_hellos_ms`, for all such publishers
    /// together.
    NoHellos,
    /// The queue was full and updates were dropped. Emitted after the updates that are waiting, within about a second.
    /// If some are still waiting then, the dispatcher drops those with a version: the program finds them in the store.
    ///
    /// Without a callback for sync events, the program receives all updates that are waiting.
    Overflow {
        /// Number of dropped updates, with those that waited.
        dropped: u64,
    },
    /// Several other events, joined because too many waited: gaps, restarts, and changes of addresses.
    Joined {
        /// The topics that they concern, in order; `None`: every registered topic.
        #[serde(skip_serializing_if = "Option::is_none")]
        topics: Option<Vec<Topic>>,
        /// Number of events.
        events: u64,
    },
    /// A publisher asked for a resync (Dragonflow's `sync` action with no table).
    Requested,
}

impl SyncReason {
    /// The topics of which something may have been missed; `None`: every registered topic.
    pub fn topics(&self) -> Option<&[Topic]> {
        match self {
            SyncReason::Gap { topic, .. } => Some(std::slice::from_ref(topic)),
            SyncReason::Unproven { topics }
            | SyncReason::Cleared { topics, .. }
            | SyncReason::Resubscribed { topics } => Some(topics),
            SyncReason::Joined { topics, .. } => topics.as_deref(),
            _ => None,
        }
    }
}

macro_rules! words {
    ($($reason:ident: $word:literal),+ $(,)?) => {
        impl SyncReason {
            /// The words of all reasons.
            #[cfg(feature = "metrics")]
            pub(crate) const WORDS: &[&str] = &[$($word),+];

            /// The reason in one word, for logs and scripts.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(SyncReason::$reason { .. } => $word,)+
                }
            }
        }
    };
}

words! {
    Connected: "connected",
    Reconnected: "reconnected",
    AddressLost: "address-lost",
    Cleared: "cleared",
    Resubscribed: "resubscribed",
    Gap: "gap",
    Unproven: "unproven",
    Restarted: "restarted",
    Silence: "silence",
    HellosMissed: "hellos-missed",
    NoHellos: "no-hellos",
    Overflow: "overflow",
    Joined: "joined",
    Requested: "requested",
}

impl fmt::Display for SyncReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            SyncReason::Connected { address }
            | SyncReason::Reconnected { address }
            | SyncReason::AddressLost { address } => write!(f, " {address}"),
            SyncReason::Gap {
                publisher,
                topic,
                from,
                to,
            } => write!(f, ": {publisher} on topic {topic}, numbers {from} to {to}"),
            SyncReason::Cleared { address, topics } => write!(f, " {address}: {topics:?}"),
            SyncReason::Unproven { topics } | SyncReason::Resubscribed { topics } => write!(f, " {topics:?}"),
            SyncReason::Restarted { publisher } => write!(f, " {publisher}"),
            SyncReason::Silence { publishers } | SyncReason::HellosMissed { publishers } => {
                write!(f, " {publishers:?}")
            }
            SyncReason::Overflow { dropped } => write!(f, " ({dropped} dropped)"),
            SyncReason::Joined { topics, events } => match topics {
                Some(topics) => write!(f, " ({events} events) {topics:?}"),
                None => write!(f, " ({events} events)"),
            },
            SyncReason::NoHellos | SyncReason::Requested => Ok(()),
        }
    }
}
