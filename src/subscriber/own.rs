//! Topics of the library's own parts, beside those of the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::Subscriber;
use crate::error::Result;
use crate::update::{DbUpdate, Name, Topic};

/// Takes an update on the subscriber's thread: it is quick, and waits for nothing.
pub(crate) type Sink = Box<dyn Fn(DbUpdate) + Send + Sync>;

/// A topic that a part of the library listens to, until this is dropped. It is registered again whenever it was cleared.
pub(crate) struct OwnTopic {
    subscriber: Arc<Subscriber>,
    topic: Topic,
}

impl OwnTopic {
    /// Registers a topic. Its updates go into the queue like any other, but those of the table that is named go to the
    /// sink beside it instead.
    ///
    /// # Errors
    /// As [`Subscriber::register_topic`].
    pub(crate) fn register(subscriber: &Arc<Subscriber>, topic: Topic, sink: Option<(Name, Sink)>) -> Result<OwnTopic> {
        subscriber.shared.own.add(topic.clone(), sink);
        let own = OwnTopic {
            subscriber: Arc::clone(subscriber),
            topic,
        };
        subscriber.register_topic(&own.topic)?;
        Ok(own)
    }
}

impl Drop for OwnTopic {
    fn drop(&mut self) {
        self.subscriber.shared.own.remove(&self.topic);
        self.subscriber.unregister_topic(&self.topic);
    }
}

/// The topics of the library's own parts, with their sinks.
#[derive(Default)]
pub(super) struct Own {
    /// Tells without the lock that there are no sinks.
    has_sinks: AtomicBool,
    topics: RwLock<HashMap<Topic, Option<(Name, Sink)>>>,
}

impl Own {
    fn add(&self, topic: Topic, sink: Option<(Name, Sink)>) {
        let mut topics = self.topics.write();
        topics.insert(topic, sink);
        self.look(&topics);
    }

    fn remove(&self, topic: &Topic) {
        let mut topics = self.topics.write();
        let removed = topics.remove(topic);
        self.look(&topics);
        drop(topics);
        drop(removed);
    }

    fn look(&self, topics: &HashMap<Topic, Option<(Name, Sink)>>) {
        self.has_sinks
            .store(topics.values().any(Option::is_some), Ordering::Release);
    }

    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.topics.read().contains_key(topic)
    }

    /// Hands those of the updates to their sinks that have one.
    pub(super) fn take(&self, updates: &mut Vec<DbUpdate>) {
        if !self.has_sinks.load(Ordering::Acquire) {
            return;
        }
        let topics = self.topics.read();
        let sink = |update: &DbUpdate| {
            let (table, sink) = topics.get(&update.topic)?.as_ref()?;
            (*table == update.table).then_some(sink)
        };
        for update in updates.extract_if(.., |update| sink(update).is_some()) {
            if let Some(sink) = sink(&update) {
                sink(update);
            }
        }
    }
}
