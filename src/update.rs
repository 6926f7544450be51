//! One change of one row.

use std::cmp::Ordering;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use crate::name::Name;
pub use crate::topic::Topic;

/// The kind of a change of a row.
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
/// let update = DbUpdate::new("lport", "port-1", Action::Create)
///     .value(r#"{"chassis":"host1"}"#)
///     .priority(1);
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
    /// Time of sending, by the sender's clock: microseconds since the Unix epoch, UTC. A publisher raises it, if need
    /// be, above all that it has sent before.
    pub timestamp: i64,
    /// The row's version in the store, if it has one; every write raises it.
    pub version: Option<u64>,
    /// The version of the previous write of the same table and topic, if the store keeps it; 0 if there was none. A
    /// reader that has every change up to this version has missed nothing.
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
