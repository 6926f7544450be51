//! Commands of the program, and those that the driver refused.

use std::time::Instant;

use crate::event::SyncReason;
use crate::update::{Name, Topic};

use super::peer::Peer;
use super::{Action, Command, Session};

impl Session {
    pub(in crate::subscriber) fn handle_command(&mut self, command: Command, now: Instant) {
        self.settle_hearing();
        match command {
            Command::Subscribe(topic, generation) => {
                self.topics.register(topic.clone(), generation, now);
                let patience = self.times.live_timeout;
                self.cleared.registered(&topic, generation, patience, now);
                self.act(Action::Subscribe(topic));
            }
            Command::Unsubscribe(topic) => {
                self.cleared.unregistered(&topic);
                if self.topics.unregister(&topic) {
                    self.updates.retain(|update| update.topic != topic);
                    if let Some(continuity) = &mut self.continuity {
                        continuity.unregister(&topic);
                    }
                    self.act(Action::Unsubscribe(topic));
                }
            }
            Command::Connect(address, registration) => {
                let was_live = self.were_live.remove(&address) == Some(registration);
                let peer = Peer::new(registration, was_live, now, &self.times);
                self.peers.insert(address.clone(), peer);
                self.act(Action::Connect(address));
                self.changed();
            }
            Command::Disconnect(address) => {
                // Lost before the program unregistered it.
                self.tell_due_loss(&address, now);
                self.remove(&address);
                self.settled(now);
            }
            Command::GiveUp(address) => {
                let is_missed = self.is_missed(&address);
                self.remove(&address);
                if is_missed {
                    self.tell(SyncReason::AddressLost { address }, now);
                }
                self.settled(now);
            }
        }
    }

    /// True if the address is registered.
    pub(in crate::subscriber) fn listens_to(&self, address: &str) -> bool {
        self.peers.contains_key(address)
    }

    /// Ends a batch of [`Session::handle_command`] calls.
    pub(in crate::subscriber) fn handled_commands(&mut self, now: Instant) {
        self.ask(now);
    }

    /// Handles a topic to which the driver could not subscribe.
    pub(in crate::subscriber) fn handle_refused(&mut self, topic: Topic, now: Instant) {
        let generation = self.topics.refuse(topic);
        self.peers.values_mut().for_each(|peer| peer.limit(generation));
        let at = crate::clock::after(now, self.refused_wait);
        self.refused_at.get_or_insert(at);
        self.deadline = None;
    }

    /// Handles an address to which the driver could not begin to connect.
    pub(in crate::subscriber) fn handle_not_connecting(&mut self, address: &str, now: Instant) {
        if let Some(peer) = self.peers.get_mut(address) {
            peer.refused(now, &self.times, &mut self.jitter);
        }
        self.deadline = None;
    }

    /// Removes an address.
    fn remove(&mut self, address: &Name) {
        self.peers.remove(address);
        if let Some(continuity) = &mut self.continuity {
            continuity.forget(address);
        }
        self.act(Action::Disconnect(address.clone()));
        self.changed();
    }

    /// True if giving up this address may miss changes: its publisher has not said goodbye.
    fn is_missed(&self, address: &Name) -> bool {
        let Some(peer) = self.peers.get(address) else {
            return false;
        };
        match (peer.is_told(), peer.owner()) {
            (true, Some(_)) => !self.has_left(address),
            // The address is a broker's, or has no publisher.
            (true, None) => !peer.is_live(),
            (false, _) => !peer.is_at_peace(),
        }
    }
}
