//! A replica of a million rows of 200 bytes, each figure next to a baseline.
//!
//! `cargo bench --bench replica [-- rows [what]]`, where `what` is `memory`, `updates`, `snapshots`, `topics`, `wire`, or
//! one of the stores `store-memory`, `store-sqlite` and `store-redis`. A time is the best of its rounds.
#![allow(missing_docs)]

mod local;
#[cfg(feature = "redis")]
#[path = "../server/mod.rs"]
mod server;
mod stores;
#[cfg(feature = "zmq")]
mod wire;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tablecast::database::Entry;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable};
use tablecast::store::{Row, Write};
use tablecast::stores::memory::MemoryStore;
use tablecast::{Action, DbUpdate, Dispatcher, DispatcherOptions, Name, Store, Subscriber, SubscriberOptions, Topic};

const VALUE: usize = 200;
const LONG: Duration = Duration::from_secs(600);
const ROUNDS: usize = 3;
/// Number of rows written in one step.
const BATCH: usize = 1_000;

/// A measurement with this many rows.
type Run = fn(usize);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let rows = args
        .first()
        .map_or(1_000_000, |rows| rows.parse().expect("a number of rows"));
    let only = args.get(1).map_or("", String::as_str);
    println!("{rows} rows of {VALUE} bytes");
    let runs: [(&str, Run); 5] = [
        ("memory", local::memory),
        ("updates", local::updates),
        ("snapshots", local::snapshots),
        ("topics", local::topics),
        ("store", |rows| stores::all(rows, "")),
    ];
    for (what, run) in runs {
        if what.starts_with(only) {
            run(rows);
        }
    }
    if only.starts_with("store-") {
        stores::all(rows, only);
    }
    #[cfg(feature = "zmq")]
    if "wire".starts_with(only) {
        wire::updates(rows);
    }
}

/// A store with rows, a dispatcher, and the publisher's side of a replica to be made.
struct Bed {
    store: Arc<dyn Store>,
    dispatcher: Dispatcher,
    subscriber: Arc<Subscriber>,
}

impl Bed {
    fn new(store: Arc<dyn Store>, rows: usize) -> Bed {
        let value = "x".repeat(VALUE);
        let keys: Vec<String> = (0..rows).map(key).collect();
        for keys in keys.chunks(BATCH) {
            let writes: Vec<Write> = keys.iter().map(|key| Write::create("t", key, &value)).collect();
            for written in store.write_each(&writes).expect("a store") {
                written.expect("a new row");
            }
        }
        let dispatcher = dispatcher();
        let driver = Arc::new(MemoryDriver::new("memory://bench-replica").expect("a driver"));
        let subscriber = Subscriber::new(driver, dispatcher.queue(), SubscriberOptions::default());
        let subscriber = Arc::new(subscriber);
        Bed {
            store,
            dispatcher,
            subscriber,
        }
    }

    /// With the store in memory.
    fn local(rows: usize) -> Bed {
        Bed::new(Arc::new(MemoryStore::new()), rows)
    }

    /// Makes a replica and waits until it is synced. Returns the time that took.
    fn synced(&self) -> (Duration, Replica, ReplicaTable<String>) {
        self.synced_on(vec![Topic::ALL])
    }

    /// As [`Bed::synced`], with these topics.
    fn synced_on(&self, topics: Vec<Topic>) -> (Duration, Replica, ReplicaTable<String>) {
        let options = ReplicaOptions {
            topics,
            check_interval: LONG,
            ..ReplicaOptions::default()
        };
        let start = Instant::now();
        let store = Arc::clone(&self.store);
        let replica = Replica::new(&self.subscriber, &self.dispatcher, store, options).expect("a replica");
        let table = replica.raw_table("t").expect("a table");
        replica.wait_synced(LONG).expect("in time");
        (start.elapsed(), replica, table)
    }

    /// Writes random rows. Returns their updates; invented ones would look like a store that went back.
    fn written(&self, chance: &mut fastrand::Rng, rows: usize, count: usize) -> Vec<DbUpdate> {
        let value = "y".repeat(VALUE);
        let write = |_| {
            let key = key(chance.usize(0..rows));
            let written = self.store.write(&Write::set("t", &key, &value)).expect("a version");
            let mut update = DbUpdate::new("t", key.as_str(), Action::Set).value(value.clone());
            (update.after, update.version) = (written.after, Some(written.version));
            update
        };
        (0..count).map(write).collect()
    }
}

fn key(number: usize) -> String {
    format!("port-{number}")
}

/// The rows of the store in a map, as a program without a replica would keep them.
fn by_hand(bed: &Bed) -> HashMap<Name, Arc<Entry<String>>> {
    let topic = Arc::new(Topic::ALL);
    let rows = bed.store.entries("t", Some(&topic)).map(|row| row.expect("a row"));
    let entry = |row: Row| Entry {
        key: row.key,
        row: row.value,
        topic: Arc::clone(&topic),
        version: row.version,
    };
    rows.map(entry).map(|row| (row.key.clone(), Arc::new(row))).collect()
}

/// Counts the updates of the table that reach a bare callback.
fn counted(dispatcher: &Dispatcher) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let call = move |update: &DbUpdate| {
        black_box(update);
        counted.fetch_add(1, Ordering::Relaxed);
    };
    dispatcher.on_table("t", call).detach();
    count
}

fn dispatcher() -> Dispatcher {
    let queue = QueueOptions {
        overflow: Overflow::Block,
        ..QueueOptions::default()
    };
    let options = DispatcherOptions {
        queue,
        ..DispatcherOptions::default()
    };
    Dispatcher::new(options).expect("a dispatcher")
}

/// Waits without taking processor time from the measured threads.
fn wait_until(is_true: impl Fn() -> bool) {
    while !is_true() {
        std::thread::park_timeout(Duration::from_micros(200));
    }
}

fn has(table: &ReplicaTable<String>, last: &DbUpdate) -> bool {
    let row = table.get(&last.key).expect("a row");
    row.is_some_and(|row| Some(row.version) == last.version)
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn best(run: impl FnMut() -> Duration) -> Duration {
    std::iter::repeat_with(run).take(ROUNDS).min().expect("rounds")
}

fn line(what: &str, ours: Duration, other: &str, theirs: Duration) {
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!("{what}: {ours:.1?}; {other}: {theirs:.1?}; speed {ratio:.2} of it");
}
