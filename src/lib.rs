//! tablecast notifies every interested process when a row of a database table changes.
//!
//! A [`Replica`] is a process's own copy of some tables. It reads the database once, follows the published changes, and
//! catches up by itself after lost updates, killed processes and restarts. A [`Database`] stores rows and publishes the
//! changes. Everything runs on plain OS threads, and needs neither an async runtime nor a broker.
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//! use tablecast::{Config, Node, Result, RowChange, Table};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! struct Port {
//!     chassis: String,
//! }
//! const LPORT: Table<Port> = Table::new("lport");
//!
//! # fn main() -> Result<()> {
//! let node = Node::open(&Config::in_memory("front"))?; // in a program: Config::load(None)?
//!
//! // A copy of the table, and a handler for its changes.
//! let replica = node.replica()?;
//! let ports = replica.table(LPORT)?;
//! let _guard = ports.on_change(|change: &RowChange<Port>| println!("{change:?}"));
//! replica.wait_synced(Duration::from_secs(5))?;
//!
//! // A writer, usually in another process.
//! node.database()?.rows(LPORT).put("port-1", &Port { chassis: "host1".into() })?;
//! replica.wait_current(Duration::from_secs(5))?;
//! assert_eq!(ports.get("port-1")?.expect("the row was written").row.chassis, "host1");
//! # Ok(())
//! # }
//! ```
//!
//! # Pieces
//!
//! | task | piece |
//! |---|---|
//! | all pieces from one [`Config`] | [`Node`] |
//! | an up-to-date copy of tables | [`Replica`] |
//! | to write rows and publish the changes | [`Database`], on any [`Store`] |
//! | to send and receive updates without a database | [`Publisher`], [`Subscriber`], [`Dispatcher`] |
//! | one port for all processes of a host | [`Service`] |
//! | publishers that are found through the store | [`Registration`], [`Discovery`] |
//! | tables that others write without publishing | [`Monitor`] |
//! | status updates from many nodes, each processed by one of several servers | [`Notifier`], [`Listener`] |
//!
//! The crate root exports each piece with its options, the common types ([`DbUpdate`], [`Topic`], [`Error`], ..), and
//! the enums that handlers receive and status calls return ([`SyncReason`], [`RowChange`], [`AddressState`], ..).
//! Everything else is in the module of its piece. The driver traits are in [`transport`], the store traits in
//! [`store`].
//!
//! # Pages
//!
//! [Guarantees and limits](docs::guarantees), [replicas](docs::replicas), [status updates](docs::status_updates),
//! [discovery](docs::discovery), [monitors](docs::monitors), [command line](docs::command_line),
//! [options](docs::options), [operating](docs::operating), [metrics](docs::metrics),
//! [security](docs::security), [wire format](docs::wire_format),
//! [beside Dragonflow](docs::dragonflow), [writing a driver](docs::writing_a_driver),
//! [writing a store](docs::writing_a_store), [testing your program](docs::testing_your_program),
//! [benchmarks](docs::benchmarks).
//!
//! # Flows
//!
//! ```text
//! in:   Inbound::recv -> frame -> codec -> queue -> dispatcher -> callback
//!       \____ subscriber's thread ____/    \__ dispatcher's thread __/
//! out:  Publisher::send_event -> codec -> Outbound::send
//! host: many processes -> zmq-multiproc -> Service -> zmq -> subscribers anywhere
//! ```
//!
//! Application, dispatcher, subscriber, transport: each may wait for the next one, never for an earlier one. Callbacks
//! run only on the dispatcher's threads, and never while the library holds a lock, so they may call any of its
//! functions. A call that waits for later callbacks, for example [`Replica::wait_current`] or [`Notifier::flush`], can
//! only time out there, unless another worker of the dispatcher is free.
//!
//! # Features
//!
//! | feature | default | contents |
//! |---|---|---|
//! | `zmq` | yes | the drivers `zmq` and `zmq-multiproc`; builds libzmq with a C++ compiler |
//! | `redis` | yes | the driver and the store `redis` |
//! | `redis-tls` | no | Redis over TLS; builds ring with a C compiler |
//! | `sqlite` | yes | the store `sqlite`; builds SQLite with a C compiler |
//! | `metrics` | yes | [metrics](docs::metrics) for Prometheus: the module `metrics` |
//! | `testing` | no | the module `testing`: faults on command, for unit tests of programs |
//! | `bin` | yes | the tool `tablecast`; includes `zmq`, `sqlite` and `metrics` |
//!
//! # Logs
//!
//! The library logs through the crate `log` and installs no logger. `error` means a bug, in the library or in the
//! program's hook; `warn` a failure in the background, most of which the [`ErrorHook`] receives too, or a setting to
//! look at; `info` a sync event or another change of state.
//!
//! # Versions
//!
//! Before 1.0 a minor release may change the API; the wire format stays compatible. The minimum supported Rust version
//! is 1.95; raising it takes a minor release.
#![cfg_attr(
    not(any(test, fuzzing)),
    warn(
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

// In reading order: a module imports only what stands above it.
mod counter;
pub mod error;
mod name;
mod topic;
pub mod update;
mod words;

pub mod event;

mod clock;
pub mod codec;
#[cfg(any(feature = "sqlite", feature = "zmq"))]
mod denied;
#[cfg(feature = "metrics")]
mod histogram;
mod identity;
#[cfg(any(feature = "metrics", feature = "redis", feature = "zmq"))]
mod poll;
#[cfg(any(feature = "redis-tls", feature = "zmq"))]
mod stamp;
pub mod table;
mod thread;

#[cfg(any(feature = "redis", feature = "zmq"))]
mod lookup;

pub mod store;
pub mod transport;

pub mod queue;

pub mod config;

mod aliases;

#[cfg(feature = "redis")]
mod redis;

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

#[cfg(feature = "metrics")]
pub mod metrics;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(all(any(test, fuzzing), feature = "metrics", feature = "redis", feature = "zmq"))]
pub mod fuzzing;

#[cfg(test)]
mod histories;

#[cfg(any(doc, doctest))]
pub mod docs;

// The pieces with their options.
#[doc(inline)]
pub use config::Config;
#[doc(inline)]
pub use database::{Database, DatabaseOptions};
#[doc(inline)]
pub use dispatcher::{Dispatcher, DispatcherHandle, DispatcherOptions};
#[doc(inline)]
pub use listener::{Listener, ListenerOptions, Notifier, NotifierOptions};
#[cfg(feature = "metrics")]
#[doc(inline)]
pub use metrics::Metrics;
#[doc(inline)]
pub use monitor::{Monitor, MonitorOptions};
#[doc(inline)]
pub use node::{Node, NodeBuilder};
#[doc(inline)]
pub use publisher::{Publisher, PublisherOptions};
#[doc(inline)]
pub use registry::{Discovery, Registration, RegistryOptions};
#[doc(inline)]
pub use replica::{Replica, ReplicaOptions};
#[doc(inline)]
pub use service::{Service, ServiceOptions};
#[doc(inline)]
pub use subscriber::{Subscriber, SubscriberOptions};

// The vocabulary, and what is registered by name.
#[doc(inline)]
pub use dispatcher::{Guard, Handler};
#[doc(inline)]
pub use drivers::Drivers;
#[doc(inline)]
pub use error::{Error, ErrorHook, ErrorKind, Result};
#[doc(inline)]
pub use event::{Event, SyncReason};
#[doc(inline)]
pub use store::Store;
#[doc(inline)]
pub use stores::Stores;
#[doc(inline)]
pub use table::Table;
#[doc(inline)]
pub use update::{Action, DbUpdate, Name, Origin, Topic};

// The enums that handlers and status calls give.
#[doc(inline)]
pub use listener::Delivery;
#[doc(inline)]
pub use replica::RowChange;
#[doc(inline)]
pub use subscriber::{AddressState, TopicState};

pub use thread::failed_threads;
