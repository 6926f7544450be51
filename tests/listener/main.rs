//! Status updates to one of many listeners, over every driver and store that can be combined.
#![cfg(all(feature = "zmq", feature = "redis", feature = "sqlite"))]

#[path = "../common/mod.rs"]
mod common;
mod faults;
#[path = "../common/front.rs"]
mod front;
mod once;
mod plain;
mod program;
#[path = "../common/reexec.rs"]
mod reexec;
#[path = "../common/redis.rs"]
mod servers;
mod storm;
mod suite;
#[path = "../common/swap.rs"]
mod swap;

use std::time::Duration;

/// The longest that a test takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// More than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
