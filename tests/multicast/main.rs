//! Multicast (`epgm`). The vendored libzmq has none; `./test` runs this a second time with one that has.
#![cfg(feature = "bin")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(curve)]
mod losses;
#[cfg(not(curve))]
mod missing;
#[cfg(curve)]
mod network;
#[path = "../common/process.rs"]
mod process;
#[cfg(curve)]
#[path = "../common/reexec.rs"]
mod reexec;
#[cfg(curve)]
mod watch;

use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
