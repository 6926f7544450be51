//! Monitors of tables: changes by others are published, once, and nothing that did not happen.

mod back;
#[path = "../common/mod.rs"]
mod common;
mod faults;
#[path = "../common/front.rs"]
mod front;
#[cfg(feature = "bin")]
#[path = "../common/host.rs"]
mod host;
#[cfg(feature = "bin")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/rig.rs"]
mod rig;
#[cfg(feature = "redis")]
mod server;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod servers;
#[cfg(feature = "bin")]
mod service;
mod suite;
#[path = "../common/swap.rs"]
mod swap;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::eventually;
use rig::{LONG, Rig};
use tablecast::drivers::memory::MemoryDriver;
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{Action, Monitor, MonitorOptions, Publisher, PublisherOptions, Store};

/// A publisher and a subscriber.
pub(crate) struct Host {
    publisher: Arc<Publisher>,
    rig: Rig,
    id: String,
}

/// An update that was received: action, key, topic, value, version.
pub(crate) type Heard = (Action, String, String, Option<String>, Option<u64>);

pub(crate) fn heard(action: Action, key: &str, topic: &str, value: Option<&str>, version: u64) -> Heard {
    (
        action,
        key.to_owned(),
        topic.to_owned(),
        value.map(str::to_owned),
        Some(version),
    )
}

impl Host {
    pub(crate) fn new() -> Host {
        Host::with(PublisherOptions::default())
    }

    pub(crate) fn with(options: PublisherOptions) -> Host {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("memory://monitor-{number}");
        let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(&address).unwrap());
        let publisher = Arc::new(Publisher::new(&*driver, options).unwrap());
        let rig = Rig::new(&driver);
        rig.listen(&["D", "tenant", "other"], &address);
        Host {
            publisher,
            rig,
            id: format!("host-{number}"),
        }
    }

    /// A monitor of the table `t`.
    pub(crate) fn monitor(&self, store: &Arc<dyn Store>) -> Monitor {
        self.monitor_with(store, Duration::from_millis(5))
    }

    pub(crate) fn monitor_with(&self, store: &Arc<dyn Store>, interval: Duration) -> Monitor {
        let options = MonitorOptions {
            interval,
            ..MonitorOptions::default()
        };
        Monitor::new(Arc::clone(store), Arc::clone(&self.publisher), "t", &self.id, options).unwrap()
    }

    /// The next update of the table.
    #[track_caller]
    pub(crate) fn next(&self) -> Heard {
        let update = self.rig.next();
        assert_eq!(&*update.table, "t");
        let (key, topic) = (update.key.to_string(), update.topic.to_string());
        (update.action, key, topic, update.value, update.version)
    }

    /// The next `count` updates, by key.
    #[track_caller]
    pub(crate) fn keys(&self, count: usize) -> Vec<(String, Action)> {
        let mut all: Vec<_> = (0..count)
            .map(|_| self.next())
            .map(|heard| (heard.1, heard.0))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Checks that the monitor publishes nothing more, in two further polls.
    #[track_caller]
    pub(crate) fn nothing_more(&self, monitor: &Monitor) {
        let polls = monitor.stats().polls + 2;
        eventually(LONG, || monitor.stats().polls > polls);
        self.rig.only("marker", || rig::send(&self.publisher, "D", "marker"));
    }
}

/// An empty store, and its resources.
pub(crate) type Opened = (Arc<dyn Store>, Option<Box<dyn std::any::Any + Send>>);

pub(crate) fn memory(batch_amount: usize) -> Opened {
    let options = StoreOptions {
        batch_amount,
        ..StoreOptions::default()
    };
    (Arc::new(MemoryStore::new().with_options(options)), None)
}

#[cfg(feature = "sqlite")]
pub(crate) fn sqlite(batch_amount: usize) -> Opened {
    let options = StoreOptions {
        batch_amount,
        ..StoreOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let store = tablecast::stores::sqlite::SqliteStore::open(folder.path().join("store.db"), options).unwrap();
    (Arc::new(store), Some(Box::new(folder)))
}

#[cfg(feature = "redis")]
pub(crate) fn redis(batch_amount: usize) -> Opened {
    let options = StoreOptions {
        batch_amount,
        ..StoreOptions::default()
    };
    let server = servers::Server::start();
    let store = tablecast::stores::redis::RedisStore::new(&server.address(), options, &Default::default()).unwrap();
    (Arc::new(store), Some(Box::new(server)))
}

#[cfg(feature = "redis")]
pub(crate) fn redis_cluster(batch_amount: usize) -> Opened {
    let options = StoreOptions {
        batch_amount,
        ..StoreOptions::default()
    };
    let lease = servers::Lease::new();
    lease.clear();
    let store = tablecast::stores::redis::RedisStore::new(&lease.address(), options, &Default::default()).unwrap();
    (Arc::new(store), Some(Box::new(lease)))
}

macro_rules! cases {
    ($store:ident, $open:path: $($case:ident)*) => {
        mod $store {
            $(#[test]
            fn $case() {
                crate::common::within(std::time::Duration::from_secs(60), || {
                    let (store, _place) = $open(3);
                    crate::suite::$case(&store);
                });
            })*
        }
    };
    ($store:ident, $open:path) => {
        cases! { $store, $open:
            what_others_write_is_told what_was_written_before_is_told_once a_new_run_tells_what_it_missed
            two_hosts_each_tell_their_own what_does_not_change_is_not_read
        }
    };
}

cases!(memory_store, crate::memory);
#[cfg(feature = "sqlite")]
cases!(sqlite_store, crate::sqlite);
#[cfg(feature = "redis")]
cases!(redis_store, crate::redis);
#[cfg(feature = "redis")]
cases!(redis_cluster_store, crate::redis_cluster);
