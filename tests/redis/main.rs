//! The Redis driver against real servers that are killed, hang, are promoted, or cannot be reached.
#![cfg(feature = "redis")]

mod access;
mod addresses;
mod chain;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod connections;
#[cfg(feature = "zmq")]
mod foreign;
mod group;
#[cfg(feature = "zmq")]
mod joined;
mod lateness;
mod moving;
mod names;
#[path = "../common/network.rs"]
mod net;
mod network;
#[cfg(feature = "zmq")]
#[path = "../common/process.rs"]
mod process;
mod programs;
#[path = "../common/proxy.rs"]
mod proxy;
#[path = "../common/reexec.rs"]
mod reexec;
mod resp2;
mod resubscribe;
#[path = "../common/rig.rs"]
mod rig;
mod rivals;
mod sentinel;
mod server;
#[path = "../common/redis.rs"]
mod servers;
mod store;
mod store_cluster;
mod tenants;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tablecast::drivers::redis::{RedisDriver, RedisOptions};
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{ErrorKind, Publisher, PublisherOptions, SubscriberOptions};

use rig::{LONG, Rig};

/// Long enough for a busy machine, short enough to wait for.
pub(crate) const BEAT: Duration = Duration::from_millis(100);
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// For tests that are not about silence: nothing is lost if a busy machine holds up a server, or a thread, for seconds.
pub(crate) fn options() -> RedisOptions {
    RedisOptions {
        heartbeat_interval: BEAT,
        heartbeat_timeout: LONG,
        reconnect_interval: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(200),
        ..RedisOptions::default()
    }
}

/// For tests in which a server is to be left that answers, but is no master any more, or is cut off. That takes the
/// timeout: less than the tests wait, and more than a busy machine holds up anything.
pub(crate) fn wary() -> RedisOptions {
    RedisOptions {
        heartbeat_timeout: 4 * SECOND,
        ..options()
    }
}

/// For tests about silence: it is noticed soon, also where a busy machine is its cause.
pub(crate) fn hasty() -> RedisOptions {
    RedisOptions {
        heartbeat_timeout: SILENCE,
        ..options()
    }
}

/// As [`options`], for a subscriber: with the default it reports a silence of little more than a second.
pub(crate) fn listening() -> SubscriberOptions {
    SubscriberOptions {
        hello_interval: 3 * SECOND,
        ..SubscriberOptions::default()
    }
}

/// As [`options`], for a publisher. It sends hardly any hello by itself: one that is not confirmed at once costs the
/// connection.
pub(crate) fn sending() -> PublisherOptions {
    PublisherOptions {
        send_timeout: LONG,
        hello_interval: 60 * SECOND,
        ..PublisherOptions::default()
    }
}

pub(crate) fn driver(address: &str) -> Arc<dyn Driver> {
    with(address, options())
}

pub(crate) fn with(address: &str, options: RedisOptions) -> Arc<dyn Driver> {
    Arc::new(RedisDriver::new(address, options).unwrap())
}

pub(crate) fn publisher(driver: &Arc<dyn Driver>) -> Publisher {
    Publisher::new(&**driver, sending()).unwrap()
}

pub(crate) fn subscriber(driver: &Arc<dyn Driver>) -> Rig {
    Rig::with(driver, listening(), QueueOptions::default())
}

/// A subscriber, and its failures in the background.
pub(crate) fn told(driver: &Arc<dyn Driver>) -> (Rig, Receiver<(ErrorKind, String)>) {
    told_with(driver, listening())
}

/// As [`told`], with these options in place of [`listening`].
pub(crate) fn told_with(driver: &Arc<dyn Driver>, options: SubscriberOptions) -> (Rig, Receiver<(ErrorKind, String)>) {
    let (hook, errors) = common::hook();
    let options = SubscriberOptions {
        hook,
        live_timeout: Duration::from_millis(200),
        ..options
    };
    (Rig::with(driver, options, QueueOptions::default()), errors)
}

pub(crate) fn start(rig: &Rig, topics: &[&str], address: &str) {
    for topic in topics {
        rig.subscriber.register_topic(&rig::topic(topic)).unwrap();
    }
    rig.subscriber.register_listen_address(address).unwrap();
    rig.subscriber.daemonize().unwrap();
}

/// Checks that exactly these sync events come next.
#[track_caller]
pub(crate) fn syncs(rig: &Rig, expected: &[&str]) {
    let next: Vec<_> = expected.iter().map(|_| rig.next_sync().as_str()).collect();
    assert_eq!(next, expected);
    let more: Vec<_> = rig.syncs.try_iter().collect();
    assert!(more.is_empty(), "{more:?}");
}
