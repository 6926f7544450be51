//! A replica of a million rows of 200 bytes: first sync, memory, reads, snapshots, updates, catching up, each next to what it is
//! measured by. `cargo bench --bench replica [-- rows]`.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use parking_lot::RwLock;
use tablecast::database::Entry;
use tablecast::drivers::memory::MemoryPubSub;
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable};
use tablecast::store::Write;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Action, DbUpdate, Dispatcher, DispatcherOptions, Name, Store, Subscriber, SubscriberOptions, Topic};

const VALUE: usize = 200;
const LONG: Duration = Duration::from_secs(600);
const BATCH: usize = 64;
const ROUNDS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let rows: usize = args
        .first()
        .map_or(1_000_000, |rows| rows.parse().expect("a number of rows"));
    let store = Arc::new(MemoryStore::new());
    let value = "x".repeat(VALUE);
    for number in 0..rows {
        store.create("t", &key(number), &value, &Topic::ALL).expect("a new row");
    }
    println!("{rows} rows of {VALUE} bytes, the best of {ROUNDS} rounds where there are rounds");
    let listing = best(|| list(&*store));

    let dispatcher = dispatcher();
    let driver = Arc::new(MemoryPubSub::new("memory://bench-replica").expect("a driver"));
    let subscriber = Subscriber::new(driver, dispatcher.queue(), SubscriberOptions::default());
    let subscriber = Arc::new(subscriber);
    let open = || {
        let options = ReplicaOptions {
            topics: vec![Topic::ALL],
            check_interval: LONG,
            ..ReplicaOptions::default()
        };
        Replica::new(&subscriber, &dispatcher, Arc::clone(&store) as _, options).expect("a replica")
    };
    // The first, so that its memory is not that of another one.
    let before = resident();
    let (_, replica) = synced(&open);
    let table = replica.raw_table("t").expect("a table");
    let keys: usize = (0..rows).map(|number| key(number).len()).sum();
    let taken = resident().saturating_sub(before);
    let beyond = taken.saturating_sub(keys + rows * VALUE) / rows;
    println!("memory: {beyond} bytes a row beyond its key and value (resident set)");

    let sync = (0..ROUNDS).map(|_| synced(&open).0).min().expect("rounds");
    line("first sync", sync, "listing the store alone", listing);
    reads(&table, rows);
    applies(&*store, &dispatcher, &table, rows);
    catches_up(&*store, &replica, listing, rows);
}

/// A replica, and how long it took until it had everything.
fn synced(open: &impl Fn() -> Replica) -> (Duration, Replica) {
    let start = Instant::now();
    let replica = open();
    replica.raw_table("t").expect("a table");
    replica.wait_synced(LONG).expect("in time");
    (start.elapsed(), replica)
}

fn key(number: usize) -> String {
    format!("port-{number}")
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

fn list(store: &dyn Store) {
    let topic = Topic::ALL;
    let rows = store.entries("t", Some(&topic));
    black_box(rows.map(|row| row.expect("a row").value.len()).sum::<usize>());
}

/// `get`, and snapshots while nothing changes.
fn reads(table: &ReplicaTable<String>, rows: usize) {
    let map: HashMap<Name, Arc<Entry<String>>> = table.snapshot().iter().map(|row| (row.key.clone(), row)).collect();
    let map = RwLock::new(map);
    let mut chance = fastrand::Rng::with_seed(1);
    let keys: Vec<String> = (0..500_000).map(|_| key(chance.usize(0..rows))).collect();
    let bare = best(|| {
        for key in &keys {
            black_box(map.read().get(key.as_str()).cloned());
        }
    });
    let ours = best(|| {
        for key in &keys {
            black_box(table.get(key).expect("a row"));
        }
    });
    line("500,000 gets", ours, "RwLock<HashMap>", bare);
}

/// Updates through the queue, next to a bare callback; and snapshots meanwhile.
fn applies(store: &dyn Store, dispatcher: &Dispatcher, table: &ReplicaTable<String>, rows: usize) {
    const UPDATES: usize = 500_000;
    let mut chance = fastrand::Rng::with_seed(2);
    let value = "y".repeat(VALUE);
    // Written, as they would be: what is made up is taken for a store that went back.
    let mut updates = || -> Vec<Vec<DbUpdate>> {
        let update = |_| {
            let key = key(chance.usize(0..rows));
            let written = store.write(&Write::set("t", &key, &value)).expect("a version");
            let mut update = DbUpdate::new("t", key.as_str(), Action::Set).value(value.clone());
            (update.after, update.version) = (written.after, Some(written.version));
            update
        };
        let updates: Vec<DbUpdate> = (0..UPDATES).map(update).collect();
        updates.chunks(BATCH).map(<[DbUpdate]>::to_vec).collect()
    };
    let mut pairs: Vec<(Duration, Duration)> = Vec::new();
    for _ in 0..ROUNDS {
        let batches = updates();
        let bare = {
            let other = self::dispatcher();
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let call = move |update: &DbUpdate| {
                black_box(update);
                counted.fetch_add(1, Ordering::Relaxed);
            };
            other.on_table("t", call).detach();
            push(&other, batches.clone(), || count.load(Ordering::Relaxed) == UPDATES)
        };
        let last = batches
            .last()
            .and_then(|batch| batch.last())
            .expect("an update")
            .clone();
        let is_there = || {
            let row = table.get(&last.key).expect("a row");
            row.is_some_and(|row| Some(row.version) == last.version)
        };
        pairs.push((push(dispatcher, batches, is_there), bare));
    }
    let (ours, bare) = pairs.into_iter().min_by_key(|(ours, _)| *ours).expect("rounds");
    line("500,000 updates applied", ours, "a bare callback", bare);

    let stop = Arc::new(AtomicUsize::new(0));
    let (told, batches) = (Arc::clone(&stop), updates());
    let queue = dispatcher.queue();
    let pushing = std::thread::Builder::new().spawn(move || {
        for mut batch in batches {
            if told.load(Ordering::Relaxed) > 0 || queue.push(&mut batch, &never()).is_err() {
                return;
            }
        }
    });
    let mut times: Vec<Duration> = (0..1_000)
        .map(|_| {
            let start = Instant::now();
            black_box(table.snapshot());
            let took = start.elapsed();
            let _ = never::<()>().recv_timeout(Duration::from_micros(200));
            took
        })
        .collect();
    stop.store(1, Ordering::Relaxed);
    let _ = pushing.expect("a thread").join();
    times.sort();
    println!(
        "snapshot while updates go on: median {:?}, 99 of 100 {:?}, longest {:?}",
        times[500], times[990], times[999]
    );
}

/// Hands over batches; how long until `is_done`.
fn push(dispatcher: &Dispatcher, batches: Vec<Vec<DbUpdate>>, is_done: impl Fn() -> bool) -> Duration {
    let queue = dispatcher.queue();
    let start = Instant::now();
    for mut batch in batches {
        queue.push(&mut batch, &never()).expect("it runs");
    }
    while !is_done() {
        std::hint::spin_loop();
    }
    start.elapsed()
}

/// Catching up after 1,000 changes that were not told.
fn catches_up(store: &dyn Store, replica: &Replica, listing: Duration, rows: usize) {
    replica.wait_current(LONG).expect("in time");
    let mut chance = fastrand::Rng::with_seed(3);
    let mut catch_up = || {
        for _ in 0..1_000 {
            let row = key(chance.usize(0..rows));
            store.set("t", &row, "z").expect("a version");
        }
        let start = Instant::now();
        replica.wait_current(LONG).expect("in time");
        start.elapsed()
    };
    let took = (0..ROUNDS).map(|_| catch_up()).min().expect("rounds");
    line("catching up 1,000 changes", took, "listing the store", listing);
}

fn best(run: impl FnMut()) -> Duration {
    let mut run = run;
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..ROUNDS).map(time).min().expect("rounds")
}

fn line(what: &str, ours: Duration, other: &str, theirs: Duration) {
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!("{what}: {ours:.1?}; {other}: {theirs:.1?}; speed {ratio:.2} of it");
}

/// The resident set, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
