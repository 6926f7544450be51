//! Topics that were cleared because a connection was lost. Pure.
//!
//! A cleared topic waits to be reported, then to be registered again, then to be in force again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::event::SyncReason;
use crate::update::{Name, Topic};

/// How often to check whether a topic is in force anywhere, after the wait for an address has timed out.
const AGAIN: Duration = Duration::from_millis(100);

/// Cleared topics by stage.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// The last address that was lost.
    address: Option<Name>,
    /// Topics not reported to the program yet.
    untold: BTreeSet<Topic>,
    /// Topics reported to the program, and not registered again.
    told: BTreeSet<Topic>,
    /// Topics registered again, but not yet in force at every connected address.
    resumed: BTreeMap<Topic, Resumed>,
}

#[derive(Debug)]
struct Resumed {
    generation: u64,
    /// The clearing was not reported to the program. Nothing is reported if the topic is in force by the next event
    /// that covers every topic.
    is_quiet: bool,
    /// End of the wait for an address that does not answer; `None` after the program got its event at that end.
    patience: Option<Instant>,
}

impl Cleared {
    /// Adds topics that were cleared because the connection to this address was lost.
    pub(super) fn clear(&mut self, address: &Name, topics: impl Iterator<Item = Topic>) {
        self.address = Some(address.clone());
        self.resumed.clear();
        self.untold.extend(topics);
    }

    /// Handles the registration of a topic. Addresses are waited for until `patience` is over.
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

    /// Forgets a topic that the program has unregistered, whether it was cleared or not.
    pub(super) fn unregistered(&mut self, topic: &Topic) {
        self.untold.remove(topic);
        self.told.remove(topic);
        self.resumed.remove(topic);
    }

    /// Returns the event for the program once an address is live, so that the program can register its topics again.
    /// Topics up to the generation `settled` are in force at every connected address.
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

    /// Returns the event for topics that are in force again. Topics up to the generation `settled` are in force at
    /// every connected address, those up to `somewhere` at one at least. An address that does not answer in time is not
    /// waited for; the program then gets two events.
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

    /// The next time to call [`Cleared::in_force`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        let awaited = self.resumed.values().filter(|resumed| !resumed.is_quiet);
        awaited.filter_map(|resumed| resumed.patience).min()
    }

    /// Called when the subscriber stops. When it runs again, all registered topics are reported to be in force.
    pub(super) fn reset(&mut self) {
        self.resumed.clear();
    }
}
