//! A topic of a part of the library, beside those of the program.

use std::sync::Arc;

use super::Subscriber;
use super::own::Sink;
use crate::error::Result;
use crate::update::{Name, Topic};

/// A topic that a part of the library listens to, until this value is dropped. It is registered again whenever it was
/// cleared. It is unregistered with its last user, unless the program registered it too.
pub(crate) struct OwnTopic {
    subscriber: Arc<Subscriber>,
    topic: Topic,
    number: u64,
}

impl OwnTopic {
    /// Registers a topic. Its updates go into the queue, except those of the named table, which go to the sink beside
    /// it.
    ///
    /// # Errors
    /// As [`Subscriber::register_topic`].
    pub(crate) fn register(subscriber: &Arc<Subscriber>, topic: Topic, sink: Option<(Name, Sink)>) -> Result<OwnTopic> {
        let own = OwnTopic {
            subscriber: Arc::clone(subscriber),
            number: subscriber.shared.own.add(topic.clone(), sink),
            topic,
        };
        if subscriber.register_topic(&own.topic)? {
            subscriber.shared.own.claim(&own.topic);
        }
        Ok(own)
    }
}

impl Drop for OwnTopic {
    fn drop(&mut self) {
        if self.subscriber.shared.own.remove(&self.topic, self.number) {
            self.subscriber.unregister_topic(&self.topic);
        }
    }
}
