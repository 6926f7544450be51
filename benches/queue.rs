//! The cost of the queue for each update, next to a bare crossbeam channel that moves the same updates one by one. The
//! best of many rounds counts. Run with `cargo bench --bench queue`.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use tablecast::queue::{QueueOptions, bounded};
use tablecast::{Action, DbUpdate};

const ROUNDS: usize = 50;

fn main() {
    println!("{:40} {:>12} {:>12} {:>8}", "", "ns/update", "updates/s", "ratio");
    for batch in [1, 8, 64] {
        let updates = updates(16_384, 4096);
        let bare = best(&updates, |updates| bare_one_thread(updates, batch));
        report(&format!("one thread, batches of {batch}: bare channel"), bare, bare);
        let queue = best(&updates, |updates| one_thread(updates, batch));
        report(&format!("one thread, batches of {batch}: queue"), queue, bare);
    }
    for batch in [1, 8, 64] {
        let updates = updates(16_384, 4096);
        let bare = best(&updates, bare_two_threads);
        report("two threads: bare channel", bare, bare);
        let queue = best(&updates, |updates| two_threads(updates, batch));
        report(&format!("two threads, batches of {batch}: queue"), queue, bare);
    }
    let updates = updates(32_768, 32_768);
    let bare = best(&updates, |updates| bare_one_thread(updates, 32_768));
    report("one thread, 32 768 deep: bare channel", bare, bare);
    let queue = best(&updates, |updates| one_thread(updates, 32_768));
    report("one thread, 32 768 deep: queue", queue, bare);
}

/// Updates that differ in key and, occasionally, in priority.
fn updates(count: usize, keys: usize) -> Vec<DbUpdate> {
    let rows: Vec<DbUpdate> = (0..keys)
        .map(|key| DbUpdate::new("lport", format!("port-{key}"), Action::Set).value(r#"{"chassis":"host1"}"#))
        .collect();
    (0..count)
        .map(|i| {
            let mut update = rows[i % keys].clone();
            update.timestamp += i as i64;
            update.priority = if i % 16 == 0 { 1 } else { 5 };
            update
        })
        .collect()
}

/// Nanoseconds per update in the fastest round.
fn best(updates: &[DbUpdate], round: impl Fn(Vec<DbUpdate>) -> Duration) -> f64 {
    let rounds = (0..ROUNDS).map(|_| round(updates.to_vec()));
    let fastest = rounds.min().expect("at least one round");
    fastest.as_secs_f64() * 1e9 / updates.len() as f64
}

/// Pushes and pops one batch after the other.
fn one_thread(updates: Vec<DbUpdate>, size: usize) -> Duration {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    let (mut updates, mut batch) = (updates.into_iter(), Vec::with_capacity(size));
    let start = Instant::now();
    while updates.len() > 0 {
        batch.extend(updates.by_ref().take(size));
        sender.push(&mut batch, &never()).expect("the receiver is there");
        let now = Instant::now();
        while let Some(event) = receiver.pop(now) {
            black_box(event);
        }
    }
    start.elapsed()
}

fn bare_one_thread(updates: Vec<DbUpdate>, size: usize) -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded(65_536);
    let mut updates = updates.into_iter();
    let start = Instant::now();
    while updates.len() > 0 {
        for update in updates.by_ref().take(size) {
            sender.send(update).expect("the receiver is there");
        }
        while let Ok(update) = receiver.try_recv() {
            black_box(update);
        }
    }
    start.elapsed()
}

fn two_threads(updates: Vec<DbUpdate>, size: usize) -> Duration {
    let (sender, mut receiver) = bounded(QueueOptions::default());
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            let (mut updates, mut batch) = (updates.into_iter(), Vec::with_capacity(size));
            while updates.len() > 0 {
                batch.extend(updates.by_ref().take(size));
                sender.push(&mut batch, &never()).expect("the receiver is there");
            }
        });
        while let Ok(delivery) = receiver.channel().recv() {
            receiver.accept(delivery);
            while let Some(event) = receiver.pop(Instant::now()) {
                black_box(event);
            }
        }
        start.elapsed()
    })
}

fn bare_two_threads(updates: Vec<DbUpdate>) -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded(65_536);
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            for update in updates {
                sender.send(update).expect("the receiver is there");
            }
        });
        for update in receiver {
            black_box(update);
        }
        start.elapsed()
    })
}

fn report(what: &str, each: f64, bare: f64) {
    println!("{what:40} {each:>12.0} {:>12.0} {:>8.1}", 1e9 / each, each / bare);
}
