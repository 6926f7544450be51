//! Messages between notifiers and listeners, as updates of a table that no program uses.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::update::{Action, DbUpdate, Name, Topic};

/// The table of all messages; no real table begins like this.
pub(super) const TABLE: Name = Name::from_static("\u{10FFFF}tablecast/status");

/// Messages go before the program's own updates.
const URGENT: i32 = i32::MIN;

/// The most events in a question or confirmation, and in an answer. Messages about more are refused, so that a peer
/// cannot cause more work than messages that it sends.
pub(super) const MAX_ASKED: usize = 512;
pub(super) const MAX_ANSWERED: usize = 256;

/// An event: a status update to be processed once. Its id is the notifier's topic and a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EventId {
    /// The topic of answers to the notifier.
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
        parsed.ok_or_else(|| Error::new(ErrorKind::Malformed, format!("{text:?} is not an event's id")))
    }
}

/// A message to a listener.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ListenerMessage {
    /// The topic on which it arrived.
    pub(super) on: Topic,
    pub(super) notifier: Topic,
    /// All events of the notifier below this are settled.
    pub(super) low: u64,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// An event: its number, the number of the try, and the update.
    Event(u64, u32, Box<DbUpdate>),
    Questions(Vec<Question>),
    /// No listener can begin these events any more, so their claims can go.
    Confirmations(Vec<u64>),
}

/// A question about an event. When it arrives, so has everything sent before it: the listener refuses earlier tries
/// from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, bool)", into = "(u64, u32, bool)")]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) attempt: u32,
    /// The event was processed: a waiting copy is of no use.
    pub(super) settled: bool,
}

impl From<(u64, u32, bool)> for Question {
    fn from((number, attempt, settled): (u64, u32, bool)) -> Question {
        Question {
            number,
            attempt,
            settled,
        }
    }
}

impl From<Question> for (u64, u32, bool) {
    fn from(question: Question) -> (u64, u32, bool) {
        (question.number, question.attempt, question.settled)
    }
}

/// A listener's answers to a notifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    /// The listener's topic.
    #[serde(with = "name")]
    pub(super) listener: Name,
    /// The number of events waiting there, of all notifiers.
    pub(super) waiting: u64,
    /// The listener is stopping.
    pub(super) leaving: bool,
    pub(super) about: Vec<Answer>,
}

/// A listener's answer about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub(super) struct Answer {
    pub(super) number: u64,
    /// The last try that the listener has heard of.
    pub(super) attempt: u32,
    pub(super) state: EventState,
    /// The topic of the listener that has claimed the event, if it is another one.
    pub(super) owner: Option<Name>,
}

type Flat = (u64, u32, EventState, Option<String>);

impl From<Flat> for Answer {
    fn from((number, attempt, state, owner): Flat) -> Answer {
        let owner = owner.map(Name::from);
        Answer {
            number,
            attempt,
            state,
            owner,
        }
    }
}

impl From<Answer> for Flat {
    fn from(answer: Answer) -> Flat {
        let owner = answer.owner.map(|owner| owner.to_string());
        (answer.number, answer.attempt, answer.state, owner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EventState {
    /// The receipt: the listener has the event.
    Held,
    /// The event was processed.
    Done,
    /// The handler panicked; this counts as processed.
    Failed,
    /// Another listener has claimed it, and has not finished it as far as is known.
    Taken,
    /// The listener has not begun it, and will not.
    Back,
    /// The listener does not have it.
    Unknown,
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

/// An update within an update, with the topic that the notifier's caller chose.
#[derive(Serialize, Deserialize)]
struct Enclosed {
    attempt: u32,
    low: u64,
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
pub(super) fn event(id: &EventId, attempt: u32, low: u64, update: &DbUpdate) -> Result<DbUpdate> {
    let enclosed = Enclosed {
        attempt,
        low,
        table: update.table.to_string(),
        key: update.key.to_string(),
        action: update.action.as_str().to_owned(),
        value: update.value.clone(),
        topic: update.topic.to_string(),
        priority: update.priority,
        timestamp: update.timestamp,
        version: update.version,
    };
    message(id.to_string(), "event", &enclosed)
}

/// The message that asks a listener about events.
pub(super) fn questions(notifier: &Topic, low: u64, about: &[Question]) -> Result<DbUpdate> {
    message(notifier.to_string(), "ask", &(low, about))
}

/// The message about events of this notifier that are settled.
pub(super) fn confirmation(notifier: &Topic, low: u64, numbers: &[u64]) -> Result<DbUpdate> {
    message(notifier.to_string(), "confirm", &(low, numbers))
}

/// The message with answers, the `number`th of this listener: a unique key, so that no queue replaces it.
pub(super) fn answers(answers: &Answers, number: u64) -> Result<DbUpdate> {
    message(format!("{}/{number}", answers.listener), "answer", answers)
}

/// The update that the dispatcher hands out when the event's turn has come.
pub(super) fn turn(id: &EventId, topic: &Topic, priority: i32, timestamp: i64) -> DbUpdate {
    let action = Action::Other(Name::from_static("turn"));
    let turn = DbUpdate::new(TABLE, id.to_string(), action);
    DbUpdate {
        timestamp,
        ..turn.topic(topic.clone()).priority(priority)
    }
}

fn message(key: String, action: &'static str, value: &impl Serialize) -> Result<DbUpdate> {
    let value = serde_json::to_string(value)
        .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a message").with_source(e))?;
    let action = Action::Other(Name::from_static(action));
    Ok(DbUpdate::new(TABLE, key, action).value(value).priority(URGENT))
}

/// Reads a message on a listener's topic.
pub(super) fn parse_message(update: &DbUpdate) -> Result<ListenerMessage> {
    let of_many = |low, body| {
        let malformed = |e| Error::new(ErrorKind::Malformed, "a message about status updates").with_source(e);
        let notifier = Topic::new(update.key.clone()).map_err(malformed)?;
        let on = update.topic.clone();
        Ok(ListenerMessage {
            on,
            notifier,
            low,
            body,
        })
    };
    match update.action.as_str() {
        "ask" => {
            let (low, about): (_, Vec<_>) = parse(update)?;
            check_count(update, about.len(), MAX_ASKED)?;
            return of_many(low, Body::Questions(about));
        }
        "confirm" => {
            let (low, numbers): (_, Vec<_>) = parse(update)?;
            check_count(update, numbers.len(), MAX_ASKED)?;
            return of_many(low, Body::Confirmations(numbers));
        }
        _ => {}
    }
    let EventId { notifier, number } = EventId::parse(&update.key)?;
    let enclosed: Enclosed = parse(update)?;
    let event = DbUpdate {
        table: enclosed.table.into(),
        key: enclosed.key.into(),
        action: enclosed.action.as_str().into(),
        value: enclosed.value,
        topic: Topic::new(enclosed.topic)?,
        priority: enclosed.priority,
        timestamp: enclosed.timestamp,
        version: enclosed.version,
        after: None,
        origin: update.origin.clone(),
    };
    Ok(ListenerMessage {
        on: update.topic.clone(),
        notifier,
        low: enclosed.low,
        body: Body::Event(number, enclosed.attempt, Box::new(event)),
    })
}

/// Reads a message on a notifier's topic.
pub(super) fn parse_answers(update: &DbUpdate) -> Result<Answers> {
    let answers: Answers = parse(update)?;
    check_count(update, answers.about.len(), MAX_ANSWERED)?;
    Ok(answers)
}

fn check_count(update: &DbUpdate, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    let context = format!(
        "message {:?} is about {count} status updates; at most {limit} are allowed",
        update.key
    );
    Err(Error::new(ErrorKind::Malformed, context))
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

    fn notifier() -> Topic {
        Topic::new("notifier/a/b/7").unwrap()
    }

    fn expect(message: &DbUpdate, low: u64, body: Body) {
        let expected = ListenerMessage {
            on: Topic::ALL,
            notifier: notifier(),
            low,
            body,
        };
        assert_eq!(parse_message(message).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read() {
        let update = DbUpdate {
            version: Some(9),
            ..DbUpdate::new("lport", "a/b \u{1F600}", Action::Other("up".into()))
                .value(r#"{"a":"\"x"}"#)
                .topic(Topic::new("tenant1").unwrap())
                .priority(2)
        };
        let (notifier, number) = (notifier(), 3);
        let id = EventId { notifier, number };
        let message = event(&id, 4, 2, &update).unwrap();
        expect(&message, 2, Body::Event(3, 4, Box::new(update)));
        let about: Vec<Question> = [(3, 4, true), (8, 1, false)].map(Question::from).into();
        expect(&questions(&id.notifier, 2, &about).unwrap(), 2, Body::Questions(about));
        let message = confirmation(&id.notifier, 5, &[3, 8]).unwrap();
        expect(&message, 5, Body::Confirmations(vec![3, 8]));
        let answer = |state, owner| Answer {
            number: 3,
            attempt: 4,
            state,
            owner,
        };
        let taken = answer(EventState::Taken, Some("listener/y/1".into()));
        let all = Answers {
            listener: "listener/x/1".into(),
            waiting: 7,
            leaving: true,
            about: vec![answer(EventState::Held, None), taken],
        };
        assert_eq!(parse_answers(&answers(&all, 1).unwrap()).unwrap(), all);
    }

    #[test]
    fn a_message_about_more_than_one_says_is_malformed() {
        let refused = |result: Result<()>| result.is_err_and(|e| e.kind() == ErrorKind::Malformed);
        for (count, is_refused) in [(512, false), (513, true)] {
            let about = vec![Question::from((3, 4, true)); count];
            let said = questions(&notifier(), 2, &about).unwrap();
            assert_eq!(refused(parse_message(&said).map(drop)), is_refused, "{count}");
            let said = confirmation(&notifier(), 5, &vec![3; count]).unwrap();
            assert_eq!(refused(parse_message(&said).map(drop)), is_refused, "{count}");
        }
        for (count, is_refused) in [(256, false), (257, true)] {
            let answer = Answer::from((3, 4, EventState::Held, None));
            let said = Answers {
                listener: "listener/x/1".into(),
                waiting: 7,
                leaving: true,
                about: vec![answer; count],
            };
            assert_eq!(
                refused(parse_answers(&answers(&said, 1).unwrap()).map(drop)),
                is_refused,
                "{count}"
            );
        }
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for (key, value) in [
            ("notifier", "{}"),
            ("notifier/x", "{}"),
            ("/3", "{}"),
            ("", "[1,[]]"),
            ("notifier/3", "["),
        ] {
            for action in [
                Action::Set,
                Action::Other("ask".into()),
                Action::Other("confirm".into()),
            ] {
                let update = DbUpdate::new(TABLE, key, action).value(value);
                for e in [parse_message(&update).err(), parse_answers(&update).err()] {
                    assert_eq!(e.map(|e| e.kind()), Some(ErrorKind::Malformed), "{key}");
                }
            }
        }
    }
}
