//! Handlers of tables that are let go, of replicas that end, and without a guard; a self-check that ends.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable, RowChange};
use tablecast::store::Write;
use tablecast::{Action, DbUpdate, Store};

use crate::common::{eventually, hook, within};
use crate::fleet::Counting;
use crate::told::Told;
use crate::{LONG, World, holds, topic};

const ROWS: usize = 1_000;

/// A replica of a table with many rows.
fn synced(world: &World) -> (Replica, ReplicaTable<String>) {
    for number in 0..ROWS {
        world.store.create("t", &number.to_string(), "x", &topic("a")).unwrap();
    }
    let replica = world.replica(holds(&["a"]));
    let table = replica.raw_table("t").unwrap();
    replica.wait_synced(LONG).unwrap();
    (replica, table)
}

/// A gate: says that somebody is at it, and waits until it is opened.
pub(crate) struct Gate {
    came: Sender<()>,
    opened: Receiver<()>,
}

/// A gate, its visitors, and what opens it for all when it is dropped.
pub(crate) fn gate() -> (Gate, Receiver<()>, Sender<()>) {
    let ((came, comes), (open, opened)) = (unbounded(), bounded(0));
    (Gate { came, opened }, comes, open)
}

impl Gate {
    pub(crate) fn pass(&self) {
        let _ = self.came.send(());
        let _ = self.opened.recv();
    }
}

/// A new handler that is still being called for the rows hears that they are gone.
#[test]
fn a_late_handler_hears_that_the_table_is_gone() {
    within(LONG, || {
        let world = World::new(0);
        let (replica, table) = synced(&world);
        let (gate, visitors, open) = gate();
        let (told, _guard) = Told::after(&table, move |_| gate.pass());
        visitors.recv_timeout(LONG).unwrap();
        assert!(replica.remove_table("t"));
        drop(open);
        eventually(LONG, || told.count() == 2 * ROWS);
        assert!(told.rows().is_empty());
    });
}

/// One thread is in the handler of a row while another lets the table go.
#[test]
fn a_row_that_is_being_reported_is_reported_as_gone() {
    within(LONG, || {
        let world = World::new(2);
        let (replica, table) = synced(&world);
        let (gate, visitors, open) = gate();
        let (told, _guard) = Told::after(&table, move |change| {
            if change.version() > ROWS as u64 && matches!(change, RowChange::Changed { .. }) {
                gate.pass();
            }
        });
        eventually(LONG, || told.count() == ROWS);
        world
            .database
            .write(&Write::set("t", "7", "y").topic(&topic("a")), 5)
            .unwrap();
        visitors.recv_timeout(LONG).unwrap();
        assert!(replica.remove_table("t"));
        eventually(LONG, || table.is_empty());
        drop(open);
        eventually(LONG, || told.rows().is_empty());
    });
}

/// No row is reported after a replica was dropped.
#[test]
fn the_end_of_a_replica_ends_its_handlers() {
    within(LONG, || {
        let world = World::new(0);
        let (replica, table) = synced(&world);
        let (gate, visitors, open) = gate();
        let (told, _guard) = Told::after(&table, move |_| gate.pass());
        visitors.recv_timeout(LONG).unwrap();
        drop(replica);
        drop(open);
        // What is queued behind the call in which the replica ended.
        let (updates, updated) = unbounded();
        world.dispatcher.on_update(updates).detach();
        for number in 0..10 {
            let update = DbUpdate::new("u", number.to_string(), Action::Set).topic(topic("a"));
            world.push(update);
            updated.recv_timeout(LONG).unwrap();
        }
        assert_eq!(told.count(), 1);
    });
}

/// Nothing is merged while the dispatcher is held up, so that the check waits for what the replica is to read.
#[test]
fn the_end_of_a_replica_ends_its_self_check() {
    within(LONG, || {
        let store = Arc::new(Counting::default());
        let world = World::with(0, Arc::clone(&store) as _);
        store.create("t", "k", "x", &topic("a")).unwrap();
        let owners = Arc::strong_count(&store);
        let (hook, errors) = hook();
        let replica = world.replica(ReplicaOptions {
            self_check: Some(Duration::from_millis(10)),
            hook,
            ..holds(&["a"])
        });
        replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        let (gate, visitors, open) = gate();
        world.dispatcher.on_update(move |_: &DbUpdate| gate.pass()).detach();
        world.push(DbUpdate::new("u", "k", Action::Set));
        visitors.recv_timeout(LONG).unwrap();
        store.set("t", "k", "y").unwrap();
        let reads = *store.others.lock();
        eventually(LONG, || *store.others.lock() > reads);
        drop(replica);
        // Otherwise it would wait for ten seconds.
        eventually(Duration::from_secs(5), || Arc::strong_count(&store) == owners);
        assert!(errors.is_empty(), "{:?}", errors.try_recv());
        drop(open);
    });
}

/// A guard that is dropped before the handler was called at all drops the handler.
#[test]
fn a_handler_without_a_guard_is_dropped() {
    within(LONG, || {
        let world = World::new(0);
        let (_replica, table) = synced(&world);
        let (gate, visitors, open) = gate();
        world.dispatcher.on_update(move |_: &DbUpdate| gate.pass()).detach();
        world.push(DbUpdate::new("u", "k", Action::Set));
        visitors.recv_timeout(LONG).unwrap();
        let (changes, changed) = unbounded::<RowChange<String>>();
        drop(table.on_change(changes));
        drop(open);
        assert!(changed.recv_timeout(LONG).is_err_and(|e| e.is_disconnected()));
    });
}
