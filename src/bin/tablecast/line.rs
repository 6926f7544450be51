//! The printed form of updates and sync events: one JSON object per line, or columns.

use serde::Serialize;
use tablecast::{Action, DbUpdate, SyncReason};

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
    Sync(&'a SyncReason),
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
        Line::Sync(reason)
    }
}

#[cfg(test)]
mod tests {
    use tablecast::{Name, Topic};

    use super::*;

    #[test]
    fn a_sync_event_is_its_reason_and_fields() {
        let address = || Name::from("tcp://host1:8866");
        let publisher = || Name::from("host1");
        let topics = || ["a", "b"].map(|topic| Topic::new(topic).unwrap()).to_vec();
        let reasons = [
            (
                SyncReason::Connected { address: address() },
                r#""connected","address":"tcp://host1:8866""#,
            ),
            (
                SyncReason::Reconnected { address: address() },
                r#""reconnected","address":"tcp://host1:8866""#,
            ),
            (
                SyncReason::AddressLost { address: address() },
                r#""address-lost","address":"tcp://host1:8866""#,
            ),
            (
                SyncReason::Cleared {
                    address: address(),
                    topics: topics(),
                },
                r#""cleared","address":"tcp://host1:8866","topics":["a","b"]"#,
            ),
            (
                SyncReason::Resubscribed { topics: topics() },
                r#""resubscribed","topics":["a","b"]"#,
            ),
            (
                SyncReason::Gap {
                    publisher: publisher(),
                    topic: Topic::ALL,
                    from: 2,
                    to: 3,
                },
                r#""gap","publisher":"host1","topic":"D","from":2,"to":3"#,
            ),
            (
                SyncReason::Unproven { topics: topics() },
                r#""unproven","topics":["a","b"]"#,
            ),
            (
                SyncReason::Restarted { publisher: publisher() },
                r#""restarted","publisher":"host1""#,
            ),
            (
                SyncReason::Silence {
                    publishers: vec![publisher()],
                },
                r#""silence","publishers":["host1"]"#,
            ),
            (
                SyncReason::HellosMissed {
                    publishers: vec![publisher()],
                },
                r#""hellos-missed","publishers":["host1"]"#,
            ),
            (SyncReason::NoHellos, r#""no-hellos""#),
            (SyncReason::Overflow { dropped: 77 }, r#""overflow","dropped":77"#),
            (
                SyncReason::Joined {
                    topics: Some(topics()),
                    events: 9,
                },
                r#""joined","topics":["a","b"],"events":9"#,
            ),
            (
                SyncReason::Joined {
                    topics: None,
                    events: 9,
                },
                r#""joined","events":9"#,
            ),
            (SyncReason::Requested, r#""requested""#),
        ];
        for (reason, fields) in reasons {
            let line = serde_json::to_string(&Line::from(&reason)).unwrap();
            assert_eq!(line, format!(r#"{{"event":"sync","reason":{fields}}}"#));
            assert!(fields.starts_with(&format!("{:?}", reason.as_str())), "{line}");
        }
    }

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
