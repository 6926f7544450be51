//! Every rule, tested by a hand-made clock, and laws over random histories.

mod laws;
mod liveness;
mod losses;
mod numbers;
mod questions;
mod restarts;
mod silence;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::*;
use crate::codec::{Codec, Encoder, GOODBYE, HELLO, Hello};
use crate::update::Action as What;

const SECOND: Duration = Duration::from_secs(1);

/// A session, its inputs and actions, and a driver whose addresses answer unless they are mute.
struct World {
    start: Instant,
    millis: u64,
    session: Session,
    delivered: Vec<DbUpdate>,
    told: Vec<(u64, SyncReason)>,
    done: Vec<Action>,
    errors: Vec<String>,
    /// Addresses that answer no probe.
    mute: BTreeSet<String>,
    /// The hello with which the other addresses answer.
    greeting: Option<(&'static str, u64)>,
    /// Bytes that the transport has received from each address.
    received: BTreeMap<String, u64>,
    /// Topics to which the driver refuses to subscribe.
    refused: BTreeSet<Topic>,
    /// The thread reads another frame before it does anything else.
    is_batching: bool,
    registrations: u64,
    generation: u64,
}

impl World {
    /// The topics a and b, live at the address "here" at the time 0.
    fn new() -> World {
        let mut world = World::with(SubscriberOptions::default());
        world.register("a");
        world.register("b");
        world.listen("here");
        world.told.clear();
        world.done.clear();
        world
    }

    /// As [`World::new`], at the time 1,000; the address is that of publisher p.
    fn with_owner() -> World {
        let mut world = World::new();
        world.greeting = Some(("p", 1));
        world.connect("here");
        world.pass(1_000);
        world.told.clear();
        world.done.clear();
        world
    }

    fn with(options: SubscriberOptions) -> World {
        let start = Instant::now() + Duration::from_secs(3600);
        World {
            start,
            millis: 0,
            session: Session::new(&options, Memory::default(), 0, 7, start),
            delivered: Vec::new(),
            told: Vec::new(),
            done: Vec::new(),
            errors: Vec::new(),
            mute: BTreeSet::new(),
            greeting: None,
            received: BTreeMap::new(),
            refused: BTreeSet::new(),
            is_batching: false,
            registrations: 0,
            generation: 0,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn now(&self) -> Instant {
        self.at(self.millis)
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        self.session.handle_command(command, now);
        self.session.handled_commands(now);
        self.drive();
    }

    fn register(&mut self, name: &str) {
        self.generation += 1;
        self.command(Command::Subscribe(topic(name), self.generation));
    }

    /// Registers an address, and has it connected.
    fn listen(&mut self, address: &str) {
        self.registrations += 1;
        self.command(Command::Connect(address.into(), self.registrations));
        self.connect(address);
    }

    fn connect(&mut self, address: &str) {
        self.session.handle_connected(address, self.now());
        self.drive();
    }

    fn disconnect(&mut self, address: &str) {
        self.session.handle_disconnected(address, self.now());
        self.drive();
    }

    fn frame(&mut self, address: &str, topic: &str, payload: &[u8]) {
        let now = self.now();
        self.session
            .handle_frame(address, topic.as_bytes(), payload, now, || now);
        if !self.is_batching || self.session.is_urgent() {
            self.session.settle_hearing();
            self.drive();
        }
    }

    /// Receives this number of publisher p, sent `idle` milliseconds after the one before.
    fn hear(&mut self, millis: u64, name: &str, seq: u64, idle: u64) {
        self.pass(millis);
        self.hear_of("p", 1, "here", name, seq, idle);
    }

    fn hear_of(&mut self, publisher: &str, epoch: u64, address: &str, name: &str, seq: u64, idle: u64) {
        let payload = update(publisher, epoch, name, seq, idle);
        self.frame(address, name, &payload);
    }

    /// Receives a hello of this run of publisher p at the time `millis`.
    fn hello(&mut self, epoch: u64, millis: u64, topics: &[(&str, u64, u64)], last: bool) {
        self.pass(millis);
        self.hello_of("p", epoch, "here", &hello(topics), last);
    }

    fn hello_of(&mut self, publisher: &str, epoch: u64, address: &str, hello: &Hello, last: bool) {
        let payload = hello_payload(publisher, epoch, hello, last);
        self.frame(address, Topic::hello().as_str(), &payload);
    }

    /// Receives the rounds of hellos of publisher p with these numbers, each at its second.
    fn rounds(&mut self, numbers: RangeInclusive<u64>) {
        for number in numbers {
            self.pass(number * 1_000);
            self.hello_of("p", 1, "here", &said(number, number * 1_000), false);
        }
    }

    /// Answers the last question to the address, with this hello.
    fn answer(&mut self, address: &str, hello: &[u8]) {
        let asked = self.done.iter().rev().find_map(|action| match action {
            Action::Probe(to, probe) if to == address => Some(probe.clone()),
            _ => None,
        });
        let probe = asked.expect("it was asked");
        let now = self.now();
        self.session
            .handle_answer(address, probe.as_str().as_bytes(), hello, now);
        self.drive();
    }

    /// The hello of the answering publisher, by its own clock.
    fn greeting(&self) -> Vec<u8> {
        let Some((publisher, epoch)) = self.greeting else {
            return Vec::new();
        };
        let at = self.millis.max(1);
        hello_payload(publisher, epoch, &Hello { at, ..hello(&[]) }, false)
    }

    /// Advances the time to this moment, as the subscriber's thread sees it without input.
    fn pass(&mut self, until: u64) {
        loop {
            let deadline = self.session.deadline();
            let due = deadline.map(|at| at.saturating_duration_since(self.start));
            let due = due.map(|due| u64::try_from(due.as_nanos().div_ceil(1_000_000)).unwrap());
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            self.millis = self.millis.max(due);
            self.session.handle_drained(self.now());
            self.session.tick(self.now());
            self.drive();
        }
        self.millis = self.millis.max(until);
        self.session.handle_drained(self.now());
    }

    /// Advances the time until the address "here" is no longer live.
    fn pass_while_live(&mut self) {
        while self.state("here") == AddressState::Live {
            self.pass(self.millis + 10);
        }
    }

    /// Ticks as the thread does while there is always more to read.
    fn tick(&mut self, millis: u64) {
        self.millis = millis;
        self.session.tick(self.now());
        self.drive();
    }

    /// Ticks as the thread does after it was stopped until this moment, with nothing to read.
    fn wake_up(&mut self, millis: u64) {
        self.millis = millis;
        self.session.handle_drained(self.now());
        self.tick(millis);
    }

    /// Carries out the session's actions.
    fn drive(&mut self) {
        let now = self.now();
        while let Some(action) = self.session.poll() {
            match action {
                Action::Deliver => self.delivered.append(self.session.updates()),
                Action::Tell(reason) => self.told.push((self.millis, reason)),
                Action::Report(error) => self.errors.push(error.to_string()),
                Action::Probe(address, probe) => {
                    if !self.mute.contains(address.as_str()) {
                        let greeting = self.greeting();
                        self.session
                            .handle_answer(&address, probe.as_str().as_bytes(), &greeting, now);
                    }
                    self.done.push(Action::Probe(address, probe));
                }
                Action::Weigh(address) => {
                    let received = self.received.get(address.as_str()).copied();
                    self.session.handle_weight(&address, received, now);
                }
                Action::Subscribe(topic) if self.refused.contains(&topic) => self.session.handle_refused(topic, now),
                other => self.done.push(other),
            }
        }
    }

    /// The events since the last call.
    fn told(&mut self) -> Vec<SyncReason> {
        std::mem::take(&mut self.told)
            .into_iter()
            .map(|(_, reason)| reason)
            .collect()
    }

    /// The events until this moment.
    fn told_by(&mut self, until: u64) -> Vec<SyncReason> {
        self.pass(until);
        self.told()
    }

    fn delivered(&mut self) -> Vec<u64> {
        let delivered = std::mem::take(&mut self.delivered);
        let origins = delivered.into_iter().filter_map(|update| update.origin);
        origins.map(|origin| origin.seq).collect()
    }

    fn state(&self, address: &str) -> AddressState {
        let mut addresses = self.session.addresses();
        let (_, _, state, generation) = addresses.find(|(of, ..)| *of == address).expect("registered");
        match state {
            AddressState::Live if generation < self.generation => AddressState::Unconfirmed,
            state => state,
        }
    }

    /// How many of these actions there were since the last call.
    fn count(&mut self, what: fn(&Action) -> bool) -> usize {
        let done = std::mem::take(&mut self.done);
        done.iter().filter(|action| what(action)).count()
    }
}

fn is_probe(action: &Action) -> bool {
    matches!(action, Action::Probe(..))
}

fn is_disconnect(action: &Action) -> bool {
    matches!(action, Action::Disconnect(_))
}

fn is_connect(action: &Action) -> bool {
    matches!(action, Action::Connect(_))
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn update(publisher: &str, epoch: u64, name: &str, seq: u64, idle: u64) -> Vec<u8> {
    let encoder = Encoder::new(Codec::Json, publisher.into(), epoch);
    let update = DbUpdate::new("t", seq.to_string(), What::Set).topic(topic(name));
    let mut payload = Vec::new();
    encoder.begin(&update, &topic(name), &mut payload);
    encoder.finish(0, update.timestamp, seq, Duration::from_millis(idle), &mut payload);
    payload
}

/// A hello of a publisher with a period of one second, without a round.
fn hello(topics: &[(&str, u64, u64)]) -> Hello {
    let topics = topics.iter().map(|(name, last, age)| ((*name).into(), *last, *age));
    Hello {
        topics: topics.collect(),
        ..Hello::of(SECOND)
    }
}

fn hello_payload(publisher: &str, epoch: u64, hello: &Hello, last: bool) -> Vec<u8> {
    let encoder = Encoder::new(Codec::Json, publisher.into(), epoch);
    let (mut payload, action) = (Vec::new(), if last { GOODBYE } else { HELLO });
    encoder.control(action, Some(&hello.to_text()), &Topic::hello(), &mut payload);
    payload
}

fn round(round: u64, topics: &[(&str, u64, u64)]) -> Hello {
    Hello {
        round: Some(round),
        ..hello(topics)
    }
}

/// A round of hellos without topics, sent at this time.
fn said(number: u64, at: u64) -> Hello {
    Hello {
        at,
        ..round(number, &[])
    }
}

fn gap(name: &str, from: u64, to: u64) -> SyncReason {
    SyncReason::Gap {
        publisher: "p".into(),
        topic: topic(name),
        from,
        to,
    }
}

fn unproven(names: &[&str]) -> SyncReason {
    SyncReason::Unproven {
        topics: names.iter().map(|name| topic(name)).collect(),
    }
}

fn silence() -> SyncReason {
    SyncReason::Silence {
        publishers: vec!["p".into()],
    }
}

fn lost(address: &str) -> SyncReason {
    let address = address.into();
    SyncReason::AddressLost { address }
}

fn connected(address: &str) -> SyncReason {
    let address = address.into();
    SyncReason::Connected { address }
}

fn reconnected(address: &str) -> SyncReason {
    let address = address.into();
    SyncReason::Reconnected { address }
}
