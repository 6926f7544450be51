//! tablecast tells every process that cares that a row of a database table changed.
//!
//! A process writes an object to a database and publishes an update; any number of other processes subscribe by topic
//! and get callbacks per table, most urgent first. Everything runs on plain OS threads, without an async runtime.
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//! use tablecast::{Config, Node, Result, Table, Topic};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Port {
//!     chassis: String,
//! }
//! const LPORT: Table<Port> = Table::new("lport");
//!
//! # fn main() -> Result<()> {
//! let mut config = Config::in_memory("front"); // a program says Config::load(None)?
//! config.topics = vec![Topic::ALL];
//! let node = Node::open(&config)?;
//!
//! // A copy of the table, kept right whatever is lost, killed or restarted.
//! let replica = node.replica()?;
//! let ports = replica.table(LPORT)?;
//! replica.wait_synced(Duration::from_secs(5))?;
//!
//! // A writer, as a rule in another process.
//! node.database()?.rows(LPORT).put("port-1", &Port { chassis: "host1".into() })?;
//! replica.wait_current(Duration::from_secs(5))?;
//! assert_eq!(ports.get("port-1")?.expect("it is there").row.chassis, "host1");
//! # Ok(())
//! # }
//! ```
//!
//! Below that are parts that can be had alone: a [`Publisher`] sends updates, a [`Subscriber`] receives them, a
//! [`Dispatcher`] calls callbacks, a [`Store`] keeps rows, a [`Database`] stores and publishes.
//!
//! # The two flows
//!
//! ```text
//! in:   Inbound::recv -> frame -> codec -> queue -> dispatcher -> callback
//!       \____ subscriber's thread ____/    \__ dispatcher's thread __/
//! out:  Publisher::send_event -> codec -> Outbound::send
//! host: many processes -> zmq-multiproc -> Service -> zmq -> subscribers anywhere
//! ```
//!
//! Who may wait for whom: application, dispatcher, subscriber, transport, never backwards. Callbacks run on the
//! dispatcher's threads alone, and never while a lock of the library is held; so they may call anything in it.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `zmq` | yes | the drivers `zmq` and `zmq-multiproc`; builds libzmq, which needs a C++ compiler |
//! | `redis` | yes | the driver `redis` |
//! | `redis-tls` | no | Redis over TLS; builds ring, which needs a C compiler |
//! | `sqlite` | yes | the store `sqlite`; builds SQLite, which needs a C compiler |
//! | `bin` | yes | the command-line tool |
//!
//! # Logs
//!
//! The library logs through [`log`] and installs no logger. `error`: a bug of the library. `warn`: a failure in the
//! background, which also goes to the [`ErrorHook`] of the options. `info`: sync events.
//!
//! # Versions
//!
//! Before 1.0 a minor version may change the interface; the wire format stays understood. The oldest compiler that is
//! supported is Rust 1.89; raising it is a minor version.
#![cfg_attr(
    not(test),
    warn(
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

// In reading order: a module imports only what stands above it.
pub mod error;
mod name;
pub mod update;

mod clock;
pub mod codec;
pub mod table;
mod thread;

#[cfg(any(feature = "redis", feature = "zmq"))]
mod lookup;

pub mod store;
pub mod transport;

pub mod queue;

pub mod config;

#[cfg(feature = "redis")]
pub mod redis;

pub mod drivers;
pub mod stores;

pub mod dispatcher;
pub mod publisher;
pub mod subscriber;

pub mod database;

pub mod monitor;
pub mod registry;

pub mod barrier;

pub mod replica;

pub mod listener;

pub mod service;

pub mod node;

pub use config::Config;
pub use database::{Database, DatabaseOptions};
pub use dispatcher::{Dispatcher, DispatcherHandle, DispatcherOptions, Guard, Handler};
pub use drivers::Drivers;
pub use error::{Error, ErrorHook, ErrorKind, Result};
pub use listener::{Delivery, Listener, ListenerOptions, Notifier, NotifierOptions};
pub use monitor::{Monitor, MonitorOptions};
pub use node::{Node, NodeBuilder};
pub use publisher::{Publisher, PublisherOptions};
pub use replica::{Replica, ReplicaOptions};
pub use service::{Service, ServiceOptions};
pub use store::Store;
pub use stores::Stores;
pub use subscriber::{PeerState, Subscriber, SubscriberOptions, TopicState};
pub use table::Table;
pub use thread::failed_threads;
pub use update::{Action, DbUpdate, Event, Name, Origin, SyncReason, Topic};
