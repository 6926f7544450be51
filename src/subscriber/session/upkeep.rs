//! Timed work, and the consequences of topics coming into force.

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::config::Resubscribe;
use crate::error::{Error, ErrorKind};
use crate::event::SyncReason;
use crate::update::{Name, Topic};

use super::LEAST_HELD;
use super::continuity::Scope;
use super::peer::{Due, Peer};
use super::{Action, Session};

impl Session {
    /// The next time at which [`Session::tick`] has something to do.
    pub(in crate::subscriber) fn deadline(&mut self) -> Option<Instant> {
        if let Some(deadline) = self.deadline {
            return deadline;
        }
        let is_unsure = self.peers.values().any(Peer::is_unsure);
        let losses = self.continuity.as_ref().and_then(|known| known.deadline(is_unsure));
        let peers = self.peers.values().filter_map(|peer| peer.deadline(&self.times));
        let deadline = peers
            .chain(losses)
            .chain(self.cleared.deadline())
            .chain(self.refused_at)
            .chain(self.resync_at())
            .min();
        *self.deadline.insert(deadline)
    }

    /// Does what is due.
    pub(in crate::subscriber) fn tick(&mut self, now: Instant) {
        self.settle_hearing();
        self.deadline = None;
        self.check_losses(now);
        self.check_peers(now);
        if self.resync_at().is_some_and(|at| at <= now) {
            self.tell(SyncReason::NoHellos, now);
        }
        if self.refused_at.take_if(|at| *at <= now).is_some() {
            let most = self.times.retry_max.max(self.times.retry_interval);
            self.refused_wait = self.refused_wait.saturating_mul(2).min(most);
            for topic in self.topics.take_refused() {
                self.actions.push_back(Action::Subscribe(topic));
            }
        }
        self.settled(now);
        self.ask(now);
    }

    /// When the program is to read everything again for the sake of publishers without hellos or numbers: some time
    /// after it was last asked to, for whatever reason.
    fn resync_at(&self) -> Option<Instant> {
        let period = self.times.resync?;
        let is_unproven =
            self.topics.has_unnumbered() || self.peers.values().any(|peer| peer.is_settled() && !peer.is_live());
        is_unproven.then(|| after(self.topics.all_covered(), period))
    }

    /// Emits the events about losses.
    fn check_losses(&mut self, now: Instant) {
        let Some(continuity) = &mut self.continuity else { return };
        let scope = Scope {
            topics: &self.topics,
            peers: &self.peers,
        };
        let is_unsure = self.peers.values().any(Peer::is_unsure);
        let findings = continuity.check(scope, is_unsure, now, &mut self.updates);
        for error in findings.errors {
            self.act(Action::Report(error));
        }
        for address in findings.asks {
            if self.peers.get(&address).is_some_and(Peer::is_askable) {
                self.probe(&address, self.times.live_timeout, now);
            }
        }
        for reason in findings.syncs {
            self.tell(reason, now);
        }
    }

    fn check_peers(&mut self, now: Instant) {
        let is_due = |peer: &Peer| peer.deadline(&self.times).is_some_and(|at| at <= now);
        let due = self.peers.iter().filter(|(_, peer)| is_due(peer));
        let due: Vec<Name> = due.map(|(address, _)| address.clone()).collect();
        for address in due {
            self.check_peer(&address, now);
        }
    }

    pub(super) fn check_peer(&mut self, address: &Name, now: Instant) {
        while let Some(peer) = self.peers.get_mut(address)
            && let Some(due) = peer.expire(address, now, self.drained, &self.times)
        {
            self.on_due(address, due, now);
        }
    }

    pub(super) fn on_due(&mut self, address: &Name, due: Due, now: Instant) {
        match due {
            Due::Ask(patience) => self.probe(address, patience, now),
            Due::Stall => {
                log::info!("nothing comes from {address}");
                self.stall(address, now);
            }
            Due::Deaf => {
                log::info!("{address} does not receive questions");
                self.stall(address, now);
            }
            Due::Weigh => self.act(Action::Weigh(address.clone())),
            Due::NoHello(patience, reason) => {
                if reason.is_some() {
                    log::warn!(
                        "{address} does not answer: a publisher without hellos? Losses of its updates do not show"
                    );
                    self.tell_due_loss(address, now);
                }
                self.live(reason, now);
                self.probe(address, patience, now);
                self.changed();
            }
            Due::Assumed => self.changed(),
            Due::Connect => self.act(Action::Connect(address.clone())),
            Due::Renew => {
                if let Some(peer) = self.peers.get_mut(address) {
                    peer.renewed();
                }
                self.act(Action::Disconnect(address.clone()));
                self.act(Action::Connect(address.clone()));
                self.changed();
            }
            Due::Unreached => {
                let context = format!("no connection yet to {address}; still trying");
                self.act(Action::Report(Error::new(ErrorKind::Transport, context)));
            }
            Due::TellLost => self.tell_lost(address, now),
            Due::TellLive => {
                self.tell_due_loss(address, now);
                let reason = self.peers.get_mut(address).and_then(|peer| peer.tell(address));
                self.live(reason, now);
                self.changed();
            }
        }
    }

    /// Reports a loss of the address that is due, before something else about it is reported.
    pub(super) fn tell_due_loss(&mut self, address: &Name, now: Instant) {
        if self.peers.get_mut(address).is_some_and(Peer::take_lost) {
            self.tell_lost(address, now);
        }
    }

    /// Probes each address that has not confirmed every topic.
    pub(super) fn ask(&mut self, now: Instant) {
        let (generation, times) = (self.topics.generation(), &self.times);
        let unasked = self.peers.iter_mut().filter(|(_, peer)| peer.generation() < generation);
        let mut addresses = Vec::new();
        for (address, peer) in unasked {
            if peer.is_unasked(generation, now, times) {
                addresses.push(address.clone());
            }
        }
        for address in addresses {
            self.probe(&address, self.times.live_timeout, now);
        }
        self.deadline = None;
    }

    pub(super) fn probe(&mut self, address: &Name, patience: Duration, now: Instant) {
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        self.probes += 1;
        let topic = Topic::probe(self.id, self.probes);
        peer.probed(topic.clone(), self.topics.generation(), patience, now);
        let is_live = peer.is_live();
        self.act(Action::Probe(address.clone(), topic));
        if is_live {
            // To learn what has been received since.
            self.act(Action::Weigh(address.clone()));
        }
    }

    /// Handles the loss of an address, which was reported live if `told`. The loss is reported within this part of a
    /// hello period.
    pub(super) fn lost(&mut self, address: &Name, told: bool, held: f64, now: Instant) {
        let is_gone = self.has_left(address);
        if !is_gone && let Some(continuity) = &mut self.continuity {
            continuity.lose(address);
        }
        if told {
            self.clear(address);
            let is_cleared = self.options.resubscribe == Resubscribe::Manual;
            let wait = self.times.hello_interval.mul_f64(held * self.jitter.f64());
            match self.peers.get_mut(address) {
                Some(peer) if is_gone => peer.rest(),
                // Before the report that topics are cleared.
                Some(_) if is_cleared => self.tell_lost(address, now),
                Some(peer) => peer.tell_lost_at(after(now, wait)),
                None => {}
            }
            self.tell_cleared(is_cleared, now);
        }
        self.settled(now);
        self.changed();
    }

    /// Handles an address from which nothing comes any more, or which receives nothing.
    pub(super) fn stall(&mut self, address: &Name, now: Instant) {
        if let Some(peer) = self.peers.get_mut(address) {
            let told = peer.stall(now, &self.times, &mut self.jitter);
            self.lost(address, told, LEAST_HELD, now);
        }
    }

    pub(super) fn tell_lost(&mut self, address: &Name, now: Instant) {
        let address = address.clone();
        self.tell(SyncReason::AddressLost { address }, now);
    }

    /// Reports an address that is live, or taken for one without hellos, and the consequences.
    pub(super) fn live(&mut self, reason: Option<SyncReason>, now: Instant) {
        if let Some(reason) = reason {
            self.tell(reason, now);
            self.tell_cleared(true, now);
        }
        self.settled(now);
    }

    /// The generation up to which topics are in force at every connected address.
    pub(super) fn settled_generation(&self) -> u64 {
        let settled = self.peers.values().filter(|peer| peer.is_settled());
        settled.map(Peer::generation).min().unwrap_or(0)
    }

    /// Reports the cleared topics that are in force again.
    pub(super) fn settled(&mut self, now: Instant) {
        let settled = self.settled_generation();
        let somewhere = self.peers.values().filter(|peer| peer.is_settled());
        let somewhere = somewhere.map(Peer::generation).max().unwrap_or(0);
        if let Some(reason) = self.cleared.in_force(settled, somewhere, now) {
            self.tell(reason, now);
        }
    }

    /// Clears all topics after the connection to a live address was lost, if the option `resubscribe` says so.
    fn clear(&mut self, address: &Name) {
        if self.options.resubscribe == Resubscribe::Manual {
            let topics = self.topics.clear();
            self.cleared.clear(address, topics.keys().cloned());
            if let Some(continuity) = &mut self.continuity {
                continuity.unregister_all();
            }
            let unsubscribe = topics.keys().cloned().map(Action::Unsubscribe);
            self.actions.extend(unsubscribe);
            self.act(Action::Clear(topics));
        }
    }

    /// Reports the cleared topics, if something changed and there is an address at which they can be in force again.
    fn tell_cleared(&mut self, has_changed: bool, now: Instant) {
        if has_changed
            && self.peers.values().any(Peer::is_told)
            && let Some(reason) = self.cleared.tell(self.settled_generation())
        {
            self.tell(reason, now);
        }
    }
}
