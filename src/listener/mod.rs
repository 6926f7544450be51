//! Status updates: each goes to one of many servers, and is processed there exactly once.
//!
//! Servers run a [`Listener`] each. It has a topic of its own, registered in the store's table [`LISTENERS`] and renewed. Nodes have a
//! [`Notifier`], which publishes each status update on the topic of one listener, chosen at random among those alive.
//!
//! - **Delivery is acknowledged.** A listener sends a receipt for what it has taken, and an acknowledgement for what it has
//!   processed. What a listener has lost, or had when it went, is sent to another; what a busy one has is not.
//! - **Exactly one processes it.** Before a listener processes an event it claims it in the store, in the table [`CLAIMS`], and
//!   before it acknowledges the event it marks the claim as done. A claim that is done counts for all, also when its owner is
//!   gone; one that is not is taken over when its owner cannot be at work any more.
//! - **In bundles.** Claims, marks and removals that are due together are one step of the store, answers one message. Listeners
//!   say how much they have waiting, and notifiers choose, and hold back, by it.
//! - **No restarts.** Servers that come and go show in the store, by versions: no two clocks are compared.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use tablecast::drivers::memory::MemoryDriver;
//! use tablecast::stores::memory::MemoryStore;
//! use tablecast::*;
//!
//! # fn main() -> Result<()> {
//! // What every program has. Here the server and the node are one, so they share it.
//! let driver = Arc::new(MemoryDriver::new("memory://network")?);
//! let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
//! let dispatcher = Dispatcher::new(DispatcherOptions::default())?;
//! let subscriber = Subscriber::new(driver.clone(), dispatcher.queue(), SubscriberOptions::default());
//! subscriber.register_listen_address("memory://network")?;
//! subscriber.daemonize()?;
//! let subscriber = Arc::new(subscriber);
//! let publisher = Arc::new(Publisher::new(&*driver, PublisherOptions::default())?);
//!
//! // The server.
//! let (seen, statuses) = crossbeam_channel::unbounded();
//! let (store_of_server, options) = (Arc::clone(&store), ListenerOptions::default());
//! let handler = move |update: &DbUpdate| drop(seen.send(update.clone()));
//! let listener = Listener::new(store_of_server, &subscriber, &dispatcher, &publisher, options, handler)?;
//!
//! // The node.
//! let notifier = Notifier::new(store, &subscriber, &dispatcher, &publisher, NotifierOptions::default())?;
//! notifier.notify(DbUpdate::new("lport", "port-1", Action::Set).value(r#"{"status":"up"}"#))?;
//! notifier.flush(Duration::from_secs(10))?;
//! assert_eq!(statuses.try_recv().map(|update| update.key), Ok("port-1".into()));
//! assert_eq!(notifier.stats().acknowledged, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! - A server that is killed after it has processed an event, and before it has marked the claim, has not acknowledged
//!   the event: another one processes it again. A server that stops cleanly, or panics in the handler, leaves no doubt.
//! - A handler that is running while its process is stopped, its host sleeps, or the store is out of its reach for longer than
//!   the option `timeout` may be repeated by another server: the process cannot know. Before an event is begun, the listener makes sure that it is still registered.
//! - Claims are as durable as the store. One that loses writes may let an event be processed twice.
//! - Updates of one row (table and key) from one notifier are processed in the order in which they were given to it, one
//!   after the other. There is no order among others.

mod choice;
mod claims;
mod clerk;
mod courier;
mod desk;
mod docket;
mod envelope;
mod in_flight;
mod latency;
#[cfg(test)]
mod laws;
mod notifier;
mod office;
mod options;
mod peers;
mod run;
mod server;
mod sweep;
mod waiting;

use std::time::Duration;

use crate::subscriber::Subscriber;

pub use latency::Latency;
pub use notifier::Notifier;
pub use options::{Delivery, ListenerOptions, ListenerStats, NotifierOptions, NotifierStats};
pub use server::Listener;

/// The table in which listeners are registered: each row is a [`Member`](crate::registry::Member), whose address is the
/// listener's topic.
pub const LISTENERS: &str = "listener";

/// The table of the events that listeners have claimed. A claim is removed when no listener can receive its event any
/// more.
pub const CLAIMS: &str = "listener_claim";

/// Waits until topics that were just registered are in force, but not for long: what is lost before is sent again.
fn wait_live(subscriber: &Subscriber) {
    if subscriber.is_running()
        && let Err(e) = subscriber.wait_live(Duration::from_millis(500))
    {
        log::debug!("status updates begin before all is live: {e}");
    }
}
