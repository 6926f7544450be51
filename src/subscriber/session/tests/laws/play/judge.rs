//! What the subscriber did, and whether it is as promised.

use super::super::super::*;
use super::{ADDRESSES, Play, Sent, TOPICS};
use crate::config::Resubscribe;

impl Play {
    /// Takes what was delivered and told.
    pub(super) fn collect(&mut self) {
        if let Some(continuity) = &mut self.world.session.continuity {
            continuity.is_thorough = self.kind.is_thorough;
        }
        for update in self.world.delivered.drain(..) {
            let origin = update.origin.as_ref().unwrap();
            let number = (origin.publisher.clone(), origin.epoch, update.topic.clone(), origin.seq);
            self.known.insert(number.clone());
            // A topic that is registered again begins anew.
            let last = (number.0.clone(), number.1, number.2.clone(), u64::MAX);
            if let Some((.., before)) = self.present.range(number.clone()..=last).next_back() {
                self.wrong = Some(format!("after {before}: {update:?}"));
            }
            self.present.insert(number);
            let index = TOPICS.iter().position(|name| *name == update.topic.as_str()).unwrap();
            if !self.registered[index] && self.kind.options.resubscribe == Resubscribe::Automatic {
                self.wrong = Some(format!("{update:?} comes on a topic that is not registered"));
            }
            self.deliveries.push(update);
        }
        self.syncs.append(&mut self.world.told);
        for (index, since) in self.since.iter_mut().enumerate() {
            let mut addresses = self.world.session.addresses();
            let state = addresses.find(|(address, ..)| address.as_str() == ADDRESSES[index]);
            let is_live = matches!(state, Some((_, _, AddressState::Live, _)));
            self.down[index] = (!is_live).then(|| self.down[index].unwrap_or(self.world.millis));
            let Some((_, _, AddressState::Live | AddressState::NoHello, generation)) = state else {
                continue;
            };
            for (topic, since) in since.iter_mut().enumerate() {
                let is_in_force = self.registered[topic] && generation >= self.generations[topic];
                let first = since.or(is_live.then_some(self.world.millis));
                *since = first.filter(|_| is_in_force);
            }
        }
    }

    pub(super) fn is_live(&self) -> bool {
        (0..ADDRESSES.len()).all(|index| {
            !self.senders[2 * index].is_alive
                || !self.kind.addresses.contains(&ADDRESSES[index])
                || self.world.state(ADDRESSES[index]) == AddressState::Live
        })
    }

    /// True if no hello has ever come from this run, or nothing since its silence or its address was told, and no other
    /// run shows more.
    fn is_unheard(&self, sent: &Sent) -> bool {
        let run = (sent.publisher, sent.epoch);
        let Some((heard, true)) = self.heard.get(&run) else {
            return true;
        };
        let mut others = self.heard.iter().filter(|((of, _), _)| *of == sent.publisher);
        let address = ADDRESSES[sent.publisher / 2];
        let publisher = self.name(sent.publisher);
        let tells = |reason: &SyncReason| match reason {
            SyncReason::Silence { publishers } => publishers.iter().any(|of| *of == publisher),
            SyncReason::AddressLost { address: of }
            | SyncReason::Connected { address: of }
            | SyncReason::Reconnected { address: of } => *of == address || self.kind.is_mirrored,
            _ => false,
        };
        let mut told = self.syncs.iter().filter(|(at, _)| at > heard && *at <= sent.at);
        others.all(|(_, (at, _))| *at <= sent.at) && told.any(|(_, reason)| tells(reason))
    }

    /// Checks the history against the promises.
    pub(in super::super) fn judge(&self) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        for sent in &self.sent {
            let Some(since) = self.since[sent.publisher / 2][sent.topic] else {
                continue;
            };
            let (publisher, name) = (self.name(sent.publisher), topic(TOPICS[sent.topic]));
            let key = (publisher.into(), sent.epoch, name.clone(), sent.seq);
            // The program sees that the address is not live.
            let is_down = self.down[sent.publisher / 2].is_some_and(|down| sent.at >= down);
            if sent.at < since || is_down || self.is_unheard(sent) || self.known.contains(&key) {
                continue;
            }
            let is_told = self
                .syncs
                .iter()
                .any(|(at, reason)| *at >= sent.at && reason.topics().is_none_or(|topics| topics.contains(&name)));
            if !is_told {
                let told = &self.syncs;
                return Err(format!(
                    "{key:?}, sent at {}, is lost silently; told: {told:?}",
                    sent.at
                ));
            }
        }
        match self.is_live() {
            true => Ok(()),
            false => Err(format!("not live: {:#?}", self.world.session.peers)),
        }
    }
}
