//! The numbers that a publisher has used, and what its hellos tell of them.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::codec::{Hello, MAX_TOPICS};
use crate::error::{ErrorKind, Result};
use crate::update::Topic;

/// The last number of each topic. A topic that was ever used stays, at about a hundred bytes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    topics: HashMap<Topic, Used>,
    /// Topics that the hellos tell of, each once.
    recent: Vec<Topic>,
    /// How many hellos were said.
    hellos: u64,
}

#[derive(Debug)]
struct Used {
    last: u64,
    at: Instant,
    /// The hello before which it was last used.
    hello: u64,
    is_recent: bool,
}

/// Whether something was sent.
type IsSent = bool;

/// A topic is told of in so many hellos after its last use: one who is cut off for longer notices the silence.
const TOLD: u64 = 5;

/// A hello tells of topics with at most so many bytes in their names; then another one follows.
const MAX_BYTES: usize = 32 << 10;

impl Numbers {
    /// Calls `send` with the next number of this topic and the time since the one before it. `count` numbers are used
    /// up if it says that it has sent them, or cannot tell. Otherwise none is, or subscribers would see a gap.
    pub(super) fn send<T>(
        &mut self,
        topic: &Topic,
        count: u64,
        send: impl FnOnce(u64, Duration) -> Result<(T, IsSent)>,
    ) -> Result<T> {
        let now = Instant::now();
        let used = match self.topics.get_mut(topic) {
            Some(used) => used,
            None => self.topics.entry(topic.clone()).or_insert(Used {
                last: 0,
                at: now,
                hello: 0,
                is_recent: false,
            }),
        };
        let result = send(used.last + 1, now.saturating_duration_since(used.at));
        let is_sent = match &result {
            Ok((_, is_sent)) => *is_sent,
            // Given again, the number would make one update look like the other.
            Err(e) => e.kind() == ErrorKind::Unconfirmed,
        };
        if is_sent {
            used.last += count;
            (used.at, used.hello) = (now, self.hellos);
            if !std::mem::replace(&mut used.is_recent, true) {
                self.recent.push(topic.clone());
            }
        }
        result.map(|(value, _)| value)
    }

    /// What a hello tells of the recent topics from this one on, and with which one the next begins; `None`: that
    /// was all of them.
    pub(super) fn hello(&self, from: usize, every: Duration, now: Instant) -> (Hello, Option<usize>) {
        let mut topics = Vec::new();
        let mut bytes = 0;
        for (index, topic) in self.recent.iter().enumerate().skip(from) {
            if topics.len() == MAX_TOPICS || bytes > MAX_BYTES {
                return (
                    Hello {
                        topics,
                        ..Hello::of(every)
                    },
                    Some(index),
                );
            }
            let Some(used) = self.topics.get(topic) else { continue };
            bytes += topic.as_str().len();
            let age = millis(now.saturating_duration_since(used.at));
            topics.push((topic.as_str().to_owned(), used.last, age));
        }
        (
            Hello {
                topics,
                ..Hello::of(every)
            },
            None,
        )
    }

    /// All hellos of this time were said: forgets topics of which enough was told.
    pub(super) fn told(&mut self) {
        self.hellos += 1;
        let (hellos, topics) = (self.hellos, &mut self.topics);
        self.recent.retain(|topic| {
            let used = topics.get_mut(topic);
            used.is_some_and(|used| {
                used.is_recent = hellos - used.hello < TOLD;
                used.is_recent
            })
        });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
