//! Who hears the topics at one server: this library's subscribers alone, or others as well.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ::redis::{Script, Value, cmd};

use crate::clock;
use crate::redis::Conn;

use super::channels;

/// What a server has said on one connection.
pub(super) struct Audience {
    /// The server may know: it is no node of a cluster, which knows only its own subscribers, and has refused no
    /// question.
    is_known: bool,
    /// Topics that only this library's subscribers heard when this was last asked.
    ours: HashSet<Vec<u8>>,
    asked: Option<Instant>,
}

const TEXT: &str = include_str!("ours.lua");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));

/// Subscribers that have been sent joined updates.
pub(super) enum Reached {
    All,
    /// This library's; there are others.
    Ours,
    None,
}

/// The replies to a transaction.
pub(super) const REPLIES: usize = 4;

/// The most topics that are remembered.
const TOPICS: usize = 1000;

/// Programs that send no bursts ask this often.
const INTERVAL: Duration = Duration::from_secs(1);

impl Audience {
    pub(super) fn new(is_known: bool) -> Audience {
        Audience {
            is_known,
            ours: HashSet::new(),
            asked: None,
        }
    }

    /// True if it is worth while to join updates, of some topic.
    pub(super) fn has_ours(&self) -> bool {
        !self.ours.is_empty()
    }

    /// Asks for the subscribers of this topic, if that is due: always with a burst. There is one answer.
    pub(super) fn ask(&mut self, conn: &mut Conn, topic: &[u8], is_burst: bool, now: Instant) -> bool {
        let is_due = |asked| is_burst || clock::after(asked, INTERVAL) <= now;
        let joined = channels::for_joined(topic).filter(|_| self.is_known && self.asked.is_none_or(is_due));
        if let Some(joined) = &joined {
            conn.push(cmd("EVAL").arg(TEXT).arg(0).arg(topic).arg(joined));
            self.asked = Some(now);
        }
        joined.is_some()
    }

    /// Publishes joined updates on the second channel and asks for the topic's subscribers, in one transaction. Returns
    /// false if others are likely to be among them.
    pub(super) fn publish(&self, conn: &mut Conn, topic: &[u8], payload: &[u8]) -> bool {
        let joined = channels::for_joined(topic).filter(|_| self.ours.contains(topic));
        if let Some(joined) = &joined {
            conn.push(&cmd("MULTI"));
            conn.push(cmd("PUBLISH").arg(joined).arg(payload));
            // The server knows the script since it was asked.
            let name = SCRIPT.get_hash();
            conn.push(cmd("EVALSHA").arg(name).arg(0).arg(topic).arg(joined));
            conn.push(&cmd("EXEC"));
        }
        joined.is_some()
    }

    /// Takes the replies to a transaction; `None` if it was refused, and the connection cannot be used any more.
    pub(super) fn published(&mut self, topic: &[u8], replies: &[Value]) -> Option<Reached> {
        let Some(Value::Array(made)) = replies.last() else {
            return None;
        };
        let is_all = made.get(1).is_some_and(|answer| self.answered(topic, answer));
        Some(match made.first() {
            Some(Value::Int(_)) if is_all => Reached::All,
            Some(Value::Int(_)) => Reached::Ours,
            _ => Reached::None,
        })
    }

    /// Takes the answer. Returns true if only this library's subscribers hear the topic.
    pub(super) fn answered(&mut self, topic: &[u8], answer: &Value) -> bool {
        let is_ours = *answer == Value::Int(1);
        // The user may not ask; or the server has forgotten the script, and is asked again.
        if let Value::ServerError(why) = answer {
            self.is_known &= why.code() == "NOSCRIPT";
        }
        if !is_ours {
            self.ours.remove(topic);
        } else if !self.ours.contains(topic) {
            // Any one of them: it is asked about again.
            let one = self.ours.iter().next().filter(|_| self.ours.len() == TOPICS);
            if let Some(one) = one.cloned() {
                self.ours.remove(&one);
            }
            self.ours.insert(topic.to_vec());
        }
        is_ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Value = Value::Int(1);

    #[test]
    fn only_the_last_answer_counts() {
        let mut audience = Audience::new(true);
        for answer in [1, 0, 1, 1, 0, 0, 1] {
            let is_ours = audience.answered(b"D", &Value::Int(answer));
            assert_eq!(is_ours, answer == 1);
            assert_eq!(
                (audience.ours.contains(&b"D"[..]), audience.has_ours()),
                (is_ours, is_ours)
            );
        }
        assert!(!audience.ours.contains(&b"E"[..]));
    }

    #[test]
    fn few_topics_are_remembered() {
        let mut audience = Audience::new(true);
        for topic in 0..3 * TOPICS {
            audience.answered(topic.to_string().as_bytes(), &OURS);
        }
        assert_eq!(audience.ours.len(), TOPICS);
    }
}
