//! A subscriber between its start and its end, with publishers that fail, come back, or lie.
#![cfg(feature = "zmq")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/junk.rs"]
mod junk;
mod lifecycle;
mod malformed;
mod outage;
#[path = "../common/peer.rs"]
mod peer;
#[cfg(feature = "bin")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/random.rs"]
mod random;
mod resubscribe;
#[path = "../common/rig.rs"]
mod rig;
