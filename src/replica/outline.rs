//! The state of a replica, for metrics.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::core::OnTopic;
use super::holdings::Holdings;
use super::stats::ReplicaStats;
use crate::update::Name;

/// Looks at a replica, which it does not keep alive.
#[derive(Debug, Clone)]
pub(crate) struct Outline(Weak<Holdings>, Arc<Mutex<ReplicaStats>>);

impl Outline {
    pub(super) fn of(holdings: &Arc<Holdings>) -> Outline {
        Outline(Arc::downgrade(holdings), Arc::clone(&holdings.counted))
    }

    /// False once the replica is gone.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The counters of a replica that is gone.
    pub(crate) fn ended(&self) -> ReplicaStats {
        *self.1.lock()
    }

    /// The counters, and true if all rows have been read.
    pub(crate) fn stats(&self) -> (ReplicaStats, bool) {
        let Some(holdings) = self.0.upgrade() else {
            return (self.ended(), true);
        };
        let is_synced = holdings.parts.read().iter().all(|part| part.is_synced());
        (holdings.stats(), is_synced)
    }

    /// Visits each topic of each table. Updates are merged in between, however many topics there are.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Name, OnTopic)) {
        let parts = self.0.upgrade().map(|holdings| holdings.parts());
        for part in parts.into_iter().flatten() {
            let mut after = None;
            loop {
                let some = part.standings(after.as_deref());
                let Some(last) = some.last() else { break };
                after = Some(Arc::clone(&last.topic));
                some.into_iter().for_each(|on_topic| visit(part.name(), on_topic));
            }
        }
    }
}
