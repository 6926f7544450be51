//! Programs with nothing but a replica, with ZeroMQ, SQLite, and a publisher service that is killed.

#[path = "../common/process.rs"]
mod process;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable};
use tablecast::store::{StoreOptions, Write};
use tablecast::stores::sqlite::SqliteStore;
use tablecast::transport::Driver;
use tablecast::{
    Database, DatabaseOptions, Dispatcher, DispatcherOptions, Publisher, PublisherOptions, Store, Subscriber,
    SubscriberOptions,
};

use crate::common::{eventually, free_port, within};
use crate::told::Told;
use crate::{held, holds, stored, topic};
use process::{Process, tablecast};

const LIMIT: Duration = Duration::from_secs(120);
const TOPICS: [&str; 2] = ["a", "b"];

/// The bound: three hello periods of a second, the reading, two seconds; and what a busy machine adds.
const BOUND: Duration = Duration::from_secs(20);

fn serve(folder: &Path, port: u16) -> Process {
    let mut command: Command = tablecast(["service", "--publisher-port", &port.to_string()]);
    command
        .arg("--publisher-multiproc-socket")
        .arg(folder.join("publisher.sock"));
    let mut service = Process::start(command);
    assert!(service.line().starts_with("ready"));
    service
}

fn open(folder: &Path) -> Arc<dyn Store> {
    let options = StoreOptions {
        timeout: Duration::from_secs(1),
        ..StoreOptions::default()
    };
    Arc::new(SqliteStore::open(folder.join("rows.db"), options).unwrap())
}

fn database(folder: &Path) -> Database {
    let address = format!("ipc://{}", folder.join("publisher.sock").display());
    let driver = ZmqMultiproc::new(&address, ZmqOptions::default()).unwrap();
    let options = PublisherOptions {
        send_timeout: Duration::from_millis(300),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&driver, options).unwrap();
    Database::new(open(folder), publisher, DatabaseOptions::default())
}

/// A program with nothing but a replica.
struct Program {
    table: ReplicaTable<String>,
    told: Told,
    replica: Replica,
    subscriber: Arc<Subscriber>,
    _dispatcher: Dispatcher,
    _guard: tablecast::Guard,
}

fn program(folder: &Path, port: u16, workers: usize) -> Program {
    let address = format!("tcp://127.0.0.1:{port}");
    let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new(&address, ZmqOptions::default()).unwrap());
    let options = DispatcherOptions {
        workers,
        ..DispatcherOptions::default()
    };
    let dispatcher = Dispatcher::new(options).unwrap();
    let subscriber = Subscriber::new(driver, dispatcher.queue(), SubscriberOptions::default());
    let subscriber = Arc::new(subscriber);
    subscriber.register_listen_address(&address).unwrap();
    subscriber.daemonize().unwrap();
    let replica = Replica::new(
        &subscriber,
        &dispatcher,
        open(folder),
        ReplicaOptions { ..holds(&TOPICS) },
    );
    let replica = replica.unwrap();
    let table = replica.raw_table("t").unwrap();
    let (told, guard) = Told::of(&table);
    Program {
        table,
        told,
        replica,
        subscriber,
        _dispatcher: dispatcher,
        _guard: guard,
    }
}

impl Program {
    #[track_caller]
    fn assert_right(&self, store: &dyn Store) {
        let wanted = stored(store, "t", &TOPICS);
        let deadline = Instant::now() + BOUND;
        while held(&self.table) != wanted || self.told.rows() != wanted {
            let stats = self.replica.stats();
            assert!(
                Instant::now() < deadline,
                "{:?}\n{wanted:?}\n{stats:?}",
                held(&self.table)
            );
            crate::common::pass(Duration::from_millis(20));
        }
    }
}

/// True for the long form, which has more rounds.
fn is_long() -> bool {
    std::env::var("TABLECAST_TEST_FAULTS").is_ok_and(|form| form == "long")
}

/// The service is killed; a write is stored and cannot be published; and when it is to be undone, the file is locked.
#[test]
fn an_undo_that_comes_late_is_not_missed() {
    let rounds = if is_long() { 50 } else { 3 };
    within(LIMIT / 3 * rounds, move || {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut service = serve(folder.path(), port);
        let database = Arc::new(database(folder.path()));
        let program = program(folder.path(), port, 0);
        let a = topic("a");
        database.write(&Write::create("t", "k", "0").topic(&a), 5).unwrap();
        let mut never = 0;
        for round in 1..=rounds {
            program.subscriber.wait_live(BOUND).unwrap();
            service.signal("KILL");
            drop(service);
            // Updates sent before the writer's transport has noticed are lost.
            let lost = Write::set("t", "k", "lost").topic(&a);
            eventually(BOUND, || database.write(&lost, 5).is_err());
            let writer = Arc::clone(&database);
            let value = format!("never {round}");
            let written = value.clone();
            let write = move || {
                let topic = topic("a");
                writer.write(&Write::set("t", "k", &value).topic(&topic), 5)
            };
            let write = std::thread::Builder::new().spawn(write).unwrap();
            let reader = open(folder.path());
            eventually(BOUND, || {
                reader.get("t", "k", None).unwrap().value == written || write.is_finished()
            });
            let lock = rusqlite::Connection::open(folder.path().join("rows.db")).unwrap();
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
            crate::common::pass(Duration::from_secs(3));
            lock.execute_batch("ROLLBACK").unwrap();
            write.join().unwrap().unwrap_err();
            never += u32::from(reader.get("t", "k", None).unwrap().value == format!("never {round}"));
            service = serve(folder.path(), port);
            program.subscriber.wait_live(BOUND).unwrap();
            // Other updates hide no hole.
            let other = format!("other {round}");
            eventually(BOUND, || {
                database.write(&Write::create("t", &other, "x").topic(&a), 5).is_ok()
            });
            program.assert_right(&*reader);
        }
        println!("right {rounds} times of {rounds}; {never} times the write stayed that was to be undone");
        assert!(never > 0, "every write was undone in time: the lock did nothing");
        assert!(program.replica.verify(BOUND).unwrap().is_empty());
        drop(service);
    });
}

/// Two writers, three programs with no, one and many workers, and a service that is killed twice under them.
#[test]
fn a_service_that_is_killed_under_load_leaves_nothing_wrong() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut service = serve(folder.path(), port);
        let programs = [0, 1, 4].map(|workers| program(folder.path(), port, workers));
        let is_over = Arc::new(AtomicBool::new(false));
        let writers = TOPICS.map(|name| {
            let (folder, is_over) = (folder.path().to_owned(), Arc::clone(&is_over));
            let write = move || {
                let (database, topic) = (database(&folder), topic(name));
                let mut chance = fastrand::Rng::with_seed(u64::from(name.as_bytes()[0]));
                while !is_over.load(Ordering::Relaxed) {
                    let key = format!("{name}{}", chance.u8(0..100));
                    let value = chance.u64(..).to_string();
                    let writes = [
                        Write::create("t", &key, &value),
                        Write::set("t", &key, &value),
                        Write::delete("t", &key),
                    ];
                    let _ = database.write(&writes[chance.usize(0..3)].topic(&topic), 5);
                }
            };
            std::thread::Builder::new().spawn(write).unwrap()
        });
        for _ in 0..2 {
            crate::common::pass(Duration::from_secs(1));
            service.signal("KILL");
            drop(service);
            crate::common::pass(Duration::from_secs(1));
            service = serve(folder.path(), port);
        }
        crate::common::pass(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let store = open(folder.path());
        for program in &programs {
            program.assert_right(&*store);
            assert!(program.replica.stats().applied > 0);
            assert!(program.replica.verify(BOUND).unwrap().is_empty());
        }
        drop(service);
    });
}
