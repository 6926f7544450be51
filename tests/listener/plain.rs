//! The plain form, order, limits, panics, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never, unbounded};
use parking_lot::Mutex;
use tablecast::queue::Overflow;
use tablecast::{Action, Config, DbUpdate, Error, ErrorKind, ListenerOptions, NotifierOptions};

use crate::common::{Stopwatch, eventually, hook, pass, within};
use crate::program::{
    Program, World, at_most_once, counted, listening, no_claims_are_left, notifying, server, server_with, status,
};
use crate::{LIMIT, LONG};

#[test]
fn at_most_once_is_published_and_that_is_all() {
    within(LIMIT, || {
        for world in [World::memory(), World::service(), World::redis()] {
            let servers = [server(&world), server(&world)];
            let node = world.program(0);
            let notifier = node.notifier(at_most_once());
            notifier.wait_listeners(2, LONG).unwrap();
            // A subscriber's topics are in force once it is live, and nothing makes up for lost messages.
            servers
                .iter()
                .for_each(|server| server.program.subscriber.wait_live(LONG).unwrap());
            (0..100).for_each(|key| notifier.notify(status(key)).unwrap());
            eventually(LONG, || {
                servers.iter().map(|server| server.seen.len()).sum::<usize>() == 100
            });
            assert_eq!([servers[0].seen.len(), servers[1].seen.len()], [50, 50]);
            let update = servers[0].seen.recv().unwrap();
            assert_eq!(update.value.as_deref(), Some(r#"{"status":"up"}"#));
            assert_eq!(node.store.keys(tablecast::listener::CLAIMS, None).count(), 0);
            let stats = notifier.stats();
            assert_eq!((stats.notified, stats.sent, stats.pending), (100, 100, 0));
            drop(servers);
            eventually(LONG, || notifier.listeners().is_empty());
            assert_eq!(notifier.notify(status(1)).unwrap_err().kind(), ErrorKind::Unavailable);
            assert!(notifier.stop().is_empty());
            assert_eq!(notifier.notify(status(1)).unwrap_err().kind(), ErrorKind::Stopped);
        }
    });
}

#[test]
fn an_update_arrives_as_it_was_given() {
    within(LIMIT, || {
        let world = World::memory();
        let server = server(&world);
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        let mut update = status("k \"\u{1F600}/")
            .priority(2)
            .topic(tablecast::Topic::new("tenant1").unwrap());
        update.action = "up".into();
        update.version = Some(7);
        notifier.notify(update.clone()).unwrap();
        let mut seen = server.seen.recv_timeout(LONG).unwrap();
        assert!(seen.origin.take().is_some());
        assert_eq!(seen, update);
    });
}

#[test]
fn updates_of_a_row_are_processed_in_their_order() {
    within(LIMIT, || {
        let world = World::memory();
        let (sender, seen) = unbounded();
        let servers: Vec<_> = (0..3)
            .map(|_| {
                let sender = sender.clone();
                server_with(&world, listening(), move |update| {
                    let _ = sender.send((update.key.clone(), update.value.clone()));
                })
            })
            .collect();
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        notifier.wait_listeners(3, LONG).unwrap();
        for number in 0..300 {
            notifier.notify(status(number % 7).value(number.to_string())).unwrap();
        }
        notifier.flush(LONG).unwrap();
        let mut last = std::collections::BTreeMap::new();
        for (key, value) in seen.try_iter() {
            let number: u32 = value.unwrap().parse().unwrap();
            assert!(last.insert(key, number).is_none_or(|before| before < number));
        }
        assert_eq!(last.len(), 7);
        assert!(servers.iter().all(|server| server.listener.stats().handled > 10));
    });
}

#[test]
fn a_handler_that_panics_is_reported_and_the_update_counts_as_processed() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions { hook, ..listening() };
        let server = server_with(&world, options, |update| assert!(update.key != "3", "cannot take 3"));
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        (0..10).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        assert_eq!(counted(server.keys()).len(), 10);
        let stats = notifier.stats();
        assert_eq!((stats.acknowledged, stats.failed), (10, 1));
        assert_eq!(
            (server.listener.stats().handled, server.listener.stats().failed),
            (10, 1)
        );
        let errors: Vec<_> = errors.try_iter().map(|(kind, _)| kind).collect();
        assert_eq!(errors, [ErrorKind::Panicked]);
    });
}

#[test]
fn listeners_tell_how_much_they_have_handled() {
    within(LIMIT, || {
        let world = World::memory();
        let options = ListenerOptions {
            timeout: Duration::from_millis(900),
            ..listening()
        };
        let _server = server_with(&world, options, |_| ());
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        (0..10).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        eventually(LONG, || {
            notifier.listeners().iter().any(|member| member.load.handled == 10)
        });
        assert!(notifier.latency().quantile(0.5) > 0);
        assert!(notifier.latency().max() < 30_000_000);
    });
}

#[test]
fn with_workers_a_listener_uses_more_than_one_core() {
    within(LIMIT, || {
        let world = World::memory();
        let program = world.program(4);
        // Each call waits until four are running.
        let barrier = std::sync::Barrier::new(4);
        let listener = program.listener(listening(), move |_| {
            barrier.wait();
        });
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        (0..40).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        assert_eq!(listener.stats().handled, 40);
    });
}

/// Each call takes longer than a listener without a queue would.
#[test]
fn slow_handlers_use_all_workers() {
    within(LIMIT, || {
        let world = World::memory();
        let program = world.program(4);
        let (running, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let late_most = Arc::clone(&most);
        let _listener = program.listener(listening(), move |update| {
            let running_now = running.fetch_add(1, Ordering::SeqCst) + 1;
            pass(Duration::from_millis(60));
            running.fetch_sub(1, Ordering::SeqCst);
            // Only after the window had time to shrink.
            if update.key.parse::<u32>().is_ok_and(|number| number >= 80) {
                late_most.fetch_max(running_now, Ordering::SeqCst);
            }
        });
        let node = world.program(0);
        let notifier = node.notifier(NotifierOptions {
            ack_timeout: Duration::from_millis(100),
            window: 8,
            ..notifying()
        });
        (0..120).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        assert!(most.load(Ordering::SeqCst) > 1);
    });
}

#[test]
fn without_a_listener_updates_wait_and_it_is_said_once() {
    within(LIMIT, || {
        let world = World::memory();
        let node = world.program(0);
        let (hook, errors) = hook();
        let notifier = node.notifier(NotifierOptions { hook, ..notifying() });
        (0..5).for_each(|key| notifier.notify(status(key)).unwrap());
        assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Unavailable);
        let error = notifier.flush(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("5 status updates"), "{error}");
        let server = server(&world);
        notifier.flush(LONG).unwrap();
        assert_eq!(server.keys().len(), 5);
        assert!(errors.is_empty());
        // Updates never acknowledged are named at the end.
        server.listener.stop();
        eventually(LONG, || notifier.listeners().is_empty());
        notifier.notify(status("last")).unwrap();
        let left = notifier.stop();
        assert_eq!(
            left.iter().map(|update| update.key.as_str()).collect::<Vec<_>>(),
            ["last"]
        );
        assert_eq!(notifier.notify(status(1)).unwrap_err().kind(), ErrorKind::Stopped);
        assert_eq!(notifier.flush(LONG).unwrap_err().kind(), ErrorKind::Stopped);
    });
}

/// The hook is called on the thread for which a stop waits otherwise, and that others share.
#[test]
fn a_notifier_may_be_dropped_in_its_hook() {
    within(LIMIT, || {
        let world = World::memory();
        let node = world.program(0);
        let place = Arc::new(Mutex::new(None));
        let (sender, errors) = unbounded();
        let of_hook = Arc::clone(&place);
        let hook = move |e: &Error| {
            drop(of_hook.lock().take());
            let _ = sender.send((e.kind(), e.to_string()));
        };
        let notifier = node.notifier(NotifierOptions {
            hook: Some(Arc::new(hook)),
            ..notifying()
        });
        place.lock().insert(notifier).notify(status(1)).unwrap();
        assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Unavailable);
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Unconfirmed);
        assert!(text.contains("1 status updates"), "{text}");
        let other = node.notifier(notifying());
        let server = server(&world);
        other.notify(status(2)).unwrap();
        other.flush(LONG).unwrap();
        assert_eq!(server.keys().len(), 1);
    });
}

#[test]
fn what_is_pending_is_bounded() {
    within(LIMIT, || {
        let world = World::memory();
        let node = world.program(0);
        let notifier = node.notifier(NotifierOptions {
            capacity: 3,
            notify_timeout: Duration::from_secs(3),
            ..notifying()
        });
        (0..3).for_each(|key| notifier.notify(status(key)).unwrap());
        let start = Instant::now();
        assert_eq!(notifier.notify(status(3)).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(start.elapsed() >= Duration::from_secs(3));
        // A waiting caller goes on as soon as there is room.
        let _server = server(&world);
        notifier.flush(LONG).unwrap();
        (0..50).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        assert_eq!(notifier.stats().acknowledged, 53);
        let long = "x".repeat(17 << 20);
        assert_eq!(
            notifier.notify(status(1).value(long)).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
    });
}

/// A full queue drops turns, also of a program that is never idle.
#[test]
fn turns_that_a_full_queue_drops_come_again() {
    within(LIMIT, || {
        let world = World::memory();
        let World::Memory(driver, address, store) = &world else {
            panic!("it is in memory")
        };
        let mut config = Config::in_memory(address);
        config.topics = Vec::new();
        config.publishers = vec![address.clone()];
        config.queue_capacity = 8;
        config.queue_overflow = Overflow::DropAndSync;
        let server = Program::over(&config, driver, store);
        let _other = server
            .dispatcher
            .on_table("other", |_: &DbUpdate| pass(Duration::from_millis(1)));
        let listener = server.listener(listening(), |_| ());
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // More than the program can handle.
            let feed = || {
                let queue = server.dispatcher.queue();
                while !is_over.load(Ordering::SeqCst) {
                    let mut updates = vec![DbUpdate::new("other", "row", Action::Set)];
                    queue.push(&mut updates, &never()).unwrap();
                    pass(Duration::from_micros(500));
                }
            };
            let feeder = std::thread::Builder::new().spawn_scoped(scope, feed).unwrap();
            eventually(LONG, || server.dispatcher.stats().queue.dropped > 0);
            (0..100).for_each(|key| notifier.notify(status(key)).unwrap());
            let flushed = notifier.flush(LONG);
            is_over.store(true, Ordering::SeqCst);
            feeder.join().unwrap();
            flushed.unwrap();
        });
        assert_eq!(listener.stats().handled, 100);
    });
}

#[test]
fn a_stop_is_quick_at_any_moment_also_inside_the_handler() {
    within(LIMIT, || {
        let world = World::memory();
        let program = world.program(0);
        let slot = Arc::new(parking(None));
        let (done, stopped) = bounded(1);
        let inside = Arc::clone(&slot);
        let listener = program.listener(listening(), move |_| {
            let listener: tablecast::Listener = inside.lock().unwrap().take().unwrap();
            let start = Stopwatch::start();
            listener.stop();
            let _ = done.send(start.check(Duration::from_millis(500), "stop"));
        });
        *slot.lock().unwrap() = Some(listener);
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        notifier.notify(status(1)).unwrap();
        stopped.recv_timeout(LONG).unwrap().unwrap();
        // The running update is finished and acknowledged.
        notifier.flush(LONG).unwrap();
        eventually(LONG, || {
            node.store.keys(tablecast::listener::LISTENERS, None).count() == 0
        });

        // A slow handler finishes in the background, and no other listener processes its update meanwhile.
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, listening(), move |_| assert!(wait.recv().is_err()));
        eventually(LONG, || notifier.listeners().len() == 1);
        notifier.notify(status("slow")).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        let start = Stopwatch::start();
        slow.listener.stop();
        start.assert_within(Duration::from_secs(1), "stop");
        let options = ListenerOptions {
            // Claims whose confirmation came after the stop are removed after this time.
            retention: Duration::from_secs(1),
            ..listening()
        };
        let other = server_with(&world, options, |_| ());
        pass(Duration::from_millis(2500));
        assert_eq!((other.seen.len(), notifier.stats().pending), (0, 1));
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!(other.seen.len(), 0);
        no_claims_are_left(&node.store);
    });
}

fn parking<T>(value: T) -> std::sync::Mutex<T> {
    std::sync::Mutex::new(value)
}
