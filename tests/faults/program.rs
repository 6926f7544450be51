//! A program that subscribes: it keeps a copy of the store's rows of its topics, and reads the store on every sync event.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tablecast::drivers::zmq::{ZmqOptions, ZmqPubSub};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::{
    Action, DbUpdate, Dispatcher, DispatcherOptions, Error, ErrorKind, Subscriber, SubscriberOptions, SyncReason,
    Topic, subscriber::TopicState,
};

use super::actor;
use super::checker::PROGRAM;
use super::history::{Change, Event, Log, Number, Row, Tail, Time, Told, now};
use super::holdings;
use super::stage::pass;
use super::store::{Store, digest};

/// What a program is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProgramSpec {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) addresses: Vec<String>,
    pub(crate) topics: BTreeSet<String>,
    /// Whether the library looks for gaps; without it the checker must find what is lost.
    pub(crate) continuity: bool,
    pub(crate) queue_capacity: usize,
    pub(crate) hello_interval: Duration,
    pub(crate) max_message_bytes: usize,
    pub(crate) workers: usize,
    /// Callbacks for `chassis` panic, and the first for `secgroup` takes so long.
    pub(crate) trouble: Option<Duration>,
    /// The history of an earlier run, whose rows it begins with.
    pub(crate) after: Option<PathBuf>,
}

/// What a program can be told; it answers each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Waits until every topic is live.
    WaitLive,
    Register(String),
    Unregister(String),
    Report,
    /// How many topics are live.
    LiveTopics,
    /// As [`Program::end`].
    End,
}

/// What a program says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// As [`Store::digest`].
    pub(crate) digest: u64,
    pub(crate) delivered: u64,
    /// What the library did not deliver a second time.
    pub(crate) duplicates: u64,
    /// As the library counts them.
    pub(crate) clashes: u64,
    pub(crate) malformed: u64,
    pub(crate) filtered: u64,
    pub(crate) errors: u64,
    pub(crate) panics: u64,
    /// How many panics the hook was told of.
    pub(crate) reported: u64,
}

pub(crate) struct Program {
    inner: Arc<Inner>,
    subscriber: Arc<Subscriber>,
    dispatcher: Dispatcher,
    /// Dropped to end the thread.
    stop: Sender<()>,
    watch: JoinHandle<()>,
}

/// What the callbacks work on.
struct Inner {
    log: Log,
    replica: Mutex<Replica>,
    topics: Mutex<BTreeSet<String>>,
    delivered: AtomicU64,
    live: Mutex<bool>,
    reported: AtomicU64,
}

struct Replica {
    store: Store,
    rows: BTreeMap<Row, Change>,
    /// When something last changed.
    since: Time,
}

/// How often the program looks whether it is live.
const MANY: usize = 100;
const LOOK: Duration = Duration::from_millis(2);

/// What does not change for so long is at rest.
const CALM: Duration = Duration::from_millis(100);

impl Program {
    pub(crate) fn start(spec: &ProgramSpec, log: Log) -> Program {
        let inner = Arc::new(Inner {
            log,
            replica: Mutex::new(Replica {
                store: Store::of(&spec.folder),
                rows: spec.after.as_deref().map_or_else(BTreeMap::new, rows_of),
                since: now(),
            }),
            topics: Mutex::new(spec.topics.clone()),
            delivered: AtomicU64::new(0),
            live: Mutex::new(false),
            reported: AtomicU64::new(0),
        });
        let queue = QueueOptions {
            capacity: spec.queue_capacity,
            overflow: Overflow::Coalesce,
            ..QueueOptions::default()
        };
        let on = Arc::clone(&inner);
        let hook = move |error: &Error| {
            let is_panic = error.kind() == ErrorKind::Panicked;
            on.reported.fetch_add(u64::from(is_panic), Ordering::Relaxed);
        };
        let dispatcher = Dispatcher::new(DispatcherOptions {
            queue,
            workers: spec.workers,
            hook: Some(Arc::new(hook)),
        });
        let dispatcher = dispatcher.unwrap();
        let on = Arc::clone(&inner);
        dispatcher
            .on_update(move |update: &DbUpdate| on.update(update))
            .detach();
        let on = Arc::clone(&inner);
        dispatcher.on_sync(move |reason: &SyncReason| on.sync(reason)).detach();
        if let Some(asleep) = spec.trouble {
            make_trouble(&dispatcher, asleep);
        }
        for topic in &spec.topics {
            inner.log.note(Event::Registered(topic.clone()));
        }
        let subscriber = Arc::new(subscriber(spec, &dispatcher));
        subscriber.daemonize().unwrap();
        let (stop, stopped) = bounded(0);
        let (watching, watched) = (Arc::clone(&inner), Arc::clone(&subscriber));
        let watch = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                watching.look(&watched);
            }
        };
        Program {
            inner,
            subscriber,
            dispatcher,
            stop,
            watch: std::thread::Builder::new().name("watch".into()).spawn(watch).unwrap(),
        }
    }

    pub(crate) fn wait_live(&self) -> Result<(), String> {
        let live = self.subscriber.wait_live(actor::LIMIT);
        self.inner.look(&self.subscriber);
        live.map_err(|error| error.to_string())
    }

    /// Registers a topic, and reads what the store has of it once it is live.
    fn register(&self, topic: &str) -> Result<(), String> {
        self.inner.topics.lock().insert(topic.into());
        let mut live = self.inner.live.lock();
        *live = false;
        self.inner.log.note(Event::Live(false));
        self.inner.log.note(Event::Registered(topic.into()));
        self.subscriber.register_topic(&Topic::new(topic).unwrap()).unwrap();
        drop(live);
        let live = self.wait_live();
        self.inner.read();
        live
    }

    fn unregister(&self, topic: &str) {
        self.subscriber.unregister_topic(&Topic::new(topic).unwrap());
        self.inner.log.note(Event::Unregistered(topic.into()));
        self.inner.topics.lock().remove(topic);
        let mut replica = self.inner.replica.lock();
        replica.rows.retain(|_, change| change.topic != topic);
    }

    pub(crate) fn report(&self) -> Report {
        let stats = self.subscriber.stats();
        Report {
            digest: digest(self.inner.replica.lock().rows.values()),
            delivered: self.inner.delivered.load(Ordering::Relaxed),
            duplicates: stats.duplicates,
            clashes: stats.clashes,
            malformed: stats.malformed,
            filtered: stats.filtered,
            errors: stats.errors,
            panics: self.dispatcher.stats().panics,
            reported: self.inner.reported.load(Ordering::Relaxed),
        }
    }

    fn live_topics(&self) -> usize {
        let topics = self.subscriber.status().topics.into_iter();
        topics.filter(|topic| topic.state == TopicState::Live).count()
    }

    /// Waits until nothing more comes: the store may be known before the last updates are.
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

    /// Drops the subscriber and the dispatcher, logs the rows that it has, and tells how long the drop took.
    pub(crate) fn end(self) -> Duration {
        self.come_to_rest();
        let Program {
            inner,
            subscriber,
            dispatcher,
            stop,
            watch,
        } = self;
        drop(stop);
        watch.join().unwrap();
        let coalesced = dispatcher.stats().queue.coalesced;
        let start = Instant::now();
        drop(subscriber);
        drop(dispatcher);
        let took = start.elapsed();
        let replica = inner.replica.lock();
        for change in replica.rows.values().filter(|change| !change.deleted) {
            inner.log.note(Event::Row(change.clone()));
        }
        let since = replica.since;
        inner.log.write(Event::Settled { since, coalesced });
        took
    }
}

impl Inner {
    fn update(&self, update: &DbUpdate) {
        let change = Change {
            topic: update.topic.to_string(),
            table: update.table.to_string(),
            key: update.key.to_string(),
            version: update.version.unwrap_or(0),
            deleted: update.action == Action::Delete,
        };
        let number = update.origin.as_ref().map(|origin| Number {
            publisher: origin.publisher.to_string(),
            epoch: origin.epoch,
            seq: origin.seq,
        });
        self.log.note(Event::Update {
            change: change.clone(),
            number,
        });
        let mut replica = self.replica.lock();
        // What was on its way when its topic was unregistered is of no interest.
        if self.topics.lock().contains(&change.topic) {
            replica.apply(change);
        }
        drop(replica);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn sync(&self, reason: &SyncReason) {
        self.log.note(Event::Sync(told(reason)));
        self.read();
        self.log.flush();
    }

    fn read(&self) {
        let mut replica = self.replica.lock();
        replica.read(&self.topics.lock());
    }

    /// Logs whether everything is live, if that has changed.
    fn look(&self, subscriber: &Subscriber) {
        let mut told = self.live.lock();
        let mut live = subscriber.wait_live(Duration::ZERO).is_ok();
        // Either word counts. With very many topics the status is not worth its price every time.
        if self.topics.lock().len() < MANY {
            let topics = subscriber.status().topics;
            live |= !topics.is_empty() && topics.iter().all(|topic| topic.state == TopicState::Live);
        }
        if std::mem::replace(&mut *told, live) != live {
            self.log.note(Event::Live(live));
        }
        self.log.flush();
    }
}

impl Replica {
    /// An update that was waiting may be older than what was read meanwhile.
    fn apply(&mut self, change: Change) {
        let row = self.rows.entry(change.row()).or_insert_with(|| Change {
            version: 0,
            ..change.clone()
        });
        if row.version < change.version {
            *row = change;
            self.since = now();
        }
    }

    fn read(&mut self, topics: &BTreeSet<String>) {
        let rows = self
            .store
            .read()
            .iter()
            .filter(|(_, change)| topics.contains(&change.topic));
        let rows = rows.map(|(row, change)| (row.clone(), change.clone())).collect();
        if self.rows != rows {
            self.rows = rows;
            self.since = now();
        }
    }
}

/// The body of a program's process.
pub(crate) fn run(spec: &ProgramSpec) {
    // What the first sockets of a process cost, stays.
    drop(subscriber(
        spec,
        &Dispatcher::new(DispatcherOptions::default()).unwrap(),
    ));
    let orders = actor::orders::<Order>();
    let log = log(spec);
    let before = holdings::now();
    log.note(Event::Before(before));
    let program = Program::start(spec, log);
    actor::answer(&());
    for order in orders {
        match order {
            Order::WaitLive => actor::answer(&program.wait_live()),
            Order::Register(topic) => actor::answer(&program.register(&topic)),
            Order::Unregister(topic) => actor::answer(&program.unregister(&topic)),
            Order::Report => actor::answer(&program.report()),
            Order::LiveTopics => actor::answer(&program.live_topics()),
            Order::End => {
                let log = Arc::clone(&program.inner);
                let took = program.end();
                log.log.write(Event::After(holdings::come_back(before)));
                return actor::answer(&took);
            }
        }
    }
}

fn make_trouble(dispatcher: &Dispatcher, asleep: Duration) {
    dispatcher
        .on_table("chassis", |_: &DbUpdate| panic!("as it was told to"))
        .detach();
    let slept = AtomicBool::new(false);
    let sleep = move |_: &DbUpdate| {
        if !slept.swap(true, Ordering::Relaxed) {
            pass(asleep);
        }
    };
    dispatcher.on_table("secgroup", sleep).detach();
}

/// The program's history.
pub(crate) fn log(spec: &ProgramSpec) -> Log {
    Log::append_to(&spec.folder.join(format!("{PROGRAM}{}", spec.name)))
}

/// A subscriber that is not running yet.
fn subscriber(spec: &ProgramSpec, dispatcher: &Dispatcher) -> Subscriber {
    let driver = Arc::new(ZmqPubSub::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
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

/// The rows that a program had according to its history.
fn rows_of(path: &Path) -> BTreeMap<Row, Change> {
    let mut rows = BTreeMap::new();
    for line in Tail::of(path).next() {
        if let Event::Update { change, .. } = line.event {
            rows.insert(change.row(), change);
        }
    }
    rows
}

fn told(reason: &SyncReason) -> Told {
    let (publishers, range) = match reason {
        SyncReason::Gap {
            publisher, from, to, ..
        } => (vec![publisher.to_string()], Some((*from, *to))),
        SyncReason::Restarted { publisher } => (vec![publisher.to_string()], None),
        SyncReason::Silence { publishers } => (publishers.iter().map(ToString::to_string).collect(), None),
        _ => (Vec::new(), None),
    };
    let topics = reason.topics();
    Told {
        reason: reason.as_str().into(),
        publishers,
        topics: topics.map(|topics| topics.iter().map(Topic::to_string).collect()),
        range,
    }
}
