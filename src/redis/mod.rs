//! Connections to Redis, shared by the driver and the store: a single server or a cluster, with or without a password,
//! plain or over TLS.
//!
//! The `redis` crate builds requests, parses replies and distinguishes refusals. Its connections are not used: here
//! every wait as a whole has a deadline and can be cancelled, it is known of every request whether it may have been
//! done, and a message is decoded in the receive buffer.

mod access;
mod address;
mod answer;
mod buffer;
mod client;
mod cluster;
mod conn;
mod finder;
mod flat;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod input;
mod login;
mod master;
mod masters;
mod message;
mod node;
mod opening;
mod options;
mod outcome;
mod poller;
mod pool;
mod reply;
mod rivals;
mod scan;
mod sentinel;
mod sentinels;
mod slots;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;
#[cfg(feature = "redis-tls")]
mod trust;
mod watch;
mod way;

pub(crate) use address::Servers;
pub(crate) use answer::refused;
pub(crate) use client::{Client, Request};
pub(crate) use conn::Conn;
#[cfg(feature = "metrics")]
pub(crate) use conn::connections;
pub(crate) use finder::{Finder, turns};
pub(crate) use health::Health;
pub(crate) use input::Incoming;
pub(crate) use node::Node;
pub use options::RedisOptions;
pub(crate) use stream::Limit;
pub(crate) use way::Way;
