//! The parts that every scenario needs: a folder, a seed, processes, waiting, and the verdict.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tablecast::Store;
use tempfile::TempDir;

use super::actor::LIMIT;
use super::cast::{Program, Service, Writer};
use super::checker::{Deadline, Figures, Histories, Violation};
use super::common::{folder_in_memory, pass, within};
use super::history::{Change, Event, History, Row, Time, micros, now};
use super::process::tablecast;
use super::program::ProgramSpec;
use super::random::Random;
#[cfg(feature = "redis")]
use super::redis_server::{Cluster, Server};
use super::store::{self, WRITER, digest};
use super::writer::{Clock, ODD, TABLES, WriterSpec};

/// How much of the machine a scenario uses: with more beside it, one of them would miss its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Light,
    Half,
    Heavy,
}

/// A scenario's share of the machine.
struct Share(usize);

/// The number of light scenarios that fill the machine.
static ALL: LazyLock<usize> = LazyLock::new(|| 2 * available_parallelism().map_or(1, usize::from));
static USED: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Share {
    fn wait_for(load: Load) -> Share {
        let share = match load {
            Load::Light => 1,
            Load::Half => *ALL / 2,
            Load::Heavy => *ALL,
        };
        let mut used = USED.lock();
        FREED.wait_while(&mut used, |used| *used + share > *ALL);
        *used += share;
        Share(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *USED.lock() -= self.0;
        FREED.notify_all();
    }
}

/// The store of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    #[cfg(feature = "redis")]
    Redis,
    #[cfg(feature = "redis")]
    Cluster,
}

/// The servers of a store; a file has none.
enum Servers {
    None(PathBuf),
    #[cfg(feature = "redis")]
    Redis(Server),
    #[cfg(feature = "redis")]
    Cluster(Cluster),
}

impl Servers {
    fn start(backend: Backend, files: &TempDir) -> Servers {
        match backend {
            Backend::Sqlite => Servers::None(files.path().join("rows.db")),
            #[cfg(feature = "redis")]
            Backend::Redis => Servers::Redis(Server::start()),
            #[cfg(feature = "redis")]
            Backend::Cluster => Servers::Cluster(Cluster::start()),
        }
    }

    /// The store's address.
    fn address(&self) -> String {
        match self {
            Servers::None(file) => file.to_str().unwrap().into(),
            #[cfg(feature = "redis")]
            Servers::Redis(server) => server.address(),
            #[cfg(feature = "redis")]
            Servers::Cluster(cluster) => cluster.address(),
        }
    }
}

/// A scenario that is being played.
pub(crate) struct Stage {
    name: String,
    folder: TempDir,
    /// For databases.
    files: TempDir,
    servers: Servers,
    store: Arc<dyn Store>,
    seed: u64,
    pub(crate) random: Random,
    /// In the long form everything lasts as long as in the field.
    pub(crate) long: bool,
}

/// Time limit of a writer's call.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_millis(500);

/// Time limit of a call to the store.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether scenarios have their long form.
pub(crate) fn is_long() -> bool {
    std::env::var("TABLECAST_TEST_FAULTS").is_ok_and(|form| form == "long")
}

/// Plays a scenario: `TABLECAST_TEST_FAULTS=long` for the long form, `TABLECAST_TEST_SEED` to repeat one.
pub(crate) fn play(name: &'static str, load: Load, body: impl FnOnce(&mut Stage) + Send + 'static) {
    play_on(backend(), name, load, body);
}

/// The store of scenarios that do not name one: `redis` or `cluster` by `TABLECAST_TEST_STORE`, otherwise a file.
fn backend() -> Backend {
    match std::env::var("TABLECAST_TEST_STORE").as_deref() {
        #[cfg(feature = "redis")]
        Ok("redis") => Backend::Redis,
        #[cfg(feature = "redis")]
        Ok("cluster") => Backend::Cluster,
        _ => Backend::Sqlite,
    }
}

/// As [`play`], with this store.
pub(crate) fn play_on(
    backend: Backend,
    name: &'static str,
    load: Load,
    body: impl FnOnce(&mut Stage) + Send + 'static,
) {
    let long = is_long();
    let _share = Share::wait_for(if long { Load::Heavy } else { load });
    let limit = Duration::from_secs(if long { 1200 } else { 90 });
    within(limit, move || {
        let random = Random::new(name);
        let files = folder_in_memory();
        let servers = Servers::start(backend, &files);
        let mut stage = Stage {
            name: match backend {
                Backend::Sqlite => name.into(),
                #[cfg(feature = "redis")]
                other => format!("{name}, {other:?}"),
            },
            folder: tempfile::tempdir().unwrap(),
            files,
            store: store::open(&servers.address(), STORE_TIMEOUT),
            servers,
            seed: random.seed(),
            random,
            long,
        };
        body(&mut stage);
    });
}

impl Stage {
    /// The hello period.
    pub(crate) fn hello(&self) -> Duration {
        Duration::from_millis(if self.long { 1000 } else { 250 })
    }

    /// This many hello periods.
    pub(crate) fn hellos(&self, count: f64) -> Duration {
        self.hello().mul_f64(count)
    }

    /// The time within which every program must have everything.
    pub(crate) fn bound(&self) -> Duration {
        self.hellos(3.0) + Duration::from_secs(2)
    }

    /// The value for the short or the long form.
    pub(crate) fn either<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a database of this name.
    pub(crate) fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().into()
    }

    /// The socket of this host's writers.
    pub(crate) fn socket(&self) -> String {
        format!("ipc://{}/publisher.sock", self.folder().display())
    }

    /// A service on this port, with these flags.
    pub(crate) fn service(&self, port: u16, flags: &[&str]) -> Service {
        Service::start(self.service_command(port, flags))
    }

    pub(crate) fn service_command(&self, port: u16, flags: &[&str]) -> std::process::Command {
        let socket = self.socket();
        let port = port.to_string();
        let hello = self.hello().as_millis().to_string();
        let own = [
            "service",
            "--publisher-port",
            &port,
            "--publisher-multiproc-socket",
            &socket,
        ];
        let mut times = vec![["--hello-interval-ms", &hello]];
        times.retain(|time| !flags.contains(&time[0]));
        tablecast(own.iter().chain(times.as_flattened()).chain(flags))
    }

    /// Options of a writer that sends through the service, or binds a port.
    pub(crate) fn writer_spec(&mut self, name: &str, address: &str, topics: &[&str]) -> WriterSpec {
        WriterSpec {
            name: name.into(),
            folder: self.folder().to_owned(),
            store: self.servers.address(),
            address: address.into(),
            topics: topics.iter().map(|topic| (*topic).into()).collect(),
            rows: 50,
            bytes: 100,
            odd: false,
            versioned: true,
            publishes: true,
            clock: Clock::Off(0),
            seed: self.random.next(),
            id: None,
            hello_interval: self.hello(),
            send_timeout: SEND_TIMEOUT,
            send_hwm: 100_000,
            registry: None,
        }
    }

    pub(crate) fn writer(&self, spec: WriterSpec) -> Writer {
        Writer::start(spec)
    }

    pub(crate) fn program_spec(&self, name: &str, addresses: &[&str], topics: &[&str]) -> ProgramSpec {
        ProgramSpec {
            name: name.into(),
            folder: self.folder().to_owned(),
            addresses: addresses.iter().map(|address| (*address).into()).collect(),
            registry: None,
            topics: topics.iter().map(|topic| (*topic).into()).collect(),
            store: self.servers.address(),
            tables: TABLES.iter().map(|table| (*table).into()).collect(),
            continuity: true,
            hello_interval: self.hello(),
            max_message_bytes: 16 << 20,
            workers: 0,
            trouble: false,
        }
    }

    /// Starts a program, and waits until it is live and its replica is synced.
    pub(crate) fn program(&self, spec: ProgramSpec) -> Program {
        let mut program = Program::start(spec);
        program.wait_live();
        program.wait_synced();
        program
    }

    /// Waits until these programs have the store's content. Returns how long that took.
    pub(crate) fn converge(&self, programs: &mut [&mut Program]) -> Duration {
        let start = Instant::now();
        for program in programs {
            let deadline = start + LIMIT;
            loop {
                let rows = self.rows();
                let mut rows: Vec<_> = rows.values().collect();
                rows.retain(|change| program.topics.contains(&change.topic));
                let report = program.report();
                if report.digest == digest(rows) {
                    break;
                }
                assert!(Instant::now() < deadline, "it has not the store's content: {report:?}");
                pass(Duration::from_millis(5));
            }
        }
        start.elapsed()
    }

    /// The cluster with the rows.
    #[cfg(feature = "redis")]
    pub(crate) fn cluster(&mut self) -> &mut Cluster {
        match &mut self.servers {
            Servers::Cluster(cluster) => cluster,
            _ => panic!("the rows are stored in no cluster"),
        }
    }

    /// The store's address in the form of the harness.
    pub(crate) fn store(&self) -> String {
        self.servers.address()
    }

    /// The stored rows.
    pub(crate) fn rows(&self) -> BTreeMap<Row, Change> {
        let tables = TABLES.iter().chain(ODD).map(|table| (*table).to_owned());
        store::rows(&*self.store, &tables.collect::<Vec<_>>())
    }

    /// Ends the programs, and checks that no promise was broken; everything had to be there by `bound` after `quiet`.
    /// Prints the scenario's line.
    pub(crate) fn verdict(&self, quiet: Time, programs: Vec<Program>, figures: impl Display) -> Figures {
        programs.into_iter().for_each(Program::end);
        let (violations, total) = self.judge(quiet);
        self.say(format!("{figures}; {total}"));
        assert!(violations.is_empty(), "{}: {}", self.name, listed(&violations));
        total
    }

    /// The checker's findings.
    pub(crate) fn judge(&self, quiet: Time) -> (Vec<Violation>, Figures) {
        let histories = Histories::read(self.folder(), self.rows());
        let violations = histories.check(Deadline::after(quiet, self.bound()));
        (violations, histories.figures())
    }

    /// Number of updates of this table that a writer has published.
    pub(crate) fn published(&self, writer: &str, table: &str) -> u64 {
        let history = History::read(&self.folder().join(format!("{WRITER}{writer}")));
        let pairs = history.lines.windows(2).filter(|pair| {
            let is_of = matches!(&pair[0].event, Event::Stored(change) if change.table == table);
            is_of && matches!(pair[1].event, Event::Sent { .. })
        });
        pairs.count() as u64
    }

    /// Prints the one line of this scenario.
    pub(crate) fn say(&self, figures: impl Display) {
        println!("{}: {figures} (TABLECAST_TEST_SEED={})", self.name, self.seed);
    }

    /// A time in hello periods.
    pub(crate) fn in_hellos(&self, time: Duration) -> String {
        format!("{:.2} H", time.as_secs_f64() / self.hello().as_secs_f64())
    }
}

pub(crate) fn listed(violations: &[Violation]) -> String {
    let first: Vec<_> = violations
        .iter()
        .take(10)
        .map(|violation| format!("{violation:?}"))
        .collect();
    format!("{} violations:\n{}", violations.len(), first.join("\n"))
}

/// Waits until `condition` holds, and fails with `what` if it does not within `limit`.
pub(crate) fn wait_for(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within {limit:?}");
        pass(Duration::from_millis(5));
    }
}

pub(crate) fn duration(time: Time) -> Duration {
    Duration::from_micros(u64::try_from(time).unwrap())
}

/// How long ago that was.
pub(crate) fn since(time: Time) -> Duration {
    duration(now() - time)
}

/// As a time after `start`.
pub(crate) fn later(start: Time, by: Duration) -> Time {
    start + micros(by)
}
