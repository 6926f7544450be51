//! Promises that hold over every driver and store.

use std::time::{Duration, Instant};

use crate::common::{Stopwatch, eventually, within};
use crate::program::{Serving, World, counted, no_claims_are_left, notifying, server, status};
use crate::{LIMIT, LONG};

fn each_is_processed_once(world: &World, count: usize) {
    let servers: Vec<_> = (0..3).map(|_| server(world)).collect();
    let nodes: Vec<_> = (0..2).map(|_| world.program(0)).collect();
    let notifiers: Vec<_> = nodes.iter().map(|node| node.notifier(notifying())).collect();
    for (number, notifier) in notifiers.iter().enumerate() {
        notifier.wait_listeners(3, LONG).unwrap();
        for key in 0..count {
            notifier.notify(status(format!("{number}-{key}"))).unwrap();
        }
    }
    for notifier in &notifiers {
        notifier.flush(LONG).unwrap();
        let stats = notifier.stats();
        assert_eq!(
            (stats.notified, stats.acknowledged, stats.pending),
            (count as u64, count as u64, 0)
        );
        assert_eq!(stats.failed, 0);
    }
    let shares: Vec<Vec<String>> = servers.iter().map(|server| server.keys()).collect();
    let counts = counted(shares.iter().flatten().cloned());
    assert_eq!(counts.len(), 2 * count);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    // One that a busy machine has held up gets its share later.
    let has_share = |server: &Serving| server.listener.stats().handled > 0;
    for number in 0..1_000 {
        if servers.iter().all(has_share) {
            break;
        }
        notifiers[0].notify(status(format!("more-{number}"))).unwrap();
        notifiers[0].flush(LONG).unwrap();
    }
    assert!(servers.iter().all(has_share));
    no_claims_are_left(&servers[0].program.store);
    eventually(LONG, || {
        servers.iter().all(|server| server.listener.stats().claims == 0)
    });
}

#[test]
fn in_memory() {
    within(LIMIT, || each_is_processed_once(&World::memory(), 500));
}

#[test]
fn over_the_service_and_sqlite() {
    within(LIMIT, || each_is_processed_once(&World::service(), 200));
}

#[test]
fn over_ports_of_their_own_and_sqlite() {
    within(LIMIT, || each_is_processed_once(&World::direct(), 200));
}

#[test]
fn over_redis() {
    within(LIMIT, || each_is_processed_once(&World::redis(), 500));
}

fn who_comes_takes_a_share_and_who_stops_hands_over(world: &World) {
    let first = server(world);
    let node = world.program(0);
    let notifier = node.notifier(notifying());
    notifier.wait_listeners(1, LONG).unwrap();
    let mut sent = 0;
    let mut send_until = |condition: &dyn Fn() -> bool| {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline);
            notifier.notify(status(sent)).unwrap();
            sent += 1;
            crate::common::pass(Duration::from_millis(1));
        }
    };
    send_until(&|| first.seen.len() > 20);
    let second = server(world);
    send_until(&|| second.seen.len() > 20);
    // It stops while updates are sent to it: those it has not begun go to the other one at once.
    let start = Stopwatch::start();
    first.listener.stop();
    start.assert_within(Duration::from_secs(1), "stop");
    let (of_first, of_second) = (first.seen.len(), second.seen.len());
    send_until(&|| second.seen.len() > of_second + 20);
    notifier.flush(LONG).unwrap();
    assert_eq!(first.seen.len(), of_first);
    let counts = counted(first.keys().into_iter().chain(second.keys()));
    assert_eq!(counts.len(), sent);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(notifier.listeners().len(), 1);
    no_claims_are_left(&node.store);
}

#[test]
fn who_comes_and_stops_in_memory() {
    within(LIMIT, || {
        who_comes_takes_a_share_and_who_stops_hands_over(&World::memory());
    });
}

#[test]
fn who_comes_and_stops_over_the_service() {
    within(LIMIT, || {
        who_comes_takes_a_share_and_who_stops_hands_over(&World::service());
    });
}

#[test]
fn who_comes_and_stops_over_redis() {
    within(LIMIT, || {
        who_comes_takes_a_share_and_who_stops_hands_over(&World::redis());
    });
}

#[test]
fn one_program_can_be_server_and_node() {
    within(LIMIT, || {
        for world in [World::memory(), World::service(), World::redis()] {
            let (first, second) = (server(&world), server(&world));
            let notifier = first.program.notifier(notifying());
            notifier.wait_listeners(2, LONG).unwrap();
            (0..50).for_each(|key| notifier.notify(status(key)).unwrap());
            notifier.flush(LONG).unwrap();
            let counts = counted(first.keys().into_iter().chain(second.keys()));
            assert_eq!(counts.values().sum::<usize>(), 50);
            assert_eq!(counts.len(), 50);
        }
    });
}
