//! Stores that go back to an earlier state: flushed, an older copy put back, the last writes lost.

use std::sync::Arc;
use std::time::Duration;

use tablecast::stores::memory::MemoryStore;
use tablecast::{Action, Monitor, Store, SyncReason, Topic};

use crate::common::{eventually, within};
use crate::rig::LONG;
use crate::swap::Swap;
use crate::{Heard, Host, heard};

const LIMIT: Duration = Duration::from_secs(60);

fn create(store: &dyn Store, key: &str, value: &str) -> u64 {
    store.create("t", key, value, &Topic::ALL).unwrap()
}

/// The next `count` updates, by key.
fn updates(host: &Host, count: usize) -> Vec<Heard> {
    let mut heard: Vec<_> = (0..count).map(|_| host.next()).collect();
    heard.sort_by(|a, b| a.1.cmp(&b.1));
    heard
}

/// Checks that the monitor has noticed in one poll, reported no clash, and made the programs read the store.
#[track_caller]
fn assert_repaired(host: &Host, monitor: &Monitor, times: u64) {
    eventually(LONG, || monitor.stats().went_back == times);
    host.nothing_more(monitor);
    assert_eq!(monitor.stats().failures, 0);
    loop {
        if let SyncReason::Gap { .. } = host.rig.next_sync() {
            break;
        }
    }
}

/// Checks that the stored memory equals what was published: another run publishes nothing.
#[track_caller]
fn assert_remembered(host: &Host, monitor: Monitor, store: &Arc<dyn Store>) {
    monitor.stop();
    let monitor = host.monitor(store);
    host.nothing_more(&monitor);
    assert_eq!(monitor.stats().failures, 0);
    store.delete("t", "last").unwrap();
    assert_eq!(host.keys(1), [("last".to_owned(), Action::Delete)]);
}

/// Empties the store through `forget`, and writes as much as there was.
fn comes_round(swap: &Swap, store: &Arc<dyn Store>, forget: impl FnOnce(&mut Arc<dyn Store>)) {
    let host = Host::new();
    let monitor = host.monitor(store);
    for key in ["a", "b", "c"] {
        create(&**store, key, "old");
    }
    assert_eq!(host.keys(3).len(), 3);
    for key in ["a", "b", "c"] {
        store.delete("t", key).unwrap();
    }
    assert_eq!(host.keys(3).len(), 3);
    let version = store.table_version("t").unwrap().unwrap().version;
    host.nothing_more(&monitor);
    swap.at_once(|store| {
        forget(store);
        for key in ["a", "b", "c", "d", "e", "last"] {
            create(&**store, key, "new");
        }
        assert_eq!(store.table_version("t").unwrap().unwrap().version, version);
    });
    let expected = ["a", "b", "c", "d", "e", "last"];
    let expected = (1..)
        .zip(expected)
        .map(|(version, key)| heard(Action::Create, key, "D", Some("new"), version));
    assert_eq!(updates(&host, 6), expected.collect::<Vec<_>>());
    assert_repaired(&host, &monitor, 1);
    assert_remembered(&host, monitor, store);
}

#[test]
fn a_store_in_memory_that_begins_anew() {
    within(LIMIT, || {
        let swap = Swap::new(Arc::new(MemoryStore::new()));
        let store: Arc<dyn Store> = swap.clone();
        comes_round(&swap, &store, |store| *store = Arc::new(MemoryStore::new()));
    });
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_was_flushed() {
    within(LIMIT, || {
        let server = crate::servers::Server::start();
        let swap = Swap::new(crate::server::store(&server));
        let store: Arc<dyn Store> = swap.clone();
        comes_round(&swap, &store, |_| server.ask(&["FLUSHALL"]));
    });
}

/// Keys and versions are the same in the other incarnation; only the values differ.
#[test]
fn rows_of_the_same_versions_with_other_values() {
    within(LIMIT, || {
        let swap = Swap::new(Arc::new(MemoryStore::new()));
        let store: Arc<dyn Store> = swap.clone();
        let host = Host::new();
        let monitor = host.monitor(&store);
        for key in ["a", "b", "last"] {
            create(&*store, key, "old");
        }
        assert_eq!(host.keys(3).len(), 3);
        host.nothing_more(&monitor);
        swap.at_once(|store| {
            *store = Arc::new(MemoryStore::new());
            create(&**store, "a", "old");
            create(&**store, "b", "new");
            create(&**store, "last", "old");
        });
        assert_eq!(host.next(), heard(Action::Set, "b", "D", Some("new"), 2));
        assert_repaired(&host, &monitor, 1);
        assert_remembered(&host, monitor, &store);
    });
}

#[cfg(feature = "redis")]
#[test]
fn many_rows_are_told_and_remembered_in_one_poll() {
    within(LIMIT, || {
        const ROWS: u64 = 1000;
        let server = crate::servers::Server::start();
        let swap = Swap::new(crate::server::store(&server));
        let store: Arc<dyn Store> = swap.clone();
        let host = Host::new();
        let fill = |store: &dyn Store, value: &str| {
            create(store, "last", value);
            for number in 1..ROWS {
                create(store, &format!("{number}"), value);
            }
        };
        fill(&*store, "old");
        let monitor = host.monitor(&store);
        let all = usize::try_from(ROWS).unwrap();
        assert_eq!(host.keys(all).len(), all);
        host.nothing_more(&monitor);
        let before = monitor.stats();
        swap.at_once(|store| {
            server.ask::<()>(&["FLUSHALL"]);
            fill(&**store, "new");
        });
        assert!(host.keys(all).iter().all(|(_, action)| *action == Action::Set));
        assert_repaired(&host, &monitor, 1);
        let after = monitor.stats();
        println!(
            "read {} rows in {} polls",
            after.rows_read - before.rows_read,
            after.polls - after.skipped
        );
        assert_eq!(after.rows_read - before.rows_read, ROWS);
        assert_remembered(&host, monitor, &store);
    });
}

/// Like a master's replica without the last writes: the same incarnation, an earlier state, then other writes.
#[cfg(feature = "redis")]
#[test]
fn a_redis_that_lost_its_last_writes() {
    within(LIMIT, || {
        for more in [0, 1, 2, 3] {
            let server = crate::servers::Server::start();
            let swap = Swap::new(crate::server::store(&server));
            let store: Arc<dyn Store> = swap.clone();
            let host = Host::new();
            for key in ["a", "b", "last"] {
                create(&*store, key, "old");
            }
            let monitor = host.monitor(&store);
            assert_eq!(host.keys(3).len(), 3);
            host.nothing_more(&monitor);
            let copy = copy(&server);
            store.set("t", "a", "lost").unwrap();
            create(&*store, "lost", "x");
            assert_eq!(host.keys(2).len(), 2);
            host.nothing_more(&monitor);
            swap.at_once(|store| {
                put_back(&server, &copy);
                // So many that the version is lower than before, the same, or higher.
                for number in 0..more {
                    store.set("t", "b", &format!("{number}")).unwrap();
                }
            });
            let mut expected = vec![("a", Action::Set), ("b", Action::Set), ("lost", Action::Delete)];
            if more == 0 {
                expected.remove(1);
            }
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(key, action)| (key.to_owned(), action))
                .collect();
            assert_eq!(host.keys(expected.len()), expected, "{more} more");
            assert_repaired(&host, &monitor, 1);
            assert_remembered(&host, monitor, &store);
        }
    });
}

/// All keys with their contents.
#[cfg(feature = "redis")]
fn copy(server: &crate::servers::Server) -> Vec<(Vec<u8>, Vec<u8>)> {
    const ALL: &str = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do
        all[#all + 1] = {key, redis.call('DUMP', key)} end return all";
    server.ask(&["EVAL", ALL, "0"])
}

#[cfg(feature = "redis")]
fn put_back(server: &crate::servers::Server, copy: &[(Vec<u8>, Vec<u8>)]) {
    server.ask::<()>(&["FLUSHALL"]);
    let client = redis::Client::open(server.address()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for (key, value) in copy {
        redis::cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(value)
            .exec(&mut connection)
            .unwrap();
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn an_older_file_that_was_put_back() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let [path, older] = ["store.db", "older.db"].map(|name| folder.path().join(name));
        let open = || -> Arc<dyn Store> {
            Arc::new(tablecast::stores::sqlite::SqliteStore::open(&path, Default::default()).unwrap())
        };
        let host = Host::new();
        let store = open();
        let monitor = host.monitor(&store);
        for key in ["a", "last"] {
            create(&*store, key, "old");
        }
        assert_eq!(host.keys(2).len(), 2);
        host.nothing_more(&monitor);
        drop((monitor, store));
        std::fs::copy(&path, &older).unwrap();
        let store = open();
        let monitor = host.monitor(&store);
        store.set("t", "a", "lost").unwrap();
        assert_eq!(host.keys(1), [("a".to_owned(), Action::Set)]);
        host.nothing_more(&monitor);
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(folder.path().join(format!("store.db{suffix}"))).unwrap();
        }
        std::fs::rename(&older, &path).unwrap();
        // One call fails because the file is another one; it may be the monitor's.
        eventually(LONG, || store.set("t", "last", "new").is_ok());
        assert_eq!(
            host.keys(2),
            [("a".to_owned(), Action::Set), ("last".to_owned(), Action::Set)]
        );
        eventually(LONG, || monitor.stats().went_back == 1);
        assert!(monitor.stats().failures <= 1);
        host.nothing_more(&monitor);
        assert_eq!(store.get("t", "a", None).unwrap().value, "old");
    });
}
