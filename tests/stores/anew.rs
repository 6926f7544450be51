//! Tables that begin anew, and how a reader notices.

#[cfg(any(feature = "redis", feature = "sqlite"))]
use tablecast::store::StoreOptions;
use tablecast::store::TableVersion;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Store, Topic};

fn stands(store: &dyn Store) -> TableVersion {
    store.table_version("t").unwrap().unwrap()
}

/// Three creates and three deletes.
fn six_writes(store: &dyn Store) -> TableVersion {
    for key in ["a", "b", "c"] {
        store.create("t", key, "x", &Topic::ALL).unwrap();
    }
    for key in ["a", "b", "c"] {
        store.delete("t", key).unwrap();
    }
    stands(store)
}

/// Checks that the version is the same, but the table is another one.
#[track_caller]
fn assert_anew(now: TableVersion, seen: TableVersion) {
    assert_eq!(now.version, seen.version);
    assert!(now.incarnation != seen.incarnation && now.went_back_since(&seen));
    assert!(!now.went_back_since(&now) && !now.went_back_since(&TableVersion::default()));
    assert!(TableVersion::default().went_back_since(&seen));
}

#[test]
fn another_store_in_memory() {
    assert_anew(six_writes(&MemoryStore::new()), six_writes(&MemoryStore::new()));
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_was_flushed() {
    let server = crate::servers::Server::start();
    let options = StoreOptions::default();
    let store = tablecast::stores::redis::RedisStore::new(&server.address(), options, &Default::default()).unwrap();
    let seen = six_writes(&store);
    server.ask::<()>(&["FLUSHALL"]);
    assert_eq!(stands(&store), TableVersion::default());
    assert_anew(six_writes(&store), seen);
    // A table without writes does not begin anew.
    let seen = stands(&store);
    assert!(store.delete("t", "a").is_err() && store.delete_table("t").unwrap());
    assert!(!stands(&store).went_back_since(&seen));
}

/// As after a failover that lost the last write.
#[cfg(feature = "redis")]
#[test]
fn a_redis_that_took_another_write_instead() {
    let server = crate::servers::Server::start();
    let options = StoreOptions::default();
    let store = tablecast::stores::redis::RedisStore::new(&server.address(), options, &Default::default()).unwrap();
    let seen = six_writes(&store);
    server.ask::<()>(&["HSET", "tablecast{1:t}/about", "version", "5"]);
    store.create("t", "d", "x", &Topic::ALL).unwrap();
    let now = stands(&store);
    assert_eq!((now.incarnation, now.version), (seen.incarnation, seen.version));
    assert!(now.went_back_since(&seen) && !now.went_back_since(&now));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_file_that_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [path, older] = ["store.db", "older.db"].map(|name| folder.path().join(name));
    let open = || tablecast::stores::sqlite::SqliteStore::open(&path, StoreOptions::default()).unwrap();
    let store = open();
    store.create("t", "k", "x", &Topic::ALL).unwrap();
    drop(store);
    std::fs::copy(&path, &older).unwrap();
    let store = open();
    let seen = six_writes(&store);
    // An older file that gets as many writes as the newer one had.
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(folder.path().join(format!("store.db{suffix}"))).unwrap();
    }
    std::fs::rename(&older, &path).unwrap();
    assert!(store.table_version("t").is_err());
    assert_eq!(stands(&store).version, 1);
    assert_anew(six_writes(&store), seen);
}
