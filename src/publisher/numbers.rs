//! The numbers that a publisher has used, and their report in hellos.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Condvar;

use crate::codec::{Hello, TOLD};
use crate::error::{ErrorKind, Result};
use crate::update::Topic;

/// The last number of each topic. Every topic ever used stays, at about a hundred bytes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The place of each topic in `used`, for good.
    places: HashMap<Topic, usize>,
    used: Vec<Used>,
    /// The place of the last slot: the next update is most likely of the same topic.
    last: usize,
    /// Places of the topics that hellos name, each once.
    recent: Vec<usize>,
    /// Number of topics whose next number is set aside.
    open: usize,
    /// Number of rounds of hellos sent.
    rounds: u64,
    timestamps: Timestamps,
    /// Start of the publisher's own clock.
    begun: Option<Instant>,
}

/// The next number of a topic, with the other fields of its message. Dropping it uses up nothing.
pub(crate) struct Slot<'a> {
    /// The number, or the first of several.
    pub(super) seq: u64,
    /// The time since the number before it.
    pub(super) idle: Duration,
    timestamps: Timestamps,
    place: usize,
    used: &'a mut Used,
    last_timestamp: &'a mut Timestamps,
    recent: &'a mut Vec<usize>,
    round: u64,
}

impl Slot<'_> {
    /// The timestamp to send for the next update, which has this one of its own.
    pub(super) fn stamp(&mut self, own: i64) -> i64 {
        self.timestamps.next(own)
    }

    /// The number of the frame into which the topic's last update was gathered.
    pub(super) fn frame(&mut self) -> &mut u64 {
        &mut self.used.frame
    }

    /// Uses up `count` numbers, the last of them sent by `at`.
    pub(super) fn take(self, count: u64, at: Instant) {
        *self.last_timestamp = self.timestamps;
        if self.used.note(count, at, self.round) {
            self.recent.push(self.place);
        }
    }

    /// Uses up `count` numbers unless certainly nothing was sent: a reused number would make one update look like
    /// another. `at` is when sending ended, since only then the update has been sent for sure.
    pub(super) fn settle<T>(self, count: u64, at: Instant, sent: Result<T>) -> Result<T> {
        let is_used = match &sent {
            Ok(_) => true,
            Err(e) => e.kind() == ErrorKind::Unconfirmed,
        };
        if is_used {
            self.take(count, at);
        }
        sent
    }
}

/// A number that is set aside, with the other fields of its message.
pub(super) struct Opened {
    pub(super) seq: u64,
    pub(super) idle: Duration,
    pub(super) timestamp: i64,
}

/// Timestamps that rise strictly, whatever the clock does, since subscribers' queues order by them.
#[derive(Debug, Clone, Copy)]
struct Timestamps(i64);

impl Timestamps {
    /// The update's own timestamp, or the next one after the last.
    fn next(&mut self, own: i64) -> i64 {
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
    topic: Topic,
    last: u64,
    at: Instant,
    /// The next round after its last use.
    round: u64,
    is_recent: bool,
    /// Since when the next number is being sent: it is not known yet whether it is used up.
    open: Option<Instant>,
    /// Notified when that is known; made when it is first needed.
    closed: Option<Arc<Condvar>>,
    /// The frame that its last update was gathered into.
    frame: u64,
}

/// Maximum total length of the topics named in one message of a round.
const MAX_BYTES: usize = 32 << 10;

/// A message of a round of hellos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of its first topic in the recent topics.
    from: usize,
    number: u32,
}

impl Numbers {
    /// The next number on this topic.
    pub(super) fn slot(&mut self, topic: &Topic, now: Instant) -> Slot<'_> {
        let place = self.place(topic, now);
        let used = &mut self.used[place];
        Slot {
            seq: used.last + 1,
            idle: now.saturating_duration_since(used.at),
            timestamps: self.timestamps,
            place,
            used,
            last_timestamp: &mut self.timestamps,
            recent: &mut self.recent,
            round: self.rounds,
        }
    }

    /// The number of the frame into which the topic's last update was gathered; 0 without one.
    pub(super) fn frame(&mut self, topic: &Topic) -> u64 {
        self.find(topic).map_or(0, |place| self.used[place].frame)
    }

    fn find(&mut self, topic: &Topic) -> Option<usize> {
        if self.used.get(self.last).is_none_or(|used| used.topic != *topic) {
            self.last = *self.places.get(topic)?;
        }
        Some(self.last)
    }

    /// The place of a topic, which may be new.
    fn place(&mut self, topic: &Topic, now: Instant) -> usize {
        self.find(topic).unwrap_or_else(|| {
            self.last = self.used.len();
            self.used.push(Used::new(topic.clone(), now));
            self.places.insert(topic.clone(), self.last);
            self.last
        })
    }

    /// Sets the next number of this topic aside. Until it is [closed](Numbers::close) the topic has no other.
    pub(super) fn open(&mut self, topic: &Topic, own: i64, now: Instant) -> Opened {
        let mut slot = self.slot(topic, now);
        let is_new = slot.used.open.replace(now).is_none();
        let (seq, idle, timestamp) = (slot.seq, slot.idle, slot.stamp(own));
        self.timestamps = Timestamps(timestamp);
        self.open += usize::from(is_new);
        Opened { seq, idle, timestamp }
    }

    pub(super) fn is_open(&mut self, topic: &Topic) -> bool {
        self.find(topic).is_some_and(|place| self.used[place].open.is_some())
    }

    /// What is notified when this topic is [closed](Numbers::close), if it is open.
    pub(super) fn closed(&mut self, topic: &Topic) -> Option<Arc<Condvar>> {
        if self.open == 0 {
            return None;
        }
        let place = self.find(topic)?;
        let used = &mut self.used[place];
        used.open.map(|_| Arc::clone(used.closed.get_or_insert_default()))
    }

    /// Ends what [`Numbers::open`] began: the number was used up by this time, or not at all.
    pub(super) fn close(&mut self, topic: &Topic, used: Option<Instant>) {
        if let Some(place) = self.find(topic) {
            self.open -= usize::from(self.used[place].open.take().is_some());
            if let Some(closed) = &self.used[place].closed {
                closed.notify_one();
            }
        }
        if let Some(at) = used {
            self.skip(topic, at);
        }
    }

    /// True if there are numbers to report.
    pub(super) fn is_used(&self) -> bool {
        !self.recent.is_empty()
    }

    /// Uses up a number of this topic for an update that was not sent by `at`. Subscribers find it missing.
    pub(super) fn skip(&mut self, topic: &Topic, at: Instant) {
        let place = self.place(topic, at);
        if self.used[place].note(1, at, self.rounds) {
            self.recent.push(place);
        }
    }

    /// The time by this publisher's own clock, in milliseconds.
    pub(super) fn at(&mut self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(*self.begun.get_or_insert(now)))
    }

    /// A message of the current round of hellos that names at most `most` topics, and the next part; `None` after the
    /// last one. With 0 a topic is left out for which no message is large enough.
    pub(super) fn hello(&mut self, part: Part, most: usize, every: Duration, now: Instant) -> (Hello, Option<Part>) {
        let at = self.at(now);
        let mut topics = Vec::new();
        let mut bytes = 0;
        let mut end = part.from;
        for place in self.recent.iter().skip(part.from) {
            let used = &mut self.used[*place];
            if topics.len() >= most || bytes > MAX_BYTES {
                break;
            }
            end += 1;
            if used
                .open
                .is_some_and(|open| now.saturating_duration_since(open) < every)
            {
                // The last number may be outdated before the hello arrives. It is told in a later round; not much
                // later, since losses before it show by it.
                used.round = self.rounds + 1;
                continue;
            }
            let topic = used.topic.as_str();
            bytes += topic.len();
            let age = millis(now.saturating_duration_since(used.at));
            topics.push((topic.to_owned(), used.last, age));
        }
        let end = if most == 0 { part.from + 1 } else { end };
        let more = end < self.recent.len();
        let hello = Hello {
            topics,
            round: Some(self.rounds + 1),
            at,
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

    /// Ends a round: forgets topics that were named often enough. An unfinished round counts too, as it does for
    /// subscribers that miss it.
    pub(super) fn told(&mut self) {
        self.rounds += 1;
        let (rounds, used) = (self.rounds, &mut self.used);
        self.recent.retain(|place| {
            let used = &mut used[*place];
            // It may have been used after its part of a round, so in one more.
            used.is_recent = rounds - used.round <= TOLD;
            used.is_recent
        });
    }
}

impl Used {
    fn new(topic: Topic, now: Instant) -> Used {
        Used {
            topic,
            last: 0,
            at: now,
            round: 0,
            is_recent: false,
            open: None,
            closed: None,
            frame: 0,
        }
    }

    /// Notes that `count` numbers were used up, the last of them by `at`. Returns true if the topic was not recent.
    fn note(&mut self, count: u64, at: Instant, round: u64) -> bool {
        self.last += count;
        (self.at, self.round) = (self.at.max(at), round);
        !std::mem::replace(&mut self.is_recent, true)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
