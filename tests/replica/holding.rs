//! Tables and topics that several threads hold and let go, and wait for.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{never, unbounded};
use parking_lot::Mutex;
use serde::Deserialize;
use tablecast::replica::{ReplicaOptions, RowChange};
use tablecast::store::{Page, Row, Write};
use tablecast::stores::memory::MemoryStore;
use tablecast::{Action, DbUpdate, Result, Store, Table, Topic};

use crate::common::{eventually, within};
use crate::fleet::Counting;
use crate::front::pass_on;
use crate::handlers::gate;
use crate::told::Told;
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

/// The rows of a topic that is given up are removed some at a time: updates are handled in between.
#[test]
fn a_topic_that_goes_does_not_hold_up_the_dispatcher() {
    const ROWS: usize = 3_000;
    within(LONG, || {
        let world = World::new(0);
        for number in 0..ROWS {
            world.store.create("t", &number.to_string(), "x", &topic("a")).unwrap();
        }
        for remove in [true, false] {
            let replica = world.replica(holds(&["a"]));
            let table = replica.raw_table("t").unwrap();
            replica.wait_synced(LONG).unwrap();
            let (told, removed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (all, count, queue) = (Arc::clone(&told), Arc::clone(&removed), world.dispatcher.queue());
            let _changes = table.on_change(move |change: &RowChange<String>| {
                all.fetch_add(1, Relaxed);
                if matches!(change, RowChange::Removed { .. }) && count.fetch_add(1, Relaxed) == 0 {
                    let marker = DbUpdate::new("other", "marker", Action::Set);
                    queue.push(&mut vec![marker], &never()).unwrap();
                }
            });
            eventually(LONG, || told.load(Relaxed) == ROWS);
            let (count, (seen, at)) = (Arc::clone(&removed), unbounded());
            let _marker = world
                .dispatcher
                .on_table("other", move |_: &DbUpdate| seen.send(count.load(Relaxed)).unwrap());
            match remove {
                true => assert!(replica.remove_topic(&topic("a"))),
                false => assert!(replica.remove_table("t")),
            }
            let at = at.recv_timeout(LONG).unwrap();
            assert!(at < ROWS / 2, "after {at} rows");
            eventually(LONG, || removed.load(Relaxed) == ROWS && table.is_empty());
        }
    });
}

static REMOVE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// A row type that gives its topic up while it is read.
struct GivesUp;

impl<'de> Deserialize<'de> for GivesUp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<GivesUp, D::Error> {
        u64::deserialize(deserializer)?;
        REMOVE.get().inspect(|remove| remove());
        Ok(GivesUp)
    }
}

/// A listing that is no longer wanted ends with the page under way.
#[test]
fn a_topic_that_goes_is_not_read_to_its_end() {
    within(LONG, || {
        let store = Arc::new(Counting::default());
        let world = World::with(0, Arc::clone(&store) as _);
        for number in 0..2_000 {
            store.create("t", &number.to_string(), "1", &topic("a")).unwrap();
        }
        let replica = Arc::new(world.replica(holds(&[])));
        let given_up = Arc::downgrade(&replica);
        let remove = move || {
            given_up.upgrade().map(|replica| replica.remove_topic(&topic("a")));
        };
        assert!(REMOVE.set(Box::new(remove)).is_ok());
        replica.table(Table::<GivesUp>::new("t")).unwrap();
        replica.add_topic(&topic("a")).unwrap();
        eventually(LONG, || replica.is_synced());
        // What is read next was due after the rest of the listing.
        replica.raw_table("u").unwrap();
        replica.add_topic(&topic("b")).unwrap();
        replica.wait_synced(LONG).unwrap();
        let pages = store.pages("t");
        assert!(pages <= 4, "{pages}");
    });
}

/// A store that does something before it reads the next page.
#[derive(Default)]
struct Interrupted {
    store: MemoryStore,
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Store for Interrupted {
    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        let first = self.first.lock().take();
        first.into_iter().for_each(|first| first());
        self.store.page_of_entries(table, topic, after)
    }

    pass_on!(|this| this.store; get write page_of_keys create_table delete_table allocate_unique_key);
    pass_on!(|this| this.store; table_version topic_versions changes);
}

/// A comparison finds no fault with rows that are let go meanwhile, however long their handlers take.
#[test]
fn a_comparison_beside_the_removal_of_a_topic_finds_nothing() {
    within(LONG, || {
        let store = Arc::new(Interrupted::default());
        let world = World::with(2, Arc::clone(&store) as _);
        let keys: Vec<_> = (0..10).map(|key| key.to_string()).collect();
        for key in &keys {
            store.create("t", key, "x", &topic("a")).unwrap();
        }
        let options = ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&["a", "b"])
        };
        let replica = Arc::new(world.replica(options));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        world.come_to_rest([&*replica]);
        let (held_up, visitors, open) = gate();
        let (told, _guard) = Told::after(&table, move |change| {
            if let RowChange::Removed { .. } = change {
                held_up.pass();
            }
        });
        eventually(LONG, || told.count() == keys.len());
        let (leaving, rows) = (Arc::clone(&replica), Arc::clone(&store));
        let first = move || {
            assert!(leaving.remove_topic(&topic("a")));
            visitors.recv_timeout(LONG).unwrap();
            for key in &keys {
                rows.store.set("t", key, "y").unwrap();
            }
        };
        *store.first.lock() = Some(Box::new(first));
        let differences = replica.verify(LONG);
        drop(open);
        assert_eq!(differences.unwrap(), []);
    });
}
