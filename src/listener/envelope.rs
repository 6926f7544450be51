//! What notifiers and listeners say to each other, as updates of a table that no program has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::update::{Action, DbUpdate, Name, Topic};

/// The table of all of it; no real table begins like this.
pub(super) const TABLE: Name = Name::from_static("\u{10FFFF}tablecast/status");

/// Answers and confirmations do not wait for updates of the program's own.
const URGENT: i32 = i32::MIN;

/// An event: a status update that is to be processed once. Its id is the notifier's topic and a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EventId {
    /// Where the notifier hears answers.
    pub(super) notifier: Topic,
    pub(super) number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.notifier, self.number)
    }
}

impl EventId {
    pub(super) fn parse(text: &str) -> Result<EventId> {
        let parts = text.rsplit_once('/');
        let parsed = parts.and_then(|(notifier, number)| {
            Some(EventId {
                notifier: Topic::new(notifier).ok()?,
                number: number.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| Error::new(ErrorKind::Malformed, format!("{text:?} is no id of an event")))
    }
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// An event, for the so-manieth time.
    Event(EventId, u32, Box<DbUpdate>),
    /// An event that is settled, and whether copies of it are still on their way, for the so-manieth time.
    Asked(EventId, u32),
    /// Nobody can send these events any more, or hold a copy of them: their claims have done their service.
    Confirmed(Vec<EventId>),
    /// An update as it is.
    Plain,
}

/// What a listener answers about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The topic of the listener that answers.
    #[serde(with = "name")]
    pub(super) listener: Name,
    /// The try that it answers.
    pub(super) attempt: u32,
    pub(super) state: State,
    /// The topic of the listener that has claimed the event.
    #[serde(with = "name")]
    pub(super) owner: Name,
}

mod name {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::update::Name;

    pub(super) fn serialize<S: Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Name, D::Error> {
        String::deserialize(deserializer).map(Name::from)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It was processed.
    Done,
    /// The handler has panicked; this counts as processed.
    Failed,
    /// The owner is alive, and has not finished it yet as far as is known.
    Taken,
    /// The listener is about to end, and has not begun it.
    Moved,
}

/// An update within an update. The topic, which is the notifier's choice, is part of it.
#[derive(Serialize, Deserialize)]
struct Inner {
    attempt: u32,
    table: String,
    key: String,
    action: String,
    value: Option<String>,
    topic: String,
    priority: i32,
    timestamp: i64,
    version: Option<u64>,
}

/// The message that brings an event to a listener.
pub(super) fn event(id: &EventId, attempt: u32, update: &DbUpdate) -> Result<DbUpdate> {
    let inner = Inner {
        attempt,
        table: update.table.to_string(),
        key: update.key.to_string(),
        action: update.action.as_str().to_owned(),
        value: update.value.clone(),
        topic: update.topic.to_string(),
        priority: update.priority,
        timestamp: update.timestamp,
        version: update.version,
    };
    Ok(message(id.to_string(), "event", &inner)?.priority(update.priority))
}

/// The message that asks a listener for an answer to an event that was processed: with it, it has seen all copies.
pub(super) fn question(id: &EventId, attempt: u32) -> Result<DbUpdate> {
    message(id.to_string(), "settle", &attempt)
}

/// The message that tells a listener of events of this notifier which are settled.
pub(super) fn confirmation(notifier: &Topic, numbers: &[u64]) -> Result<DbUpdate> {
    // A key that no event has, and no other confirmation: nothing takes its place in a queue.
    let first = numbers.first().copied().unwrap_or_default();
    message(format!("{notifier}/confirm/{first}"), "confirm", &numbers)
}

/// The message that brings an answer.
pub(super) fn answer(id: &EventId, answer: &Answer) -> Result<DbUpdate> {
    message(id.to_string(), "answer", answer)
}

fn message(key: String, action: &'static str, value: &impl Serialize) -> Result<DbUpdate> {
    let value = serde_json::to_string(value)
        .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a message").with_source(e))?;
    let action = Action::Other(Name::from_static(action));
    Ok(DbUpdate::new(TABLE, key, action).value(value).priority(URGENT))
}

/// What a message says that came on a listener's topic.
pub(super) fn heard(update: &DbUpdate) -> Result<Heard> {
    if update.table != TABLE {
        return Ok(Heard::Plain);
    }
    let id = EventId::parse(&update.key)?;
    match update.action.as_str() {
        "settle" => return Ok(Heard::Asked(id, parse(update)?)),
        "confirm" => {
            let numbers: Vec<u64> = parse(update)?;
            let notifier = id.notifier.as_str().strip_suffix("/confirm");
            let notifier = Topic::new(notifier.unwrap_or_default())?;
            let ids = numbers.into_iter().map(|number| EventId {
                notifier: notifier.clone(),
                number,
            });
            return Ok(Heard::Confirmed(ids.collect()));
        }
        _ => {}
    }
    let inner: Inner = parse(update)?;
    let event = DbUpdate {
        table: inner.table.into(),
        key: inner.key.into(),
        action: inner.action.as_str().into(),
        value: inner.value,
        topic: Topic::new(inner.topic)?,
        priority: inner.priority,
        timestamp: inner.timestamp,
        version: inner.version,
        origin: update.origin.clone(),
    };
    Ok(Heard::Event(id, inner.attempt, Box::new(event)))
}

/// What a message says that came on a notifier's topic.
pub(super) fn answered(update: &DbUpdate) -> Result<(EventId, Answer)> {
    Ok((EventId::parse(&update.key)?, parse(update)?))
}

fn parse<'a, T: Deserialize<'a>>(update: &'a DbUpdate) -> Result<T> {
    let value = update.value.as_deref().unwrap_or_default();
    serde_json::from_str(value).map_err(|e| {
        let context = format!("a message about status update {:?}", update.key);
        Error::new(ErrorKind::Malformed, context).with_source(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> EventId {
        EventId {
            notifier: Topic::new("notifier/a/b/7").unwrap(),
            number: 3,
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        let update = DbUpdate {
            version: Some(9),
            ..DbUpdate::new("lport", "a/b \u{1F600}", Action::Other("up".into()))
                .value(r#"{"a":"\"x"}"#)
                .topic(Topic::new("tenant1").unwrap())
                .priority(2)
        };
        let said = event(&id(), 4, &update).unwrap();
        assert_eq!(said.priority, 2);
        assert_eq!(heard(&said).unwrap(), Heard::Event(id(), 4, Box::new(update.clone())));
        assert_eq!(heard(&update).unwrap(), Heard::Plain);
        assert_eq!(heard(&question(&id(), 5).unwrap()).unwrap(), Heard::Asked(id(), 5));
        let Heard::Confirmed(ids) = heard(&confirmation(&id().notifier, &[3, 8]).unwrap()).unwrap() else {
            panic!("a confirmation");
        };
        assert_eq!(ids, [id(), EventId { number: 8, ..id() }]);
        let answer = Answer {
            listener: "listener/x/1".into(),
            attempt: 4,
            state: State::Taken,
            owner: "listener/y/1".into(),
        };
        assert_eq!(
            answered(&super::answer(&id(), &answer).unwrap()).unwrap(),
            (id(), answer)
        );
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for (key, value) in [
            ("notifier", "{}"),
            ("notifier/x", "{}"),
            ("/3", "{}"),
            ("notifier/3", "{}"),
        ] {
            let update = DbUpdate::new(TABLE, key, Action::Set).value(value);
            assert_eq!(heard(&update).unwrap_err().kind(), ErrorKind::Malformed, "{key}");
            assert_eq!(answered(&update).unwrap_err().kind(), ErrorKind::Malformed, "{key}");
        }
    }
}
