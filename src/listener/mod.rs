//! Status updates: each goes to one of many servers, which processes it exactly once.
//!
//! Each server runs a [`Listener`]. It has its own topic, registered in the store's table [`LISTENERS`] and renewed.
//! Each node has a [`Notifier`], which publishes each status update on the topic of one live listener, chosen at
//! random.
//!
//! - **Delivery is acknowledged.** A listener sends a receipt for each event that it takes, and an acknowledgement once
//!   the event is processed. An event that a listener loses, or has when it ends, is sent to another; an event that a
//!   busy listener holds is not.
//! - **Exactly one processes it.** Before a listener processes an event it claims it in the store, in the table
//!   `listener_claim`, and before it acknowledges the event it marks the claim as done. A done claim holds for all
//!   listeners, also when its owner is gone; an open one is taken over once its owner can no longer be processing the
//!   event.
//! - **In bundles.** Claims, marks and removals that are due together make one step of the store, and answers make one
//!   message. Listeners report how many events wait, and notifiers choose listeners and hold back accordingly.
//! - **No restarts.** Notifiers see servers come and go in the store, by versions, without comparing clocks.
//!
//! ```
//! use std::time::Duration;
//! use tablecast::{Action, Config, DbUpdate, Node, Result};
//!
//! # fn main() -> Result<()> {
//! // A server and a node, usually two programs.
//! let node = Node::open(&Config::in_memory("status"))?;
//! let (seen, statuses) = crossbeam_channel::unbounded();
//! let _listener = node.listener(move |update: &DbUpdate| drop(seen.send(update.clone())))?;
//!
//! let notifier = node.notifier()?;
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
//! - If a server is killed after it has processed an event and before it has marked the claim, another one processes
//!   the event again. A clean stop, or a panic in the handler, causes no repeat.
//! - If a process is stopped, its host sleeps, or it cannot reach the store for longer than the option `timeout` while
//!   its handler runs, another server may process the event again. Before an event is begun, the listener makes sure
//!   that it is still registered.
//! - A virtual machine that was paused cannot know it: no clock of its own went on. If that took longer than `timeout`,
//!   its listener begins events that others may have processed meanwhile, until its next renewal fails.
//! - Claims are as durable as the store. If the store loses writes, an event may be processed twice.
//! - Updates of one row (table and key) from one notifier are processed one after the other, in the order in which they
//!   were passed to it. Other updates have no order.

mod answering;
mod choice;
mod claims;
mod event_table;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod in_flight;
mod inbox;
mod latency;
#[cfg(test)]
mod laws;
mod listener_shared;
mod listener_worker;
mod live;
mod messages;
mod notifier;
mod notifier_shared;
mod notifier_thread;
mod notifier_worker;
mod options;
#[cfg(feature = "metrics")]
mod outline;
mod peers;
mod run;
mod server;
mod sweep;
mod tables;
mod waiting;

pub use latency::Latency;
pub use notifier::Notifier;
pub use options::{Delivery, ListenerOptions, ListenerStats, NotifierOptions, NotifierStats};
#[cfg(feature = "metrics")]
pub(crate) use outline::{ListenerOutline, NotifierOutline};
pub use server::Listener;
pub use tables::{CLAIMS, LISTENERS};
