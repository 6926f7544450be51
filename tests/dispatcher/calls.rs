//! The dispatcher without workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Stopwatch, eventually, hook, within};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, unbounded};
use parking_lot::Mutex;
use serde::Deserialize;
use tablecast::dispatcher::Handler;
use tablecast::{Action, DbUpdate, Dispatcher, DispatcherHandle, DispatcherOptions, Error, ErrorKind};
use tablecast::{Event, Guard, SyncReason, Table, Topic};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Deserialize, Debug, PartialEq)]
struct Port {
    chassis: String,
}
const PORT: Table<Port> = Table::new("port");

fn start() -> Dispatcher {
    Dispatcher::new(DispatcherOptions::default()).unwrap()
}

/// A dispatcher, and the receiver of its hook's errors.
fn start_with_hook() -> (Dispatcher, Receiver<(ErrorKind, String)>) {
    let (hook, failures) = hook();
    let options = DispatcherOptions {
        hook,
        ..Default::default()
    };
    (Dispatcher::new(options).unwrap(), failures)
}

fn update(table: &str, key: &str) -> DbUpdate {
    DbUpdate::new(table, key, Action::Set)
}

fn push(dispatcher: &DispatcherHandle, update: DbUpdate) {
    dispatcher.queue().push(&mut vec![update], &never()).unwrap();
}

/// Waits until everything pushed before was delivered.
fn flush(dispatcher: &DispatcherHandle) {
    let (reached, done) = bounded(1);
    let _guard = dispatcher.on_table("flush", reached);
    push(dispatcher, update("flush", "now"));
    done.recv_timeout(LIMIT).unwrap();
}

/// Registers a callback for table `block` and makes the dispatcher run it; it runs until the sender is dropped.
fn block(dispatcher: &DispatcherHandle) -> (Sender<()>, Guard) {
    let (open, gate) = bounded::<()>(0);
    let (entered, running) = bounded(1);
    let guard = dispatcher.on_table("block", move |_: &DbUpdate| {
        entered.send(()).unwrap();
        let _ = gate.recv();
    });
    push(dispatcher, update("block", "now"));
    running.recv_timeout(LIMIT).unwrap();
    (open, guard)
}

fn keys(updates: &Receiver<DbUpdate>) -> Vec<String> {
    updates.try_iter().map(|update| update.key.to_string()).collect()
}

#[test]
fn one_channel_receives_updates_and_sync_events_in_order() {
    within(LIMIT, || {
        let dispatcher = start();
        let (sender, events) = unbounded();
        let guard = dispatcher.on_event(sender);
        let (gate, _block) = block(&dispatcher);
        push(&dispatcher, update("t", "1"));
        dispatcher.queue().sync(SyncReason::Requested);
        drop(gate);
        flush(&dispatcher);
        push(&dispatcher, update("t", "2"));
        flush(&dispatcher);
        let told: Vec<Event> = events.try_iter().collect();
        let of = |key: &str| {
            told.iter()
                .position(|event| matches!(event, Event::Update(u) if &*u.key == key))
        };
        let sync = told
            .iter()
            .position(|event| *event == Event::Sync(SyncReason::Requested));
        assert!(of("1") < of("2") && sync < of("2"), "{told:?}");
        assert!(sync.is_some() && of("1").is_some(), "{told:?}");
        drop(guard);
        push(&dispatcher, update("t", "3"));
        flush(&dispatcher);
        assert!(events.try_iter().next().is_none());
        assert_eq!(dispatcher.stats().unhandled, 1, "of 3");
    });
}

#[test]
fn each_registration_gets_what_it_is_for_and_nothing_else() {
    within(LIMIT, || {
        let dispatcher = start();
        let (all, table, topic, row, sync) = (unbounded(), unbounded(), unbounded(), unbounded(), unbounded());
        let tenant = Topic::new("tenant").unwrap();
        let _guards = [
            dispatcher.on_update(all.0),
            dispatcher.on_table("port", table.0),
            dispatcher.on_topic(tenant.clone(), topic.0),
            dispatcher.on_row(PORT, move |update, port| {
                row.0.send((update.key.clone(), port)).unwrap();
            }),
            dispatcher.on_sync(sync.0),
        ];
        push(&dispatcher, update("port", "a").value(r#"{"chassis":"host1"}"#));
        push(&dispatcher, update("router", "b").topic(tenant));
        push(&dispatcher, PORT.delete("c"));
        flush(&dispatcher);
        dispatcher.queue().sync(SyncReason::Requested);

        assert_eq!(sync.1.recv_timeout(LIMIT), Ok(SyncReason::Requested));
        assert_eq!(keys(&all.1), ["a", "b", "c", "now"]);
        assert_eq!(keys(&table.1), ["a", "c"]);
        assert_eq!(keys(&topic.1), ["b"]);
        let port = Port {
            chassis: "host1".into(),
        };
        assert_eq!(
            row.1.try_iter().collect::<Vec<_>>(),
            [("a".into(), Some(port)), ("c".into(), None)]
        );
    });
}

#[test]
fn callbacks_are_called_in_the_documented_order() {
    within(LIMIT, || {
        let dispatcher = start();
        let (called, calls) = unbounded();
        let note = |name: &'static str| {
            let called = called.clone();
            move |_: &DbUpdate| called.send(name).unwrap()
        };
        let _guards = [
            dispatcher.on_topic(Topic::ALL, note("topic")),
            dispatcher.on_table("t", note("table 1")),
            dispatcher.on_table("t", note("table 2")),
            dispatcher.on_update(note("all")),
        ];
        push(&dispatcher, update("t", "k"));
        flush(&dispatcher);
        assert_eq!(
            calls.try_iter().take(4).collect::<Vec<_>>(),
            ["all", "table 1", "table 2", "topic"]
        );
    });
}

#[test]
fn dropping_a_guard_unregisters_and_detaching_it_keeps() {
    within(LIMIT, || {
        let dispatcher = start();
        let (dropped, kept) = (unbounded(), unbounded());
        let guard = dispatcher.on_table("t", dropped.0);
        dispatcher.on_table("t", kept.0).detach();
        push(&dispatcher, update("t", "1"));
        flush(&dispatcher);
        drop(guard);
        push(&dispatcher, update("t", "2"));
        flush(&dispatcher);
        assert_eq!(keys(&dropped.1), ["1"]);
        assert_eq!(keys(&kept.1), ["1", "2"]);
        assert_eq!(dropped.1.recv().ok(), None, "the callback itself was dropped");
    });
}

#[test]
fn no_call_begins_after_the_guard_was_dropped_even_if_the_update_waited_before() {
    within(LIMIT, || {
        let dispatcher = start();
        let (open, _blocked) = block(&dispatcher);
        let (called, calls) = unbounded();
        let guard = dispatcher.on_table("t", called);
        push(&dispatcher, update("t", "1"));
        drop(guard);
        drop(open);
        flush(&dispatcher);
        assert_eq!(keys(&calls), [""; 0]);
    });
}

#[test]
fn a_callback_that_drops_the_guard_of_a_later_one_prevents_its_call() {
    within(LIMIT, || {
        let dispatcher = start();
        let later = Arc::new(Mutex::new(None));
        let dropping = Arc::clone(&later);
        let _first = dispatcher.on_table("t", move |_: &DbUpdate| drop(dropping.lock().take()));
        let (called, calls) = unbounded();
        *later.lock() = Some(dispatcher.on_table("t", called));
        push(&dispatcher, update("t", "1"));
        flush(&dispatcher);
        assert_eq!(keys(&calls), [""; 0]);
    });
}

#[test]
fn whoever_registers_and_then_pushes_is_always_served() {
    within(LIMIT, || {
        let dispatcher = start();
        // Keeps the dispatcher busy, so that the registration and the update arrive at every point of its loop.
        let handle = dispatcher.handle();
        let again = move |update: &DbUpdate| _ = handle.queue().push(&mut vec![update.clone()], &never());
        dispatcher.on_table("busy", again).detach();
        push(&dispatcher, update("busy", "1"));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(500) {
            let (called, calls) = bounded(1);
            let _guard = dispatcher.on_table("t", called);
            push(&dispatcher, update("t", "k"));
            calls.recv_timeout(LIMIT / 4).expect("registered before the push");
        }
    });
}

#[test]
fn registering_does_not_wait_for_a_callback() {
    within(LIMIT, || {
        let dispatcher = start();
        let (open, _blocked) = block(&dispatcher);
        let (called, calls) = unbounded();
        let _guard = dispatcher.on_table("t", called);
        push(&dispatcher, update("t", "1"));
        drop(open);
        assert!(calls.recv_timeout(LIMIT).is_ok());
    });
}

#[test]
fn a_callback_may_use_everything() {
    within(LIMIT, || {
        let dispatcher = start();
        let handle = dispatcher.handle();
        let (called, calls) = unbounded();
        let own_guard = Arc::new(Mutex::new(None));
        let registered = Mutex::new(Vec::new());
        let guard = dispatcher.on_table("first", {
            let own_guard = Arc::clone(&own_guard);
            move |_: &DbUpdate| {
                own_guard.lock().take();
                registered.lock().push(handle.on_table("second", called.clone()));
                push(&handle, update("second", "1"));
                handle.queue().sync(SyncReason::Requested);
                assert!(handle.stats().updates > 0);
            }
        });
        let (synced, syncs) = unbounded();
        let _syncs = dispatcher.on_sync(synced);
        *own_guard.lock() = Some(guard);
        push(&dispatcher, update("first", "1"));
        assert!(syncs.recv_timeout(LIMIT).is_ok());
        push(&dispatcher, update("first", "2"));
        flush(&dispatcher);
        // The callback unregistered itself, so it was dropped together with the guard that it held.
        assert_eq!(calls.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected));
        assert_eq!(dispatcher.stats().panics, 0);
    });
}

#[test]
fn what_a_callback_registers_is_in_force_for_what_it_pushes() {
    within(LIMIT, || {
        let dispatcher = start();
        let handle = dispatcher.handle();
        let (called, calls) = unbounded();
        let _guard = dispatcher.on_table("first", move |_: &DbUpdate| {
            handle.on_table("second", called.clone()).detach();
            push(&handle, update("second", "1"));
        });
        push(&dispatcher, update("first", "1"));
        assert!(calls.recv_timeout(LIMIT).is_ok());
    });
}

#[test]
fn a_callback_may_stop_the_dispatcher_and_is_the_last() {
    within(LIMIT, || {
        let dispatcher = start();
        let handle = dispatcher.handle();
        let (stopped, stops) = unbounded();
        let _first = dispatcher.on_update(move |_: &DbUpdate| {
            let begin = Stopwatch::start();
            handle.stop();
            stopped.send(begin.check(Duration::from_millis(500), "stop")).unwrap();
        });
        let (called, calls) = unbounded();
        let _second = dispatcher.on_update(called);
        dispatcher
            .queue()
            .push(&mut vec![update("t", "1"), update("t", "2")], &never())
            .unwrap();
        stops.recv_timeout(LIMIT).unwrap().unwrap();
        drop(dispatcher);
        assert_eq!(stops.try_iter().count(), 0);
        assert_eq!(calls.try_iter().count(), 0);
    });
}

#[test]
fn a_callback_may_drop_the_dispatcher() {
    within(LIMIT, || {
        let dispatcher = start();
        let handle = dispatcher.handle();
        let owned = Mutex::new(Some(dispatcher));
        let (called, calls) = unbounded();
        handle.on_update(called).detach();
        handle.on_update(move |_: &DbUpdate| drop(owned.lock().take())).detach();
        push(&handle, update("t", "1"));
        calls.recv_timeout(LIMIT).unwrap();
        assert!(
            calls.recv_timeout(LIMIT).is_err(),
            "the thread has ended and dropped its callbacks"
        );
    });
}

#[test]
fn stop_does_not_wait_for_ever_for_a_callback() {
    within(LIMIT, || {
        let dispatcher = start();
        let (called, calls) = unbounded();
        dispatcher.on_table("t", called).detach();
        let (open, _blocked) = block(&dispatcher);
        push(&dispatcher, update("t", "1"));
        let begin = Stopwatch::start();
        dispatcher.stop();
        begin.assert_within(Duration::from_secs(1), "stop");
        let begin = Stopwatch::start();
        dispatcher.stop();
        drop(dispatcher);
        begin.assert_within(Duration::from_millis(500), "the second stop");
        drop(open);
        assert!(
            calls.recv_timeout(LIMIT).is_err(),
            "the callback is dropped, not called"
        );
    });
}

#[test]
fn stop_is_quick_and_idempotent_and_later_calls_have_no_effect() {
    within(LIMIT, || {
        // On a busy machine some of them take longer.
        let is_quick = |_| {
            let dispatcher = start();
            let begin = Instant::now();
            dispatcher.stop();
            dispatcher.stop();
            begin.elapsed() < Duration::from_millis(400)
        };
        assert!((0..10).any(is_quick));
        let dispatcher = start();
        dispatcher.stop();
        let (called, calls) = unbounded();
        let _guard = dispatcher.on_update(called);
        assert!(calls.recv().is_err());
        let refused = dispatcher.queue().push(&mut vec![update("t", "1")], &never());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Stopped);
    });
}

#[test]
fn a_panic_is_contained_counted_and_reported() {
    within(LIMIT, || {
        let (dispatcher, failures) = start_with_hook();
        let (called, calls) = unbounded();
        let _bad = dispatcher.on_update(|update: &DbUpdate| assert_ne!(&*update.table, "t", "boom"));
        let _good = dispatcher.on_table("t", called);
        push(&dispatcher, update("t", "1"));
        push(&dispatcher, update("t", "2"));
        flush(&dispatcher);
        assert_eq!(keys(&calls), ["1", "2"]);
        assert_eq!(dispatcher.stats().panics, 2);
        let (kind, text) = failures.recv().unwrap();
        assert_eq!(kind, ErrorKind::Panicked);
        assert!(text.contains(r#"table "t" key "1""#) && text.contains("boom"), "{text}");
    });
}

#[test]
fn a_panic_in_the_hook_or_when_a_callback_is_dropped_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("bomb");
        }
    }
    within(LIMIT, || {
        let hook = |error: &Error| panic!("hook: {error}");
        let options = DispatcherOptions {
            hook: Some(Arc::new(hook)),
            ..Default::default()
        };
        let dispatcher = Dispatcher::new(options).unwrap();
        let bomb = Bomb;
        drop(dispatcher.on_update(move |_: &DbUpdate| _ = &bomb));
        flush(&dispatcher);
        assert_eq!(dispatcher.stats().panics, 1);
    });
}

#[test]
fn a_value_of_the_wrong_type_is_reported_and_its_callback_not_called() {
    within(LIMIT, || {
        let (dispatcher, failures) = start_with_hook();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let _row = dispatcher.on_row(PORT, move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let (called, raw) = unbounded();
        let _raw = dispatcher.on_table("port", called);
        push(&dispatcher, update("port", "1").value("[]"));
        flush(&dispatcher);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        assert_eq!(keys(&raw), ["1"], "others still get the update");
        assert_eq!(dispatcher.stats().mismatches, 1);
        let (kind, text) = failures.recv().unwrap();
        assert_eq!(kind, ErrorKind::Malformed);
        assert!(text.contains(r#"table "port" key "1""#), "{text}");
    });
}

#[test]
fn a_full_channel_loses_the_event_with_a_report_and_a_closed_one_is_ignored() {
    within(LIMIT, || {
        let (dispatcher, failures) = start_with_hook();
        let (full, kept) = bounded(1);
        let (closed, _) = bounded(1);
        let _guards = [dispatcher.on_table("t", full), dispatcher.on_table("t", closed)];
        push(&dispatcher, update("t", "1"));
        push(&dispatcher, update("t", "2"));
        flush(&dispatcher);
        assert_eq!(keys(&kept), ["1"]);
        assert_eq!(failures.recv().unwrap().0, ErrorKind::Timeout);
        assert_eq!(dispatcher.stats().refused, 1);
    });
}

#[test]
fn stats_count_what_happened() {
    within(LIMIT, || {
        let dispatcher = start();
        let (called, calls) = unbounded();
        let _guards = [
            dispatcher.on_table("t", called.clone()),
            dispatcher.on_topic(Topic::ALL, called),
        ];
        push(&dispatcher, update("t", "1"));
        push(&dispatcher, update("other", "1").topic(Topic::new("x").unwrap()));
        dispatcher.queue().sync(SyncReason::Requested);
        eventually(LIMIT, || {
            dispatcher.stats().syncs == 1 && dispatcher.stats().updates == 2
        });
        let stats = dispatcher.stats();
        assert_eq!(
            (
                stats.calls,
                stats.unhandled,
                stats.panics,
                stats.mismatches,
                stats.refused
            ),
            (2, 1, 0, 0, 0)
        );
        assert_eq!(calls.len(), 2);
    });
}

#[test]
fn handlers_and_guards_travel_between_threads() {
    fn check<T: Send + Sync>() {}
    fn takes<E, H: Handler<E>>(_: H) {}
    check::<Dispatcher>();
    check::<DispatcherHandle>();
    check::<Guard>();
    takes::<DbUpdate, _>(unbounded::<DbUpdate>().0);
    takes::<SyncReason, _>(|_: &SyncReason| {});
}
