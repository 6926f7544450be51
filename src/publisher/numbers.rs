//! The numbers that a publisher has used, and their report in hellos.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::codec::{Hello, TOLD};
use crate::error::{ErrorKind, Result};
use crate::update::Topic;

/// The last number of each topic. Every topic ever used stays, at about a hundred bytes.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    topics: HashMap<Topic, Used>,
    /// Topics that hellos name, each once.
    recent: Vec<Topic>,
    /// Topics whose next number is being sent: it is not known yet whether it is used up.
    open: Vec<Topic>,
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
    topic: &'a Topic,
    used: &'a mut Used,
    last_timestamp: &'a mut Timestamps,
    recent: &'a mut Vec<Topic>,
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
        self.used.note(self.topic, count, at, self.round, self.recent);
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
    last: u64,
    at: Instant,
    /// The next round after its last use.
    round: u64,
    is_recent: bool,
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
    pub(super) fn slot<'a>(&'a mut self, topic: &'a Topic, now: Instant) -> Slot<'a> {
        let used = self.topics.entry(topic.clone()).or_insert(Used::new(now));
        Slot {
            seq: used.last + 1,
            idle: now.saturating_duration_since(used.at),
            timestamps: self.timestamps,
            topic,
            used,
            last_timestamp: &mut self.timestamps,
            recent: &mut self.recent,
            round: self.rounds,
        }
    }

    /// The number of the frame into which the topic's last update was gathered; 0 without one.
    pub(super) fn frame(&self, topic: &Topic) -> u64 {
        self.topics.get(topic).map_or(0, |used| used.frame)
    }

    /// Sets the next number of this topic aside. Until it is [closed](Numbers::close) the topic has no other.
    pub(super) fn open(&mut self, topic: &Topic, own: i64, now: Instant) -> Opened {
        self.open.push(topic.clone());
        let mut slot = self.slot(topic, now);
        let (seq, idle, timestamp) = (slot.seq, slot.idle, slot.stamp(own));
        self.timestamps = Timestamps(timestamp);
        Opened { seq, idle, timestamp }
    }

    pub(super) fn is_open(&self, topic: &Topic) -> bool {
        self.open.contains(topic)
    }

    /// Ends what [`Numbers::open`] began: the number was used up by this time, or not at all.
    pub(super) fn close(&mut self, topic: &Topic, used: Option<Instant>) {
        self.open.retain(|open| open != topic);
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
        let used = self.topics.entry(topic.clone()).or_insert(Used::new(at));
        used.note(topic, 1, at, self.rounds, &mut self.recent);
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
        for topic in self.recent.iter().skip(part.from) {
            if topics.len() >= most || bytes > MAX_BYTES {
                break;
            }
            end += 1;
            let Some(used) = self.topics.get_mut(topic) else {
                continue;
            };
            if self.open.contains(topic) {
                // The last number may be outdated before the hello arrives. It is told in a later round.
                used.round = self.rounds + 1;
                continue;
            }
            bytes += topic.as_str().len();
            let age = millis(now.saturating_duration_since(used.at));
            topics.push((topic.as_str().to_owned(), used.last, age));
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
        let (rounds, topics) = (self.rounds, &mut self.topics);
        self.recent.retain(|topic| {
            let used = topics.get_mut(topic);
            used.is_some_and(|used| {
                // It may have been used after its part of a round, so in one more.
                used.is_recent = rounds - used.round <= TOLD;
                used.is_recent
            })
        });
    }
}

impl Used {
    fn new(now: Instant) -> Used {
        Used {
            last: 0,
            at: now,
            round: 0,
            is_recent: false,
            frame: 0,
        }
    }

    /// Notes that `count` numbers were used up, the last of them by `at`.
    fn note(&mut self, topic: &Topic, count: u64, at: Instant, round: u64, recent: &mut Vec<Topic>) {
        self.last += count;
        (self.at, self.round) = (self.at.max(at), round);
        if !std::mem::replace(&mut self.is_recent, true) {
            recent.push(topic.clone());
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// An update written by a slow store counts as sent when sending returned, not when it began: otherwise a loss in
    /// between would count as known to a program that read the store in between.
    #[test]
    fn an_update_was_sent_when_sending_ended() {
        let mut numbers = Numbers::default();
        let (a, begun) = (topic("a"), clock::now());
        let slot = numbers.slot(&a, begun);
        while clock::now() < begun + Duration::from_millis(60) {
            std::thread::yield_now();
        }
        slot.settle(1, clock::now(), Ok(())).unwrap();
        let now = clock::now();
        let (hello, _) = numbers.hello(Part::default(), 256, Duration::from_secs(1), now);
        assert!(hello.topics[0].2 < 60, "{hello:?}");
        assert!(numbers.slot(&a, clock::now()).idle < Duration::from_millis(60));
    }

    /// An event that could not be published still has a number, which hellos name with the time of the event.
    #[test]
    fn a_number_that_is_skipped_is_told_of() {
        let mut numbers = Numbers::default();
        let (a, b) = (topic("a"), topic("b"));
        numbers.slot(&a, clock::now()).settle(1, clock::now(), Ok(())).unwrap();
        let at = clock::now() + Duration::from_secs(1);
        numbers.skip(&a, at);
        numbers.skip(&a, at);
        numbers.skip(&b, at);
        let (hello, _) = numbers.hello(
            Part::default(),
            256,
            Duration::from_secs(1),
            at + Duration::from_secs(2),
        );
        assert_eq!(hello.topics, [("a".to_owned(), 3, 2000), ("b".to_owned(), 1, 2000)]);
        assert_eq!(numbers.slot(&a, at).seq, 4);
    }

    /// A hello might arrive after the update whose number is set aside, and name the one before.
    #[test]
    fn a_topic_whose_number_is_set_aside_is_told_of_later() {
        let (mut numbers, now) = (Numbers::default(), clock::now());
        let (a, b) = (topic("a"), topic("b"));
        for topic in [&a, &b] {
            numbers.slot(topic, now).settle(1, now, Ok(())).unwrap();
        }
        let told = |numbers: &mut Numbers| {
            let (hello, next) = numbers.hello(Part::default(), 256, Duration::from_secs(1), now);
            assert!(next.is_none());
            numbers.told();
            hello
                .topics
                .into_iter()
                .map(|(name, number, _)| (name, number))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers.open(&a, 0, now).seq, 2);
        for _ in 0..=TOLD {
            assert_eq!(told(&mut numbers), [("b".to_owned(), 1)]);
        }
        numbers.close(&a, None);
        assert_eq!(told(&mut numbers), [("a".to_owned(), 1)]);
        assert_eq!(numbers.open(&a, 0, now).seq, 2);
        numbers.close(&a, Some(now));
        assert_eq!(told(&mut numbers), [("a".to_owned(), 2)]);
    }

    /// Every recent topic is named in six rounds, one to spare, in parts within the limit, whatever its name.
    #[test]
    fn rounds_tell_of_every_recent_topic_often_enough() {
        let mut numbers = Numbers::default();
        for number in 0..600 {
            let topic = topic(&number.to_string());
            numbers
                .slot(&topic, clock::now())
                .settle(1, clock::now(), Ok(()))
                .unwrap();
        }
        let mut told = HashMap::new();
        for round in 1..=7 {
            let (mut part, mut parts) = (Some(Part::default()), 0);
            while let Some(this) = part {
                let (hello, next) = numbers.hello(this, 256, Duration::from_secs(1), clock::now());
                assert_eq!(
                    (hello.round, hello.part, hello.more),
                    (Some(round), parts, next.is_some())
                );
                assert!(hello.topics.len() <= 256);
                for (name, ..) in hello.topics {
                    *told.entry(name).or_insert(0) += 1;
                }
                (part, parts) = (next, parts + 1);
            }
            numbers.told();
        }
        assert_eq!(told.len(), 600);
        assert!(told.values().all(|times| *times == TOLD + 1));
    }
}
