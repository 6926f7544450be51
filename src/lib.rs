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

pub mod table;
mod thread;

pub mod transport;

pub mod drivers;

pub use error::{Error, ErrorKind, Result};
pub use table::Table;
pub use update::{Action, DbUpdate, Event, Name, Origin, SyncReason, Topic};
