//! Replicas, with real threads, drivers and stores.

mod back;
#[path = "../common/mod.rs"]
mod common;
mod dropped;
#[cfg(all(feature = "zmq", feature = "sqlite"))]
mod faults;
mod fleet;
#[path = "../common/front.rs"]
mod front;
mod handlers;
mod holding;
mod indexes;
#[cfg(feature = "redis")]
mod redis;
#[path = "../common/rig.rs"]
mod rig;
mod rows;
#[path = "../common/swap.rs"]
mod swap;
mod told;
mod waits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::eventually;
use crossbeam_channel::never;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable};
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{
    Database, DatabaseOptions, DbUpdate, Dispatcher, DispatcherOptions, Publisher, PublisherOptions, Store, Subscriber,
    SubscriberOptions, SyncReason, Topic,
};

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Options with these topics.
pub(crate) fn holds(topics: &[&str]) -> ReplicaOptions {
    ReplicaOptions {
        topics: topics.iter().map(|name| topic(name)).collect(),
        ..ReplicaOptions::default()
    }
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// A store in memory with short pages, a publisher, and a program that follows it.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) database: Database,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) dispatcher: Dispatcher,
}

impl World {
    pub(crate) fn new(workers: usize) -> World {
        let options = StoreOptions {
            batch_amount: 10,
            ..StoreOptions::default()
        };
        World::with(workers, Arc::new(MemoryStore::new().with_options(options)))
    }

    pub(crate) fn with(workers: usize, store: Arc<dyn Store>) -> World {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let address = format!("memory://replica-{}", WORLDS.fetch_add(1, Ordering::Relaxed));
        let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(&address).unwrap());
        let dispatcher = Dispatcher::new(DispatcherOptions {
            workers,
            ..DispatcherOptions::default()
        })
        .unwrap();
        let subscriber = Subscriber::new(Arc::clone(&driver), dispatcher.queue(), SubscriberOptions::default());
        subscriber.register_listen_address(&address).unwrap();
        subscriber.daemonize().unwrap();
        let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
        World {
            database: Database::new(Arc::clone(&store), publisher, DatabaseOptions::default()),
            store,
            driver,
            subscriber: Arc::new(subscriber),
            dispatcher,
        }
    }

    /// Queues an update that nobody publishes.
    pub(crate) fn push(&self, update: DbUpdate) {
        self.dispatcher.queue().push(&mut vec![update], &never()).unwrap();
    }

    /// Waits until the checks that a live address causes, each at a random moment of a second, are over.
    pub(crate) fn come_to_rest<'a>(&self, replicas: impl IntoIterator<Item = &'a Replica>) {
        self.subscriber.wait_live(LONG).unwrap();
        let counted: Vec<_> = replicas.into_iter().map(|it| (it, it.stats().checks)).collect();
        // It comes after the event of that address.
        self.dispatcher.queue().sync(SyncReason::Requested);
        for (replica, before) in counted {
            eventually(LONG, || replica.stats().checks > before);
            replica.wait_current(LONG).unwrap();
        }
    }

    pub(crate) fn replica(&self, options: ReplicaOptions) -> Replica {
        Replica::new(&self.subscriber, &self.dispatcher, Arc::clone(&self.store), options).unwrap()
    }
}

/// Keys, topics, versions and values of a table, as stored and as held.
pub(crate) type Content = Vec<(String, String, u64, String)>;

pub(crate) fn stored(store: &dyn Store, table: &str, topics: &[&str]) -> Content {
    let rows = store.entries(table, None).map(Result::unwrap);
    let rows = rows.filter(|row| topics.contains(&row.topic.as_str()));
    rows.map(|row| (row.key.to_string(), row.topic.to_string(), row.version, row.value))
        .collect()
}

pub(crate) fn held(table: &ReplicaTable<String>) -> Content {
    let rows = table.snapshot().iter();
    let row = |row: &tablecast::database::Entry<String>| {
        (row.key.to_string(), row.topic.to_string(), row.version, row.row.clone())
    };
    let mut rows: Content = rows.map(|it| row(&it)).collect();
    rows.sort();
    rows
}
