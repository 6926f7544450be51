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

use crossbeam_channel::never;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Monitor, MonitorOptions, Publisher, PublisherOptions, Store, Topic};

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

    let driver = MemoryDriver::new(&format!("memory://bench-{name}")).expect("a driver");
    let publisher = Publisher::new(&driver, PublisherOptions::default()).expect("a publisher");
    let options = MonitorOptions {
        interval: Duration::ZERO,
        ..MonitorOptions::default()
    };
    let monitor = Monitor::new(store, Arc::new(publisher), "lport", "bench", options).expect("a monitor");
    while monitor.stats().skipped == 0 {
        let _ = never::<()>().recv_timeout(Duration::from_millis(10));
    }
    let (before, start) = (monitor.stats(), Instant::now());
    let _ = never::<()>().recv_timeout(POLLING);
    let (after, elapsed) = (monitor.stats(), start.elapsed());
    let polls = after.polls - before.polls;
    let (reading, poll) = (reading.as_secs_f64() * 1e6, elapsed.as_secs_f64() * 1e6 / polls as f64);
    assert_eq!(after.rows_read, before.rows_read, "{name}: nothing has changed");
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
