//! The printed form of updates and sync events: one JSON object per line, or columns.

use serde::Serialize;
use tablecast::{Action, DbUpdate, Name, SyncReason, Topic};

use crate::terminal::{Columns, Kind};

/// An update for people.
pub(crate) fn update_text(columns: &mut Columns, update: &DbUpdate) -> String {
    let kind = match update.action {
        Action::Create => Kind::Good,
        Action::Set => Kind::Changed,
        Action::Delete => Kind::Bad,
        _ => Kind::Plain,
    };
    let version = version_text(update.version);
    let (topic, value) = (update.topic.as_str(), update.value.as_deref().unwrap_or_default());
    let action = update.action.as_str();
    columns.line(kind, &[action, &update.table, &update.key, &version, topic, value])
}

/// A version in a column.
pub(crate) fn version_text(version: Option<u64>) -> String {
    version.map_or(String::new(), |version| format!("v{version}"))
}

/// One line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    Update {
        table: &'a str,
        key: &'a str,
        action: &'a str,
        value: Option<&'a str>,
        topic: &'a str,
        priority: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    Sync(SyncLine<'a>),
}

#[derive(Serialize, Default)]
pub(crate) struct SyncLine<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publishers: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
}

impl<'a> From<&'a DbUpdate> for Line<'a> {
    fn from(update: &'a DbUpdate) -> Line<'a> {
        Line::Update {
            table: &update.table,
            key: &update.key,
            action: update.action.as_str(),
            value: update.value.as_deref(),
            topic: update.topic.as_str(),
            priority: update.priority,
            version: update.version,
        }
    }
}

impl<'a> From<&'a SyncReason> for Line<'a> {
    fn from(reason: &'a SyncReason) -> Line<'a> {
        let mut line = SyncLine {
            reason: reason.as_str(),
            ..SyncLine::default()
        };
        match reason {
            SyncReason::Connected { address }
            | SyncReason::Reconnected { address }
            | SyncReason::AddressLost { address } => line.address = Some(address),
            SyncReason::Cleared { address, topics } => {
                line.address = Some(address);
                line.topics = Some(topics.iter().map(Topic::as_str).collect());
            }
            SyncReason::Gap {
                publisher,
                topic,
                from,
                to,
            } => {
                (line.publisher, line.topic) = (Some(publisher.as_str()), Some(topic.as_str()));
                (line.from, line.to) = (Some(*from), Some(*to));
            }
            SyncReason::Unproven { topics } | SyncReason::Resubscribed { topics } => {
                line.topics = Some(topics.iter().map(Topic::as_str).collect());
            }
            SyncReason::Restarted { publisher } => line.publisher = Some(publisher),
            SyncReason::Silence { publishers } | SyncReason::HellosMissed { publishers } => {
                line.publishers = Some(publishers.iter().map(Name::as_str).collect());
            }
            SyncReason::Joined { topics, events } => {
                line.topics = topics
                    .as_deref()
                    .map(|topics| topics.iter().map(Topic::as_str).collect());
                line.events = Some(*events);
            }
            SyncReason::Overflow { dropped } => line.dropped = Some(*dropped),
            _ => {}
        }
        Line::Sync(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sync event says as much to programs as to people.
    #[test]
    fn publishers_and_topics_are_named() {
        let publishers = || vec![Name::from("host1")];
        let topics = || vec![Topic::new("tenant1").unwrap()];
        let address = || Name::from("tcp://host1:8866");
        let reasons = [
            (
                SyncReason::Silence {
                    publishers: publishers(),
                },
                "host1",
            ),
            (
                SyncReason::HellosMissed {
                    publishers: publishers(),
                },
                "host1",
            ),
            (
                SyncReason::Restarted {
                    publisher: "host1".into(),
                },
                "host1",
            ),
            (SyncReason::Unproven { topics: topics() }, "tenant1"),
            (SyncReason::Resubscribed { topics: topics() }, "tenant1"),
            (SyncReason::AddressLost { address: address() }, "host1:8866"),
            (SyncReason::Overflow { dropped: 77 }, "77"),
        ];
        for (reason, named) in reasons {
            let line = serde_json::to_string(&Line::from(&reason)).unwrap();
            assert!(line.contains(named), "{line}");
            assert!(reason.to_string().contains(named), "{reason}");
        }
    }
}
