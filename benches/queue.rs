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
    let few = updates(16_384, 4096);
    println!("one thread, nanoseconds an update");
    for batch in [1, 8, 64] {
        report(
            &format!("batches of {batch}"),
            best(&few, |updates| bare_one_thread(updates, batch)),
            best(&few, |updates| one_thread(updates, batch)),
        );
    }
    let many = updates(32_768, 32_768);
    report(
        "one batch of 32,768",
        best(&many, |updates| bare_one_thread(updates, many.len())),
        best(&many, |updates| one_thread(updates, many.len())),
    );
    println!("two threads, nanoseconds an update");
    for batch in [1, 8, 64] {
        report(
            &format!("batches of {batch}"),
            best(&few, bare_two_threads),
            best(&few, |updates| two_threads(updates, batch)),
        );
    }
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

fn report(what: &str, bare: f64, queue: f64) {
    println!(
        "  {what:<20}  bare channel {bare:>6.0}   queue {queue:>6.0}   ratio {:.1}",
        queue / bare
    );
}
