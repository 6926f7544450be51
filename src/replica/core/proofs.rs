//! How far a table is: synced, its position on each topic, and the proofs that nothing is missing.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::topic::OfTopic;
use crate::store::TableVersion;
use crate::update::Topic;

/// The most standings that are looked at under one lock.
#[cfg(feature = "metrics")]
const STANDINGS_AT_ONCE: usize = 1024;

/// The standing on a topic, for metrics.
#[cfg(feature = "metrics")]
pub(crate) struct OnTopic {
    pub(crate) topic: Arc<Topic>,
    /// Everything up to here is included.
    pub(crate) position: Option<TableVersion>,
    /// Everything written before this time is proven to be included.
    pub(crate) proven: Option<Instant>,
}

impl<T> Core<T> {
    pub(in crate::replica) fn is_synced(&mut self) -> bool {
        let unsynced = |(topic, of_topic): (&Arc<Topic>, &OfTopic)| {
            let is_unsynced = of_topic.position().is_none();
            is_unsynced.then(|| Arc::clone(topic))
        };
        let before = self.unsynced.take();
        let next = before.and_then(|topic| self.topics.range::<Topic, _>(&*topic..).find_map(unsynced));
        self.unsynced = next.or_else(|| self.topics.iter().find_map(unsynced));
        self.unsynced.is_none()
    }

    pub(in crate::replica) fn holds(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// The version up to which everything of the topic is included; `None` until it is synced.
    pub(in crate::replica) fn position(&self, topic: &Topic) -> Option<TableVersion> {
        self.topics.get(topic)?.position()
    }

    /// Everything of the topic that was written before this time is proven to be included.
    pub(in crate::replica) fn proven(&self, topic: &Topic) -> Option<Instant> {
        self.topics.get(topic)?.standing.proven
    }

    /// The oldest proof of all topics; `None` if one is without, or if there are none.
    pub(in crate::replica) fn oldest_proof(&self) -> Option<Instant> {
        self.topics.values().map(|of_topic| of_topic.standing.proven).min()?
    }

    /// The standing on some topics after this one, in order.
    #[cfg(feature = "metrics")]
    pub(in crate::replica) fn standings(&self, after: Option<&Topic>) -> Vec<OnTopic> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let some = self.topics.range::<Topic, _>((from, Unbounded)).take(STANDINGS_AT_ONCE);
        let on_topic = |(topic, of_topic): (&Arc<Topic>, &OfTopic)| OnTopic {
            topic: Arc::clone(topic),
            position: of_topic.position(),
            proven: of_topic.standing.proven,
        };
        some.map(on_topic).collect()
    }

    /// True if everything written before `since` is included.
    pub(in crate::replica) fn is_current(&self, since: Instant) -> bool {
        let current = |of_topic: &OfTopic| of_topic.standing.proven.is_some_and(|proven| proven >= since);
        self.topics.values().all(current)
    }
}
