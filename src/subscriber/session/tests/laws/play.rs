//! One history: the publishers, the wires, the subscriber, and what is judged.

mod judge;
mod wires;

use std::collections::VecDeque;

use super::super::*;
use crate::codec::{Codec, Joined};
pub(super) use wires::Link;
use wires::{Carried, Wire};

pub(super) const ADDRESSES: [&str; 2] = ["one", "two"];
/// Two publishers behind each address; the first of them answers there.
pub(super) const PUBLISHERS: [&str; 4] = ["p", "q", "r", "s"];
pub(super) const TOPICS: [&str; 3] = ["a", "b", "c"];

/// What is different from one history to another.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) options: SubscriberOptions,
    /// The registered addresses; that of no publisher never gets a connection.
    pub(super) addresses: Vec<&'static str>,
    /// Every update of a frame is looked at on its own.
    pub(super) is_thorough: bool,
    /// The transport counts bytes.
    pub(super) has_counts: bool,
    /// What the publishers send comes through both addresses.
    pub(super) is_mirrored: bool,
    /// The publishers that answer have one id.
    pub(super) is_doubled: bool,
    /// The most topics in a message of a round of hellos.
    pub(super) most: usize,
}

struct Sender {
    epoch: u64,
    /// Last number of each topic, when it was sent, and the round that followed it.
    numbers: BTreeMap<usize, (u64, u64, u64)>,
    round: u64,
    hello_at: u64,
    is_alive: bool,
    /// What its clock shows at the time 0.
    clock: u64,
}

pub(super) struct Sent {
    at: u64,
    publisher: usize,
    epoch: u64,
    topic: usize,
    seq: u64,
}

pub(super) struct Play {
    pub(super) world: World,
    pub(super) kind: Kind,
    pub(super) wires: [Wire; 2],
    senders: [Sender; 4],
    pub(super) sent: Vec<Sent>,
    /// Since when each topic is registered and in force at each address.
    since: [[Option<u64>; 3]; 2],
    /// Since when each address is not live; since ever if the subscriber was stopped since.
    down: [Option<u64>; 2],
    /// The registration of each address.
    registrations: BTreeMap<&'static str, u64>,
    registered: [bool; 3],
    /// The last registration of each topic.
    generations: [u64; 3],
    /// The driver's subscriptions.
    subscribed: BTreeSet<Topic>,
    chance: fastrand::Rng,
    pub(super) syncs: Vec<(u64, SyncReason)>,
    pub(super) deliveries: Vec<DbUpdate>,
    /// The numbers that were delivered, by publisher, run and topic, and those of the present registrations.
    known: BTreeSet<Number>,
    present: BTreeSet<Number>,
    /// When something last came from each run, and whether a hello ever has.
    heard: BTreeMap<(usize, u64), (u64, bool)>,
    wrong: Option<String>,
}

type Number = (Name, u64, Topic, u64);

impl Default for Kind {
    fn default() -> Kind {
        Kind {
            options: SubscriberOptions::default(),
            addresses: ADDRESSES.to_vec(),
            is_thorough: false,
            has_counts: true,
            is_mirrored: false,
            is_doubled: false,
            most: 256,
        }
    }
}

impl Play {
    pub(super) fn new(seed: u64, kind: Kind) -> Play {
        let mut world = World::with(kind.options.clone());
        world.mute.extend(ADDRESSES.map(String::from));
        let mut chance = fastrand::Rng::with_seed(seed);
        let wires = ADDRESSES.map(|_| Wire {
            link: Link::Good,
            is_connected: false,
            is_wanted: false,
            queue: VecDeque::new(),
            up: VecDeque::new(),
            subscribed: BTreeSet::new(),
        });
        let senders = [0, 1, 2, 3].map(|index| Sender {
            epoch: chance.u64(1..1 << 40),
            numbers: BTreeMap::new(),
            round: 0,
            hello_at: index * 217,
            is_alive: true,
            clock: chance.u64(1..1 << 40),
        });
        let mut play = Play {
            world,
            kind,
            wires,
            senders,
            sent: Vec::new(),
            since: Default::default(),
            down: [Some(0); 2],
            registrations: BTreeMap::new(),
            registered: [false; 3],
            generations: [0; 3],
            subscribed: BTreeSet::new(),
            chance,
            syncs: Vec::new(),
            deliveries: Vec::new(),
            known: BTreeSet::new(),
            present: BTreeSet::new(),
            heard: BTreeMap::new(),
            wrong: None,
        };
        (0..TOPICS.len()).for_each(|topic| play.register(topic));
        play.listen();
        play.pass(1_500);
        play
    }

    fn listen(&mut self) {
        for address in self.kind.addresses.clone() {
            self.connect(address);
        }
    }

    fn connect(&mut self, address: &'static str) {
        let next = self.registrations.values().max().map_or(1, |last| last + 1);
        let registration = *self.registrations.entry(address).or_insert(next);
        self.world.command(Command::Connect(address.into(), registration));
    }

    fn name(&self, publisher: usize) -> &'static str {
        PUBLISHERS[if self.kind.is_doubled && publisher == 2 {
            0
        } else {
            publisher
        }]
    }

    pub(super) fn register(&mut self, topic: usize) {
        if !std::mem::replace(&mut self.registered[topic], true) {
            self.world.register(TOPICS[topic]);
            self.generations[topic] = self.world.generation;
        }
        self.collect();
    }

    pub(super) fn unregister(&mut self, index: usize) {
        self.ends(index);
        self.world.command(Command::Unsubscribe(topic(TOPICS[index])));
        self.collect();
    }

    fn ends(&mut self, index: usize) {
        self.registered[index] = false;
        self.present.retain(|(_, _, of, _)| of.as_str() != TOPICS[index]);
        self.since.iter_mut().for_each(|since| since[index] = None);
    }

    /// Adds the address, or removes it.
    pub(super) fn toggle_address(&mut self, index: usize, is_given_up: bool) {
        let address = ADDRESSES[index];
        match self.kind.addresses.iter().position(|of| *of == address) {
            Some(at) => {
                self.kind.addresses.remove(at);
                self.since[index] = [None; 3];
                let command = if is_given_up {
                    Command::GiveUp
                } else {
                    Command::Disconnect
                };
                self.world.command(command(address.into()));
            }
            None => {
                self.kind.addresses.push(address);
                self.registrations.remove(address);
                self.connect(address);
            }
        }
        self.collect();
    }

    pub(super) fn toggle_refusal(&mut self, index: usize) {
        let topic = TOPICS.get(index).map_or_else(Topic::hello, |name| topic(name));
        if !self.world.refused.remove(&topic) {
            self.world.refused.insert(topic);
        }
    }

    /// Kills a publisher, or ends it with a goodbye.
    pub(super) fn end(&mut self, publisher: usize, says_goodbye: bool) {
        if says_goodbye {
            self.say_hello(publisher, true);
        }
        self.senders[publisher].is_alive = false;
        if publisher.is_multiple_of(2) {
            self.pass(50);
            self.disconnect(publisher / 2);
        }
    }

    /// Begins another run.
    pub(super) fn begin(&mut self, publisher: usize) {
        if self.kind.is_mirrored {
            // The copies of the second path come before so many runs that theirs is forgotten.
            self.pass(500);
        }
        self.senders[publisher] = Sender {
            epoch: self.chance.u64(1..1 << 40),
            numbers: BTreeMap::new(),
            round: 0,
            hello_at: self.world.millis + self.chance.u64(0..800),
            is_alive: true,
            clock: self.chance.u64(1..1 << 40),
        };
        self.say_hello(publisher, false);
    }

    /// The subscriber stops, and starts again after this many milliseconds.
    pub(super) fn stop(&mut self, millis: u64) {
        self.settle();
        self.down = [Some(0); 2];
        self.heard.clear();
        let memory = self.world.session.memory();
        self.world.drive();
        self.world.done.clear();
        self.subscribed.clear();
        (0..self.wires.len()).for_each(|wire| self.close(wire));
        self.world.millis += millis;
        let (options, now) = (self.kind.options.clone(), self.world.now());
        self.world.session = Session::new(&options, memory, self.world.generation, millis, now);
        for topic in (0..TOPICS.len()).filter(|topic| self.registered[*topic]) {
            let command = Command::Subscribe(super::super::topic(TOPICS[topic]), self.generations[topic]);
            self.world.command(command);
        }
        self.listen();
        self.collect();
    }

    pub(super) fn disconnect(&mut self, address: usize) {
        if self.wires[address].is_connected {
            self.close(address);
            self.wires[address].is_wanted = true;
            self.world.disconnect(ADDRESSES[address]);
            self.collect();
        }
    }

    fn publish(&mut self, publisher: usize, topic: &Topic, payload: &[u8]) {
        let run = (publisher, self.senders[publisher].epoch);
        for address in 0..ADDRESSES.len() {
            if address == publisher / 2 || self.kind.is_mirrored {
                self.carry(address, Carried::Frame(topic.clone(), payload.to_vec(), run));
            }
        }
    }

    /// Sends `count` updates, each alone or several in a frame; all are `lost`, or none.
    pub(super) fn send(&mut self, publisher: usize, topic: usize, count: usize, lost: bool) {
        let mut left = count;
        while left > 0 && self.senders[publisher].is_alive {
            let size = if self.chance.bool() {
                1
            } else {
                self.chance.usize(1..=left)
            };
            let mut frame = Joined::new(Codec::Json);
            for _ in 0..size {
                let map = self.number(publisher, topic);
                frame.push(|bytes| bytes.extend(map));
            }
            if !lost {
                self.publish(publisher, &super::super::topic(TOPICS[topic]), frame.payload());
            }
            left -= size;
        }
    }

    /// The next update of a topic.
    fn number(&mut self, publisher: usize, topic: usize) -> Vec<u8> {
        let (now, name) = (self.world.millis, self.name(publisher));
        let sender = &mut self.senders[publisher];
        let (last, at, _) = sender.numbers.get(&topic).copied().unwrap_or((0, now, 0));
        sender.numbers.insert(topic, (last + 1, now, sender.round));
        let epoch = sender.epoch;
        self.sent.push(Sent {
            at: now,
            publisher,
            epoch,
            topic,
            seq: last + 1,
        });
        update(name, epoch, TOPICS[topic], last + 1, now - at)
    }

    fn say_hello(&mut self, publisher: usize, last: bool) {
        let (now, name) = (self.world.millis, self.name(publisher));
        let sender = &mut self.senders[publisher];
        if !sender.is_alive {
            return;
        }
        sender.round += 1;
        let round = sender.round;
        let recent = sender
            .numbers
            .iter()
            .filter(|(_, (_, _, used))| round - used <= crate::codec::TOLD);
        let topics: Vec<_> = recent
            .map(|(topic, (seq, at, _))| (TOPICS[*topic], *seq, now - at))
            .collect();
        let (at, epoch) = (sender.clock + now, sender.epoch);
        let mut parts: Vec<_> = topics.chunks(self.kind.most).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for (part, topics) in parts.iter().enumerate() {
            let more = part + 1 < parts.len();
            let hello = Hello {
                at,
                part: part as u32,
                more,
                ..super::super::round(round, topics)
            };
            let payload = hello_payload(name, epoch, &hello, last && !more);
            self.publish(publisher, &Topic::hello(), &payload);
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.world.millis + millis;
        while self.world.millis < end {
            let next = self.next().min(end);
            self.world.pass(next);
            self.say_hellos();
            (0..ADDRESSES.len()).for_each(|address| self.work(address, false));
            self.collect();
        }
    }

    /// When something happens, but not within 10 ms.
    fn next(&mut self) -> u64 {
        let now = self.world.millis;
        let due = self.world.session.deadline();
        let due = due.map(|at| at.saturating_duration_since(self.world.start).as_millis() as u64 + 1);
        let hellos = self.senders.iter().map(|sender| sender.hello_at);
        let wires = self.wires.iter().flat_map(|wire| {
            let news = [
                wire.queue.front().map(|(at, _)| *at),
                wire.up.front().map(|(at, _)| *at),
            ];
            news.into_iter().flatten().chain(wire.is_wanted.then_some(now))
        });
        let bytes = self.kind.has_counts && self.wires.iter().any(|wire| matches!(wire.link, Link::Slow(_)));
        let next = due.into_iter().chain(hellos).chain(wires).min().unwrap_or(now + 1_000);
        next.clamp(now + 10, now + if bytes { 50 } else { 1_000 })
    }

    fn say_hellos(&mut self) {
        let now = self.world.millis;
        for publisher in 0..PUBLISHERS.len() {
            if self.senders[publisher].hello_at <= now {
                self.senders[publisher].hello_at = now + 800 + self.chance.u64(0..200);
                self.say_hello(publisher, false);
            }
        }
    }

    /// The subscriber's process is stopped for this time; the transport is not. Then it reads what has come, before or
    /// after work that is due.
    pub(super) fn suspend(&mut self, millis: u64) {
        let end = self.world.millis + millis;
        while self.world.millis < end {
            self.world.millis = (self.world.millis + 10).min(end);
            self.say_hellos();
            (0..ADDRESSES.len()).for_each(|address| self.work_up(address));
        }
        if self.chance.bool() {
            self.world.tick(end);
        }
        (0..ADDRESSES.len()).for_each(|address| self.work(address, true));
        self.collect();
    }

    /// Ends all faults and waits until everything is reported: an address whose answers were lost is asked again after
    /// waits that double. The publishers that are gone stay away.
    pub(super) fn calm(&mut self) {
        let before = self.world.millis;
        self.wires.iter_mut().for_each(|wire| wire.link = Link::Good);
        self.world.refused.clear();
        self.pass(15_000);
        while self.world.millis < 2 * before && !self.is_live() {
            self.pass(1_000);
        }
        self.pass(2_000);
    }
}
