//! Contents of frames: updates of registered topics, and hellos.

use std::time::{Duration, Instant};

use crate::codec::{self, Control, GOODBYE, HELLO, Hello, MIN_HELLO, Message};
use crate::error::{Error, ErrorKind};
use crate::event::SyncReason;
use crate::update::Topic;

use super::continuity::{Continuity, Scope, Sender};
use super::peer::Greeting;
use super::{Action, Session};

/// Number of messages whose memory is kept.
const MAX_KEPT: usize = 1024;

impl Session {
    /// Handles a frame. `heard` is roughly the current time; `clock` gives the exact time and is read only where it
    /// matters.
    ///
    /// Every message passes here, so this has to be cheap.
    pub(in crate::subscriber) fn handle_frame(
        &mut self,
        address: &str,
        topic: &[u8],
        payload: &[u8],
        heard: Instant,
        clock: impl Fn() -> Instant,
    ) {
        self.stats.received += 1;
        self.hear(address, heard);
        let Some(known) = self.topics.get(topic) else {
            if topic == Topic::hello().as_str().as_bytes() && self.options.continuity {
                self.on_hello(address, payload, clock());
            } else {
                self.stats.filtered += 1;
            }
            return;
        };
        let before = self.updates.len();
        let (updates, controls) = (&mut self.updates, &mut self.controls);
        if codec::is_too_large(payload, self.options.max_message_bytes)
            || self.decoder.decode_apart(known, payload, updates, controls).is_err()
        {
            return self.on_malformed(address);
        }
        self.hearing.sense = true;
        let is_requested = controls.drain(..).any(|control| control.action == "sync");
        controls.shrink_to(MAX_KEPT);
        let came = updates.get(before..).unwrap_or_default();
        let are_next = |continuity: &mut Continuity| continuity.are_next(address, came, heard);
        if !self.continuity.as_mut().is_some_and(are_next) {
            let is_unnumbered = came.iter().any(|update| update.origin.is_none());
            if let Some(continuity) = &mut self.continuity {
                self.unusual.extend(updates.drain(before..));
                let scope = Scope {
                    topics: &self.topics,
                    peers: &self.peers,
                };
                if continuity.updates(scope, address, self.unusual.drain(..), heard, &clock, updates) {
                    self.deadline = None;
                }
                // A message with very many parts does not keep its memory.
                self.unusual.shrink_to(MAX_KEPT);
            }
            if is_unnumbered && self.topics.came_unnumbered(topic) {
                self.deadline = None;
            }
        }
        if is_requested {
            self.tell(SyncReason::Requested, clock());
        }
    }

    /// Handles a frame that does not have the transport's form.
    pub(in crate::subscriber) fn handle_malformed(&mut self) {
        self.stats.malformed += 1;
    }

    /// Called when no frame follows immediately.
    pub(in crate::subscriber) fn settle_hearing(&mut self) {
        let Some(at) = self.hearing.at.take() else { return };
        let sense = std::mem::take(&mut self.hearing.sense);
        let Some(address) = self.hearing.address.clone() else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&address) else {
            return;
        };
        if sense {
            peer.understood(true);
        }
        if peer.unanswered_since().is_some() {
            // It is probed again before it would have counted as lost.
            self.deadline = None;
        }
        if peer.hear(at) {
            let patience = peer.patience(&self.times);
            self.probe(&address, patience, at);
        }
    }

    #[inline]
    pub(super) fn hear(&mut self, address: &str, heard: Instant) {
        if self.hearing.address.as_deref() != Some(address) {
            self.settle_hearing();
            self.hearing.address = Some(address.into());
        }
        self.hearing.at = Some(heard);
    }

    fn on_malformed(&mut self, address: &str) {
        self.stats.malformed += 1;
        self.settle_hearing();
        if self.peers.get_mut(address).is_some_and(|peer| peer.understood(false)) {
            let context = format!("everything that comes from {address} is malformed: is it a publisher of updates?");
            self.act(Action::Report(Error::new(ErrorKind::Malformed, context)));
        }
    }

    /// Reads a publisher's hello. Returns its sender.
    pub(super) fn on_hello(&mut self, address: &str, payload: &[u8], now: Instant) -> Option<Greeting> {
        if payload.is_empty() {
            // A transport that confirms subscriptions itself has no hello.
            return None;
        }
        let decoded = match payload.len() > self.options.max_message_bytes.max(MIN_HELLO) {
            true => None,
            false => self.decoder.decode(&Topic::hello(), payload, &mut self.messages).ok(),
        };
        let message = self.messages.pop().filter(|_| decoded.is_some());
        self.messages.clear();
        let Some(Message::Control(Control {
            action,
            value,
            publisher,
            epoch,
        })) = message
        else {
            self.on_malformed(address);
            return None;
        };
        let is_last = action == GOODBYE;
        let hello = Hello::parse(value.as_deref())
            .ok()
            .filter(|_| is_last || action == HELLO);
        let Some(hello) = hello else {
            self.on_malformed(address);
            return None;
        };
        self.hearing.sense = true;
        let Some((publisher, epoch)) = publisher.zip(epoch) else {
            // A service that rewrites messages, such as Dragonflow's, leaves out the publisher.
            self.stats.filtered += 1;
            return None;
        };
        if let Some(peer) = self.peers.get_mut(address) {
            peer.hint(now, &self.times);
            if hello.round.is_some() && hello.part == 0 {
                let said = (hello.at > 0).then(|| Duration::from_millis(hello.at));
                peer.hear_round((&publisher, epoch), said, hello.crowd, now, &self.times);
            }
        }
        if let Some(continuity) = &mut self.continuity {
            let scope = Scope {
                topics: &self.topics,
                peers: &self.peers,
            };
            let from = Sender {
                address,
                publisher: &publisher,
                epoch,
            };
            continuity.hello(scope, &from, &hello, is_last, now);
            self.deadline = None;
        }
        let at = (hello.at > 0).then(|| Duration::from_millis(hello.at));
        Some(Greeting {
            publisher,
            epoch,
            at,
            next: hello.round.map(|_| hello.period()),
        })
    }
}
