//! A target of the fuzzer: what peers, the driver and the program do to a session, in any order.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::{Action, Command, Memory, Session};
use crate::codec::{Batch, Codec, Encoder, GOODBYE, HELLO, Hello};
use crate::config::Resubscribe;
use crate::subscriber::SubscriberOptions;
use crate::update::{Action as Change, DbUpdate, Name, Topic};

const ADDRESSES: [&str; 3] = ["x", "y", "z"];
const PUBLISHERS: [&str; 2] = ["p", "q"];
const TOPICS: [&str; 3] = ["a", "b", "ab"];

/// Numbers of a run that has been quiet for longer may be forgotten, and come again.
const REMEMBERED: u64 = 50_000;

/// As many rounds, all lower than those before, begin the numbers of a run anew.
const ANEW: u32 = 8;

/// A history: the options, and what happens.
pub(crate) fn session(history: &[u8]) {
    let mut bytes = Bytes(history);
    let mut world = World::new(bytes.byte());
    while !bytes.0.is_empty() {
        world.step(&mut bytes);
        world.drive();
        world.check();
    }
    world.pass(5_000);
}

/// The rest of the history.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte, or 0 at the end.
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// A number: low, as high as there are, or any.
    fn number(&mut self) -> u64 {
        let any = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        match self.byte() {
            low @ 0..200 => low.into(),
            high @ 200..220 => u64::MAX - u64::from(high - 200),
            220..240 => any(self.take(2)),
            240.. => any(self.take(8)),
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.get(usize::from(self.byte()) % from.len())
            .copied()
            .unwrap_or_default()
    }
}

/// A session with its driver and its program.
struct World {
    session: Session,
    start: Instant,
    millis: u64,
    generation: u64,
    registrations: u64,
    /// The last question to each address.
    asked: BTreeMap<Name, Topic>,
    registered: BTreeSet<&'static str>,
    follows: bool,
    refuses: bool,
    /// What was delivered, since when, and the rounds of hellos so far.
    delivered: HashSet<(Name, u64, Topic, u64)>,
    since: u64,
    rounds: u32,
}

impl World {
    fn new(flags: u8) -> World {
        let is_set = |bit: u8| flags & bit != 0;
        let options = SubscriberOptions {
            continuity: !is_set(1),
            resubscribe: if is_set(2) {
                Resubscribe::Manual
            } else {
                Resubscribe::Automatic
            },
            resync_without_hellos: Duration::from_secs(u64::from(is_set(4))),
            max_message_bytes: if is_set(8) { 64 } else { 1 << 16 },
            ..SubscriberOptions::default()
        };
        let start = Instant::now() + Duration::from_secs(3600);
        let mut world = World {
            session: Session::new(&options, Memory::default(), 0, 7, start),
            start,
            millis: 0,
            generation: 0,
            registrations: 0,
            asked: BTreeMap::new(),
            registered: BTreeSet::new(),
            follows: options.continuity,
            refuses: is_set(16),
            delivered: HashSet::new(),
            since: 0,
            rounds: 0,
        };
        world.register("a");
        world.listen("x");
        world
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let (what, address, now) = (bytes.byte(), bytes.pick(&ADDRESSES), self.now());
        match what % 16 {
            0..=3 => {
                let topic = bytes.pick(&TOPICS);
                let payload = updates(topic, bytes);
                self.frame(address, topic, &payload);
            }
            4 | 5 => {
                let payload = self.hello(bytes);
                self.frame(address, Topic::hello().as_str(), &payload);
            }
            6 => {
                let topic = bytes.pick(&["a", "b", "", "\u{10FFFF}tablecast/hello", "\u{10FFFF}tablecast/"]);
                let length = bytes.byte();
                self.frame(address, topic, bytes.take(length.into()));
            }
            7 => {
                let hello = if what & 16 == 0 { self.hello(bytes) } else { Vec::new() };
                let asked = self.asked.get(address).map_or("never asked", Topic::as_str).to_owned();
                self.session.handle_answer(address, asked.as_bytes(), &hello, now);
            }
            8 => {
                self.frame(address, "a", br#"{"table":null,"key":null,"action":"sync"}"#);
                self.session.handle_malformed();
            }
            9 => self.session.handle_connected(address, now),
            10 => self.session.handle_disconnected(address, now),
            11 => self.pass(bytes.number() % 5_000),
            12 => {
                // There is always more to read.
                self.millis += bytes.number() % 1_000;
                self.session.tick(self.now());
            }
            13 => {
                let received = bytes.number();
                self.session
                    .handle_weight(address, (received != 0).then_some(received), now);
            }
            14 => match bytes.pick(&TOPICS) {
                topic if what & 16 == 0 => self.register(topic),
                topic => self.unregister(topic),
            },
            _ => match what / 16 % 4 {
                0 => self.listen(address),
                1 => self.command(Command::Disconnect(address.into())),
                2 => self.command(Command::GiveUp(address.into())),
                _ => self.session.handle_not_connecting(address, now),
            },
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        self.session.handle_command(command, now);
        self.session.handled_commands(now);
    }

    fn register(&mut self, topic: &'static str) {
        self.generation += 1;
        self.registered.insert(topic);
        self.command(Command::Subscribe(named(topic), self.generation));
    }

    fn unregister(&mut self, topic: &'static str) {
        self.registered.remove(topic);
        self.delivered.clear();
        self.command(Command::Unsubscribe(named(topic)));
    }

    fn listen(&mut self, address: &str) {
        self.registrations += 1;
        self.command(Command::Connect(address.into(), self.registrations));
    }

    fn frame(&mut self, address: &str, topic: &str, payload: &[u8]) {
        let now = self.now();
        self.session
            .handle_frame(address, topic.as_bytes(), payload, now, || now);
        self.session.settle_hearing();
    }

    fn hello(&mut self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let encoder = encoder(bytes);
        let flags = bytes.byte();
        let mut hello = Hello {
            every: bytes.number(),
            ..Hello::default()
        };
        for _ in 0..flags % 4 {
            let topic = bytes.pick(&TOPICS).to_owned();
            hello.topics.push((topic, bytes.number(), bytes.number()));
        }
        if flags & 4 != 0 {
            hello.round = Some(bytes.number());
            hello.at = bytes.number();
            hello.crowd = u32::try_from(bytes.number()).unwrap_or(u32::MAX);
            hello.part = u32::try_from(bytes.number()).unwrap_or(u32::MAX);
            hello.more = flags & 8 != 0;
            self.rounds += 1;
        }
        if self.rounds >= ANEW {
            self.delivered.clear();
        }
        let action = if flags & 16 == 0 { HELLO } else { GOODBYE };
        let mut payload = Vec::new();
        encoder.control(action, Some(&hello.to_text()), &Topic::hello(), &mut payload);
        payload
    }

    /// Lets this time pass, as the subscriber's thread sees it without input.
    fn pass(&mut self, millis: u64) {
        let until = self.millis + millis;
        for turn in 0.. {
            let due = self
                .session
                .deadline()
                .map(|at| at.saturating_duration_since(self.start));
            let due = due.and_then(|due| u64::try_from(due.as_nanos().div_ceil(1_000_000)).ok());
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            assert!(turn < 20_000, "it is always due");
            self.millis = self.millis.max(due);
            self.session.handle_drained(self.now());
            self.session.tick(self.now());
            self.drive();
        }
        self.millis = until;
        self.session.handle_drained(self.now());
        if self.millis - self.since > REMEMBERED {
            self.delivered.clear();
            self.since = self.millis;
        }
    }

    /// Carries out the session's actions.
    fn drive(&mut self) {
        let now = self.now();
        for turn in 0.. {
            let Some(action) = self.session.poll() else { break };
            assert!(turn < 1_000, "there is always an action");
            match action {
                Action::Deliver => {
                    let updates = std::mem::take(self.session.updates());
                    updates.into_iter().for_each(|update| self.deliver(update));
                }
                Action::Probe(address, probe) => _ = self.asked.insert(address, probe),
                Action::Weigh(address) => self.session.handle_weight(&address, Some(self.millis), now),
                Action::Subscribe(topic) if self.refuses => self.session.handle_refused(topic, now),
                Action::Clear(topics) => {
                    self.delivered.clear();
                    self.registered.retain(|topic| !topics.contains_key(*topic));
                }
                Action::Tell(_) | Action::Report(_) | Action::Connect(_) | Action::Disconnect(_) => {}
                Action::Subscribe(_) | Action::Unsubscribe(_) => {}
            }
        }
    }

    /// A topic that is not registered has no updates, and a number comes once.
    fn deliver(&mut self, update: DbUpdate) {
        assert!(self.registered.contains(update.topic.as_str()), "{update}");
        if let Some(origin) = update.origin.filter(|_| self.follows) {
            let number = (origin.publisher, origin.epoch, update.topic, origin.seq);
            assert!(!self.delivered.contains(&number), "{number:?}");
            self.delivered.insert(number);
        }
    }

    fn check(&mut self) {
        if let Some(continuity) = &self.session.continuity {
            continuity.check_sizes();
        }
        assert!(self.session.addresses().count() <= ADDRESSES.len());
        assert!(self.session.topics(self.now()).len() <= TOPICS.len() + 1);
    }
}

fn named(topic: &'static str) -> Topic {
    Topic::new(topic).unwrap_or(Topic::ALL)
}

fn encoder(bytes: &mut Bytes<'_>) -> Encoder {
    let publisher = bytes.pick(&PUBLISHERS);
    Encoder::new(Codec::MessagePack, publisher.into(), u64::from(bytes.byte() % 4))
}

/// Some updates in one payload, with numbers that follow each other.
fn updates(topic: &'static str, bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (encoder, count) = (encoder(bytes), bytes.byte() % 4);
    // Numbers count from 1, and their end is far.
    let first = bytes.number().clamp(1, u64::MAX - 8);
    let idle = Duration::from_millis(bytes.number());
    let (mut batch, mut payload) = (Batch::new(), Vec::new());
    for _ in 0..=count {
        encoder.push(&DbUpdate::new("t", "k", Change::Set), &named(topic), &mut batch);
    }
    encoder.finish_batch(first, idle, |timestamp| timestamp, &batch, &mut payload);
    payload
}
