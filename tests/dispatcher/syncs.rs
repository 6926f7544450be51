//! Sync events while callbacks are stuck, and while more updates come than the queue holds.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{eventually, pass, within};
use crossbeam_channel::{Receiver, Sender, bounded, never, unbounded};
use tablecast::queue::QueueOptions;
use tablecast::{Action, DbUpdate, Dispatcher, DispatcherOptions, SyncReason, Topic};

const LIMIT: Duration = Duration::from_secs(30);

fn start(workers: usize, capacity: usize) -> Dispatcher {
    let queue = QueueOptions {
        capacity,
        ..QueueOptions::default()
    };
    let options = DispatcherOptions {
        workers,
        queue,
        ..DispatcherOptions::default()
    };
    Dispatcher::new(options).unwrap()
}

/// Registers a callback for sync events that blocks until the sender is dropped, and waits until it blocks.
fn stuck(dispatcher: &Dispatcher) -> (Sender<()>, Receiver<SyncReason>) {
    let (open, gate) = bounded::<()>(0);
    let (synced, syncs) = unbounded();
    let callback = move |reason: &SyncReason| {
        let _ = synced.send(reason.clone());
        let _ = gate.recv();
    };
    dispatcher.on_sync(callback).detach();
    dispatcher.queue().sync(SyncReason::Requested);
    assert_eq!(syncs.recv_timeout(LIMIT), Ok(SyncReason::Requested));
    (open, syncs)
}

#[test]
fn a_sync_event_does_not_wait_for_a_worker() {
    within(LIMIT, || {
        let dispatcher = start(1, 1000);
        let (open, gate) = bounded::<()>(0);
        let (entered, running) = unbounded();
        let callback = move |update: &DbUpdate| {
            let _ = entered.send(update.key.clone());
            let _ = gate.recv();
        };
        dispatcher.on_update(callback).detach();
        let (synced, syncs) = unbounded();
        dispatcher.on_sync(synced).detach();

        let mut updates = ["1", "2"].map(|key| DbUpdate::new("t", key, Action::Set)).to_vec();
        dispatcher.queue().push(&mut updates, &never()).unwrap();
        assert_eq!(running.recv_timeout(LIMIT).unwrap(), "1");
        dispatcher.queue().sync(SyncReason::Requested);
        assert_eq!(syncs.recv_timeout(LIMIT), Ok(SyncReason::Requested));
        // Neither does an overflow, which waits for updates in vain.
        dispatcher.queue().sync(SyncReason::Overflow { dropped: 1 });
        assert_eq!(syncs.recv_timeout(LIMIT), Ok(SyncReason::Overflow { dropped: 1 }));
        assert!(running.is_empty());
        drop(open);
        assert_eq!(running.recv_timeout(LIMIT).unwrap(), "2");
    });
}

#[test]
fn gaps_of_many_topics_are_all_told_when_a_callback_was_stuck() {
    for workers in [0, 1, 4] {
        within(LIMIT, move || {
            let dispatcher = start(workers, 1000);
            let (open, syncs) = stuck(&dispatcher);
            let topics: BTreeSet<Topic> = (0..3000)
                .map(|number| Topic::new(format!("topic{number}")).unwrap())
                .collect();
            for topic in &topics {
                dispatcher.queue().sync(SyncReason::Gap {
                    publisher: "p".into(),
                    topic: topic.clone(),
                    from: 2,
                    to: 2,
                });
            }
            drop(open);
            let (mut told, mut events) = (BTreeSet::new(), 0);
            while told.len() < topics.len() {
                let reason = syncs.recv_timeout(LIMIT).expect("a topic was not told");
                told.extend(reason.topics().unwrap_or_default().iter().cloned());
                events += 1;
            }
            assert_eq!(told, topics);
            assert!(events <= 65, "{events} sync events");
        });
    }
}

/// Memory in use, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn made_up_publishers_take_up_no_memory_while_a_callback_is_stuck() {
    for workers in [0, 1] {
        within(LIMIT, move || make_up_publishers(workers));
    }
}

fn make_up_publishers(workers: usize) {
    let dispatcher = start(workers, 1000);
    let (open, syncs) = stuck(&dispatcher);
    let queue = dispatcher.queue();
    let before = resident();
    for number in 0..500_000_u32 {
        let publisher = format!("{number:0255}").into();
        queue.sync(match number % 3 {
            0 => SyncReason::Restarted { publisher },
            1 => SyncReason::Silence {
                publishers: vec![publisher],
            },
            _ => SyncReason::Gap {
                publisher,
                topic: Topic::ALL,
                from: 1,
                to: 1,
            },
        });
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    dispatcher
        .queue()
        .sync(SyncReason::Connected { address: "last".into() });
    drop(open);
    let reasons: Vec<SyncReason> = std::iter::repeat_with(|| syncs.recv_timeout(LIMIT).unwrap())
        .take(3)
        .collect();
    let words: Vec<&str> = reasons.iter().map(SyncReason::as_str).collect();
    assert_eq!(words, ["connected", "silence", "joined"]);
    assert_eq!(reasons[2].topics(), None);
    eventually(LIMIT, || dispatcher.stats().syncs == 4);
}

/// The rows of a store, whose newest version is this.
#[derive(Clone, Default)]
struct Versions(Arc<AtomicUsize>);

impl Versions {
    /// An update of a new row, written now.
    fn write(&self) -> DbUpdate {
        let version = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        let mut update = DbUpdate::new("t", version.to_string(), Action::Set);
        update.version = Some(version as u64);
        update
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::SeqCst) as u64
    }
}

/// Pushes as a subscriber does.
fn push(dispatcher: &Dispatcher, updates: impl Iterator<Item = DbUpdate>) {
    let mut batch = Vec::new();
    let mut updates = updates.peekable();
    while updates.peek().is_some() {
        batch.extend(updates.by_ref().take(64));
        dispatcher.queue().push(&mut batch, &never()).unwrap();
    }
}

/// An event that the program has seen.
#[derive(Debug, PartialEq)]
enum Seen {
    /// An update with this version.
    Update(Option<u64>),
    /// The program has read the store up to this version after this many updates were dropped.
    Read(u64, u64),
}

const PLAIN: u64 = 10;

/// A burst of 3,000 updates for a queue of 1,000 that came while the first updates were handled; each of the others
/// takes `each`. The ten least urgent ones before it are in no store.
fn burst(dispatcher: &Dispatcher, workers: usize, store: &Versions, each: Duration) -> (Sender<()>, Receiver<u64>) {
    let (open, gate) = bounded::<()>(0);
    let (saw, seen) = unbounded();
    let callback = move |update: &DbUpdate| {
        saw.send(update.version.unwrap_or(0)).unwrap();
        let _ = gate.recv();
        pass(each);
    };
    dispatcher.on_update(callback).detach();
    push(dispatcher, (0..workers.max(1)).map(|_| store.write()));
    for _ in 0..workers.max(1) {
        seen.recv_timeout(LIMIT).unwrap();
    }
    let plain = |number| DbUpdate::new("t", format!("plain{number}"), Action::Set).priority(i32::MAX);
    push(dispatcher, (0..PLAIN).map(plain));
    push(dispatcher, (0..3000).map(|_| store.write()));
    (open, seen)
}

#[test]
fn a_full_queue_moves_while_more_comes_and_its_burst_is_told_once() {
    for workers in [0, 2] {
        within(LIMIT, move || {
            let store = Versions::default();
            let dispatcher = start(workers, 1000);
            let (synced, syncs) = unbounded();
            let stored = store.clone();
            let read_all = move |reason: &SyncReason| {
                synced.send((reason.clone(), stored.read())).unwrap();
                pass(Duration::from_millis(200));
            };
            dispatcher.on_sync(read_all).detach();
            let (open, seen) = burst(&dispatcher, workers, &store, Duration::ZERO);
            drop(open);
            // Updates keep coming until one written after the reading has come.
            let tick = crossbeam_channel::tick(Duration::from_millis(50));
            let (mut read, mut newest) = (None, 0);
            while read.is_none_or(|read| newest <= read) {
                tick.recv().unwrap();
                push(&dispatcher, std::iter::once(store.write()));
                read = syncs.try_recv().ok().map(|(_, read)| read).or(read);
                newest = seen.try_iter().max().unwrap_or(newest);
            }
            let last = store.read();
            eventually(LIMIT, || {
                seen.try_iter().any(|version| version == last) || newest == last
            });
            assert!(syncs.is_empty(), "{:?}", syncs.try_recv());
            assert_eq!(dispatcher.stats().syncs, 1);
        });
    }
}

#[test]
fn what_waits_when_the_store_is_read_is_dropped_as_covered() {
    within(LIMIT, || {
        let store = Versions::default();
        let dispatcher = start(0, 1000);
        let (open, updates) = burst(&dispatcher, 0, &store, Duration::from_millis(5));
        let (saw, seen) = unbounded();
        let (saw_too, stored) = (saw.clone(), store.clone());
        let read_all = move |reason: &SyncReason| {
            if let SyncReason::Overflow { dropped } = *reason {
                saw.send(Seen::Read(stored.read(), dropped)).unwrap();
            }
        };
        dispatcher.on_sync(read_all).detach();
        let call = move |update: &DbUpdate| saw_too.send(Seen::Update(update.version)).unwrap();
        dispatcher.on_update(call).detach();
        let begin = Instant::now();
        drop(open);
        let mut before = Vec::new();
        let dropped = loop {
            match seen.recv_timeout(LIMIT).unwrap() {
                Seen::Read(read, dropped) => {
                    assert_eq!(read, store.read());
                    break dropped;
                }
                update => before.push(update),
            }
        };
        assert!(begin.elapsed() >= Duration::from_secs(1), "the updates have a second");
        let stats = dispatcher.stats().queue;
        assert!(stats.covered > 0, "{stats:?}");
        assert_eq!(dropped, stats.dropped + stats.covered);

        // Updates in no store are still delivered, and so are later ones.
        let plain = before.iter().filter(|update| **update == Seen::Update(None)).count();
        let mut after = vec![Seen::Update(Some(store.read() + 1))];
        after.resize_with(1 + PLAIN as usize - plain, || Seen::Update(None));
        assert_eq!(before.len() + dropped as usize + after.len(), 3000 + PLAIN as usize + 1);
        push(&dispatcher, std::iter::once(store.write()));
        while !after.is_empty() {
            let update = seen.recv_timeout(LIMIT).unwrap();
            let place = after.iter().position(|expected| *expected == update);
            after.swap_remove(place.unwrap_or_else(|| panic!("{update:?} is older than what was read")));
        }
        drop(updates);
    });
}

#[test]
fn without_a_callback_for_sync_events_nothing_that_waits_is_dropped() {
    within(LIMIT, || {
        let store = Versions::default();
        let dispatcher = start(0, 1000);
        let (open, updates) = burst(&dispatcher, 0, &store, Duration::from_millis(2));
        drop(open);
        // This takes two seconds, in the middle of which the overflow is due.
        let seen: BTreeSet<u64> = (0..1000).map(|_| updates.recv_timeout(LIMIT).unwrap()).collect();
        assert!(seen.into_iter().eq(std::iter::once(0).chain(2..=1001 - PLAIN)));
        eventually(LIMIT, || dispatcher.stats().syncs == 1);
        let stats = dispatcher.stats().queue;
        assert_eq!((stats.dropped, stats.covered), (2000 + PLAIN, 0));
    });
}
