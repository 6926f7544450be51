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

use crate::common::pass;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::LONG;
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{ErrorKind, Publisher, PublisherOptions};

fn driver(address: &str) -> Arc<dyn Driver> {
    Arc::new(ZmqDriver::new(address, ZmqOptions::default()).unwrap())
}

fn publisher(address: &str) -> Publisher {
    // A port is free only a moment after its last socket was closed.
    let deadline = Instant::now() + LONG;
    loop {
        match Publisher::new(&*driver(address), PublisherOptions::default()) {
            Err(error) if error.kind() == ErrorKind::AddressInUse && Instant::now() < deadline => {
                pass(Duration::from_millis(5));
            }
            publisher => return publisher.unwrap(),
        }
    }
}
