//! The cost of a replica within its process: memory, reads, updates from the queue, snapshots.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use parking_lot::RwLock;
use tablecast::database::Entry;
use tablecast::stores::memory::MemoryStore;
use tablecast::{DbUpdate, Dispatcher, Name, Store, Topic};

use super::{Bed, ROUNDS, VALUE, best, by_hand, counted, dispatcher, has, key, line, time, wait_until};

type ByHand = RwLock<HashMap<Name, Arc<Entry<String>>>>;

const UPDATES: usize = 500_000;
/// Number of updates pushed together.
const PUSHED: usize = 64;
const MOST_TOPICS: usize = 100_000;

/// Memory use, and the time of `get`.
pub(super) fn memory(rows: usize) {
    let bed = Bed::local(rows);
    let before = resident();
    let (_, _replica, table) = bed.synced();
    let keys: usize = (0..rows).map(|number| key(number).len()).sum();
    let taken = resident().saturating_sub(before);
    let beyond = taken.saturating_sub(keys + rows * VALUE) / rows;
    println!("memory: {beyond} bytes a row beyond its key and value (resident set)");

    let map: ByHand = RwLock::new(table.snapshot().iter().map(|row| (row.key.clone(), row)).collect());
    let mut chance = fastrand::Rng::with_seed(1);
    let keys: Vec<String> = (0..500_000).map(|_| key(chance.usize(0..rows))).collect();
    let bare = || {
        time(|| {
            for key in &keys {
                black_box(map.read().get(key.as_str()).cloned());
            }
        })
    };
    let ours = || {
        time(|| {
            for key in &keys {
                black_box(table.get(key).expect("a row"));
            }
        })
    };
    line("500,000 gets", best(ours), "RwLock<HashMap>", best(bare));
}

/// Updates through the queue, next to a bare callback, and to one that keeps the rows by hand.
pub(super) fn updates(rows: usize) {
    let bed = Bed::local(rows);
    let (_, _replica, table) = bed.synced();
    let map: Arc<ByHand> = Arc::new(RwLock::new(by_hand(&bed)));
    let mut chance = fastrand::Rng::with_seed(2);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let updates = bed.written(&mut chance, rows, UPDATES);
        let last = updates.last().expect("updates");
        let on_other = |map: Option<&Arc<ByHand>>| {
            let other = dispatcher();
            if let Some(map) = map {
                let map = Arc::clone(map);
                other
                    .on_table("t", move |update: &DbUpdate| keep(&map, update))
                    .detach();
            }
            let count = counted(&other);
            push(&other, &updates, || count.load(Ordering::Relaxed) == UPDATES)
        };
        let ours = push(&bed.dispatcher, &updates, || has(&table, last));
        rounds.push((ours, on_other(None), on_other(Some(&map))));
    }
    let best = |of: fn(&(Duration, Duration, Duration)) -> Duration| rounds.iter().map(of).min().expect("rounds");
    let ours = best(|round| round.0);
    line(
        "500,000 updates from the queue",
        ours,
        "a bare callback",
        best(|round| round.1),
    );
    line(
        "500,000 updates from the queue",
        ours,
        "a map by hand",
        best(|round| round.2),
    );
}

/// Takes in an update as a program without a replica would at least.
fn keep(map: &ByHand, update: &DbUpdate) {
    let (Some(version), Some(value)) = (update.version, &update.value) else {
        return;
    };
    let mut map = map.write();
    if map.get(&update.key).is_some_and(|row| row.version >= version) {
        return;
    }
    let row = Entry {
        key: update.key.clone(),
        row: value.clone(),
        topic: Arc::new(update.topic.clone()),
        version,
    };
    map.insert(update.key.clone(), Arc::new(row));
}

/// Pushes updates. Returns the time until `is_done`.
fn push(dispatcher: &Dispatcher, updates: &[DbUpdate], is_done: impl Fn() -> bool) -> Duration {
    let queue = dispatcher.queue();
    let batches: Vec<Vec<DbUpdate>> = updates.chunks(PUSHED).map(<[DbUpdate]>::to_vec).collect();
    time(|| {
        for mut batch in batches {
            queue.push(&mut batch, &never()).expect("it runs");
        }
        wait_until(is_done);
    })
}

/// Snapshots during updates.
pub(super) fn snapshots(rows: usize) {
    let bed = Bed::local(rows);
    let (_, _replica, table) = bed.synced();
    let updates = bed.written(&mut fastrand::Rng::with_seed(3), rows, UPDATES);
    let stop = AtomicBool::new(false);
    let queue = bed.dispatcher.queue();
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for batch in updates.chunks(PUSHED) {
                if stop.load(Ordering::Relaxed) || queue.push(&mut batch.to_vec(), &never()).is_err() {
                    return;
                }
            }
        });
        while times.len() < 1_000 && !pushing.is_finished() {
            let start = Instant::now();
            let snapshot = table.snapshot();
            times.push(start.elapsed());
            std::thread::park_timeout(Duration::from_micros(200));
            drop(snapshot);
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let of = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (half, most, nearly, longest) = (of(0.5), of(0.99), of(0.999), of(1.0));
    println!("snapshot while updates go on: median {half:?}, 99 % {most:?}, 99.9 % {nearly:?}, longest {longest:?}");
}

/// The first sync with one row on each of many topics.
pub(super) fn topics(rows: usize) {
    let store = Arc::new(MemoryStore::new());
    let topics: Vec<Topic> = (0..rows.min(MOST_TOPICS))
        .map(|number| Topic::new(format!("topic-{number}")).expect("a topic"))
        .collect();
    for (number, topic) in topics.iter().enumerate() {
        store.create("t", &key(number), "{}", topic).expect("a new row");
    }
    let count = topics.len();
    let (took, ..) = Bed::new(store, 0).synced_on(topics);
    println!("first sync of {count} topics with a row each: {took:.1?}");
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
