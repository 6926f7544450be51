//! A subscriber's state of addresses, topics and publishers. Pure: without threads, sockets, locks or a clock.
//!
//! Events go in (`handle_…`, [`Session::tick`]), actions come out ([`Session::poll`]), and [`Session::deadline`] says
//! when to call `tick`. All rules of liveness and losses are here.

mod cleared;
mod commands;
mod continuity;
mod delay;
mod frames;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod peer;
mod ports;
mod probe;
#[cfg(test)]
mod tests;
mod times;
mod topics;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::codec::{Control, Decoder, Message};
use crate::event::SyncReason;
use crate::update::{DbUpdate, Name, Topic};

use super::options::{SubscriberOptions, SubscriberStats};
use super::status::{AddressState, TopicStatus};
use cleared::Cleared;
use continuity::Continuity;
use peer::{MOST_HELD, Peer, Peers};
pub(super) use ports::{Action, Command};
use times::Times;
use topics::Topics;

/// As [`MOST_HELD`], for a loss that was noticed with a delay.
const LEAST_HELD: f64 = 0.2;

/// State that outlives a run of the subscriber.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Addresses that were live, each with its registration.
    were_live: BTreeMap<Name, u64>,
    cleared: Cleared,
    stats: SubscriberStats,
}

impl Memory {
    /// Forgets a topic that the program has unregistered.
    pub(super) fn unregistered(&mut self, topic: &Topic) {
        self.cleared.unregistered(topic);
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Session {
    options: SubscriberOptions,
    times: Times,
    topics: Topics,
    peers: Peers,
    cleared: Cleared,
    /// Addresses that were live in an earlier run, each with its registration.
    were_live: BTreeMap<Name, u64>,
    /// `None` if losses are not looked for.
    continuity: Option<Continuity>,
    decoder: Decoder,
    /// Hellos and what comes with them.
    messages: Vec<Message>,
    controls: Vec<Control>,
    updates: Vec<DbUpdate>,
    /// Updates of a frame that are looked at one by one.
    unusual: Vec<DbUpdate>,
    actions: VecDeque<Action>,
    hearing: Hearing,
    /// Everything that had arrived by then was read.
    drained: Instant,
    /// The names of probes: the subscriber's id, and the number of the question.
    id: u64,
    probes: u64,
    /// When to subscribe to refused topics again, and how long to wait if they are refused again.
    refused_at: Option<Instant>,
    refused_wait: Duration,
    /// The result of [`Session::deadline`] while it is valid.
    deadline: Option<Option<Instant>>,
    /// The result of [`Session::addresses`] has changed.
    has_changed: bool,
    /// Without what `continuity` has counted in this run.
    stats: SubscriberStats,
    jitter: fastrand::Rng,
}

/// The address that frames are coming from. Consequences are handled once for all frames that come together.
#[derive(Debug, Default)]
struct Hearing {
    address: Option<Name>,
    /// Arrival of the last frame.
    at: Option<Instant>,
    /// At least one frame was valid.
    sense: bool,
}

impl Session {
    /// Creates a session without addresses and topics; topics up to `generation` were registered before. `seed` makes
    /// it differ from others in the names of its probes, and in the times of work that all subscribers do.
    pub(super) fn new(
        options: &SubscriberOptions,
        memory: Memory,
        generation: u64,
        seed: u64,
        now: Instant,
    ) -> Session {
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut times = Times::from(options);
        // Subscribers that began together do not read the store together.
        times.resync = times.resync.map(|period| period.mul_f64(1.0 - 0.2 * jitter.f64()));
        Session {
            times,
            topics: Topics::new(generation, now),
            peers: Peers::new(),
            cleared: memory.cleared,
            were_live: memory.were_live,
            continuity: options.continuity.then(|| Continuity::new(now, &mut jitter)),
            decoder: Decoder::new(),
            messages: Vec::new(),
            controls: Vec::new(),
            updates: Vec::new(),
            unusual: Vec::new(),
            actions: options
                .continuity
                .then(|| Action::Subscribe(Topic::hello()))
                .into_iter()
                .collect(),
            hearing: Hearing::default(),
            drained: now,
            id: jitter.u64(..),
            probes: 0,
            refused_at: None,
            refused_wait: times.retry_interval,
            deadline: None,
            has_changed: true,
            stats: memory.stats,
            options: options.clone(),
            jitter,
        }
    }

    /// The state for the next run.
    pub(super) fn memory(&mut self) -> Memory {
        let live = self.peers.iter().filter(|(_, peer)| peer.was_live());
        self.were_live
            .extend(live.map(|(address, peer)| (address.clone(), peer.registration)));
        let mut cleared = std::mem::take(&mut self.cleared);
        cleared.reset();
        Memory {
            were_live: std::mem::take(&mut self.were_live),
            cleared,
            stats: self.stats(),
        }
    }

    /// The next action.
    pub(super) fn poll(&mut self) -> Option<Action> {
        // The program gets all earlier updates before the event that asks it to read the store.
        if !self.updates.is_empty() {
            self.stats.decoded += self.updates.len() as u64;
            return Some(Action::Deliver);
        }
        self.actions.pop_front()
    }

    /// True if there is an action that cannot wait for more input.
    pub(super) fn is_urgent(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Updates to deliver; the caller takes them out.
    pub(super) fn updates(&mut self) -> &mut Vec<DbUpdate> {
        &mut self.updates
    }

    /// The decoder, for values whose memory can be reused.
    pub(super) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    pub(super) fn stats(&self) -> SubscriberStats {
        let (before, now) = (self.stats, self.continuity.as_ref().map(Continuity::counters));
        let now = now.unwrap_or_default();
        SubscriberStats {
            duplicates: before.duplicates + now.duplicates,
            gaps: before.gaps + now.gaps,
            lost: before.lost.saturating_add(now.lost),
            unnumbered: before.unnumbered + now.unnumbered,
            clashes: before.clashes + now.clashes,
            hellos: before.hellos + now.hellos,
            ..before
        }
    }

    /// Counts a background failure that was reported.
    pub(super) fn handle_failed(&mut self) {
        self.stats.errors += 1;
    }

    /// Handles a new connection to this address.
    pub(super) fn handle_connected(&mut self, address: &str, now: Instant) {
        self.settle_hearing();
        let Some((name, peer)) = entry(&mut self.peers, address) else {
            return;
        };
        peer.connected(now, &self.times);
        let patience = peer.patience(&self.times);
        self.probe(&name, patience, now);
        self.changed();
    }

    /// Handles the loss of the connection to this address.
    pub(super) fn handle_disconnected(&mut self, address: &str, now: Instant) {
        self.settle_hearing();
        let Some((name, peer)) = entry(&mut self.peers, address) else {
            return;
        };
        let told = peer.disconnected(now, &self.times);
        self.lost(&name, told, MOST_HELD, now);
    }

    /// Handles an answer to a probe, with the publisher's hello if it has one.
    pub(super) fn handle_answer(&mut self, address: &str, probe: &[u8], hello: &[u8], now: Instant) {
        self.hear(address, now);
        let greeting = self.on_hello(address, hello, now);
        let Some((name, peer)) = entry(&mut self.peers, address) else {
            return;
        };
        if !peer.answered(probe, greeting, now, &self.times, &mut self.jitter) {
            return;
        }
        if let Some(continuity) = &mut self.continuity {
            continuity.look_again(now);
        }
        if self.refused_at.is_none() {
            self.refused_wait = self.times.retry_interval;
        }
        self.changed();
        self.check_peer(&name, now);
        self.settled(now);
        self.ask(now);
    }

    /// Handles the number of bytes that the driver has received from this address so far, if it knows.
    pub(super) fn handle_weight(&mut self, address: &str, received: Option<u64>, now: Instant) {
        let Some((name, peer)) = entry(&mut self.peers, address) else {
            return;
        };
        if let Some(due) = peer.weighed(received, now, &self.times) {
            self.on_due(&name, due, now);
        }
        self.deadline = None;
    }

    /// Notes that everything that has arrived was handled.
    pub(super) fn handle_drained(&mut self, now: Instant) {
        self.drained = now;
        if let Some(continuity) = &mut self.continuity {
            continuity.drained(now);
        }
    }

    /// Every address, its registration, its state, and the generation of topics in force there.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&Name, u64, AddressState, u64)> {
        self.peers.iter().map(|(address, peer)| {
            let generation = peer.generation();
            (address, peer.registration, peer.state(generation), generation)
        })
    }

    /// True if [`Session::addresses`] has changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// The state of each topic, if losses are looked for.
    pub(super) fn topics(&self, now: Instant) -> Vec<TopicStatus> {
        let Some(continuity) = &self.continuity else {
            return Vec::new();
        };
        let is_whole = self.peers.values().all(|peer| peer.is_live() && peer.is_told());
        let settled = match self.peers.values().any(|peer| peer.is_settled() && !peer.is_live()) {
            // A peer that never answers proves nothing.
            true => 0,
            false => self.settled_generation(),
        };
        continuity.status(&self.topics, settled, is_whole, now)
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
        self.deadline = None;
    }

    fn changed(&mut self) {
        self.has_changed = true;
        self.deadline = None;
    }

    /// Emits an event. One that concerns every topic covers earlier losses.
    fn tell(&mut self, reason: SyncReason, now: Instant) {
        match reason.topics() {
            None => {
                self.topics.cover_all(now);
                if let Some(continuity) = &mut self.continuity {
                    continuity.covered();
                }
            }
            Some(topics) => topics.iter().for_each(|topic| self.topics.cover(topic, now)),
        }
        self.stats.syncs += 1;
        self.act(Action::Tell(reason));
    }

    /// True if the publisher at this address has said goodbye, and everything known to have been sent from there has
    /// come.
    fn has_left(&self, address: &Name) -> bool {
        let owner = self.peers.get(address).and_then(Peer::owner);
        let (Some((publisher, epoch)), Some(continuity)) = (owner, &self.continuity) else {
            return false;
        };
        continuity.is_gone(publisher, epoch) && !continuity.is_waiting(address)
    }
}

fn entry<'a>(peers: &'a mut Peers, address: &str) -> Option<(Name, &'a mut Peer)> {
    let (name, _) = peers.get_key_value(address)?;
    let name = name.clone();
    peers.get_mut(address).map(|peer| (name, peer))
}
