//! Indexes, handlers and waits with several workers.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use tablecast::database::Entry;
use tablecast::replica::{Index, ReplicaTable, RowChange};
use tablecast::store::Write;
use tablecast::{Action, DbUpdate, ErrorKind};

use crate::common::{eventually, within};
use crate::handlers::gate;
use crate::told::Told;
use crate::{LONG, World, holds, topic};

/// A change that an index does not have yet reaches no handler, registered before, meanwhile or later; nor does a wait
/// take it for included.
#[test]
fn an_index_is_ahead_of_handlers_and_waits() {
    within(LONG, || {
        let world = World::new(4);
        world.store.create("t", "0", "x", &topic("a")).unwrap();
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        let (held_up, visitors, open) = gate();
        let index = Arc::new(table.index(move |row: &Entry<String>| {
            if row.row == "held up" {
                held_up.pass();
            }
            [row.row.clone()]
        }));
        let (lacks, lacked) = unbounded();
        let look = || {
            let (index, lacks) = (Arc::clone(&index), lacks.clone());
            move |change: &RowChange<String>| {
                if let RowChange::Added { new } | RowChange::Changed { new, .. } = change
                    && !index.get(&new.row).iter().any(|row| row.key == new.key)
                {
                    lacks.send(new.key.clone()).unwrap();
                }
            }
        };
        let (before, _guard) = Told::after(&table, look());
        eventually(LONG, || before.count() == 1);
        let (gate, beginners, begin) = gate();
        let first = look();
        let (meanwhile, _guard) = Told::after(&table, move |change| {
            first(change);
            gate.pass();
        });
        beginners.recv_timeout(LONG).unwrap();
        let create = Write::create("t", "1", "held up");
        world.database.write(&create.topic(&topic("a")), 5).unwrap();
        visitors.recv_timeout(LONG).unwrap();
        let (later, _guard) = Told::after(&table, look());
        drop(begin);
        let waited = replica.wait_current(Duration::from_millis(300));
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!((before.count(), later.count()), (1, 0));
        drop(open);
        replica.wait_current(LONG).unwrap();
        assert_eq!(index.get("held up").len(), 1);
        eventually(LONG, || {
            [&before, &meanwhile, &later].iter().all(|told| told.count() == 2)
        });
        assert!(lacked.is_empty(), "{:?}", lacked.try_recv());
    });
}

/// Rows of a table, by their keys.
fn by_key(table: &ReplicaTable<String>, first: impl Fn() + Send + Sync + 'static) -> Index<String, String> {
    table.index(move |row: &Entry<String>| {
        first();
        [row.key.to_string()]
    })
}

/// A new index has all rows also without a dispatcher, and one that is there gets all rows that are merged as it stops.
#[test]
fn an_index_follows_its_table_beyond_the_dispatcher() {
    within(LONG, || {
        let world = World::new(0);
        for number in 0..10 {
            world.store.create("t", &number.to_string(), "x", &topic("a")).unwrap();
        }
        let replica = world.replica(holds(&[]));
        let table = replica.raw_table("t").unwrap();
        let (held_up, visitors, open) = gate();
        let index = by_key(&table, move || held_up.pass());
        replica.add_topic(&topic("a")).unwrap();
        visitors.recv_timeout(LONG).unwrap();
        // All rows of the page are merged, and the first one is being indexed.
        world.dispatcher.stop();
        drop(open);
        eventually(LONG, || index.keys().len() == 10);
        assert_eq!((table.len(), by_key(&table, || ()).keys().len()), (10, 10));
    });
}

/// Rows of a topic that was removed are left as they are once the replica has ended.
#[test]
fn an_index_agrees_with_its_table_when_the_replica_ends() {
    within(LONG, || {
        let world = World::new(0);
        for number in 0..600 {
            world.store.create("t", &number.to_string(), "x", &topic("a")).unwrap();
        }
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_current(LONG).unwrap();
        let index = by_key(&table, || ());
        let (held_up, visitors, open) = gate();
        let handler = move |change: &RowChange<String>| {
            if let RowChange::Removed { .. } = change {
                held_up.pass();
            }
        };
        let _guard = table.on_change(handler);
        let (updates, told) = unbounded::<DbUpdate>();
        world.dispatcher.on_update(updates).detach();
        assert!(replica.remove_topic(&topic("a")));
        visitors.recv_timeout(LONG).unwrap();
        drop(replica);
        drop(open);
        // Events and the jobs that remove rows come in turns.
        for _ in 0..10 {
            world.push(DbUpdate::new("other", "k", Action::Set));
            told.recv_timeout(LONG).unwrap();
        }
        let (rows, indexed) = (table.len(), index.keys().len());
        assert!(rows == indexed && rows > 0, "{rows} rows, {indexed} of them indexed");
    });
}
