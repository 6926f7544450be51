//! Tables and topics that several threads hold and let go, and wait for.

use std::thread;
use std::time::Duration;

use tablecast::replica::ReplicaOptions;
use tablecast::store::Write;

use crate::common::{eventually, within};
use crate::{LONG, World, holds, topic};

const TIMES: usize = 500;

/// Runs both at the same time, many times each.
fn side_by_side(one: impl Fn() + Sync, other: impl Fn() + Sync) {
    thread::scope(|scope| {
        scope.spawn(|| (0..TIMES).for_each(|_| one()));
        (0..TIMES).for_each(|_| other());
    });
}

/// A table or topic that is held in the end is kept up to date, by updates alone.
#[test]
fn what_is_held_again_is_followed() {
    within(LONG * 4, || {
        let world = World::new(0);
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&[])
        });
        let a = topic("a");
        for round in 0..10 {
            side_by_side(
                || drop(replica.raw_table("t").unwrap()),
                || _ = replica.remove_table("t"),
            );
            side_by_side(|| _ = replica.add_topic(&a).unwrap(), || _ = replica.remove_topic(&a));
            let table = replica.raw_table("t").unwrap();
            replica.add_topic(&a).unwrap();
            replica.wait_synced(LONG).unwrap();
            world.subscriber.wait_live(LONG).unwrap();
            let key = round.to_string();
            world
                .database
                .write(&Write::create("t", &key, "x").topic(&a), 5)
                .unwrap();
            eventually(LONG, || table.get(&key).unwrap().is_some());
        }
    });
}

/// However many wait at the same time, each waits for a read that began after its call, not for the next check.
#[test]
fn waits_beside_waits_end_soon() {
    within(LONG * 4, || {
        let world = World::new(0);
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&["a"])
        });
        for number in 0..50 {
            replica.raw_table(number.to_string()).unwrap();
        }
        replica.wait_synced(LONG).unwrap();
        let wait = || replica.wait_current(LONG).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| wait()));
            }
        });
    });
}
