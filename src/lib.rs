//! tablecast tells every process that cares that a row of a database table changed.
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

pub mod error;
pub mod update;

pub mod codec;
pub mod config;
pub mod table;
mod thread;

pub mod transport;

pub mod queue;

pub mod drivers;

pub mod dispatcher;
pub mod publisher;
pub mod subscriber;

pub mod service;

pub use config::Config;
pub use dispatcher::{Dispatcher, DispatcherHandle, DispatcherOptions, Guard, Handler};
pub use drivers::Drivers;
pub use error::{Error, ErrorHook, ErrorKind, Result};
pub use publisher::{Publisher, PublisherOptions};
pub use service::{Service, ServiceOptions};
pub use subscriber::{PeerState, Subscriber, SubscriberOptions};
pub use table::Table;
pub use update::{Action, DbUpdate, Event, Name, Origin, SyncReason, Topic};
