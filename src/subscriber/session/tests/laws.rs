//! Laws over random histories: publishers behind two addresses, links that lose, stall, cut and break, topics that come
//! and go, subscribers that stop and start, an address without a publisher. The promises are order (C1), no number
//! twice (C2), and no silent loss (C3).

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::codec::{Codec, Joined};

const ADDRESSES: [&str; 2] = ["one", "two"];
/// Two publishers behind each address; the first of them answers there.
const PUBLISHERS: [&str; 4] = ["p", "q", "r", "s"];
const TOPICS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Send {
        publisher: usize,
        topic: usize,
        count: usize,
    },
    Link {
        address: usize,
        link: Link,
    },
    Break {
        address: usize,
    },
    Restart {
        publisher: usize,
        says_goodbye: bool,
    },
    Register(usize),
    Unregister(usize),
    /// The subscriber stops, and starts again after this many milliseconds.
    Stop(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Good,
    /// Messages arrive this many milliseconds late; bytes arrive all the time.
    Slow(u64),
    /// Percentage of messages that are dropped.
    Lossy(u8),
    /// Nothing passes in either direction.
    Cut,
}

struct Wire {
    link: Link,
    is_connected: bool,
    /// The driver wants a connection.
    is_wanted: bool,
    /// Messages on their way, with their times of arrival.
    queue: VecDeque<(u64, Carried)>,
}

enum Carried {
    Frame(String, Vec<u8>),
    Answer(Topic, Vec<u8>),
}

struct Sender {
    epoch: u64,
    /// Last number of each topic, when it was sent, and the round that followed it.
    numbers: BTreeMap<usize, (u64, u64, u64)>,
    round: u64,
    hello_at: u64,
}

struct Sent {
    at: u64,
    publisher: usize,
    epoch: u64,
    topic: usize,
    seq: u64,
}

struct Play {
    world: World,
    wires: [Wire; 2],
    senders: [Sender; 4],
    sent: Vec<Sent>,
    /// Since when each topic is registered and in force everywhere.
    since: [Option<u64>; 3],
    registered: [bool; 3],
    /// The last registration of each topic.
    generations: [u64; 3],
    /// The registered addresses.
    addresses: Vec<&'static str>,
    chance: fastrand::Rng,
    syncs: Vec<(u64, SyncReason)>,
    deliveries: Vec<DbUpdate>,
    /// Every update of a frame is looked at on its own.
    is_thorough: bool,
}

impl Play {
    fn new(seed: u64) -> Play {
        Play::with(seed, &ADDRESSES)
    }

    /// The driver makes no connection to an address that never has a publisher.
    fn with(seed: u64, addresses: &[&'static str]) -> Play {
        let mut world = World::with(SubscriberOptions::default());
        world.mute.extend(ADDRESSES.map(String::from));
        let wires = ADDRESSES.map(|_| Wire {
            link: Link::Good,
            is_connected: false,
            is_wanted: false,
            queue: VecDeque::new(),
        });
        let senders = [0, 1, 2, 3].map(|index| Sender {
            epoch: 1,
            numbers: BTreeMap::new(),
            round: 0,
            hello_at: index * 217,
        });
        let mut play = Play {
            world,
            wires,
            senders,
            sent: Vec::new(),
            since: [None; 3],
            registered: [false; 3],
            generations: [0; 3],
            addresses: addresses.to_vec(),
            chance: fastrand::Rng::with_seed(seed),
            syncs: Vec::new(),
            deliveries: Vec::new(),
            is_thorough: false,
        };
        (0..TOPICS.len()).for_each(|topic| play.register(topic));
        play.listen();
        play.pass(1_500);
        play
    }

    fn listen(&mut self) {
        for (registration, address) in (1..).zip(self.addresses.clone()) {
            self.world.command(Command::Connect(address.into(), registration));
        }
    }

    fn register(&mut self, topic: usize) {
        if !std::mem::replace(&mut self.registered[topic], true) {
            self.world.register(TOPICS[topic]);
            self.generations[topic] = self.world.generation;
        }
    }

    fn apply(&mut self, op: &Op) {
        if let Some(continuity) = &mut self.world.session.continuity {
            continuity.is_thorough = self.is_thorough;
        }
        match *op {
            Op::Pass(millis) => self.pass(millis),
            Op::Send {
                publisher,
                topic,
                count,
            } => self.send(publisher, topic, count),
            Op::Link { address, link } => self.wires[address].link = link,
            Op::Break { address } => self.disconnect(address),
            Op::Restart {
                publisher,
                says_goodbye,
            } => {
                if says_goodbye {
                    self.say_hello(publisher, true);
                }
                let sender = &mut self.senders[publisher];
                sender.epoch += 1;
                sender.numbers.clear();
                sender.round = 0;
                if publisher % 2 == 0 {
                    self.pass(50);
                    self.disconnect(publisher / 2);
                }
            }
            Op::Register(topic) => self.register(topic),
            Op::Unregister(index) => {
                self.registered[index] = false;
                self.since[index] = None;
                self.world.command(Command::Unsubscribe(topic(TOPICS[index])));
            }
            Op::Stop(millis) => self.stop(millis),
        }
        self.collect();
    }

    fn stop(&mut self, millis: u64) {
        let memory = self.world.session.memory();
        self.world.drive();
        self.world.done.clear();
        for wire in &mut self.wires {
            (wire.is_connected, wire.is_wanted) = (false, false);
            wire.queue.clear();
        }
        self.world.millis += millis;
        let (options, now) = (SubscriberOptions::default(), self.world.now());
        self.world.session = Session::new(&options, memory, self.world.generation, millis, now);
        for topic in (0..TOPICS.len()).filter(|topic| self.registered[*topic]) {
            let command = Command::Subscribe(super::topic(TOPICS[topic]), self.generations[topic]);
            self.world.command(command);
        }
        self.listen();
    }

    fn disconnect(&mut self, address: usize) {
        if std::mem::take(&mut self.wires[address].is_connected) {
            self.wires[address].queue.clear();
            self.world.disconnect(ADDRESSES[address]);
        }
    }

    /// Puts a message on its way, behind those already on it.
    fn carry(&mut self, address: usize, carried: Carried) {
        let wire = &mut self.wires[address];
        let delay = match wire.link {
            _ if !wire.is_connected => return,
            Link::Cut => return,
            Link::Lossy(percent) if self.chance.u8(0..100) < percent => return,
            Link::Slow(delay) => delay,
            Link::Good | Link::Lossy(_) => 1,
        };
        let last = wire.queue.back().map_or(0, |(at, _)| *at);
        wire.queue.push_back((last.max(self.world.millis + delay), carried));
    }

    /// Sends `count` updates, each alone or several in a frame.
    fn send(&mut self, publisher: usize, topic: usize, count: usize) {
        let mut left = count;
        while left > 0 {
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
            let frame = frame.payload().to_vec();
            self.carry(publisher / 2, Carried::Frame(TOPICS[topic].into(), frame));
            left -= size;
        }
    }

    /// The next update of a topic.
    fn number(&mut self, publisher: usize, topic: usize) -> Vec<u8> {
        let now = self.world.millis;
        let sender = &mut self.senders[publisher];
        let (last, at, _) = sender.numbers.get(&topic).copied().unwrap_or((0, now, 0));
        sender.numbers.insert(topic, (last + 1, now, sender.round));
        let epoch = sender.epoch;
        let payload = update(PUBLISHERS[publisher], epoch, TOPICS[topic], last + 1, now - at);
        self.sent.push(Sent {
            at: now,
            publisher,
            epoch,
            topic,
            seq: last + 1,
        });
        payload
    }

    fn say_hello(&mut self, publisher: usize, last: bool) {
        let now = self.world.millis;
        let sender = &mut self.senders[publisher];
        sender.round += 1;
        let round = sender.round;
        let recent = sender
            .numbers
            .iter()
            .filter(|(_, (_, _, used))| round - used <= crate::codec::TOLD);
        let topics: Vec<_> = recent
            .map(|(topic, (seq, at, _))| (TOPICS[*topic], *seq, now - at))
            .collect();
        let hello = Hello {
            at: now,
            ..super::round(round, &topics)
        };
        let payload = hello_payload(PUBLISHERS[publisher], sender.epoch, &hello, last);
        self.carry(publisher / 2, Carried::Frame(Topic::hello().as_str().into(), payload));
    }

    fn pass(&mut self, millis: u64) {
        let end = self.world.millis + millis;
        while self.world.millis < end {
            let next = (self.world.millis + 10).min(end);
            self.world.pass(next);
            for publisher in 0..PUBLISHERS.len() {
                if self.senders[publisher].hello_at <= next {
                    self.senders[publisher].hello_at = next + 800 + self.chance.u64(0..200);
                    self.say_hello(publisher, false);
                }
            }
            for address in 0..ADDRESSES.len() {
                self.work(address);
            }
            self.collect();
        }
    }

    /// Connects, answers, and delivers what has arrived.
    fn work(&mut self, address: usize) {
        let name = ADDRESSES[address];
        for action in std::mem::take(&mut self.world.done) {
            match action {
                Action::Connect(to) => {
                    if let Some(wire) = self.wire(&to) {
                        wire.is_wanted = true;
                    }
                }
                Action::Disconnect(from) => {
                    if let Some(wire) = self.wire(&from) {
                        wire.is_connected = false;
                        wire.queue.clear();
                    }
                }
                Action::Probe(to, probe) => {
                    let address = ADDRESSES.iter().position(|of| to == *of).unwrap();
                    let owner = address * 2;
                    let epoch = self.senders[owner].epoch;
                    let hello = Hello {
                        at: self.world.millis.max(1),
                        ..super::hello(&[])
                    };
                    let hello = hello_payload(PUBLISHERS[owner], epoch, &hello, false);
                    self.carry(address, Carried::Answer(probe, hello));
                }
                _ => {}
            }
        }
        let wire = &mut self.wires[address];
        if wire.is_wanted && !wire.is_connected && wire.link != Link::Cut {
            (wire.is_connected, wire.is_wanted) = (true, false);
            self.world.connect(name);
            return;
        }
        if wire.is_connected && (matches!(wire.link, Link::Slow(_)) || !wire.queue.is_empty()) {
            self.world.received.insert(name.into(), self.world.millis);
        }
        while let Some((at, _)) = self.wires[address].queue.front()
            && *at <= self.world.millis
            && let Some((_, carried)) = self.wires[address].queue.pop_front()
        {
            match carried {
                Carried::Frame(topic, payload) => self.world.frame(name, &topic, &payload),
                Carried::Answer(probe, hello) => {
                    let now = self.world.now();
                    self.world
                        .session
                        .handle_answer(name, probe.as_str().as_bytes(), &hello, now);
                    self.world.drive();
                }
            }
        }
    }

    fn wire(&mut self, address: &str) -> Option<&mut Wire> {
        let index = ADDRESSES.iter().position(|of| *of == address)?;
        self.wires.get_mut(index)
    }

    fn collect(&mut self) {
        self.syncs.append(&mut self.world.told);
        self.deliveries.append(&mut self.world.delivered);
        let is_live = self.is_live();
        for (since, registered) in self.since.iter_mut().zip(self.registered) {
            if registered && is_live {
                since.get_or_insert(self.world.millis);
            }
        }
    }

    /// Ends all faults and waits until everything is reported: an address whose answers were lost is asked again after
    /// waits that double.
    fn calm(&mut self) {
        let before = self.world.millis;
        self.wires.iter_mut().for_each(|wire| wire.link = Link::Good);
        self.pass(15_000);
        while self.world.millis < 2 * before && !self.is_live() {
            self.pass(1_000);
        }
        self.pass(2_000);
    }

    fn is_live(&self) -> bool {
        ADDRESSES
            .iter()
            .all(|address| self.world.state(address) == AddressState::Live)
    }

    /// Checks the history against the promises.
    fn judge(&self) -> Result<(), TestCaseError> {
        let mut last = BTreeMap::new();
        let mut delivered = BTreeSet::new();
        for update in &self.deliveries {
            let origin = update.origin.as_ref().unwrap();
            let stream = (origin.publisher.clone(), origin.epoch, update.topic.clone());
            let before = last.insert(stream, origin.seq).unwrap_or(0);
            prop_assert!(before < origin.seq, "{} after {before}", origin.seq);
            delivered.insert((
                origin.publisher.to_string(),
                origin.epoch,
                update.topic.to_string(),
                origin.seq,
            ));
        }
        for sent in &self.sent {
            let Some(since) = self.since[sent.topic] else { continue };
            let (publisher, name) = (PUBLISHERS[sent.publisher], TOPICS[sent.topic]);
            let key = (publisher.to_owned(), sent.epoch, name.to_owned(), sent.seq);
            if sent.at < since || delivered.contains(&key) {
                continue;
            }
            let is_told = self.syncs.iter().any(|(at, reason)| {
                *at >= sent.at && reason.topics().is_none_or(|topics| topics.contains(&topic(name)))
            });
            prop_assert!(
                is_told,
                "{key:?}, sent at {}, is lost silently; told: {:?}",
                sent.at,
                self.syncs
            );
        }
        prop_assert!(self.is_live(), "{:#?}", self.world.session.peers);
        Ok(())
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let links = prop_oneof![
        Just(Link::Good),
        (1..6_000u64).prop_map(Link::Slow),
        (10..=100u8).prop_map(Link::Lossy),
        Just(Link::Cut),
    ];
    prop_oneof![
        6 => send(),
        6 => (1..7_000u64).prop_map(Op::Pass),
        3 => (0..2usize, links).prop_map(|(address, link)| Op::Link { address, link }),
        1 => (0..2usize).prop_map(|address| Op::Break { address }),
        1 => (0..4usize, any::<bool>())
            .prop_map(|(publisher, says_goodbye)| Op::Restart { publisher, says_goodbye }),
        1 => (0..3usize).prop_map(Op::Register),
        1 => (0..3usize).prop_map(Op::Unregister),
        1 => (1..5_000u64).prop_map(Op::Stop),
    ]
}

fn send() -> impl Strategy<Value = Op> {
    (0..4usize, 0..3usize, 1..80usize).prop_map(|(publisher, topic, count)| Op::Send {
        publisher,
        topic,
        count,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_loss_is_silent_and_nothing_comes_twice_or_out_of_order(
        ops in prop::collection::vec(any_op(), 1..40),
        seed in any::<u64>(),
        is_one_absent in any::<bool>(),
    ) {
        let addresses = if is_one_absent { &["one", "two", "nobody"][..] } else { &ADDRESSES };
        let mut play = Play::with(seed, addresses);
        ops.iter().for_each(|op| play.apply(op));
        play.calm();
        play.judge()?;
    }

    /// The updates of a frame are taken together only where each would be taken on its own.
    #[test]
    fn frames_that_are_taken_whole_make_no_difference(
        ops in prop::collection::vec(any_op(), 1..40),
        seed in any::<u64>(),
    ) {
        let [whole, thorough] = [false, true].map(|is_thorough| {
            let mut play = Play::new(seed);
            play.is_thorough = is_thorough;
            ops.iter().for_each(|op| play.apply(op));
            play.calm();
            // The time of receipt is not the session's.
            let numbers = play.deliveries.iter().map(|update| (update.topic.clone(), update.origin.clone()));
            (numbers.collect::<Vec<_>>(), play.syncs, play.world.session.stats())
        });
        prop_assert_eq!(whole, thorough);
    }

    /// Under load alone every late message arrives, and nothing is reported.
    #[test]
    fn lateness_alone_is_never_told(
        ops in prop::collection::vec(
            prop_oneof![
                send(),
                (1..7_000u64).prop_map(Op::Pass),
                (0..2usize, 1..60_000u64)
                    .prop_map(|(address, delay)| Op::Link { address, link: Link::Slow(delay) }),
                (0..3usize).prop_map(Op::Register),
            ],
            1..40,
        ),
        seed in any::<u64>(),
    ) {
        let mut play = Play::new(seed);
        ops.iter().for_each(|op| play.apply(op));
        play.calm();
        play.pass(60_000);
        play.judge()?;
        let told: Vec<_> = play.syncs.iter().map(|(_, reason)| reason.clone()).collect();
        prop_assert_eq!(told, [connected("one"), connected("two")]);
        prop_assert_eq!(play.deliveries.len(), play.sent.len());
    }

    /// One lost burst is reported once.
    #[test]
    fn one_loss_is_told_once(
        before in prop::collection::vec(send(), 0..6),
        lost in send(),
        after in prop::collection::vec(send(), 0..6),
        gaps in prop::collection::vec(1..3_000u64, 12),
        seed in any::<u64>(),
    ) {
        let mut play = Play::new(seed);
        let mut gaps = gaps.into_iter();
        for op in &before {
            play.apply(op);
            play.pass(gaps.next().unwrap_or(1));
        }
        let Op::Send { publisher, .. } = lost else { unreachable!() };
        let address = publisher / 2;
        play.wires[address].link = Link::Lossy(100);
        play.apply(&lost);
        play.wires[address].link = Link::Good;
        for op in &after {
            play.pass(gaps.next().unwrap_or(1));
            play.apply(op);
        }
        play.calm();
        play.judge()?;
        prop_assert_eq!(play.syncs.len(), 3, "{:?}", play.syncs);
    }
}
