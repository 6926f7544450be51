//! The numbers that a publisher has used, and what its hellos tell of them.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::clock;
use crate::codec::{Hello, TOLD};
use crate::error::{ErrorKind, Result};
use crate::update::Topic;

/// The last number of each topic. A topic that was ever used stays, at about a hundred bytes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    topics: HashMap<Topic, Used>,
    /// Topics that the hellos tell of, each once.
    recent: Vec<Topic>,
    /// How many rounds of hellos were said.
    rounds: u64,
    timestamps: Timestamps,
}

/// What the next message gets.
pub(super) struct Next<'a> {
    /// Its number, or the first of them.
    pub(super) seq: u64,
    /// The time since the number before it.
    pub(super) idle: Duration,
    pub(super) timestamps: &'a mut Timestamps,
}

/// Timestamps that rise strictly, whatever the clock does: the queues of subscribers go by them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamps(i64);

impl Timestamps {
    /// The update's own, or the least that is later than the last one.
    pub(super) fn next(&mut self, own: i64) -> i64 {
        self.0 = own.max(self.0.saturating_add(1));
        self.0
    }
}

impl Default for Timestamps {
    fn default() -> Timestamps {
        Timestamps(i64::MIN)
    }
}

#[derive(Debug)]
struct Used {
    last: u64,
    at: Instant,
    /// The round before which it was last used.
    round: u64,
    is_recent: bool,
}

/// Whether something was sent.
type IsSent = bool;

/// A message of a round tells of topics with at most so many bytes in their names; then another one follows.
const MAX_BYTES: usize = 32 << 10;

/// A message of a round of hellos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// From which of the recent topics on.
    from: usize,
    number: u32,
}

impl Numbers {
    /// Calls `send` with what comes next on this topic. `count` numbers are used up if it says that it has sent them, or
    /// cannot tell. Otherwise none is, or subscribers would see a gap.
    pub(super) fn send<T>(
        &mut self,
        topic: &Topic,
        count: u64,
        send: impl FnOnce(Next<'_>) -> Result<(T, IsSent)>,
    ) -> Result<T> {
        let now = clock::now();
        let used = match self.topics.get_mut(topic) {
            Some(used) => used,
            None => self.topics.entry(topic.clone()).or_insert(Used {
                last: 0,
                at: now,
                round: 0,
                is_recent: false,
            }),
        };
        let mut timestamps = self.timestamps;
        let result = send(Next {
            seq: used.last + 1,
            idle: now.saturating_duration_since(used.at),
            timestamps: &mut timestamps,
        });
        let is_sent = match &result {
            Ok((_, is_sent)) => *is_sent,
            // Given again, the number would make one update look like the other.
            Err(e) => e.kind() == ErrorKind::Unconfirmed,
        };
        if is_sent {
            self.timestamps = timestamps;
            used.last += count;
            // What `send` did may have taken long: before this moment it had not happened for sure.
            (used.at, used.round) = (clock::now(), self.rounds);
            if !std::mem::replace(&mut used.is_recent, true) {
                self.recent.push(topic.clone());
            }
        }
        result.map(|(value, _)| value)
    }

    /// A message of the round of hellos that is being said, which tells of at most `most` topics, and the part after it;
    /// `None`: that was the last. With 0 a topic is left out for which no message is large enough.
    pub(super) fn hello(&self, part: Part, most: usize, every: Duration, now: Instant) -> (Hello, Option<Part>) {
        let mut topics = Vec::new();
        let mut bytes = 0;
        let mut end = part.from;
        for topic in self.recent.iter().skip(part.from) {
            if topics.len() >= most || bytes > MAX_BYTES {
                break;
            }
            end += 1;
            let Some(used) = self.topics.get(topic) else { continue };
            bytes += topic.as_str().len();
            let age = millis(now.saturating_duration_since(used.at));
            topics.push((topic.as_str().to_owned(), used.last, age));
        }
        let end = if most == 0 { part.from + 1 } else { end };
        let more = end < self.recent.len();
        let hello = Hello {
            topics,
            round: Some(self.rounds + 1),
            part: part.number,
            more,
            ..Hello::of(every)
        };
        let next = Part {
            from: end,
            number: part.number.saturating_add(1),
        };
        (hello, more.then_some(next))
    }

    /// All messages of a round were said: forgets topics of which enough was told.
    pub(super) fn told(&mut self) {
        self.rounds += 1;
        let (rounds, topics) = (self.rounds, &mut self.topics);
        self.recent.retain(|topic| {
            let used = topics.get_mut(topic);
            used.is_some_and(|used| {
                used.is_recent = rounds - used.round < TOLD;
                used.is_recent
            })
        });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
