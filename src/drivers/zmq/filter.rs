//! Subscriptions in a form that libzmq can take.

use crate::error::Result;
use crate::update::Topic;

use super::calls::zmq_error;

/// Length of a subscription. libzmq recurses once per byte, and a topic of 64 KiB overflows the stack. The beginning is
/// enough, since libzmq matches prefixes and counts how often each was subscribed. Less than 246 bytes, because libzmq
/// 4.3.4 writes a broken frame for 246 to 255.
const MAX_FILTER: usize = 200;

/// The subscription for this topic.
pub(super) fn filter(topic: &Topic) -> &[u8] {
    let topic = topic.as_str().as_bytes();
    topic.get(..MAX_FILTER).unwrap_or(topic)
}

/// Subscribes to this topic, and to others that begin alike.
pub(super) fn subscribe(socket: &zmq::Socket, topic: &Topic) -> Result<()> {
    let done = socket.set_subscribe(filter(topic));
    done.map_err(|e| zmq_error(e, format!("cannot subscribe to {topic}")))
}

/// Takes [`subscribe`] back.
pub(super) fn unsubscribe(socket: &zmq::Socket, topic: &Topic) -> Result<()> {
    let done = socket.set_unsubscribe(filter(topic));
    done.map_err(|e| zmq_error(e, format!("cannot unsubscribe from {topic}")))
}
