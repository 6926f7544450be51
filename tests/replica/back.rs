//! Stores that go back to an earlier state, and rows that differ.

use std::sync::Arc;
use std::time::Duration;

use tablecast::replica::ReplicaOptions;
use tablecast::store::{Page, Row, Write};
use tablecast::stores::memory::MemoryStore;
use tablecast::{ErrorKind, Monitor, MonitorOptions, Publisher, PublisherOptions, Result, Store, Topic};

use crate::common::{eventually, hook, within};
use crate::front::pass_on;
use crate::swap::Swap;
use crate::{LONG, World, held, holds, stored, topic};

/// A store is emptied and filled again until its versions have come round: its new content is the truth, and is
/// reported.
#[test]
fn a_store_that_begins_anew_is_the_truth() {
    within(LONG, || {
        let swap = Swap::new(Arc::new(MemoryStore::new()));
        let world = World::with(0, Arc::clone(&swap) as _);
        let (hook, errors) = hook();
        let replica = world.replica(ReplicaOptions { hook, ..holds(&["D"]) });
        let table = replica.raw_table("t").unwrap();
        let fill = |store: &dyn Store, keys: &[&str], value: &str| {
            for key in keys {
                store.create("t", key, value, &Topic::ALL).unwrap();
            }
        };
        fill(&*world.store, &["a", "b", "c"], "old");
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.len(), 3);
        swap.at_once(|store| {
            *store = Arc::new(MemoryStore::new());
            fill(&**store, &["b", "c", "d"], "new");
        });
        eventually(LONG, || held(&table) == stored(&*world.store, "t", &["D"]));
        assert_eq!(replica.stats().went_back, 1);
        let (_, error) = errors.recv_timeout(LONG).unwrap();
        assert!(error.contains("went back"), "{error}");
    });
}

/// The store has lost its last writes, and has their versions again for others: a writer is not told of one that the
/// replica has dropped as old.
#[test]
fn a_write_with_a_version_that_the_store_has_again_is_waited_for() {
    within(LONG, || {
        let swap = Swap::of_one_incarnation(Arc::new(MemoryStore::new()));
        let world = World::with(0, Arc::clone(&swap) as _);
        let replica = world.replica(ReplicaOptions {
            id: Some("one".into()),
            check_interval: Duration::from_secs(600),
            ..holds(&["D"])
        });
        let table = replica.raw_table("t").unwrap();
        for key in ["a", "b", "c", "d", "e"] {
            world.store.create("t", key, "x", &Topic::ALL).unwrap();
        }
        replica.wait_current(LONG).unwrap();
        world.come_to_rest([&replica]);
        let registered = || world.store.get("replica", "one", None).ok();
        let names_table = |row: Row| row.value.contains(r#"[\"t\"]"#);
        eventually(LONG, || registered().is_some_and(names_table));
        swap.at_once(|store| {
            let earlier = MemoryStore::new();
            for row in store.entries("replica", None).map(Result::unwrap) {
                earlier.create("replica", &row.key, &row.value, &Topic::ALL).unwrap();
            }
            earlier.create("t", "a", "x", &Topic::ALL).unwrap();
            *store = Arc::new(earlier);
        });
        let written = world.database.write(&Write::create("t", "new", "x"), 5).unwrap();
        let done = world.database.barrier("t", &Topic::ALL, written.version, LONG).unwrap();
        assert_eq!((done.applied, done.missing), (1, vec![]));
        assert!(table.get("new").unwrap().is_some());
    });
}

/// A monitor publishes a delete with the version of the table, which is above that of the row's topic.
#[test]
fn a_monitor_of_several_topics_is_no_store_that_went_back() {
    within(LONG, || {
        let world = World::new(0);
        let (a, b) = (topic("a"), topic("b"));
        let publisher = Arc::new(Publisher::new(&*world.driver, PublisherOptions::default()).unwrap());
        let monitor = || {
            let options = MonitorOptions {
                interval: Duration::from_millis(5),
                ..MonitorOptions::default()
            };
            Monitor::new(Arc::clone(&world.store), Arc::clone(&publisher), "t", "m", options).unwrap()
        };
        world.store.create("t", "k", "1", &a).unwrap();
        world.store.create("t", "m", "1", &b).unwrap();
        let first = monitor();
        eventually(LONG, || first.stats().created == 2 && first.stats().skipped > 0);
        first.stop();
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&["a", "b"])
        });
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        world.come_to_rest([&replica]);
        world.store.delete("t", "k").unwrap();
        world.store.set("t", "m", "2").unwrap();
        let second = monitor();
        eventually(LONG, || table.get("k").unwrap().is_none());
        replica.wait_current(LONG).unwrap();
        assert_eq!(held(&table), stored(&*world.store, "t", &["a", "b"]));
        assert_eq!((second.stats().deleted, replica.stats().went_back), (1, 0));
    });
}

/// A value that was changed without the store, and without a new version.
#[test]
fn a_row_that_differs_is_found_told_and_mended() {
    within(LONG, || {
        let swap = Swap::new(Arc::new(MemoryStore::new()));
        let world = World::with(2, Arc::clone(&swap) as _);
        let (hook, errors) = hook();
        let replica = world.replica(ReplicaOptions { hook, ..holds(&["D"]) });
        let table = replica.raw_table("t").unwrap();
        for key in ["a", "b"] {
            world.store.create("t", key, "x", &Topic::ALL).unwrap();
        }
        replica.wait_current(LONG).unwrap();
        assert_eq!(replica.verify(LONG).unwrap(), []);
        swap.at_once(|store| *store = Arc::new(Forged(Arc::clone(store))));
        let differences = replica.verify(LONG).unwrap();
        assert_eq!(differences.len(), 1);
        let first = &differences[0];
        assert_eq!((&*first.key, first.held, first.stored), ("b", Some(2), Some(2)));
        assert_eq!(replica.stats().differences, 1);
        let told: Vec<_> = errors.try_iter().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].0 == ErrorKind::Conflict && told[0].1.contains(r#"key "b""#),
            "{told:?}"
        );
        eventually(LONG, || table.get("b").unwrap().unwrap().row == "forged");
        replica.wait_synced(LONG).unwrap();
        assert_eq!(replica.verify(LONG).unwrap(), []);
    });
}

/// Another store, with a different value of the row `b`.
#[derive(Debug)]
struct Forged(Arc<dyn Store>);

fn forge(mut row: Row) -> Row {
    if row.key == "b" {
        row.value = "forged".into();
    }
    row
}

impl Store for Forged {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        self.0.get(table, key, topic).map(forge)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        let mut page = self.0.page_of_entries(table, topic, after)?;
        page.items = page.items.into_iter().map(forge).collect();
        Ok(page)
    }

    pass_on!(|this| this.0; write page_of_keys create_table delete_table allocate_unique_key topic_versions changes);
}

/// An older copy is restored into the open file, as `.restore` of SQLite's shell does, and more is written at once than
/// the file has lost.
#[cfg(feature = "sqlite")]
#[test]
fn a_file_that_is_restored_in_place_is_the_truth() {
    const COPY: &str = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    within(2 * LONG, || {
        let folder = tempfile::tempdir().unwrap();
        let (live, old) = (folder.path().join("rows.db"), folder.path().join("old.db"));
        let copy = |from: &std::path::Path, to: &std::path::Path| {
            let python = std::env::var_os("TABLECAST_TEST_PYTHON").unwrap_or_else(|| "python3".into());
            let mut command = std::process::Command::new(python);
            let done = command.args(["-c", COPY]).arg(from).arg(to).status().unwrap();
            assert!(done.success());
        };
        let store = tablecast::stores::sqlite::SqliteStore::open(&live, Default::default()).unwrap();
        let world = World::with(0, Arc::new(store));
        let replica = world.replica(holds(&["D"]));
        let table = replica.raw_table("t").unwrap();
        let write = |write: Write<'_>| world.database.write(&write, 5).unwrap();
        write(Write::create("t", "a", "1"));
        copy(&live, &old);
        write(Write::set("t", "a", "lost"));
        write(Write::create("t", "lost", "lost"));
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.len(), 2);
        copy(&old, &live);
        for key in ["b", "c", "d"] {
            world.store.create("t", key, "other", &Topic::ALL).unwrap();
        }
        eventually(LONG, || held(&table) == stored(&*world.store, "t", &["D"]));
        assert!(replica.verify(LONG).unwrap().is_empty());
    });
}
