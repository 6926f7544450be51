//! The dispatcher with workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Stopwatch, eventually, within};
use crossbeam_channel::{Sender, bounded, never, unbounded};
use parking_lot::Mutex;
use proptest::prelude::*;
use tablecast::config::Source;
use tablecast::{
    Action, Config, DbUpdate, Dispatcher, DispatcherHandle, DispatcherOptions, ErrorKind, Name, SyncReason,
};

const LIMIT: Duration = Duration::from_secs(20);

fn start(workers: usize) -> Dispatcher {
    let options = DispatcherOptions {
        workers,
        ..Default::default()
    };
    Dispatcher::new(options).unwrap()
}

fn update(key: &str, number: usize) -> DbUpdate {
    DbUpdate::new("t", key, Action::Set).value(number.to_string())
}

fn push(dispatcher: &DispatcherHandle, update: DbUpdate) {
    dispatcher.queue().push(&mut vec![update], &never()).unwrap();
}

/// Makes a worker run a callback for `key` that ends when the sender is dropped.
fn block(dispatcher: &DispatcherHandle, key: &'static str) -> Sender<()> {
    let (open, gate) = bounded::<()>(0);
    let (entered, running) = unbounded();
    let callback = move |update: &DbUpdate| {
        if update.key == key {
            let _ = entered.send(());
            let _ = gate.recv();
        }
    };
    dispatcher.on_update(callback).detach();
    push(dispatcher, update(key, 0));
    running.recv_timeout(LIMIT).unwrap();
    open
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_updates_of_one_row_stay_in_order_and_never_overlap(
        keys in prop::collection::vec(0..6_u8, 0..300),
        workers in 1..5_usize,
    ) {
        let seen = within(LIMIT, {
            let keys = keys.clone();
            move || deliver_all(&keys, workers)
        });
        let mut expected: HashMap<u8, Vec<usize>> = HashMap::new();
        for (number, key) in keys.into_iter().enumerate() {
            expected.entry(key).or_default().push(number);
        }
        prop_assert_eq!(seen, expected);
    }
}

/// Pushes one update for each of `keys`. Returns the numbers of the updates per key, as delivered; an update delivered
/// while another of its key was running is missing.
fn deliver_all(keys: &[u8], workers: usize) -> HashMap<u8, Vec<usize>> {
    let dispatcher = start(workers);
    let busy: Arc<[AtomicBool; 6]> = Arc::default();
    let (called, calls) = unbounded();
    let callback = move |update: &DbUpdate| {
        let key: u8 = update.key.parse().unwrap();
        let number: usize = update.value.as_ref().unwrap().parse().unwrap();
        let alone = !busy[usize::from(key)].swap(true, Ordering::SeqCst);
        std::thread::yield_now();
        busy[usize::from(key)].store(false, Ordering::SeqCst);
        called.send((key, alone.then_some(number))).unwrap();
    };
    dispatcher.on_update(callback).detach();
    for (number, key) in keys.iter().enumerate() {
        push(&dispatcher, update(&key.to_string(), number));
    }
    let mut seen: HashMap<u8, Vec<usize>> = HashMap::new();
    for _ in keys {
        let (key, number) = calls.recv_timeout(LIMIT).unwrap();
        seen.entry(key).or_default().extend(number);
    }
    seen
}

#[test]
fn a_slow_callback_holds_up_its_own_row_only() {
    within(LIMIT, || {
        let dispatcher = start(2);
        let open = block(&dispatcher, "slow");
        let (called, calls) = unbounded();
        dispatcher.on_update(called).detach();
        push(&dispatcher, update("slow", 1));
        for number in 0..100 {
            push(&dispatcher, update(&number.to_string(), number));
        }
        for _ in 0..100 {
            assert_ne!(calls.recv_timeout(LIMIT).unwrap().key, "slow");
        }
        assert!(calls.is_empty());
        drop(open);
        assert_eq!(calls.recv_timeout(LIMIT).unwrap().key, "slow");
    });
}

#[test]
fn sync_events_stay_in_order_and_hold_up_no_update_nor_the_other_way_round() {
    within(LIMIT, || {
        let dispatcher = start(2);
        let open_row = block(&dispatcher, "slow");
        let (open, gate) = bounded::<()>(0);
        let (synced, syncs) = unbounded();
        let callback = move |reason: &SyncReason| {
            synced.send(reason.clone()).unwrap();
            let _ = gate.recv();
        };
        dispatcher.on_sync(callback).detach();
        let (called, calls) = unbounded();
        dispatcher.on_update(called).detach();

        let overflow = |dropped| SyncReason::Overflow { dropped };
        dispatcher.queue().sync(overflow(1));
        assert_eq!(syncs.recv_timeout(LIMIT), Ok(overflow(1)));
        dispatcher.queue().sync(SyncReason::Requested);
        push(&dispatcher, update("quick", 1));
        assert_eq!(calls.recv_timeout(LIMIT).unwrap().key, "quick");
        assert!(syncs.is_empty(), "one after the other");
        drop(open);
        assert_eq!(syncs.recv_timeout(LIMIT), Ok(SyncReason::Requested));
        drop(open_row);
    });
}

#[test]
fn a_panic_costs_neither_the_worker_nor_the_row() {
    within(LIMIT, || {
        let dispatcher = start(1);
        dispatcher.on_update(|_: &DbUpdate| panic!("boom")).detach();
        for number in 0..3 {
            push(&dispatcher, update("k", number));
        }
        eventually(LIMIT, || dispatcher.stats().panics == 3);
    });
}

#[test]
fn a_callback_may_register_unregister_and_stop() {
    // On a busy machine the end of the threads may take longer.
    within(LIMIT, || assert!((0..10).any(|_| stops_itself_quickly())));
}

fn stops_itself_quickly() -> bool {
    let dispatcher = start(2);
    let handle = dispatcher.handle();
    let (called, calls) = unbounded::<Name>();
    let own_guard = Arc::new(Mutex::new(None));
    let guard = dispatcher.on_update({
        let own_guard = Arc::clone(&own_guard);
        move |_: &DbUpdate| {
            own_guard.lock().take();
            let (called, stopping) = (called.clone(), handle.clone());
            let stop = move |update: &DbUpdate| {
                stopping.stop();
                called.send(update.key.clone()).unwrap();
            };
            handle.on_update(stop).detach();
            push(&handle, update("second", 2));
        }
    });
    *own_guard.lock() = Some(guard);
    push(&dispatcher, update("first", 1));
    assert_eq!(calls.recv_timeout(LIMIT).unwrap(), "second");
    let begin = Instant::now();
    drop(dispatcher);
    // All threads have ended by themselves.
    let is_quick = begin.elapsed() < Duration::from_millis(400);
    assert!(calls.recv_timeout(LIMIT).is_err(), "nobody was called any more");
    is_quick
}

#[test]
fn stop_does_not_wait_for_ever_for_blocked_workers() {
    within(LIMIT, || {
        let dispatcher = start(3);
        let open = [
            block(&dispatcher, "1"),
            block(&dispatcher, "2"),
            block(&dispatcher, "3"),
        ];
        let (called, calls) = unbounded();
        dispatcher.on_update(called).detach();
        push(&dispatcher, update("4", 4));
        let begin = Stopwatch::start();
        dispatcher.stop();
        begin.assert_within(Duration::from_secs(1), "drop");
        drop(open);
        assert!(
            calls.recv_timeout(LIMIT).is_err(),
            "the callback is dropped, not called"
        );
    });
}

#[test]
fn whoever_registers_and_then_pushes_is_always_served() {
    within(LIMIT, || {
        let dispatcher = start(2);
        for number in 0..1000 {
            let (called, calls) = bounded(1);
            let _guard = dispatcher.on_table("t", called);
            push(&dispatcher, update("k", number));
            calls.recv_timeout(LIMIT).expect("registered before the push");
        }
    });
}

#[test]
fn too_many_workers_are_refused_as_by_the_option() {
    let options = |workers| DispatcherOptions {
        workers,
        ..DispatcherOptions::default()
    };
    let error = Dispatcher::new(options(257)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let mut config = Config::default();
    assert!(config.set("dispatcher_workers", "256", Source::Program).is_ok());
    assert!(config.set("dispatcher_workers", "257", Source::Program).is_err());
}
