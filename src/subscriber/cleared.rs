//! What becomes of the topics that were cleared because a connection was lost. Pure bookkeeping.
//!
//! A cleared topic goes one way: it waits to be told, then to be registered again, then to be in force again.

use std::collections::{BTreeMap, BTreeSet};

use crate::update::{Name, SyncReason, Topic};

/// The topics on that way.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// The last address that was lost.
    address: Option<Name>,
    /// The program is still to be told of these.
    untold: BTreeSet<Topic>,
    /// The program was told, and has not registered these again.
    told: BTreeSet<Topic>,
    /// Registered again, in this generation, but not yet in force.
    resumed: BTreeMap<Topic, u64>,
}

impl Cleared {
    /// These topics were cleared, because the connection to this address was lost.
    pub(super) fn clear(&mut self, address: &Name, topics: BTreeSet<Topic>) {
        self.address = Some(address.clone());
        self.resumed.clear();
        self.untold.extend(topics);
    }

    /// A topic is registered, in this generation.
    pub(super) fn registered(&mut self, topic: &Topic, generation: u64) {
        // One that the program has not heard of yet was registered before any address is live: that will be told.
        if !self.untold.remove(topic) && self.told.remove(topic) {
            self.resumed.insert(topic.clone(), generation);
        }
    }

    /// The program does not want this topic any more, whether it was cleared or not.
    pub(super) fn unregistered(&mut self, topic: &Topic) {
        self.untold.remove(topic);
        self.told.remove(topic);
        self.resumed.remove(topic);
    }

    /// An address is live: the program can register its topics again. Returns what it is to be told.
    pub(super) fn tell(&mut self) -> Option<SyncReason> {
        if self.untold.is_empty() {
            return None;
        }
        let address = self.address.clone()?;
        let topics: Vec<_> = std::mem::take(&mut self.untold).into_iter().collect();
        self.told.extend(topics.iter().cloned());
        Some(SyncReason::Cleared { address, topics })
    }

    /// Topics up to this generation are in force wherever there is a connection; returns what the program is to be
    /// told.
    pub(super) fn in_force(&mut self, settled: u64) -> Option<SyncReason> {
        let mut topics = Vec::new();
        self.resumed.retain(|topic, generation| {
            let waits = *generation > settled;
            if !waits {
                topics.push(topic.clone());
            }
            waits
        });
        (!topics.is_empty()).then_some(SyncReason::Resubscribed { topics })
    }

    /// The subscriber stopped. When it runs again, all that is registered is told to be in force.
    pub(super) fn reset(&mut self) {
        self.resumed.clear();
    }
}
