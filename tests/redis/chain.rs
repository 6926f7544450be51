//! Versions and changes of topics where only Redis can go wrong: in the script that also publishes, and on a server
//! that is full or loses data.

use std::sync::Arc;
use std::time::Duration;

use tablecast::codec::Codec;
use tablecast::store::{Changes, DELETES_REMEMBERED, StoreOptions, StoredChange, TableVersion, Write};
use tablecast::stores::redis::RedisStore;
use tablecast::{Database, DatabaseOptions, Publisher, PublisherOptions, Store, Topic};

use crate::cluster::calm;
use crate::common::within;
use crate::rig::topic;
use crate::servers::Server;
use crate::store::{limits, store};
use crate::{driver, options, sending, subscriber};

const LIMIT: Duration = Duration::from_secs(60);

fn changes(store: &dyn Store, of: &Topic, since: u64) -> Option<Vec<StoredChange>> {
    let since = TableVersion {
        version: since,
        ..store.table_version("t").unwrap().unwrap()
    };
    match store.changes("t", of, since).unwrap() {
        Changes::Page(page) => Some(page.changes),
        Changes::Unknown => None,
    }
}

/// Each update of a one-step write names the version before it on its topic, even another writer's.
fn one_step_writes_are_chained(address: &str) {
    let (tenant, other) = (topic("tenant"), topic("other"));
    let driver = driver(address);
    // One subscriber for all: messages still passing between a cluster's nodes would reach a second one too.
    let rig = subscriber(&driver);
    rig.listen(&["tenant", "other"], address);
    for codec in [Codec::Json, Codec::MessagePack] {
        let publisher = PublisherOptions { codec, ..sending() };
        let publisher = Publisher::new(&*driver, publisher).unwrap();
        let rows = Arc::new(store(address));
        // The cluster's nodes are known.
        rows.delete_table("t").unwrap();
        assert!(rows.announcer(address).is_some());
        let database = Database::new(rows.clone(), publisher, DatabaseOptions::default());
        let stands = || {
            rows.topic_versions("t", &[tenant.clone(), other.clone()])
                .unwrap()
                .unwrap()
                .versions
        };
        let chained = |write: Write<'_>, which: usize| {
            let before = stands()[which];
            let written = database.write(&write, 5).unwrap();
            let update = rig.next();
            assert_eq!((update.version, update.after), (Some(written.version), Some(before)));
            assert_eq!((written.after, stands()[which]), (Some(before), written.version));
        };
        chained(Write::create("t", "a", "1").topic(&tenant), 0);
        chained(Write::create("t", "b", "1").topic(&other), 1);
        chained(Write::set("t", "a", "2"), 0);
        // A write stored without an update shows as a hole.
        let silent = rows.set("t", "a", "3").unwrap();
        assert_eq!(stands()[0], silent);
        chained(Write::set("t", "a", "4").topic(&tenant), 0);
        chained(Write::set("t", "b", "2").topic(&other), 1);
        chained(Write::delete("t", "a"), 0);
        chained(Write::create("t", "a", "5").topic(&other), 1);
        assert!(rig.updates.is_empty());
    }
}

#[test]
fn one_step_writes_are_chained_on_a_server() {
    within(LIMIT, || one_step_writes_are_chained(&Server::start().address()));
}

#[test]
fn one_step_writes_are_chained_on_a_cluster() {
    within(LIMIT, || one_step_writes_are_chained(&calm().addresses()));
}

/// A refused write is in no chain.
#[test]
fn what_is_refused_is_no_change() {
    within(LIMIT, || {
        let server = Server::start();
        let (store, tenant) = (store(&server.address()), topic("tenant"));
        let stands = || {
            store
                .topic_versions("t", std::slice::from_ref(&tenant))
                .unwrap()
                .unwrap()
        };
        for key in ["a", "b"] {
            store.create("t", key, "1", &tenant).unwrap();
        }
        let (before, known) = (stands(), changes(&store, &tenant, 0));
        let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        store.set("t", "a", "2").unwrap_err();
        store.create("t", "c", "2", &tenant).unwrap_err();
        assert_eq!((stands(), changes(&store, &tenant, 0)), (before, known));
        // A delete makes room, and is a change.
        let written = store.write(&Write::delete("t", "a")).unwrap();
        assert_eq!((written.version, written.after), (3, Some(2)));
        let gone = StoredChange {
            key: "a".into(),
            version: 3,
            value: None,
        };
        assert_eq!(changes(&store, &tenant, 2), Some(vec![gone]));
    });
}

/// For as long as the store's option says, and no longer.
#[test]
fn deletes_are_remembered_as_long_as_is_wanted() {
    within(LIMIT, || {
        let server = Server::start();
        let limits = StoreOptions {
            deletes_remembered: 3000,
            ..limits()
        };
        let store = RedisStore::new(&server.address(), limits, &options()).unwrap();
        let tenant = topic("tenant");
        store.create("t", "stays", "x", &Topic::ALL).unwrap();
        let write = |count: usize| {
            let writes = vec![Write::set("t", "stays", "x"); count];
            assert!(store.write_each(&writes).unwrap().iter().all(Result::is_ok));
        };
        let came = store.create("t", "k", "x", &tenant).unwrap();
        let gone = store.delete("t", "k").unwrap();
        write(2900);
        let delete_another = || {
            store.create("t", "another", "x", &Topic::ALL).unwrap();
            store.delete("t", "another").unwrap();
        };
        delete_another();
        assert_eq!(changes(&store, &tenant, came).unwrap().len(), 1);
        write(200);
        delete_another();
        assert_eq!(changes(&store, &tenant, came), None);
        assert_eq!(changes(&store, &tenant, gone), Some(Vec::new()));
    });
}

/// Also the delete of a key that was deleted once before, so long ago that this was to be forgotten.
#[test]
fn a_second_delete_is_forgotten_like_a_first_one() {
    within(LIMIT, || {
        let server = Server::start();
        let limits = StoreOptions {
            deletes_remembered: DELETES_REMEMBERED,
            ..limits()
        };
        let store = RedisStore::new(&server.address(), limits, &options()).unwrap();
        let remembers = || server.ask::<bool>(&["HEXISTS", "tablecast{1:t}/deletes", "k"]);
        store.create("t", "stays", "x", &Topic::ALL).unwrap();
        let long_after = || {
            let writes = vec![Write::set("t", "stays", "x"); 1100];
            assert!(store.write_each(&writes).unwrap().iter().all(Result::is_ok));
        };
        for _ in 0..2 {
            store.create("t", "k", "x", &Topic::ALL).unwrap();
            store.delete("t", "k").unwrap();
            assert!(remembers());
            store.create("t", "k", "x", &Topic::ALL).unwrap();
            long_after();
            store.delete("t", "k").unwrap();
            assert!(remembers());
            long_after();
            store.create("t", "another", "x", &Topic::ALL).unwrap();
            store.delete("t", "another").unwrap();
            assert!(!remembers());
        }
    });
}

/// The notes of a topic's writes are bounded, whether its rows are set or come and go.
#[test]
fn notes_of_writes_are_bounded() {
    within(LIMIT, || {
        let server = Server::start();
        let (store, tenant) = (store(&server.address()), topic("tenant"));
        store.create("t", "k", "x", &tenant).unwrap();
        let fields = || server.ask::<usize>(&["HLEN", "tablecast{1:t}/rows"]);
        let write = |count: usize| {
            let write = |number| match number % 4 {
                0 => Write::create("t", "other", "x").topic(&tenant),
                1 => Write::delete("t", "other"),
                _ => Write::set("t", "k", "x"),
            };
            let writes: Vec<_> = (0..count).map(write).collect();
            assert!(store.write_each(&writes).unwrap().iter().all(Result::is_ok));
        };
        write(9000);
        // The last write of each key, however many there were.
        assert_eq!(changes(&store, &tenant, 0).unwrap().len(), 2);
        write(3000);
        assert!(fields() < 10_200, "{}", fields());
        let now = store.table_version("t").unwrap().unwrap().version;
        assert_eq!(changes(&store, &tenant, now - 12_000), None);
        write(4000);
        assert!(fields() < 10_200, "{}", fields());
        assert_eq!(changes(&store, &tenant, now + 3_990).unwrap().len(), 2);
    });
}

/// A topic on which little is written has notes that are all old beside one on which much is.
#[test]
fn old_notes_of_a_quiet_topic_are_removed_by_writes_that_succeed() {
    within(LIMIT, || {
        let server = Server::start();
        let store = store(&server.address());
        let (quiet, busy) = (topic("quiet"), topic("busy"));
        store.create("t", "quiet", "x", &quiet).unwrap();
        store.create("t", "busy", "x", &busy).unwrap();
        let write = |key: &str, count: usize| {
            let writes = vec![Write::set("t", key, "x"); count];
            assert!(store.write_each(&writes).unwrap().iter().all(Result::is_ok));
        };
        write("quiet", 150);
        write("busy", 10_001);
        let fields = || server.ask::<usize>(&["HLEN", "tablecast{1:t}/rows"]);
        let before = fields();
        for _ in 0..128 {
            store.write(&Write::set("t", "quiet", "x").topic(&quiet)).unwrap();
        }
        assert!(fields() < before, "{} fields, {before} before", fields());
        assert_eq!(changes(&store, &quiet, 10_153).unwrap().len(), 1);
    });
}
