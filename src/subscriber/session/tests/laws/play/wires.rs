//! The wires between the publishers and the subscriber, and the work of the driver at their ends.

use std::collections::VecDeque;

use super::super::super::*;
use super::{ADDRESSES, Play, Sender, TOPICS};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Link {
    Good,
    /// Messages arrive this many milliseconds late; bytes arrive all the time.
    Slow(u64),
    /// Percentage of messages that are dropped.
    Lossy(u8),
    /// Nothing passes in either direction.
    Cut,
    /// Nothing passes to the publishers.
    Deaf,
    /// Messages of some topics are dropped, by a bit for each; the fourth is for hellos.
    Choosy(u8),
}

pub(in super::super) struct Wire {
    pub(in super::super) link: Link,
    pub(super) is_connected: bool,
    /// The driver wants a connection.
    pub(super) is_wanted: bool,
    /// Messages on their way, with their times of arrival.
    pub(super) queue: VecDeque<(u64, Carried)>,
    /// Subscriptions and questions on their way.
    pub(super) up: VecDeque<(u64, Asked)>,
    /// The subscriptions that have arrived.
    pub(super) subscribed: BTreeSet<Topic>,
}

pub(super) enum Carried {
    /// With the run that it comes from.
    Frame(Topic, Vec<u8>, (usize, u64)),
    Answer(Topic, Vec<u8>),
}

impl Carried {
    fn bit(&self) -> u8 {
        match self {
            Carried::Frame(topic, ..) => 1 << TOPICS.iter().position(|name| *name == topic.as_str()).unwrap_or(3),
            Carried::Answer(..) => 0,
        }
    }
}

pub(super) enum Asked {
    Subscribe(Topic),
    Unsubscribe(Topic),
    Probe(Topic),
}

impl Play {
    pub(super) fn close(&mut self, address: usize) {
        let wire = &mut self.wires[address];
        (wire.is_connected, wire.is_wanted) = (false, false);
        wire.queue.clear();
        wire.up.clear();
        wire.subscribed.clear();
    }

    /// Puts a message on its way, behind those already on it.
    pub(super) fn carry(&mut self, address: usize, carried: Carried) {
        let wire = &mut self.wires[address];
        let delay = match wire.link {
            _ if !wire.is_connected => return,
            Link::Cut => return,
            Link::Lossy(percent) if self.chance.u8(0..100) < percent => return,
            Link::Choosy(topics) if topics & carried.bit() > 0 => return,
            Link::Slow(delay) => delay,
            Link::Good | Link::Lossy(_) | Link::Deaf | Link::Choosy(_) => 1,
        };
        if let Carried::Frame(topic, ..) = &carried
            && !wire.subscribed.contains(topic)
        {
            return;
        }
        let last = wire.queue.back().map_or(0, |(at, _)| *at);
        wire.queue.push_back((last.max(self.world.millis + delay), carried));
    }

    /// Takes the session's requests to the driver.
    pub(super) fn settle(&mut self) {
        for action in std::mem::take(&mut self.world.done) {
            let up = |asked: &dyn Fn() -> Asked, wires: &mut [Wire; 2], to: Option<usize>, now: u64| {
                for (index, wire) in wires.iter_mut().enumerate() {
                    if wire.is_connected && to.is_none_or(|to| to == index) {
                        let delay = if let Link::Slow(delay) = wire.link {
                            delay.min(100)
                        } else {
                            0
                        };
                        let last = wire.up.back().map_or(0, |(at, _)| *at);
                        wire.up.push_back((last.max(now + delay), asked()));
                    }
                }
            };
            let now = self.world.millis;
            match action {
                Action::Connect(to) => {
                    if let Some(wire) = self.wire(&to).filter(|wire| !wire.is_connected) {
                        wire.is_wanted = true;
                    }
                }
                Action::Disconnect(from) => {
                    if let Some(index) = ADDRESSES.iter().position(|of| from == *of) {
                        self.close(index);
                    }
                }
                Action::Subscribe(topic) => {
                    self.subscribed.insert(topic.clone());
                    up(&|| Asked::Subscribe(topic.clone()), &mut self.wires, None, now);
                }
                Action::Unsubscribe(topic) => {
                    self.subscribed.remove(&topic);
                    up(&|| Asked::Unsubscribe(topic.clone()), &mut self.wires, None, now);
                }
                Action::Probe(to, probe) => {
                    let to = ADDRESSES.iter().position(|of| to == *of);
                    up(
                        &|| Asked::Probe(probe.clone()),
                        &mut self.wires,
                        Some(to.unwrap_or(9)),
                        now,
                    );
                }
                Action::Clear(topics) => {
                    for (index, name) in TOPICS.iter().enumerate() {
                        if topics.get(&topic(name)) == Some(&self.generations[index]) {
                            self.ends(index);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets what was asked arrive at the publishers.
    pub(super) fn work_up(&mut self, address: usize) {
        let owner = address * 2;
        while !matches!(self.wires[address].link, Link::Cut | Link::Deaf)
            && let Some((at, _)) = self.wires[address].up.front()
            && *at <= self.world.millis
            && let Some((_, asked)) = self.wires[address].up.pop_front()
        {
            match asked {
                Asked::Subscribe(topic) => _ = self.wires[address].subscribed.insert(topic),
                Asked::Unsubscribe(topic) => _ = self.wires[address].subscribed.remove(&topic),
                Asked::Probe(probe) => {
                    let Sender {
                        epoch, clock, is_alive, ..
                    } = self.senders[owner];
                    let hello = Hello {
                        at: clock + self.world.millis,
                        ..hello(&[])
                    };
                    let hello = hello_payload(self.name(owner), epoch, &hello, false);
                    if is_alive {
                        self.carry(address, Carried::Answer(probe, hello));
                    }
                }
            }
        }
    }

    /// Connects, answers, and delivers what has arrived; with `ticks`, due work may come between the frames.
    pub(super) fn work(&mut self, address: usize, ticks: bool) {
        let name = ADDRESSES[address];
        self.settle();
        self.work_up(address);
        let is_there = self.senders[address * 2].is_alive;
        let wire = &mut self.wires[address];
        if is_there && wire.is_wanted && !wire.is_connected && wire.link != Link::Cut {
            (wire.is_connected, wire.is_wanted) = (true, false);
            let now = self.world.millis;
            wire.up = self
                .subscribed
                .iter()
                .map(|topic| (now, Asked::Subscribe(topic.clone())))
                .collect();
            self.world.connect(name);
            self.settle();
            return;
        }
        if self.kind.has_counts && wire.is_connected && (matches!(wire.link, Link::Slow(_)) || !wire.queue.is_empty()) {
            self.world.received.insert(name.into(), self.world.millis);
        }
        while let Some((at, _)) = self.wires[address].queue.front()
            && *at <= self.world.millis
            && let Some((_, carried)) = self.wires[address].queue.pop_front()
        {
            match carried {
                Carried::Frame(topic, payload, run) => {
                    let index = TOPICS.iter().position(|name| *name == topic.as_str());
                    if index.is_none_or(|index| self.registered[index]) {
                        let (_, has_said_hello) = self.heard.get(&run).copied().unwrap_or_default();
                        let heard = (self.world.millis, has_said_hello || index.is_none());
                        self.heard.insert(run, heard);
                    }
                    self.world.is_batching = self.chance.bool();
                    self.world.frame(name, topic.as_str(), &payload);
                    self.world.is_batching = false;
                }
                Carried::Answer(probe, hello) => {
                    let now = self.world.now();
                    self.world
                        .session
                        .handle_answer(name, probe.as_str().as_bytes(), &hello, now);
                    self.world.drive();
                }
            }
            if ticks && self.chance.u8(0..4) == 0 {
                self.world.tick(self.world.millis);
            }
            self.settle();
        }
    }

    fn wire(&mut self, address: &str) -> Option<&mut Wire> {
        let index = ADDRESSES.iter().position(|of| *of == address)?;
        self.wires.get_mut(index)
    }
}
