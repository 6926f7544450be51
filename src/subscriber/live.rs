//! What a subscriber is meant to hear, and from whom it is known to hear it. Pure bookkeeping.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use super::cleared::Cleared;
use crate::update::{Name, SyncReason, Topic};

/// How a subscriber stands with one listen address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerState {
    /// There is no connection.
    Connecting,
    /// There is a connection, but no proof yet that the subscriptions are in force.
    Unconfirmed,
    /// The publisher has confirmed every topic: nothing more is missed without a word.
    Live,
    /// The publisher does not answer, as one that sends no hellos (Dragonflow's): updates flow, unproven.
    NoHello,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Connecting => "not connected",
            PeerState::Unconfirmed => "has not answered yet",
            PeerState::Live => "live",
            PeerState::NoHello => "sends no hellos",
        })
    }
}

impl PeerState {
    fn is_connected(self) -> bool {
        self != PeerState::Connecting
    }
}

/// The desired state, and what is known of each address.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) topics: BTreeSet<Topic>,
    /// Raised by every topic that is registered: a proof counts for the topics up to its generation.
    generation: u64,
    peers: BTreeMap<Name, Peer>,
    cleared: Cleared,
}

#[derive(Debug)]
struct Peer {
    state: PeerState,
    /// The generation of topics that the publisher has confirmed.
    confirmed: u64,
    /// The program was told that this address is live.
    told: bool,
    was_live: bool,
    /// Whoever was there has said goodbye, and nobody has come since.
    is_at_peace: bool,
    /// Who answers there.
    owner: Option<Name>,
    /// When one that is live is asked whether it still is.
    ask_at: Option<Instant>,
    probe: Option<Probe>,
}

/// Who was at an address that nobody listens to any more.
#[derive(Debug)]
pub(super) enum Departed {
    /// One who had said goodbye, or nobody in particular: a broker answers there.
    Nobody,
    /// This publisher was live to the last.
    Live(Name),
    /// Changes from there were missed.
    Unheard,
}

#[derive(Debug)]
struct Probe {
    topic: Topic,
    generation: u64,
    /// When to give up and ask again.
    deadline: Instant,
    patience: Duration,
}

/// What is due with an address.
#[derive(Debug)]
pub(super) enum Expired {
    /// It is to be asked whether it is still there.
    Ask(Name),
    /// It does not answer any more, and is to be connected anew; true if the program is to be told.
    Lost(Name, bool),
    /// It has not answered: to be asked again with this patience, and what the program is told.
    NoHello(Name, Duration, Option<SyncReason>),
}

/// The longest wait for an answer before a publisher without hellos is asked again.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

impl Live {
    pub(super) fn add_topic(&mut self, topic: Topic) -> Option<u64> {
        if !self.topics.insert(topic.clone()) {
            return None;
        }
        self.generation += 1;
        self.cleared.registered(&topic, self.generation);
        Some(self.generation)
    }

    pub(super) fn remove_topic(&mut self, topic: &Topic) -> bool {
        self.cleared.unregistered(topic);
        self.topics.remove(topic)
    }

    /// The connection to this address was lost: no topic is registered any more. Returns those that were.
    pub(super) fn clear_topics(&mut self, address: &Name) -> BTreeSet<Topic> {
        let topics = std::mem::take(&mut self.topics);
        self.cleared.clear(address, topics.clone());
        topics
    }

    /// What the program is to be told of topics that were cleared: that they were, once there is an address at which they
    /// can be in force again; and that they are.
    pub(super) fn tell_cleared(&mut self) -> [Option<SyncReason>; 2] {
        let is_live = self.peers.values().any(|peer| peer.told);
        let cleared = if is_live { self.cleared.tell() } else { None };
        [cleared, self.cleared.in_force(self.settled().0)]
    }

    pub(super) fn add_address(&mut self, address: Name) -> bool {
        let new = !self.peers.contains_key(&address);
        if new {
            self.peers.insert(
                address,
                Peer {
                    state: PeerState::Connecting,
                    confirmed: 0,
                    told: false,
                    was_live: false,
                    is_at_peace: false,
                    owner: None,
                    ask_at: None,
                    probe: None,
                },
            );
        }
        new
    }

    pub(super) fn remove_address(&mut self, address: &str) -> bool {
        self.peers.remove(address).is_some()
    }

    /// Nobody will come to this address any more; `None` if it is not registered.
    pub(super) fn give_up(&mut self, address: &str) -> Option<Departed> {
        let peer = self.peers.remove(address)?;
        Some(match (peer.told, peer.owner) {
            (true, Some(owner)) => Departed::Live(owner),
            (true, None) => Departed::Nobody,
            (false, _) if peer.is_at_peace => Departed::Nobody,
            (false, _) => Departed::Unheard,
        })
    }

    pub(super) fn has_address(&self, address: &str) -> bool {
        self.peers.contains_key(address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Name> {
        self.peers.keys()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (&Name, PeerState)> {
        self.peers.iter().map(|(address, peer)| (address, self.state_of(peer)))
    }

    /// A peer is live for the program only if all of today's topics are.
    fn state_of(&self, peer: &Peer) -> PeerState {
        match peer.state {
            PeerState::Live if peer.confirmed < self.generation => PeerState::Unconfirmed,
            state => state,
        }
    }

    /// What keeps the subscriber from being live, for people; `None` if it is.
    pub(super) fn missing(&self) -> Option<String> {
        if self.peers.is_empty() {
            return Some("no listen address is registered".into());
        }
        let mut missing = String::new();
        for (address, state) in self.states() {
            if state != PeerState::Live {
                let separator = if missing.is_empty() { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = write!(missing, "{separator}{address} ({state})");
            }
        }
        (!missing.is_empty()).then_some(missing)
    }

    /// The connection is there. The caller probes it with what [`Live::probed`] is then told.
    pub(super) fn connected(&mut self, address: &str) {
        if let Some(peer) = self.peers.get_mut(address) {
            peer.state = PeerState::Unconfirmed;
            peer.told = false;
            peer.is_at_peace = false;
            peer.ask_at = None;
            peer.probe = None;
        }
    }

    /// A probe was sent, for topics up to `generation`.
    pub(super) fn probed(
        &mut self,
        address: &str,
        topic: Topic,
        generation: u64,
        deadline: Instant,
        patience: Duration,
    ) {
        if let Some(peer) = self.peers.get_mut(address) {
            peer.probe = Some(Probe {
                topic,
                generation,
                deadline,
                patience,
            });
        }
    }

    /// An answer came, from this publisher if it tells; returns what the program is to be told.
    /// `ask_at` is when to ask it again.
    pub(super) fn answered(
        &mut self,
        address: &str,
        probe: &[u8],
        owner: Option<Name>,
        ask_at: Instant,
    ) -> Option<SyncReason> {
        let (name, peer) = self
            .peers
            .get_key_value(address)
            .map(|(name, _)| name.clone())
            .zip(self.peers.get_mut(address))?;
        let probe = peer.probe.take_if(|asked| asked.topic.as_str().as_bytes() == probe)?;
        peer.confirmed = probe.generation;
        peer.state = PeerState::Live;
        peer.owner = owner;
        peer.ask_at = Some(ask_at);
        peer.tell(name)
    }

    /// The connection is gone; true if the program was told that it is live.
    pub(super) fn disconnected(&mut self, address: &str) -> bool {
        self.peers.get_mut(address).is_some_and(Peer::lose)
    }

    /// Whoever was at this address had said goodbye.
    pub(super) fn rest(&mut self, address: &str) {
        if let Some(peer) = self.peers.get_mut(address) {
            peer.is_at_peace = true;
        }
    }

    /// Who answers at this address, as far as that is known.
    pub(super) fn owner(&self, address: &str) -> Option<&Name> {
        self.peers.get(address)?.owner.as_ref()
    }

    /// These publishers are silent, and the program is told; returns the addresses at which they answered, to be
    /// connected anew.
    pub(super) fn silent(&mut self, publishers: &[Name]) -> Vec<Name> {
        let mut silent = Vec::new();
        for (address, peer) in &mut self.peers {
            let owner = peer.owner.as_ref().is_some_and(|owner| publishers.contains(owner));
            if owner && peer.state == PeerState::Live {
                peer.lose();
                silent.push(address.clone());
            }
        }
        silent
    }

    /// The generation of topics that was confirmed wherever there is a connection, and whether there is an address of
    /// which the program is still to be told that it is live.
    pub(super) fn settled(&self) -> (u64, bool) {
        let peers = self.peers.values();
        let settled = peers.filter(|peer| matches!(peer.state, PeerState::Live | PeerState::NoHello));
        let settled = settled.map(|peer| peer.confirmed).min().unwrap_or(0);
        let unsure = self.peers.values().any(|peer| peer.state == PeerState::Unconfirmed);
        (settled, unsure)
    }

    /// True if nothing can be missed without a word as far as the connections go.
    pub(super) fn is_whole(&self) -> bool {
        self.peers
            .values()
            .all(|peer| matches!(peer.state, PeerState::Live | PeerState::NoHello))
    }

    /// The addresses to be probed because topics were registered since they were last asked. One that is being asked
    /// is asked again when it has answered: a probe after each topic would never let an answer count.
    pub(super) fn unasked(&self, generation: u64) -> Vec<Name> {
        let unasked = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.state.is_connected() && peer.probe.is_none() && peer.confirmed < generation);
        unasked.map(|(address, _)| address.clone()).collect()
    }

    /// When [`Live::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let peers = self.peers.values();
        peers
            .filter_map(|peer| match &peer.probe {
                Some(probe) => Some(probe.deadline),
                None => peer.ask_at,
            })
            .min()
    }

    /// Takes out what is due. Everything that came by `drained` was seen: an answer that may still be unread is waited
    /// for.
    pub(super) fn expire(&mut self, now: Instant, drained: Instant) -> Vec<Expired> {
        let mut expired = Vec::new();
        for (address, peer) in &mut self.peers {
            let address = address.clone();
            let Some(probe) = &mut peer.probe else {
                if peer.ask_at.take_if(|at| *at <= now).is_some() {
                    expired.push(Expired::Ask(address));
                }
                continue;
            };
            if probe.deadline > now {
                continue;
            }
            if drained < probe.deadline || now.saturating_duration_since(probe.deadline) > probe.patience / 2 {
                // This process was busy, or stopped.
                probe.deadline = now + probe.patience / 2;
                continue;
            }
            let (patience, generation) = (probe.patience, probe.generation);
            peer.probe = None;
            expired.push(match peer.state {
                PeerState::Live | PeerState::Connecting => {
                    let told = peer.lose();
                    Expired::Lost(address, told)
                }
                PeerState::Unconfirmed => {
                    peer.state = PeerState::NoHello;
                    peer.confirmed = generation;
                    let reason = peer.tell(address.clone());
                    Expired::NoHello(address, patience.saturating_mul(2).min(MAX_PATIENCE), reason)
                }
                PeerState::NoHello => {
                    // It has had its time to hear of the topics.
                    peer.confirmed = peer.confirmed.max(generation);
                    Expired::NoHello(address, patience.saturating_mul(2).min(MAX_PATIENCE), None)
                }
            });
        }
        expired
    }

    /// The subscriber stopped: nothing is connected.
    pub(super) fn reset(&mut self) {
        self.cleared.reset();
        for peer in self.peers.values_mut() {
            peer.state = PeerState::Connecting;
            peer.confirmed = 0;
            peer.told = false;
            peer.is_at_peace = false;
            peer.ask_at = None;
            peer.probe = None;
        }
    }
}

impl Peer {
    /// There is no connection any more; true if the program was told that it is live.
    fn lose(&mut self) -> bool {
        self.state = PeerState::Connecting;
        self.probe = None;
        self.ask_at = None;
        std::mem::take(&mut self.told)
    }

    /// The reason to tell, once for each connection.
    fn tell(&mut self, address: Name) -> Option<SyncReason> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(match std::mem::replace(&mut self.was_live, true) {
            false => SyncReason::Connected { address },
            true => SyncReason::Reconnected { address },
        })
    }
}
