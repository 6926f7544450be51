//! The file of the store `sqlite`: other contents, other users, and damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tablecast::store::StoreOptions;
use tablecast::stores::sqlite::SqliteStore;
use tablecast::{ErrorKind, Result, Store, Topic};

use crate::common::{Stopwatch, pass, within};
use crate::suite::{all, assert_kind, keys};

pub(crate) fn open(path: &Path) -> Result<SqliteStore> {
    SqliteStore::open(path, StoreOptions::default())
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    (folder, path)
}

/// Checks the first error, which must name the file.
#[track_caller]
fn assert_refused(path: &Path, kind: ErrorKind) {
    let error = open(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn rows_stay_when_the_program_ends() {
    let (_folder, path) = folder();
    let first = open(&path).unwrap();
    let version = first.create("t", "k", "v", &Topic::ALL).unwrap();
    first.create("t", "gone", "v", &Topic::ALL).unwrap();
    let deleted = first.delete("t", "gone").unwrap();
    let number = first.allocate_unique_key("t").unwrap();
    drop(first);
    let second = open(&path).unwrap();
    assert_eq!(second.get("t", "k", None).unwrap().version, version);
    assert!(second.allocate_unique_key("t").unwrap() > number);
    assert!(second.create("t", "new", "v", &Topic::ALL).unwrap() > deleted);
}

#[test]
fn a_file_of_somebody_else_stays_as_it_is() {
    let (_folder, path) = folder();
    let untouched = |path: &Path, kind| {
        let before = fs::read(path).unwrap();
        assert_refused(path, kind);
        assert_eq!(fs::read(path).unwrap(), before);
    };
    fs::write(&path, "no database, but text\n".repeat(1000)).unwrap();
    untouched(&path, ErrorKind::Malformed);

    let other = path.with_file_name("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE tables (id)")
        .unwrap();
    untouched(&other, ErrorKind::Malformed);

    let newer = path.with_file_name("newer.db");
    drop(open(&newer).unwrap());
    Connection::open(&newer)
        .unwrap()
        .pragma_update(None, "user_version", 3)
        .unwrap();
    untouched(&newer, ErrorKind::Unsupported);
}

#[test]
fn where_no_file_can_be_the_error_says_so() {
    let (folder, path) = folder();
    assert_refused(folder.path(), ErrorKind::Io);
    fs::write(&path, "").unwrap();
    assert_refused(&path.join("below a file.db"), ErrorKind::Io);
    // An empty file is a new database.
    open(&path).unwrap();
    if cfg!(target_os = "linux") {
        // Not even root can write here.
        assert_refused(Path::new("/proc/tablecast.db"), ErrorKind::Io);
    }
}

#[test]
fn many_open_a_new_file_at_once() {
    let (_folder, path) = folder();
    within(Duration::from_secs(30), move || {
        let open = |number: usize| {
            let path = path.clone();
            move || {
                open(&path)
                    .unwrap()
                    .create("t", &number.to_string(), "v", &Topic::ALL)
                    .unwrap()
            }
        };
        let threads: Vec<_> = (0..8)
            .map(|number| std::thread::Builder::new().spawn(open(number)).unwrap())
            .collect();
        threads
            .into_iter()
            .for_each(|thread| assert!(thread.join().unwrap() > 0));
        assert_eq!(keys(&super::sqlite::open(&path).unwrap(), "t", None).len(), 8);
    });
}

#[test]
fn readers_do_not_wait_and_writers_not_for_ever() {
    let (_folder, path) = folder();
    within(Duration::from_secs(90), move || {
        let timeout = Duration::from_secs(2);
        let store = SqliteStore::open(
            &path,
            StoreOptions {
                timeout,
                ..StoreOptions::default()
            },
        )
        .unwrap();
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch("BEGIN IMMEDIATE; UPDATE entries SET value = 'x'")
            .unwrap();

        let start = Stopwatch::start();
        assert_eq!(store.get("t", "k", None).unwrap().value, "v");
        assert_eq!(all(store.entries("t", None)).len(), 1);
        assert_eq!(open(&path).unwrap().get("t", "k", None).unwrap().value, "v");
        start.assert_within(timeout, "reading");

        let calls: [&dyn Fn() -> Result<u64>; 4] = [
            &|| store.create("t", "other", "v", &Topic::ALL),
            &|| store.set("t", "k", "w"),
            &|| store.allocate_unique_key("t"),
            &|| store.delete_table("t").map(u64::from),
        ];
        for call in calls {
            let start = Instant::now();
            assert_kind(call(), ErrorKind::Timeout);
            let took = start.elapsed();
            assert!(took >= timeout && took < 10 * timeout, "{took:?}");
        }

        // A waiting writer goes on as soon as it can.
        let waiting = {
            let path = path.clone();
            move || open(&path).unwrap().set("t", "k", "w")
        };
        let waiting = std::thread::Builder::new().spawn(waiting).unwrap();
        pass(Duration::from_millis(100));
        let released = Stopwatch::start();
        other.execute_batch("ROLLBACK").unwrap();
        waiting.join().unwrap().unwrap();
        released.assert_within(Duration::from_secs(1), "going on after the other was done");
        assert_eq!(store.get("t", "k", None).unwrap().value, "w");
        assert_kind(store.get("t", "other", None), ErrorKind::NotFound);
    });
}

#[test]
fn a_damaged_file_is_never_a_missing_row() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    for number in 0..300 {
        store
            .create("t", &number.to_string(), &"v".repeat(500), &Topic::ALL)
            .unwrap();
    }
    drop(store);
    // The first pages, which name the tables, stay.
    let mut bytes = fs::read(&path).unwrap();
    let damaged_from = bytes.len() * 3 / 5;
    bytes[damaged_from..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let store = open(&path).unwrap();
    let (mut read, mut damaged) = (0, 0);
    for number in 0..300 {
        match store.get("t", &number.to_string(), None) {
            Ok(row) => read += usize::from(row.value.len() == 500),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
                damaged += 1;
            }
        }
    }
    println!("{read} rows read, {damaged} damaged");
    assert!(read > 0 && damaged > 0 && read + damaged == 300);
    let listed: Result<Vec<_>> = store.entries("t", None).collect();
    assert_kind(listed, ErrorKind::Malformed);
}

#[test]
fn a_file_that_was_taken_away_is_no_missing_row() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    store.create("t", "k", "v", &Topic::ALL).unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        fs::remove_file(path.with_file_name(name)).unwrap();
    }
    assert_kind(store.get("t", "k", None), ErrorKind::Io);
    assert!(!path.exists());
}
