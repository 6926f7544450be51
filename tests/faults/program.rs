//! A program that subscribes, and holds a replica of its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::registry::Discovery;
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable, RowChange};
use tablecast::subscriber::{AddressState, TopicState};
use tablecast::{DbUpdate, Dispatcher, DispatcherOptions, Error, Subscriber, SubscriberOptions, SyncReason, Topic};

use super::actor;
use super::checker::PROGRAM;
use super::common::{Stopwatch, pass};
use super::history::{Event, Log};
use super::holdings;
use super::registry::RegistrySpec;
use super::stage::STORE_TIMEOUT;
use super::store::{digest, open};
use super::witness::{Witness, rows};

/// Options of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProgramSpec {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) addresses: Vec<String>,
    /// The registry in which it finds more addresses, if any.
    pub(crate) registry: Option<RegistrySpec>,
    pub(crate) topics: BTreeSet<String>,
    /// The store, and the tables whose rows it holds.
    pub(crate) store: String,
    pub(crate) tables: Vec<String>,
    /// Whether the library looks for gaps; if not, the checker must find the losses.
    pub(crate) continuity: bool,
    pub(crate) hello_interval: Duration,
    pub(crate) max_message_bytes: usize,
    pub(crate) workers: usize,
    /// Callbacks for `chassis` panic, and the first one for `secgroup` waits for [`Order::Wake`].
    pub(crate) trouble: bool,
}

/// Orders for a program, which answers each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Waits until every topic is live.
    WaitLive,
    /// Waits until the replica is synced.
    WaitSynced,
    Register(String),
    Unregister(String),
    Report,
    /// Number of live topics.
    LiveTopics,
    /// Whether these publishers have been heard, so that each would be missed.
    Hears(Vec<String>),
    /// The addresses that it listens to, and which of them are live.
    Addresses,
    /// Ends the wait of the callback for `secgroup`.
    Wake,
    /// Ends the subscriber, which must be quick, and logs its end.
    End,
}

/// State of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// As [`store::digest`], of its replica.
    pub(crate) digest: u64,
    pub(crate) delivered: u64,
    /// Number of updates that the library did not deliver a second time.
    pub(crate) duplicates: u64,
    /// The library's count.
    pub(crate) clashes: u64,
    pub(crate) malformed: u64,
    pub(crate) filtered: u64,
    pub(crate) errors: u64,
    pub(crate) panics: u64,
    /// Number of panics reported to the hook.
    pub(crate) reported: u64,
    /// The replica's status.
    pub(crate) replica: String,
}

struct Program {
    witness: Arc<Witness>,
    discovery: Option<Discovery>,
    replica: Replica,
    tables: Vec<ReplicaTable<String>>,
    subscriber: Arc<Subscriber>,
    dispatcher: Dispatcher,
    /// Dropped to end the thread.
    stop: Sender<()>,
    /// Likewise, to end the wait of a callback.
    asleep: Option<Sender<()>>,
    watch: JoinHandle<()>,
}

/// How often the program checks whether it is live.
const LOOK: Duration = Duration::from_millis(2);

/// A program that does not change for this long is at rest.
const CALM: Duration = Duration::from_millis(100);

impl Program {
    fn start(spec: &ProgramSpec, log: Log) -> Program {
        let witness = Arc::new(Witness::new(spec, log));
        let on = Arc::clone(&witness);
        let dispatcher = Dispatcher::new(DispatcherOptions {
            workers: spec.workers,
            hook: Some(Arc::new(move |error: &Error| on.error(error))),
            ..DispatcherOptions::default()
        });
        let dispatcher = dispatcher.unwrap();
        let on = Arc::clone(&witness);
        let update = move |update: &DbUpdate| on.update(update);
        dispatcher.on_update(update).detach();
        let on = Arc::clone(&witness);
        dispatcher.on_sync(move |reason: &SyncReason| on.sync(reason)).detach();
        let asleep = spec.trouble.then(|| make_trouble(&dispatcher));
        let subscriber = Arc::new(subscriber(spec, &dispatcher));
        let (replica, tables) = replica(spec, &subscriber, &dispatcher, &witness);
        subscriber.daemonize().unwrap();
        let registry = spec.registry.as_ref();
        let discovery = registry.map(|registry| registry.follow(&subscriber));
        let (stop, stopped) = bounded(0);
        let (watching, watched) = (Arc::clone(&witness), Arc::clone(&subscriber));
        let watch = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                watching.look(&watched);
            }
        };
        Program {
            witness,
            discovery,
            replica,
            tables,
            subscriber,
            dispatcher,
            stop,
            asleep,
            watch: std::thread::Builder::new().name("watch".into()).spawn(watch).unwrap(),
        }
    }

    fn wait_live(&self) -> Result<(), String> {
        let live = self.subscriber.wait_live(actor::LIMIT);
        self.witness.look(&self.subscriber);
        live.map_err(|error| error.to_string())
    }

    /// Registers a topic, whose rows the replica then holds.
    fn register(&self, name: &str) -> Result<(), String> {
        let topic = Topic::new(name).unwrap();
        self.witness.register(name, || {
            self.subscriber.register_topic(&topic).unwrap();
            self.replica.add_topic(&topic).unwrap();
        });
        self.wait_live()
    }

    fn unregister(&self, name: &str) {
        let topic = Topic::new(name).unwrap();
        self.subscriber.unregister_topic(&topic);
        self.replica.remove_topic(&topic);
        self.witness.unregistered(name);
    }

    fn report(&self) -> Report {
        let stats = self.subscriber.stats();
        Report {
            digest: digest(&rows(&self.tables).collect::<Vec<_>>()),
            delivered: self.witness.delivered(),
            duplicates: stats.duplicates,
            clashes: stats.clashes,
            malformed: stats.malformed,
            filtered: stats.filtered,
            errors: stats.errors,
            panics: self.dispatcher.stats().panics,
            reported: self.witness.panics(),
            replica: format!("{:?}", self.replica.stats()),
        }
    }

    fn addresses(&self) -> BTreeMap<String, bool> {
        let addresses = self.subscriber.status().addresses.into_iter();
        let live = addresses.map(|peer| (peer.address.to_string(), peer.state == AddressState::Live));
        live.collect()
    }

    fn live_topics(&self) -> usize {
        let topics = self.subscriber.status().topics.into_iter();
        topics.filter(|topic| topic.state == TopicState::Live).count()
    }

    fn hears(&self, publishers: &[String]) -> bool {
        let topics = self.subscriber.status().topics;
        let heard = topics.iter().flat_map(|topic| &topic.publishers);
        let heard: Vec<_> = heard.filter(|heard| heard.state == TopicState::Live).collect();
        let is_heard = |id: &String| heard.iter().any(|heard| *heard.publisher == **id);
        publishers.iter().all(is_heard)
    }

    /// Waits until nothing more comes: the rows may be known before the last updates have come.
    fn come_to_rest(&self) {
        let state = || (self.subscriber.stats().decoded, self.dispatcher.stats().queue.depth);
        let deadline = Instant::now() + actor::LIMIT;
        let mut before = state();
        loop {
            pass(CALM);
            let now = state();
            if now == before && now.1 == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "it does not come to rest: {now:?}");
            before = now;
        }
    }

    /// Drops the replica, the subscriber and the dispatcher, which must be quick.
    fn end(self) -> Arc<Witness> {
        self.come_to_rest();
        drop(self.stop);
        self.watch.join().unwrap();
        let coalesced = self.dispatcher.stats().queue.coalesced;
        let start = Stopwatch::start();
        drop(self.discovery);
        drop(self.replica);
        drop(self.subscriber);
        drop(self.dispatcher);
        start.assert_within(Duration::from_secs(1), "stop");
        self.witness.settle(&self.tables, coalesced);
        self.witness
    }
}

/// The body of a program's process.
pub(crate) fn run(spec: &ProgramSpec) {
    // The resources of the first sockets of a process are never released.
    let dispatcher = Dispatcher::new(DispatcherOptions::default()).unwrap();
    drop(subscriber(spec, &dispatcher));
    drop(dispatcher);
    let orders = actor::orders::<Order>();
    let log = Log::append_to(&spec.folder.join(format!("{PROGRAM}{}", spec.name)));
    let before = holdings::now();
    log.note(Event::Before(before));
    let mut program = Program::start(spec, log);
    actor::answer(&());
    for order in orders {
        match order {
            Order::WaitLive => actor::answer(&program.wait_live()),
            Order::WaitSynced => {
                let synced = program.replica.wait_synced(actor::LIMIT);
                actor::answer(&synced.map_err(|error| error.to_string()));
            }
            Order::Register(topic) => actor::answer(&program.register(&topic)),
            Order::Unregister(topic) => actor::answer(&program.unregister(&topic)),
            Order::Report => actor::answer(&program.report()),
            Order::LiveTopics => actor::answer(&program.live_topics()),
            Order::Addresses => actor::answer(&program.addresses()),
            Order::Hears(publishers) => actor::answer(&program.hears(&publishers)),
            Order::Wake => {
                program.asleep = None;
                actor::answer(&());
            }
            Order::End => {
                let witness = program.end();
                witness.write(Event::After(holdings::come_back(before)));
                return actor::answer(&());
            }
        }
    }
}

/// The callback waits until what this returns is dropped.
fn make_trouble(dispatcher: &Dispatcher) -> Sender<()> {
    dispatcher
        .on_table("chassis", |_: &DbUpdate| panic!("as it was told to"))
        .detach();
    let (wake, gate) = bounded::<()>(0);
    let slept = AtomicBool::new(false);
    let sleep = move |_: &DbUpdate| {
        if !slept.swap(true, Ordering::Relaxed) {
            let _ = gate.recv_timeout(2 * actor::LIMIT);
        }
    };
    dispatcher.on_table("secgroup", sleep).detach();
    wake
}

/// A replica that reports every change.
fn replica(
    spec: &ProgramSpec,
    subscriber: &Arc<Subscriber>,
    dispatcher: &Dispatcher,
    witness: &Arc<Witness>,
) -> (Replica, Vec<ReplicaTable<String>>) {
    let topics = spec.topics.iter().map(|topic| Topic::new(topic.as_str()).unwrap());
    let options = ReplicaOptions {
        topics: topics.collect(),
        // In the same ratio as the defaults.
        check_interval: spec.hello_interval * 3,
        ..ReplicaOptions::default()
    };
    let replica = Replica::new(subscriber, dispatcher, open(&spec.store, STORE_TIMEOUT), options).unwrap();
    let tables = spec.tables.iter().map(|name| {
        let table = replica.raw_table(name.as_str()).unwrap();
        let (on, name) = (Arc::clone(witness), name.clone());
        let change = move |change: &RowChange<String>| on.changed(&name, change);
        table.on_change(change).detach();
        table
    });
    let tables = tables.collect();
    (replica, tables)
}

/// A subscriber that is not running yet.
fn subscriber(spec: &ProgramSpec, dispatcher: &Dispatcher) -> Subscriber {
    let driver = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
    let options = SubscriberOptions {
        hello_interval: spec.hello_interval,
        continuity: spec.continuity,
        max_message_bytes: spec.max_message_bytes,
        ..SubscriberOptions::default()
    };
    let subscriber = Subscriber::new(driver, dispatcher.queue(), options);
    for topic in &spec.topics {
        subscriber.register_topic(&Topic::new(topic.as_str()).unwrap()).unwrap();
    }
    for address in &spec.addresses {
        subscriber.register_listen_address(address).unwrap();
    }
    subscriber
}
