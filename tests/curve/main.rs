//! CURVE: keys, and who is let in. The vendored libzmq has none; `./test` runs this a second time with one that has.
#![cfg(feature = "bin")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;
#[cfg(curve)]
#[path = "../common/rig.rs"]
mod rig;

#[cfg(curve)]
mod files;
#[cfg(curve)]
mod keys;
#[cfg(curve)]
mod list;
#[cfg(not(curve))]
mod missing;
#[cfg(curve)]
mod outsiders;
#[cfg(curve)]
mod party;
#[cfg(curve)]
mod tool;

use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
