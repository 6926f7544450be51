//! The library's promises, under the faults that it withstands.
#![cfg(feature = "bin")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/front.rs"]
mod front;
#[path = "../common/junk.rs"]
mod junk;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/random.rs"]
mod random;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod redis_server;
#[path = "../common/rig.rs"]
mod rig;

mod actor;
mod cast;
mod checker;
#[cfg(feature = "redis")]
mod crew;
mod fleet;
mod gate;
mod history;
mod holdings;
mod node;
mod program;
mod proxy;
mod registry;
mod scenarios;
mod server;
mod stage;
mod stops;
mod store;
mod witness;
mod world;
mod writer;

/// Not a test: the body of the processes that the scenarios start.
#[test]
fn process() {
    actor::run();
}
