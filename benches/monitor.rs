//! The cost of a monitor's poll of a table of 10,000 rows in which nothing changes, next to reading the rows. Redis is
//! left out if there is no `redis-server` in the path. Run with `cargo bench --bench monitor`.

#[cfg(feature = "redis")]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(feature = "redis")]
#[path = "../tests/common/redis.rs"]
mod servers;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tablecast::stores::memory::MemoryStore;
use tablecast::{Store, Topic};

const ROWS: usize = 10_000;
const ROUNDS: usize = 20;
const POLLING: Duration = Duration::from_secs(2);

fn main() {
    println!(
        "{ROWS} rows of 200 bytes, microseconds; the best of {ROUNDS} readings, the mean of all polls in {POLLING:?}"
    );
    report("memory", Arc::new(MemoryStore::new()));
    #[cfg(feature = "sqlite")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let store = tablecast::stores::sqlite::SqliteStore::open(path, Default::default());
        report("sqlite", Arc::new(store.expect("a database")));
    }
    #[cfg(feature = "redis")]
    if std::process::Command::new("redis-server")
        .arg("--version")
        .output()
        .is_ok()
    {
        let server = servers::Server::start();
        let store =
            tablecast::stores::redis::RedisStore::new(&server.address(), Default::default(), &Default::default());
        report("redis", Arc::new(store.expect("a store")));
    }
}

fn report(name: &str, store: Arc<dyn Store>) {
    let value = "x".repeat(200);
    for number in 0..ROWS {
        let created = store.create("lport", &format!("port-{number}"), &value, &Topic::ALL);
        created.expect("a new row");
    }
    let reading = (0..ROUNDS).map(|_| read(&*store)).min().expect("at least one round");

    // All that a poll asks for as long as nothing changes.
    let (mut polls, start) = (0_u32, Instant::now());
    while start.elapsed() < POLLING {
        black_box(store.table_version("lport").expect("a version"));
        polls += 1;
    }
    let (reading, poll) = (
        reading.as_secs_f64() * 1e6,
        start.elapsed().as_secs_f64() * 1e6 / f64::from(polls),
    );
    println!(
        "  {name:8}  reading it {reading:>9.2}   poll {poll:>9.2}   ratio {:.0}",
        reading / poll
    );
}

fn read(store: &dyn Store) -> Duration {
    let start = Instant::now();
    let rows = store.entries("lport", None).map(|row| black_box(row).expect("a row"));
    assert_eq!(rows.count(), ROWS);
    start.elapsed()
}
