//! The bounded priority queue between subscribers and the dispatcher.
//!
//! Updates are handed out by priority, then by timestamp, then in order of arrival, with two exceptions. An update
//! never overtakes an earlier one of the same row (table and key): a more urgent update lifts the earlier ones of its
//! row with it. And an update that has waited longer than [`QueueOptions::max_overtake`] goes before anything younger.
//!
//! Sync events go before updates, in turns that keep either from waiting for ever. Sync events that arrive while others
//! are handed out wait until the updates have had a second, or none is left. An
//! [`Overflow`](crate::SyncReason::Overflow) always waits as long, so that one burst causes one event. When many sync
//! events wait they are [`Joined`](crate::SyncReason::Joined); none is ever dropped.
//!
//! Senders put batches into a channel; the receiver drains it into its own heap. Whatever must not wait behind the
//! channel's content, or does not fit, goes into one of two places beside it: the pending sync events, and the backlog,
//! which keeps only the newest update of each row.

mod alerts;
mod backlog;
mod between;
mod heap;
mod lane;
mod line;
mod options;
mod ranking;
mod receiver;
mod sender;
mod turns;

use std::sync::Arc;

#[doc(hidden)]
pub use self::between::Batch;
use self::between::Queue;
pub use self::options::{Overflow, QueueOptions, QueueStats};
#[doc(hidden)]
pub use self::receiver::QueueReceiver;
pub use self::sender::QueueSender;

/// Creates a queue.
#[doc(hidden)]
pub fn bounded(options: QueueOptions) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let queue = Arc::new(Queue::new(options.capacity, options.overflow));
    let receiver = QueueReceiver::new(Arc::clone(&queue), receiver, options.max_overtake);
    (QueueSender::new(queue, sender), receiver)
}
