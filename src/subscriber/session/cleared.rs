//! Topics that were cleared because a connection was lost. Pure.
//!
//! A cleared topic goes one way: it waits to be reported, then to be registered again, then to be in force again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::update::{Name, SyncReason, Topic};

/// How soon it is looked again whether a topic for which an address was waited in vain is in force anywhere.
const AGAIN: Duration = Duration::from_millis(100);

/// The topics on that way.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// The last address that was lost.
    address: Option<Name>,
    /// Topics not reported to the program yet.
    untold: BTreeSet<Topic>,
    /// Topics reported to the program, and not registered again.
    told: BTreeSet<Topic>,
    /// Registered again, but not yet in force wherever there is a connection.
    resumed: BTreeMap<Topic, Resumed>,
}

#[derive(Debug)]
struct Resumed {
    generation: u64,
    /// The program has not heard that it was cleared: it needs no report, if it is in force at the time of the report.
    is_quiet: bool,
    /// End of the wait for an address that does not answer; `None` once the program got its event because of that.
    patience: Option<Instant>,
}

impl Cleared {
    /// These topics were cleared, because the connection to this address was lost.
    pub(super) fn clear(&mut self, address: &Name, topics: impl Iterator<Item = Topic>) {
        self.address = Some(address.clone());
        self.resumed.clear();
        self.untold.extend(topics);
    }

    /// A topic is registered, in this generation; addresses are waited for until `patience` is over.
    pub(super) fn registered(&mut self, topic: &Topic, generation: u64, patience: Duration, now: Instant) {
        let is_quiet = self.untold.remove(topic);
        if is_quiet || self.told.remove(topic) {
            let patience = Some(after(now, patience));
            let resumed = Resumed {
                generation,
                is_quiet,
                patience,
            };
            self.resumed.insert(topic.clone(), resumed);
        }
    }

    /// The program does not want this topic any more, whether it was cleared or not.
    pub(super) fn unregistered(&mut self, topic: &Topic) {
        self.untold.remove(topic);
        self.told.remove(topic);
        self.resumed.remove(topic);
    }

    /// An address is live: the program can register its topics again. Returns the event for it. Topics up to the
    /// generation `settled` are in force wherever there is a connection.
    pub(super) fn tell(&mut self, settled: u64) -> Option<SyncReason> {
        // The program gets an event that covers every topic.
        self.resumed
            .retain(|_, resumed| !resumed.is_quiet || resumed.generation > settled);
        self.resumed.values_mut().for_each(|resumed| resumed.is_quiet = false);
        if self.untold.is_empty() {
            return None;
        }
        let address = self.address.clone()?;
        let topics: Vec<_> = std::mem::take(&mut self.untold).into_iter().collect();
        self.told.extend(topics.iter().cloned());
        Some(SyncReason::Cleared { address, topics })
    }

    /// Topics up to the generation `settled` are in force wherever there is a connection, and those up to `somewhere`
    /// at one address at least; returns the event for the program. An address that does not answer in time is not
    /// waited for: the program then gets two events.
    pub(super) fn in_force(&mut self, settled: u64, somewhere: u64, now: Instant) -> Option<SyncReason> {
        let mut topics = Vec::new();
        self.resumed.retain(|topic, resumed| {
            if resumed.is_quiet {
                return true;
            }
            let waits = resumed.generation > settled;
            let is_late = resumed.patience.is_some_and(|at| at <= now);
            if !waits || (is_late && resumed.generation <= somewhere) {
                topics.push(topic.clone());
                resumed.patience = None;
            } else if is_late {
                resumed.patience = Some(after(now, AGAIN));
            }
            waits
        });
        (!topics.is_empty()).then_some(SyncReason::Resubscribed { topics })
    }

    /// When [`Cleared::in_force`] is to be called again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.resumed.values().filter_map(|resumed| resumed.patience).min()
    }

    /// The subscriber stopped. When it runs again, all registered topics are reported to be in force.
    pub(super) fn reset(&mut self) {
        self.resumed.clear();
    }
}
