//! First sync and catching up with each store, next to listing it.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use tablecast::Topic;
use tablecast::store::{Changes, Write};

use super::{Bed, LONG, best, by_hand, key, line, time};

const CHANGES: usize = 1_000;

/// Measures the stores whose names begin with `only`.
pub(super) fn all(rows: usize, only: &str) {
    if "store-memory".starts_with(only) {
        measure("memory", &Bed::local(rows), rows);
    }
    #[cfg(feature = "sqlite")]
    if "store-sqlite".starts_with(only) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows");
        let store = tablecast::stores::sqlite::SqliteStore::open(path, Default::default()).expect("a store");
        measure("SQLite", &Bed::new(std::sync::Arc::new(store), rows), rows);
    }
    #[cfg(feature = "redis")]
    if "store-redis".starts_with(only) {
        let server = super::server::Server::start();
        measure("Redis", &Bed::new(std::sync::Arc::new(server.store()), rows), rows);
    }
}

fn measure(name: &str, bed: &Bed, rows: usize) {
    let list = || {
        time(|| {
            let topic = Topic::ALL;
            let rows = bed.store.entries("t", Some(&topic));
            black_box(rows.map(|row| row.expect("a row").value.len()).sum::<usize>());
        })
    };
    let listing = best(list);
    let sync = best(|| bed.synced().0);
    line(&format!("{name}: first sync"), sync, "listing the store alone", listing);
    let keep = || {
        let mut map = HashMap::new();
        // Dropping it is not part of it.
        time(|| map = by_hand(bed))
    };
    let map = best(keep);
    line(
        &format!("{name}: first sync"),
        sync,
        "listing it into a map by hand",
        map,
    );

    let (_, replica, _) = bed.synced();
    let mut chance = fastrand::Rng::with_seed(4);
    let mut write = || {
        let keys: Vec<String> = (0..CHANGES).map(|_| key(chance.usize(0..rows))).collect();
        let writes: Vec<Write> = keys.iter().map(|key| Write::set("t", key, "z")).collect();
        for written in bed.store.write_each(&writes).expect("a store") {
            written.expect("a row");
        }
    };
    let catch_up = || time(|| replica.wait_current(LONG).expect("in time"));
    let read = || {
        let mut since = replica.position("t", &Topic::ALL).expect("it is synced");
        while let Changes::Page(page) = bed.store.changes("t", &Topic::ALL, since).expect("a store") {
            if !black_box(&page).more {
                return;
            }
            since = page.version;
        }
    };
    let (mut reads, mut times) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        write();
        reads.push(time(read));
        catch_up();
        write();
        times.push(catch_up());
    }
    // Not the best, which would hide a wait.
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (read, took) = (median(&mut reads), median(&mut times));
    line(
        &format!("{name}: catching up {CHANGES} changes (median)"),
        took,
        "listing the store",
        listing,
    );
    println!("{name}: of that, reading them takes {read:.1?}");
}
