//! Programs that keep a copy of the rows and read the store on sync events must end with its content, whatever could
//! not be published in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, scope};
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use parking_lot::Mutex;
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc};
use tablecast::store::{Row, Write, WriteOp, Written};
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{
    Action, Database, DatabaseOptions, DbUpdate, Error, ErrorKind, Node, Publisher, PublisherOptions, Result, Service,
    ServiceOptions, Store, Topic,
};

use crate::common::{eventually, free_port, pass, side_by_side, within};
use crate::front::pass_on;
use crate::proxy::Proxy;
use crate::rig::{LONG, Rig, topic, update};
use crate::{Opened, memory_store, sqlite_store};

const TABLE: &str = "t";

/// The version and the value of each row; deleted rows have no value.
type Rows = BTreeMap<String, (u64, Option<String>)>;

/// A program with a copy of the rows.
struct Program {
    store: Arc<dyn Store>,
    rows: Arc<Mutex<Rows>>,
    rig: Arc<Rig>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    fn new(driver: &Arc<dyn Driver>, address: &str, store: &Arc<dyn Store>) -> Program {
        let rig = Arc::new(Rig::new(driver));
        rig.listen(&["D", "tenant"], address);
        let mut program = Program {
            store: Arc::clone(store),
            rows: Arc::default(),
            rig,
            over: Arc::default(),
            thread: None,
        };
        let (rows, store, rig, over) = (
            Arc::clone(&program.rows),
            Arc::clone(store),
            Arc::clone(&program.rig),
            Arc::clone(&program.over),
        );
        let follow = move || {
            while !over.load(Ordering::SeqCst) {
                select! {
                    recv(rig.updates) -> update => apply(&mut rows.lock(), update.unwrap()),
                    recv(rig.syncs) -> _ => read(&mut rows.lock(), &*store),
                    default(Duration::from_millis(10)) => {}
                }
            }
        };
        program.thread = Some(Builder::new().spawn(follow).unwrap());
        program
    }

    /// Reads the store without a sync event.
    fn read(&self) {
        read(&mut self.rows.lock(), &*self.store);
    }

    fn value(&self, key: &str) -> Option<String> {
        self.rows.lock().get(key)?.1.clone()
    }

    fn has_what_is_stored(&self) -> bool {
        self.difference().is_empty()
    }

    /// Rows that differ from the store: the stored state, and the program's.
    fn difference(&self) -> Vec<String> {
        let mut stored = Rows::new();
        read(&mut stored, &*self.store);
        let mut rows = self.rows.lock().clone();
        rows.retain(|_, (_, value)| value.is_some());
        let keys = stored.keys().chain(rows.keys());
        let differ = keys.filter(|key| stored.get(*key) != rows.get(*key));
        differ
            .map(|key| format!("{key}: {:?} {:?}", stored.get(key), rows.get(key)))
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

/// A waiting update may be older than what was read meanwhile.
fn apply(rows: &mut Rows, update: DbUpdate) {
    let version = update.version.unwrap();
    let row = rows.entry(update.key.to_string()).or_default();
    if row.0 < version {
        *row = (version, update.value.filter(|_| update.action != Action::Delete));
    }
}

fn read(rows: &mut Rows, store: &dyn Store) {
    let version = store.table_version(TABLE).unwrap().unwrap().version;
    rows.retain(|_, row| row.0 > version);
    for row in store.entries(TABLE, None) {
        let row = row.unwrap();
        let known = rows.entry(row.key.to_string()).or_default();
        if known.0 < row.version {
            *known = (row.version, Some(row.value));
        }
    }
}

/// A host whose publisher service keeps its subscribers, but cannot be reached by its processes.
struct Host {
    way: Proxy,
    database: Arc<Database>,
    program: Program,
    store: Arc<dyn Store>,
    _service: Service,
    _folder: Option<tempfile::TempDir>,
}

impl Host {
    fn new((store, _folder): Opened, hello_interval: Duration) -> Host {
        let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", Default::default()).unwrap());
        let port = free_port();
        let socket = format!("tcp://127.0.0.1:{port}");
        let multiproc = ZmqMultiproc::new(&socket, Default::default()).unwrap();
        let service = Service::start(&multiproc, &socket, &*driver, ServiceOptions::default()).unwrap();
        let way = Proxy::to(port);
        let through = ZmqMultiproc::new(&format!("tcp://{}", way.host()), Default::default()).unwrap();
        let options = PublisherOptions {
            send_timeout: Duration::from_millis(250),
            hello_interval,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&through, options).unwrap();
        let program = Program::new(&driver, &service.address().unwrap(), &store);
        Host {
            way,
            database: Arc::new(Database::new(Arc::clone(&store), publisher, DatabaseOptions::default())),
            program,
            store,
            _service: service,
            _folder,
        }
    }

    /// Makes a write that is published; one that a busy machine holds up is undone, and made again.
    fn put(&self, write: &Write<'_>) {
        eventually(LONG, || self.database.write(write, 5).is_ok());
    }

    /// Makes a write that cannot be published, and lets the program read the store before the undo.
    fn read_in_between(&self, write: Write<'_>) {
        let version = || self.store.get(TABLE, write.key, None).ok().map(|row| row.version);
        let wanted = match write.op {
            WriteOp::Create(value) | WriteOp::Set(value) => Some(value),
            WriteOp::Delete => None,
        };
        // On a busy machine the program may be too late.
        let deadline = Instant::now() + LONG;
        while self.program.value(write.key).as_deref() != wanted {
            assert!(Instant::now() < deadline, "never seen: {write:?}");
            let before = version();
            scope(|scope| {
                let make = || self.database.write(&write, 5).unwrap_err();
                let writer = Builder::new().spawn_scoped(scope, make).unwrap();
                eventually(LONG, || version() != before);
                self.program.read();
                let error = writer.join().unwrap();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            });
        }
    }

    /// Makes the host's processes lose the service. Updates on a topic without subscribers do not matter.
    fn lose(&self) {
        self.way.refuse(true);
        self.way.cut();
        let unheard = update("lost").topic(topic("unheard"));
        eventually(LONG, || self.database.publisher().send_event(&unheard).is_err());
    }
}

/// A program that reads the store while a write waits to be published learns of its undo, even if its subscriber has
/// lost nothing and so has no other reason to read.
#[test]
fn what_is_undone_is_told_to_those_who_have_seen_it() {
    within(Duration::from_secs(60), || {
        side_by_side([memory_store(), sqlite_store()], |opened| {
            // So long a period that the publisher's silence is not reported.
            let host = Host::new(opened, Duration::from_secs(20));
            let tenant = topic("tenant");
            for key in ["set", "deleted"] {
                host.put(&Write::create(TABLE, key, "one").topic(&tenant));
            }
            eventually(LONG, || host.program.value("deleted").is_some());
            for (number, (write, value)) in [
                (Write::create(TABLE, "created", "two").topic(&tenant), None),
                (Write::set(TABLE, "set", "two"), Some("one")),
                (Write::delete(TABLE, "deleted"), Some("one")),
            ]
            .into_iter()
            .enumerate()
            {
                host.lose();
                host.read_in_between(write);
                let stored = host.store.get(TABLE, write.key, None).ok().map(|row| row.value);
                assert_eq!(stored.as_deref(), value, "{write:?}");
                assert_ne!(host.program.value(write.key).as_deref(), value, "{write:?}");
                host.way.refuse(false);
                let (key, unheard) = (format!("after {number}"), topic("unheard"));
                let after = Write::create("elsewhere", &key, "").topic(&unheard);
                eventually(LONG, || host.database.write(&after, 5).is_ok());
                // The next update on the topic.
                let key = format!("next {number}");
                host.put(&Write::create(TABLE, &key, "").topic(&tenant));
                eventually(LONG, || host.program.has_what_is_stored());
            }
        });
    });
}

/// The first message of the publisher makes subscribers read the store, if they must.
#[test]
fn what_is_undone_is_told_by_a_publisher_that_nobody_knows() {
    within(Duration::from_secs(60), || {
        let host = Host::new(memory_store(), Duration::from_millis(500));
        host.way.refuse(true);
        host.read_in_between(Write::create(TABLE, "k", "one").topic(&topic("tenant")));
        assert!(!host.program.has_what_is_stored());
        host.way.refuse(false);
        eventually(LONG, || host.program.has_what_is_stored());
    });
}

/// A store that loses its answers, and is away afterwards.
#[derive(Debug, Default)]
struct Mute {
    rows: MemoryStore,
    is_mute: AtomicBool,
    is_away: AtomicBool,
}

impl Mute {
    /// Loses the next answer, until it is back.
    fn lose(&self, loses: bool) {
        self.is_mute.store(loses, Ordering::SeqCst);
        self.is_away.store(false, Ordering::SeqCst);
    }
}

impl Store for Mute {
    fn write(&self, write: &Write<'_>) -> Result<Written> {
        let written = self.rows.write(write)?;
        if self.is_mute.load(Ordering::SeqCst) {
            self.is_away.store(true, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Unconfirmed, "the answer was lost"));
        }
        Ok(written)
    }

    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the store is away"));
        }
        self.rows.get(table, key, topic)
    }

    pass_on!(|this| this.rows; page_of_entries page_of_keys create_table delete_table allocate_unique_key table_version);
}

/// A write that may have been made cannot be published, so subscribers have to read.
#[test]
fn what_may_have_been_stored_is_read_again() {
    within(Duration::from_secs(60), || {
        let tenant = topic("tenant");
        let writes = [
            Write::create(TABLE, "created", "two").topic(&tenant),
            // Their topics are not known after them, and the publisher has sent nothing on them.
            Write::set(TABLE, "set", "two"),
            Write::delete(TABLE, "deleted"),
        ];
        side_by_side(writes, |write| {
            let store = Arc::new(Mute::default());
            for key in ["set", "deleted"] {
                store.rows.create(TABLE, key, "one", &tenant).unwrap();
            }
            // The hello that tells of the gap comes after the look below.
            let host = Host::new((store.clone(), None), Duration::from_secs(3));
            // The first update on another topic, after which the program knows the publisher.
            host.put(&Write::create(TABLE, "other", "one"));
            eventually(LONG, || host.program.has_what_is_stored());
            store.lose(true);
            let error = host.database.write(&write, 5).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
            store.lose(false);
            assert!(!host.program.has_what_is_stored(), "{write:?}");
            eventually(LONG, || host.program.has_what_is_stored());
        });
    });
}

/// A write that the publisher refuses is undone at once, and the undo is published.
#[test]
fn an_undo_has_a_version_and_a_number() {
    within(Duration::from_secs(30), || {
        let host = Host::new(memory_store(), Duration::from_secs(1));
        host.put(&Write::create(TABLE, "k", "one"));
        eventually(LONG, || host.program.value("k").is_some());
        let before = host.store.get(TABLE, "k", None).unwrap().version;
        let lost = host.program.rig.subscriber.stats().lost;
        let large = "x".repeat(17 << 20);
        let error = host.database.write(&Write::set(TABLE, "k", &large), 5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        let version = host.store.get(TABLE, "k", None).unwrap().version;
        assert_eq!(version, before + 2);
        eventually(LONG, || host.program.rows.lock()["k"] == (version, Some("one".into())));
        assert_eq!(host.program.rig.subscriber.stats().lost, lost);
    });
}

#[cfg(feature = "bin")]
mod processes {
    use tablecast::{Config, Drivers, Stores};

    use super::*;
    use crate::process::{Process, tablecast};

    /// Writes to its own rows until `over` is set, so rarely that the next write repairs nothing. Returns the number of
    /// failed writes.
    fn write_on(database: &Database, seed: u64, over: &AtomicBool) -> usize {
        let (mut random, mut failed, mut rows) = (crate::random::Random::from_seed(seed), 0, 0);
        while !over.load(Ordering::SeqCst) {
            let value = random.next().to_string();
            let (new, old) = (format!("{seed}-{rows}"), format!("{seed}-{}", random.below(rows + 1)));
            let write = match random.below(4) {
                0 => Write::set(TABLE, &old, &value),
                1 => Write::delete(TABLE, &old),
                _ => Write::create(TABLE, &new, &value),
            };
            rows += 1;
            failed += usize::from(database.write(&write, 5).is_err_and(|e| e.kind() == ErrorKind::Timeout));
            pass(Duration::from_millis(1));
        }
        failed
    }

    /// With all defaults. The service is away for as long as it takes to notice, and comes back under writes.
    #[test]
    fn everyone_has_what_is_stored_when_the_service_was_away() {
        within(Duration::from_secs(60), || {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            config.publisher_port = free_port();
            config.publisher_multiproc_socket = folder.path().join("publisher.sock");
            config.sqlite_path = folder.path().join("store.db");
            let (port, socket) = (config.publisher_port.to_string(), config.multiproc_address());
            let start = || {
                let flags = [
                    "service",
                    "--publisher-port",
                    &port,
                    "--publisher-multiproc-socket",
                    &socket,
                ];
                let mut service = Process::start(tablecast(flags));
                service.line();
                service
            };
            let mut service = start();
            let store = Stores::new().open(&config).unwrap();
            let driver = Drivers::new().network(&config).unwrap();
            let address = format!("tcp://127.0.0.1:{port}");
            let programs: Vec<_> = (0..5).map(|_| Program::new(&driver, &address, &store)).collect();
            let over = AtomicBool::new(false);
            let failed: usize = scope(|scope| {
                let writers: Vec<_> = (0..4)
                    .map(|seed| {
                        let (config, over) = (&config, &over);
                        let write = move || {
                            let database = Node::open(config).unwrap().database().unwrap();
                            // The last one shows when the service is back.
                            let failed = write_on(&database, seed, over);
                            while database
                                .write(&Write::set(TABLE, "none", ""), 5)
                                .is_err_and(|e| e.kind() == ErrorKind::Timeout)
                            {}
                            (database, failed)
                        };
                        Builder::new().spawn_scoped(scope, write).unwrap()
                    })
                    .collect();
                pass(Duration::from_millis(500));
                service.kill();
                pass(Duration::from_secs(4));
                service = start();
                pass(Duration::from_secs(1));
                over.store(true, Ordering::SeqCst);
                let ended: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
                let deadline = Instant::now() + LONG;
                while !programs.iter().all(Program::has_what_is_stored) {
                    let differ: Vec<_> = programs.iter().map(Program::difference).collect();
                    assert!(Instant::now() < deadline, "{differ:#?}");
                    pass(Duration::from_millis(20));
                }
                ended.iter().map(|(_, failed)| failed).sum()
            });
            println!("{failed} writes were undone");
            assert!(failed > 0);
        });
    }
}
