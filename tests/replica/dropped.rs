//! Rows and handlers whose drop is the program's code: it runs without the lock, and may panic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use serde::Deserialize;
use tablecast::replica::{ReplicaOptions, ReplicaTable, RowChange};
use tablecast::store::Write;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Action, DbUpdate, ErrorKind, Table, Topic};

use crate::common::{eventually, hook, within};
use crate::{LONG, World, holds};

/// A row type that reads its table when it is dropped; each test has one of its own.
#[derive(Deserialize)]
struct Curious<const N: usize> {
    text: String,
}

type Read = Box<dyn Fn() -> usize + Send + Sync>;
static READS: [OnceLock<Read>; 2] = [const { OnceLock::new() }; 2];
static DROPPED: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

impl<const N: usize> Curious<N> {
    /// From now on, rows that are dropped read the table.
    fn wake(table: &ReplicaTable<Curious<N>>) {
        let table = table.clone();
        assert!(READS[N].set(Box::new(move || table.len())).is_ok());
    }

    fn text(text: &str) -> String {
        format!(r#"{{"text":{text:?}}}"#)
    }
}

impl<const N: usize> Drop for Curious<N> {
    fn drop(&mut self) {
        if let Some(read) = READS[N].get() {
            let _ = read();
            DROPPED[N].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_row_that_comes_late_is_dropped_without_the_lock() {
    type Row = Curious<0>;
    within(LONG, || {
        let world = World::new(0);
        world.store.create("t", "k", &Row::text("one"), &Topic::ALL).unwrap();
        let replica = world.replica(holds(&["D"]));
        let table = replica.table(Table::<Row>::new("t")).unwrap();
        replica.wait_synced(LONG).unwrap();
        Row::wake(&table);
        world.subscriber.wait_live(LONG).unwrap();
        let set = |text: &str| (world.store.set("t", "k", &Row::text(text)).unwrap(), Row::text(text));
        let (two, three) = (set("two"), set("three"));
        for (version, text) in [three, two] {
            let mut update = DbUpdate::new("t", "k", Action::Set).value(text);
            (update.version, update.after) = (Some(version), Some(version - 1));
            world.database.publisher().send_event(&update).unwrap();
        }
        // The first row, and the second, which comes after the third.
        eventually(LONG, || DROPPED[0].load(Ordering::Relaxed) >= 2);
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.get("k").unwrap().unwrap().row.text, "three");
    });
}

/// While a handler is called with a row, the row changes several times: the state in between is skipped.
#[test]
fn a_row_that_is_skipped_is_dropped_without_the_lock() {
    type Row = Curious<1>;
    within(LONG, || {
        let world = World::new(3);
        world.store.create("t", "k", &Row::text("one"), &Topic::ALL).unwrap();
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&["D"])
        });
        let table = replica.table(Table::<Row>::new("t")).unwrap();
        let (calls, called) = unbounded();
        let (go_on, gate) = unbounded::<()>();
        let _guard = table.on_change(move |change: &RowChange<Row>| {
            calls.send(change.clone()).unwrap();
            gate.recv().unwrap();
        });
        assert!(matches!(called.recv_timeout(LONG), Ok(RowChange::Added { .. })));
        go_on.send(()).unwrap();
        replica.wait_synced(LONG).unwrap();
        world.come_to_rest([&replica]);
        Row::wake(&table);
        // An update, whose handler waits; then the store is read.
        let two = Row::text("two");
        world.database.write(&Write::set("t", "k", &two), 5).unwrap();
        let change = called.recv_timeout(LONG).unwrap();
        assert!(matches!(change, RowChange::Changed { new, .. } if new.row.text == "two"));
        for text in ["three", "four"] {
            world.store.set("t", "k", &Row::text(text)).unwrap();
            replica.wait_current(LONG).unwrap();
            assert_eq!(table.get("k").unwrap().unwrap().row.text, text);
        }
        eventually(LONG, || DROPPED[1].load(Ordering::Relaxed) > 0);
        go_on.send(()).unwrap();
        let change = called.recv_timeout(LONG).unwrap();
        assert!(matches!(change, RowChange::Changed { new, .. } if new.row.text == "four"));
        go_on.send(()).unwrap();
    });
}

/// A handler owns what reads the table when it is dropped.
#[test]
fn a_handler_is_dropped_without_the_lock() {
    struct Reads(ReplicaTable<String>, Sender<usize>);
    impl Drop for Reads {
        fn drop(&mut self) {
            self.1.send(self.0.len()).unwrap();
        }
    }
    within(LONG, || {
        let world = World::new(0);
        world.store.create("t", "k", "one", &Topic::ALL).unwrap();
        let replica = world.replica(holds(&["D"]));
        let table = replica.raw_table("t").unwrap();
        let ((calls, called), (drops, dropped)) = (unbounded(), unbounded());
        let reads = Reads(table.clone(), drops);
        let guard = table.on_change(move |_: &RowChange<String>| calls.send(reads.0.len()).unwrap());
        assert_eq!(called.recv_timeout(LONG), Ok(1));
        replica.wait_current(LONG).unwrap();
        drop(guard);
        assert_eq!(dropped.recv_timeout(LONG), Ok(1));
    });
}

/// A row type that panics as a row with this text is dropped.
#[derive(Deserialize)]
struct Bomb(String);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.0 != "bomb" || std::thread::panicking(), "a bomb");
    }
}

/// What was read with it is merged all the same.
#[test]
fn a_row_that_panics_as_it_is_dropped_is_reported_and_the_table_goes_on() {
    within(LONG, || {
        // All in one page, of which a part is merged at a time.
        let world = World::with(0, Arc::new(MemoryStore::new()));
        let keys: Vec<_> = (0..200).map(|number| number.to_string()).collect();
        for key in &keys {
            let text = if key == "0" { r#""bomb""# } else { r#""old""# };
            world.store.create("t", key, text, &Topic::ALL).unwrap();
        }
        let (hook, errors) = hook();
        let replica = world.replica(ReplicaOptions { hook, ..holds(&["D"]) });
        let table = replica.table(Table::<Bomb>::new("t")).unwrap();
        replica.wait_synced(LONG).unwrap();
        for key in &keys {
            world.store.set("t", key, r#""new""#).unwrap();
        }
        replica.wait_current(LONG).unwrap();
        assert!(keys.iter().all(|key| table.get(key).unwrap().unwrap().row.0 == "new"));
        let errors: Vec<_> = errors.try_iter().collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].0, ErrorKind::Panicked);
        assert!(errors[0].1.contains("dropping a row of table t"), "{errors:?}");
    });
}
