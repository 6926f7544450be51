//! The vocabulary: one change of one row, and the sync events.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
pub use crate::name::Name;

/// The text that a subscriber filters by, for example a tenant's id; also called a channel.
///
/// Two topics are the same only if they are equal to the letter: `D` never matches `Dxyz`.
///
/// ```
/// use tablecast::Topic;
/// assert_eq!(Topic::ALL.as_str(), "D");
/// assert!(Topic::new("tenant1").is_ok());
/// assert!(Topic::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Name);

impl Topic {
    /// `D`, the topic of every subscriber (Dragonflow's `SEND_ALL_TOPIC`).
    pub const ALL: Topic = Topic(Name::from_static("D"));

    /// Prefix of the library's own control topics. U+10FFFF is not a character, so no real topic has it.
    pub(crate) const RESERVED: &str = "\u{10FFFF}tablecast/";

    /// A topic of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the name is empty (on ZeroMQ that means "everything") or begins like the
    /// library's own control topics. Its length is limited where it is used, by the option `max_topic_bytes`.
    pub fn new(name: impl Into<Name>) -> Result<Topic> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "a topic must not be empty"));
        }
        if name.starts_with(Topic::RESERVED) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "topic {:?}: names beginning with {:?} are reserved",
                    &*name,
                    Topic::RESERVED
                ),
            ));
        }
        Ok(Topic(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Topic of publishers' hellos.
    pub(crate) const fn hello() -> Topic {
        Topic(Name::from_static("\u{10FFFF}tablecast/hello"))
    }

    /// A unique topic for [`Inbound::probe`](crate::transport::Inbound::probe).
    pub(crate) fn probe(subscriber: u64, number: u64) -> Topic {
        let name = format!("{}probe/{subscriber:016x}/{number}", Topic::RESERVED);
        Topic(name.into())
    }

    /// True if this is the name of a topic that only the library's own subscribers have.
    #[cfg(feature = "zmq")]
    pub(crate) fn is_own(name: &[u8]) -> bool {
        name.starts_with(Topic::RESERVED.as_bytes())
    }

    /// True if this is the name of a probe.
    #[cfg(feature = "zmq")]
    pub(crate) fn is_probe(name: &[u8]) -> bool {
        let rest = name.strip_prefix(Topic::RESERVED.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"probe/"))
    }

    /// The probe of this name, if it is one.
    #[cfg(feature = "zmq")]
    pub(crate) fn probe_from(name: &[u8]) -> Option<Topic> {
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| Topic::is_probe(name.as_bytes()));
        name.map(|name| Topic(name.into()))
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl TryFrom<&str> for Topic {
    type Error = Error;
    fn try_from(name: &str) -> Result<Topic> {
        Topic::new(name)
    }
}

/// Change of the row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// The row is new.
    Create,
    /// The row has a new value.
    Set,
    /// The row is gone.
    Delete,
    /// A word of the application's own.
    Other(Name),
}

impl Action {
    /// The word on the wire: `create`, `set`, `delete`, or the application's own.
    pub fn as_str(&self) -> &str {
        match self {
            Action::Create => "create",
            Action::Set => "set",
            Action::Delete => "delete",
            Action::Other(word) => word,
        }
    }
}

impl From<&str> for Action {
    fn from(word: &str) -> Action {
        match word {
            "create" => Action::Create,
            "set" => Action::Set,
            "delete" => Action::Delete,
            other => Action::Other(other.into()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The publisher of an update, its run, and the update's number on its topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The publisher's id.
    pub publisher: Name,
    /// Which run of the publisher: it differs after every restart.
    pub epoch: u64,
    /// Counts from 1 per publisher, epoch and topic.
    pub seq: u64,
    /// Time since the publisher sent the number before this one, in whole milliseconds, rounded down. A subscriber that
    /// hears a publisher for the first time uses it to find out whether it has missed anything.
    pub idle: Duration,
}

/// One change of one row of a table.
///
/// ```
/// use tablecast::{Action, DbUpdate};
/// let update = DbUpdate::new("lport", "port-1", Action::Create).value(r#"{"chassis":"host1"}"#).priority(1);
/// assert_eq!(
///     update.to_string(),
///     r#"Action:create, Table:lport, Key:port-1 Value:{"chassis":"host1"} Topic:D"#,
/// );
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DbUpdate {
    /// The table.
    pub table: Name,
    /// The row's key.
    pub key: Name,
    /// The change of the row.
    pub action: Action,
    /// The row, as opaque text (usually a JSON document); `None` for a delete.
    pub value: Option<String>,
    /// The topic. Default: [`Topic::ALL`].
    pub topic: Topic,
    /// Lower is more urgent. Default: 5.
    pub priority: i32,
    /// Time of sending, by the sender's clock: microseconds since the Unix epoch, UTC. On their way from one publisher
    /// timestamps rise strictly: one that would not is raised.
    pub timestamp: i64,
    /// The row's version in the store, where it has one: every write raises it.
    pub version: Option<u64>,
    /// The version of the last write of the same table and topic before this one, where the store keeps it; 0 if there
    /// was none. A reader that has everything up to it has missed nothing.
    pub after: Option<u64>,
    /// The origin; `None` before it is sent, and from publishers that do not number their updates.
    pub origin: Option<Origin>,
}

impl DbUpdate {
    /// The priority of an update that names none.
    pub const DEFAULT_PRIORITY: i32 = 5;

    /// An update for [`Topic::ALL`] with the default priority, stamped with the time now.
    pub fn new(table: impl Into<Name>, key: impl Into<Name>, action: Action) -> DbUpdate {
        DbUpdate {
            table: table.into(),
            key: key.into(),
            action,
            value: None,
            topic: Topic::ALL,
            priority: DbUpdate::DEFAULT_PRIORITY,
            timestamp: now_micros(),
            version: None,
            after: None,
            origin: None,
        }
    }

    /// Sets the row's text.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> DbUpdate {
        self.value = Some(value.into());
        self
    }

    /// Sets the topic.
    #[must_use]
    pub fn topic(mut self, topic: Topic) -> DbUpdate {
        self.topic = topic;
        self
    }

    /// Sets the priority; lower is more urgent.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> DbUpdate {
        self.priority = priority;
        self
    }

    /// More urgent priority first, then the earlier timestamp, then the key: the order of Dragonflow's `__lt__`.
    ///
    /// This is not `Ord`: two updates that compare as equal here may differ in everything else. It is for programs that
    /// sort updates; the [queue](crate::queue) puts arrival in the place of the key.
    pub fn urgency(&self, other: &DbUpdate) -> Ordering {
        (self.priority, self.timestamp, &self.key).cmp(&(other.priority, other.timestamp, &other.key))
    }

    /// The dictionary form: a JSON object with the five fields that every message has.
    pub fn to_dict(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut dict = serde_json::Map::new();
        dict.insert("table".into(), self.table.as_str().into());
        dict.insert("key".into(), self.key.as_str().into());
        dict.insert("action".into(), self.action.as_str().into());
        dict.insert("value".into(), self.value.clone().into());
        dict.insert("topic".into(), self.topic.as_str().into());
        dict
    }
}

impl fmt::Display for DbUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Action:{}, Table:{}, Key:{} Value:{} Topic:{}",
            self.action,
            self.table,
            self.key,
            self.value.as_deref().unwrap_or("None"),
            self.topic,
        )
    }
}

/// Microseconds since the Unix epoch by this machine's clock.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncReason {
    /// The publisher at this address is live for the first time: read what there is, from now on changes follow.
    Connected {
        /// The listen address.
        address: Name,
    },
    /// The connection was lost and is live again.
    Reconnected {
        /// The listen address.
        address: Name,
    },
    /// The connection was lost; changes are missed until [`SyncReason::Reconnected`]. Emitted again if discovery ends
    /// listening there before that, and also if a publisher that it has found came and went without ever being live.
    AddressLost {
        /// The listen address.
        address: Name,
    },
    /// The connection to this address was lost, and all topics were unregistered, as the option `resubscribe` at
    /// `manual` demands. Emitted once an address is live: register the topics that are still wanted again. Nothing
    /// comes on them before, and [`SyncReason::Resubscribed`] follows.
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
    /// Publishers were heard for the first time in the middle of their numbers, and earlier updates may have been lost
    /// after these topics became live. Emitted once for all that are heard first at about the same time.
    Unproven {
        /// The topics, in order.
        topics: Vec<Topic>,
    },
    /// A publisher began anew without having said goodbye: what it last sent, or wrote and did not send, may be missing.
    Restarted {
        /// The publisher's id.
        publisher: Name,
    },
    /// Nothing was heard of these publishers for three hello periods: they have died, or are cut off.
    Silence {
        /// The publishers' ids, in order. While the program is busy those of several events are joined, up to 1,024.
        publishers: Vec<Name>,
    },
    /// Too many hellos of these publishers were missed in a row: their last updates may have been lost without any
    /// hello that shows it.
    HellosMissed {
        /// The publishers' ids, in order. While the program is busy those of several events are joined, up to 1,024.
        publishers: Vec<Name>,
    },
    /// A publisher that sends no hellos is connected, so losses of its updates do not show. Emitted once in the time of
    /// the option `resync_without_hellos_ms`, for all of these publishers together.
    NoHellos,
    /// The queue was full and updates were dropped. Emitted after the updates that wait, within about a second. If some
    /// still wait then, the dispatcher drops those with a version: the store that the program reads now has them.
    ///
    /// A program without a callback for sync events reads no store, and gets all that waits.
    Overflow {
        /// Number of dropped updates, with those that waited.
        dropped: u64,
    },
    /// Several other events, joined because too many waited: gaps, restarts, and changes of addresses.
    Joined {
        /// The topics that they concern, in order; `None`: every registered topic.
        topics: Option<Vec<Topic>>,
        /// Number of events.
        events: u64,
    },
    /// A publisher asked for it (Dragonflow's `sync` action with no table).
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

    /// The reason in one word, for logs and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            SyncReason::Connected { .. } => "connected",
            SyncReason::Reconnected { .. } => "reconnected",
            SyncReason::AddressLost { .. } => "address-lost",
            SyncReason::Cleared { .. } => "cleared",
            SyncReason::Resubscribed { .. } => "resubscribed",
            SyncReason::Gap { .. } => "gap",
            SyncReason::Unproven { .. } => "unproven",
            SyncReason::Restarted { .. } => "restarted",
            SyncReason::Silence { .. } => "silence",
            SyncReason::HellosMissed { .. } => "hellos-missed",
            SyncReason::NoHellos => "no-hellos",
            SyncReason::Overflow { .. } => "overflow",
            SyncReason::Joined { .. } => "joined",
            SyncReason::Requested => "requested",
        }
    }
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
