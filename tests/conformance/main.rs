//! One suite for every driver. Another driver needs one line at the end of this file, and a function that makes a
//! [`Setup`]: every call must give an address of its own, and drivers of several calls must reach each other.

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "zmq")]
mod multiproc;
mod resources;
#[path = "../common/rig.rs"]
mod rig;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod servers;
mod suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tablecast::drivers::memory::MemoryDriver;
use tablecast::transport::Driver;

pub(crate) struct Setup {
    pub(crate) driver: Arc<dyn Driver>,
    /// Where subscribers listen; `None`: at the publisher's address.
    pub(crate) address: Option<String>,
    /// Messages sent before a connection was made may still come on it: nodes of a cluster pass them on to each other.
    pub(crate) comes_late: bool,
    /// Removed at the end.
    _resource: Option<Box<dyn std::any::Any>>,
}

macro_rules! conforms {
    ($driver:ident, $setup:path: $($case:ident)*) => {
        mod $driver {
            $(#[test]
            fn $case() {
                crate::suite::shared(|| crate::suite::$case($setup));
            })*
            #[test]
            fn wakes_promptly() {
                crate::suite::alone(|| crate::resources::wakes_promptly(stringify!($driver), $setup));
            }
            #[test]
            fn idles_without_work() {
                crate::suite::alone(|| crate::resources::idles_without_work(stringify!($driver), $setup));
            }
            #[test]
            fn leaks_nothing() {
                crate::suite::alone(|| crate::resources::leaks_nothing($setup));
            }
        }
    };
    ($driver:ident, $setup:path) => {
        conforms! { $driver, $setup:
            delivers_in_order keeps_the_order_of_sending matches_topics_exactly takes_long_keys_and_topics unregistering_stops_delivery
            registers_while_running many_subscribers many_publishers stops_and_starts_again drops_promptly
            send_is_bounded batches_arrive_whole bursts_arrive_whole a_burst_ends_with_the_publisher survives_binary_topics survives_malformed_payloads
            a_late_publisher_is_found waits_for_ever_when_asked
        }
    };
}

fn unique() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn memory() -> Setup {
    let address = format!("memory://{}", unique());
    Setup {
        driver: Arc::new(MemoryDriver::shared(&address).unwrap().capacity(1000)),
        address: Some(address),
        comes_late: false,
        _resource: None,
    }
}

#[cfg(feature = "zmq")]
fn zmq(publish: &str, address: Option<&str>) -> Setup {
    let driver = tablecast::drivers::zmq::ZmqDriver::new(publish, Default::default()).unwrap();
    Setup {
        driver: Arc::new(driver),
        address: address.map(str::to_owned),
        comes_late: false,
        _resource: None,
    }
}

#[cfg(feature = "zmq")]
fn tcp() -> Setup {
    // A fixed port, since some tests listen before there is a publisher.
    let address = format!("tcp://127.0.0.1:{}", common::free_port());
    zmq(&address, Some(&address))
}

#[cfg(feature = "zmq")]
fn any_port() -> Setup {
    zmq("tcp://127.0.0.1:0", None)
}

#[cfg(feature = "zmq")]
fn reversed() -> Setup {
    let address = format!("tcp://127.0.0.1:{}", common::free_port());
    zmq(&format!(">{address}"), Some(&format!("@{address}")))
}

#[cfg(feature = "zmq")]
fn ipc() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("ipc://{}/publisher.sock", folder.path().display());
    let mut setup = zmq(&address, Some(&address));
    setup._resource = Some(Box::new(folder));
    setup
}

#[cfg(feature = "zmq")]
fn inproc() -> Setup {
    let address = format!("inproc://conformance/{}", unique());
    zmq(&address, Some(&address))
}

#[cfg(feature = "redis")]
fn redis_at(address: String, join_frames: tablecast::config::JoinFrames, resource: impl std::any::Any) -> Setup {
    let options = tablecast::drivers::redis::RedisOptions {
        join_frames,
        ..Default::default()
    };
    let driver = tablecast::drivers::redis::RedisDriver::new(&address, options).unwrap();
    Setup {
        driver: Arc::new(driver),
        address: Some(address),
        comes_late: false,
        _resource: Some(Box::new(resource)),
    }
}

#[cfg(feature = "redis")]
fn redis_server() -> Setup {
    let server = servers::Server::start();
    redis_at(server.address(), tablecast::config::JoinFrames::Auto, server)
}

/// A cluster, which the next case uses afterwards.
#[cfg(feature = "redis")]
fn redis_cluster() -> Setup {
    let lease = servers::Lease::new();
    Setup {
        comes_late: true,
        ..redis_at(lease.address(), tablecast::config::JoinFrames::Always, lease)
    }
}

conforms!(memory_driver, crate::memory);
#[cfg(feature = "redis")]
conforms!(redis, crate::redis_server);
#[cfg(feature = "redis")]
conforms!(redis_cluster, crate::redis_cluster);
#[cfg(feature = "zmq")]
conforms!(zmq_tcp, crate::tcp);
#[cfg(feature = "zmq")]
conforms!(zmq_any_port, crate::any_port);
#[cfg(feature = "zmq")]
conforms!(zmq_reversed, crate::reversed);
#[cfg(feature = "zmq")]
conforms!(zmq_ipc, crate::ipc);
#[cfg(feature = "zmq")]
conforms!(zmq_inproc, crate::inproc);

/// Only this driver waits for a subscriber.
#[test]
fn a_cut_batch_is_a_gap() {
    suite::shared(|| suite::a_cut_batch_is_a_gap(memory));
}

#[test]
fn topics_that_cannot_be() {
    assert!(tablecast::Topic::new("").is_err());
    for name in [
        "\u{10FFFF}tablecast/",
        "\u{10FFFF}tablecast/probe/0/1",
        "\u{10FFFF}tablecast/x",
    ] {
        let error = tablecast::Topic::new(name).unwrap_err();
        assert_eq!(error.kind(), tablecast::ErrorKind::InvalidInput);
    }
    assert!(tablecast::Topic::new("\u{10FFFF}").is_ok());
    assert!(tablecast::Topic::new("tablecast/probe/0/1").is_ok());
}
