//! What the subscriber's thread does besides receiving: connections, subscriptions, and what is due.

use std::time::{Duration, Instant};

use super::super::live::{Departed, Expired};
use super::{Command, Retry, State};
use crate::config::Resubscribe;
use crate::thread;
use crate::transport::Inbound;
use crate::update::{Name, SyncReason, Topic};

use super::Continuity;

/// A publisher that is live is asked again after so much of a hello period, and has so much of one to answer: together that
/// is less than three.
pub(super) const ASK: f64 = 0.6;
const ANSWER: f64 = 1.7;

impl State {
    pub(super) fn on_commands(&mut self, inbound: &mut dyn Inbound) {
        while let Ok(command) = self.commands.try_recv() {
            let done = match command {
                Command::Subscribe(topic, generation) => {
                    self.latest = generation;
                    self.topics.insert(topic.clone());
                    if let Some(continuity) = &mut *self.shared.continuity.lock() {
                        continuity.register(topic.clone(), generation, Instant::now());
                    }
                    self.subscribe(inbound, topic, generation);
                    Ok(())
                }
                Command::Unsubscribe(topic) => {
                    self.topics.remove(&topic);
                    if let Some(continuity) = &mut *self.shared.continuity.lock() {
                        continuity.unregister(&topic);
                    }
                    self.refused.remove(&topic);
                    inbound.unsubscribe(&topic)
                }
                Command::Connect(address) => {
                    self.connect(inbound, address, self.options.retry_interval);
                    Ok(())
                }
                Command::Disconnect(address) => {
                    self.retries.remove(&address);
                    let done = inbound.disconnect(&address);
                    self.settle();
                    self.tell_cleared();
                    done
                }
                Command::GivenUp(address, departed) => {
                    let is_missed = match departed {
                        Departed::Nobody => false,
                        Departed::Live(publisher) => !self.is_gone(Some(&publisher)),
                        Departed::Unheard => true,
                    };
                    self.tell(is_missed.then(|| address_lost(&address)));
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.report(&e);
            }
        }
        self.ask(inbound);
    }

    /// Probes who has not confirmed every topic.
    pub(super) fn ask(&mut self, inbound: &mut dyn Inbound) {
        let unasked = self.shared.live.lock().unasked(self.generation());
        for address in unasked {
            self.probe(inbound, &address, self.options.live_timeout);
        }
        self.look_ahead();
    }

    fn connect(&mut self, inbound: &mut dyn Inbound, address: Name, wait: Duration) {
        if let Err(e) = inbound.connect(&address) {
            self.report(&e);
            let at = thread::deadline(wait);
            let wait = wait.saturating_mul(2).min(self.options.retry_max);
            self.retries.insert(address, Retry { at, wait });
        }
    }

    /// Begins anew with an address whose connection may be dead without anybody having been told.
    fn reconnect(&mut self, inbound: &mut dyn Inbound, address: Name) {
        if let Err(e) = inbound.disconnect(&address) {
            self.report(&e);
        }
        self.settle();
        self.connect(inbound, address, self.options.retry_interval);
    }

    fn subscribe(&mut self, inbound: &mut dyn Inbound, topic: Topic, generation: u64) {
        if let Err(e) = inbound.subscribe(&topic) {
            self.report(&e);
            self.refused.insert(topic, generation);
            self.refused_until = Some(thread::deadline(self.options.retry_interval));
        }
    }

    /// The generation up to which the receiving end has been asked for every topic.
    fn generation(&self) -> u64 {
        let refused = self.refused.values().min();
        refused.map_or(self.latest, |generation| generation - 1)
    }

    pub(super) fn probe(&mut self, inbound: &mut dyn Inbound, address: &Name, patience: Duration) {
        self.probes += 1;
        let probe = Topic::probe(self.id, self.probes);
        if let Err(e) = inbound.probe(address, &probe) {
            // Nothing will answer, so that it is asked again.
            self.report(&e);
        }
        let generation = self.generation();
        let mut live = self.shared.live.lock();
        live.probed(address, probe, generation, thread::deadline(patience), patience);
        drop(live);
        self.look_ahead();
    }

    pub(super) fn on_disconnected(&mut self, inbound: &mut dyn Inbound, address: &Name) {
        let mut live = self.shared.live.lock();
        let owner = live.owner(address).cloned();
        let told = live.disconnected(address);
        drop(live);
        let gone = self.is_gone(owner.as_ref());
        if !gone && let Some(continuity) = &mut *self.shared.continuity.lock() {
            continuity.lose(address);
        }
        if told {
            self.clear(inbound, address);
        }
        match (told, gone) {
            (true, true) => self.shared.live.lock().rest(address),
            (true, false) => self.tell(Some(address_lost(address))),
            (false, _) => {}
        }
        self.settle();
        self.tell_cleared();
        if self.shared.live.lock().has_address(address) {
            // A transport that reconnects by itself takes this as done.
            let wait = self.options.retry_interval;
            let at = thread::deadline(wait);
            self.retries.insert(address.clone(), Retry { at, wait });
        }
        self.look_ahead();
    }

    /// Whether this publisher has said goodbye, which is no loss.
    fn is_gone(&self, publisher: Option<&Name>) -> bool {
        let continuity = self.shared.continuity.lock();
        let continuity = continuity.as_ref();
        continuity
            .zip(publisher)
            .is_some_and(|(known, publisher)| known.is_gone(publisher))
    }

    /// The connection to an address that was live is lost: if the options say so, no topic is registered any more.
    fn clear(&mut self, inbound: &mut dyn Inbound, address: &Name) {
        if self.options.resubscribe == Resubscribe::Manual {
            self.shared.live.lock().clear(address);
            // Before there can be another connection, on which they would be subscribed again.
            self.on_commands(inbound);
        }
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, inbound: &mut dyn Inbound) {
        let Some(deadline) = self.deadline else { return };
        let now = Instant::now();
        if now < deadline {
            return;
        }
        self.check(inbound, now);
        let expired = self.shared.live.lock().expire(now, self.drained);
        for expired in expired {
            match expired {
                Expired::Ask(address) => self.probe(inbound, &address, self.options.hello_interval.mul_f64(ANSWER)),
                Expired::Lost(address, told) => {
                    if let Some(continuity) = &mut *self.shared.continuity.lock() {
                        continuity.lose(&address);
                    }
                    if told {
                        self.clear(inbound, &address);
                        self.tell(Some(address_lost(&address)));
                    }
                    self.reconnect(inbound, address);
                    self.tell_cleared();
                }
                Expired::NoHello(address, patience, reason) => {
                    if reason.is_some() {
                        log::warn!(
                            "{address} does not answer: a publisher without hellos? What it loses is not noticed"
                        );
                    }
                    self.settle();
                    self.tell(reason);
                    self.tell_cleared();
                    self.probe(inbound, &address, patience);
                }
            }
        }
        let due: Vec<_> = self.retries.extract_if(|_, retry| retry.at <= now).collect();
        for (address, retry) in due {
            self.connect(inbound, address, retry.wait);
        }
        if self.refused_until.take_if(|at| *at <= now).is_some() {
            for (topic, generation) in std::mem::take(&mut self.refused) {
                self.subscribe(inbound, topic, generation);
            }
        }
        self.ask(inbound);
    }

    /// Tells what was missed.
    fn check(&mut self, inbound: &mut dyn Inbound, now: Instant) {
        let findings = match &mut *self.shared.continuity.lock() {
            Some(continuity) => continuity.check(now, &mut self.batch),
            None => return,
        };
        // What was held back goes before what says that something before it is missing.
        self.flush();
        for error in &findings.errors {
            self.report(error);
        }
        for reason in findings.syncs {
            let silent = match &reason {
                SyncReason::Silence { publishers } => self.shared.live.lock().silent(publishers),
                _ => Vec::new(),
            };
            for address in &silent {
                self.clear(inbound, address);
            }
            self.tell(Some(reason));
            for address in silent {
                self.reconnect(inbound, address);
            }
            self.tell_cleared();
        }
    }

    /// Passes on which topics are in force.
    pub(super) fn settle(&mut self) {
        let (generation, unsure) = self.shared.live.lock().settled();
        if let Some(continuity) = &mut *self.shared.continuity.lock() {
            continuity.settle(generation, unsure, Instant::now());
        }
    }

    pub(super) fn look_ahead(&mut self) {
        let probes = self.shared.live.lock().deadline();
        let missing = self.shared.continuity.lock().as_ref().and_then(Continuity::deadline);
        let retries = self.retries.values().map(|retry| retry.at);
        self.deadline = retries.chain(probes).chain(missing).chain(self.refused_until).min();
    }
}

fn address_lost(address: &Name) -> SyncReason {
    let address = address.clone();
    SyncReason::AddressLost { address }
}
