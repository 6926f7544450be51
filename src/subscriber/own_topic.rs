//! A topic of a part of the library, beside those of the program.

use std::sync::Arc;

use super::Subscriber;
use super::own::Sink;
use super::shared::Shared;
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
    /// it. The option `max_topic_bytes` does not hold for the library's own topics.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the topic is too long for any.
    pub(crate) fn register(subscriber: &Arc<Subscriber>, topic: Topic, sink: Option<(Name, Sink)>) -> Result<OwnTopic> {
        topic.check_own_length(subscriber.options.max_topic_bytes)?;
        let Shared { state, own, .. } = &*subscriber.shared;
        // Both under one lock: another user may end at this moment.
        let mut state = state.lock();
        let number = own.add(topic.clone(), sink);
        if state.add_topic(&topic) {
            own.claim(&topic, true);
        }
        drop(state);
        Ok(OwnTopic {
            subscriber: Arc::clone(subscriber),
            topic,
            number,
        })
    }
}

impl Drop for OwnTopic {
    fn drop(&mut self) {
        let Shared { state, own, .. } = &*self.subscriber.shared;
        let mut state = state.lock();
        let (is_over, sinks) = own.remove(&self.topic, self.number);
        if is_over {
            state.remove_topic(&self.topic);
        }
        drop(state);
        drop(sinks);
    }
}
