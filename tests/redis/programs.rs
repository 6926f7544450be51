//! Whole programs on a cluster that loses a master: writers that write through a [`Database`], and readers that keep a
//! copy of the store by the updates, and read it at every sync event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tablecast::drivers::redis::RedisOptions;
use tablecast::store::Write;
use tablecast::{
    Database, DatabaseOptions, DbUpdate, Error, ErrorKind, Publisher, PublisherOptions, Result, Store, Subscriber,
    SyncReason, Topic,
};

use crate::common::{eventually, pass, within};
use crate::rig::{LONG, Rig};
use crate::servers::Cluster;
use crate::store::{default_store, is_outage};
use crate::store_cluster::tables;
use crate::{SECOND, with};

const LIMIT: Duration = Duration::from_secs(180);

/// Number of rows of each table that are set repeatedly.
pub(crate) const STEADY: u32 = 50;

/// By table and key: the version and the value.
pub(crate) type Rows = BTreeMap<(String, String), (u64, String)>;

pub(crate) fn read(store: &dyn Store, tables: &[String]) -> Result<Rows> {
    let mut rows = Rows::new();
    for table in tables {
        for row in store.entries(table, None) {
            let row = row?;
            rows.insert((table.clone(), row.key.to_string()), (row.version, row.value));
        }
    }
    Ok(rows)
}

/// A reader's data: its copy, and the rows that it learned of by an update, with the time of the first, or found when it
/// read.
#[derive(Default)]
pub(crate) struct Copy {
    pub(crate) rows: Rows,
    pub(crate) told: BTreeMap<(String, String), Instant>,
    pub(crate) found: BTreeSet<(String, String)>,
    pub(crate) syncs: Vec<&'static str>,
}

pub(crate) struct Reader {
    // Dropped first.
    pub(crate) subscriber: Arc<Subscriber>,
    _rig: Rig,
    pub(crate) copy: Arc<Mutex<Copy>>,
}

impl Reader {
    pub(crate) fn start(address: &str, tables: &[String]) -> Reader {
        let rig = Rig::new(&with(address, RedisOptions::default()));
        let copy = Arc::new(Mutex::new(Copy::default()));
        let ours = Arc::clone(&copy);
        let apply = move |update: &DbUpdate| {
            let row = (update.table.to_string(), update.key.to_string());
            let (version, value) = (update.version.unwrap(), update.value.clone().unwrap());
            let mut copy = ours.lock();
            copy.told.entry(row.clone()).or_insert_with(Instant::now);
            // After a failover a version may be given again, to another value.
            if copy.rows.get(&row).is_none_or(|(held, _)| version >= *held) {
                copy.rows.insert(row, (version, value));
            }
        };
        rig.dispatcher.on_update(apply).detach();
        let ours = Arc::clone(&copy);
        let (store, tables) = (default_store(address), tables.to_vec());
        let sync = move |reason: &SyncReason| {
            let mut rows = None;
            // The store may be away too; meanwhile updates wait in the queue.
            eventually(LONG, || {
                rows = read(&store, &tables).ok();
                rows.is_some()
            });
            let mut copy = ours.lock();
            copy.rows = rows.unwrap();
            let found: Vec<_> = copy.rows.keys().cloned().collect();
            copy.found.extend(found);
            copy.syncs.push(reason.as_str());
        };
        rig.dispatcher.on_sync(sync).detach();
        rig.listen(&["D"], address);
        Reader {
            subscriber: Arc::clone(&rig.subscriber),
            _rig: rig,
            copy,
        }
    }
}

/// The results of a writer's calls.
#[derive(Default)]
pub(crate) struct Log {
    /// Created rows, and when that was confirmed.
    pub(crate) made: Vec<((String, String), Instant)>,
    pub(crate) ok: u64,
    pub(crate) failed: Vec<((String, String), Error)>,
    outage: Duration,
}

/// Creates a row and sets another one in turn, once in each interval on the average, until it is stopped.
pub(crate) fn write(database: &Database, table: &str, interval: Duration, stop: &AtomicBool) -> Log {
    let mut log = Log::default();
    let (start, mut last) = (Instant::now(), Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = match number % 2 {
            0 => (format!("new-{number}"), number.to_string()),
            _ => (format!("steady-{}", number / 2 % STEADY), number.to_string()),
        };
        let write = match number % 2 {
            0 => Write::create(table, &key, &value),
            _ => Write::set(table, &key, &value),
        };
        let row = (table.to_owned(), key.clone());
        match database.write(&write.topic(&Topic::ALL), 5) {
            Ok(_) => {
                log.ok += 1;
                log.outage = log.outage.max(last.elapsed());
                last = Instant::now();
                if number % 2 == 0 {
                    log.made.push((row, last));
                }
            }
            Err(e) => log.failed.push((row, e)),
        }
        pass((start + number * interval).saturating_duration_since(Instant::now()));
    }
    log
}

#[test]
fn readers_end_with_the_store_after_a_master_was_killed() {
    within(LIMIT, || {
        let mut cluster = Cluster::start();
        let (tables, address) = (tables(&cluster), cluster.addresses());
        let store = default_store(&address);
        let driver = with(&address, RedisOptions::default());
        let new_database = || {
            let store = Arc::new(default_store(&address));
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            Database::new(store, publisher, DatabaseOptions::default())
        };
        for table in &tables {
            for number in 0..STEADY {
                let key = format!("steady-{number}");
                store.create(table, &key, "", &Topic::ALL).unwrap();
            }
        }
        let readers: Vec<_> = (0..6).map(|_| Reader::start(&address, &tables)).collect();
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        let (killed, logs) = std::thread::scope(|scope| {
            let writers: Vec<_> = tables
                .iter()
                .map(|table| {
                    let (database, stop) = (new_database(), &stop);
                    let body = move || write(&database, table, Duration::from_millis(3), stop);
                    std::thread::Builder::new().spawn_scoped(scope, body).unwrap()
                })
                .collect();
            // As many rows as are wanted, however slow the machine is.
            let is_enough = |rows: u64| rows > 1_500 + 3 * u64::from(STEADY);
            eventually(6 * LONG, || {
                pass(Duration::from_millis(50));
                let tables = store.tables();
                tables.is_ok_and(|all| is_enough(all.iter().filter_map(|table| table.rows).sum()))
            });
            let victim = cluster.masters()[0];
            let heir = cluster.replica_of(victim);
            let killed = Instant::now();
            cluster.nodes[victim].kill();
            eventually(LONG, || cluster.masters().contains(&heir));
            cluster.await_ok();
            pass(2 * SECOND);
            stop.store(true, Ordering::Relaxed);
            let logs: Vec<Log> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            (killed, logs)
        });
        let lasted = start.elapsed();
        for reader in &readers {
            reader.subscriber.wait_live(LONG).unwrap();
        }
        let content = read(&store, &tables).unwrap();
        check_writers(&logs, &content, lasted);
        let before = logs.iter().flat_map(|log| &log.made).filter(|(_, at)| *at < killed);
        let before: Vec<_> = before.map(|(row, _)| row).collect();
        let survived: Vec<_> = before.iter().filter(|row| content.contains_key(**row)).collect();
        println!(
            "{} rows were made before the kill, {} survived it",
            before.len(),
            survived.len()
        );
        assert!(survived.len() > 1000);
        for reader in &readers {
            eventually(LONG, || reader.copy.lock().rows == content);
            let copy = reader.copy.lock();
            let untold = survived.iter().filter(|row| !copy.told.contains_key(**row)).count();
            let unseen = survived
                .iter()
                .filter(|row| !copy.told.contains_key(**row) && !copy.found.contains(**row));
            println!(
                "a reader has all {} rows; of those that survived it found {untold} only when it read, at {:?}",
                copy.rows.len(),
                copy.syncs
            );
            assert_eq!(unseen.count(), 0);
        }
    });
}

/// Checks failed calls: only an unconfirmed one may have been made.
fn check_writers(logs: &[Log], content: &Rows, lasted: Duration) {
    let ok: u64 = logs.iter().map(|log| log.ok).sum();
    let outage = logs.iter().map(|log| log.outage).max().unwrap();
    let mut kinds = BTreeMap::<String, u32>::new();
    for (row, error) in logs.iter().flat_map(|log| &log.failed) {
        *kinds.entry(format!("{:?}", error.kind())).or_default() += 1;
        assert!(is_outage(error), "{row:?}: {error}");
        let is_unsure = error.kind() == ErrorKind::Unconfirmed;
        let is_new = row.1.starts_with("new-");
        assert!(
            is_unsure || !is_new || !content.contains_key(row),
            "{row:?} was made: {error}"
        );
    }
    println!("{ok} writes were Ok in {lasted:?}; failed: {kinds:?}; none of a table's was Ok for {outage:?} at most");
    assert!(logs.iter().all(|log| log.ok > 500 && log.outage < 10 * SECOND));
}
