//! What a program does with what it is told: it logs it, and keeps its copy of the store's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tablecast::subscriber::TopicState;
use tablecast::{Action, DbUpdate, Error, ErrorKind, Subscriber, SyncReason, Topic};

use super::history::{Change, Event, Log, Number, Row, Tail, Time, Told, now};
use super::program::ProgramSpec;
use super::store::{Store, digest};

/// What the callbacks work on.
pub(super) struct Witness {
    log: Log,
    replica: Mutex<Replica>,
    topics: Mutex<BTreeSet<String>>,
    /// What the log says last.
    live: Mutex<bool>,
    delivered: AtomicU64,
    /// How many panics the hook was told of.
    panics: AtomicU64,
}

struct Replica {
    store: Store,
    rows: BTreeMap<Row, Change>,
    /// When something last changed.
    since: Time,
}

/// With so many topics the status is not worth its price every time.
const MANY: usize = 100;

impl Witness {
    pub(super) fn new(spec: &ProgramSpec, log: Log) -> Witness {
        for topic in &spec.topics {
            log.note(Event::Registered(topic.clone()));
        }
        Witness {
            log,
            replica: Mutex::new(Replica {
                store: Store::of(&spec.folder),
                rows: spec.after.as_deref().map_or_else(BTreeMap::new, rows_of),
                since: now(),
            }),
            topics: Mutex::new(spec.topics.clone()),
            live: Mutex::new(false),
            delivered: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    pub(super) fn update(&self, update: &DbUpdate) {
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

    pub(super) fn sync(&self, reason: &SyncReason) {
        self.log.note(Event::Sync(told(reason)));
        self.read();
        self.log.flush();
    }

    pub(super) fn error(&self, error: &Error) {
        let is_panic = error.kind() == ErrorKind::Panicked;
        self.panics.fetch_add(u64::from(is_panic), Ordering::Relaxed);
    }

    /// Reads the store.
    pub(super) fn read(&self) {
        let mut replica = self.replica.lock();
        replica.read(&self.topics.lock());
    }

    /// Logs whether everything is live, if that has changed.
    pub(super) fn look(&self, subscriber: &Subscriber) {
        let mut told = self.live.lock();
        let mut live = subscriber.wait_live(Duration::ZERO).is_ok();
        if self.topics.lock().len() < MANY {
            // Either word counts.
            let topics = subscriber.status().topics;
            live |= !topics.is_empty() && topics.iter().all(|topic| topic.state == TopicState::Live);
        }
        if std::mem::replace(&mut *told, live) != live {
            self.log.note(Event::Live(live));
        }
        self.log.flush();
    }

    /// Registers a topic by `register`.
    pub(super) fn register(&self, topic: &str, register: impl FnOnce()) {
        self.topics.lock().insert(topic.into());
        let mut live = self.live.lock();
        *live = false;
        self.log.note(Event::Live(false));
        self.log.note(Event::Registered(topic.into()));
        register();
    }

    /// A topic was unregistered: its rows are of no interest any more.
    pub(super) fn unregistered(&self, topic: &str) {
        self.log.note(Event::Unregistered(topic.into()));
        self.topics.lock().remove(topic);
        let mut replica = self.replica.lock();
        replica.rows.retain(|_, change| change.topic != topic);
    }

    pub(super) fn digest(&self) -> u64 {
        digest(self.replica.lock().rows.values())
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Logs what the program has at its end.
    pub(super) fn settle(&self, coalesced: u64) {
        let replica = self.replica.lock();
        for change in replica.rows.values().filter(|change| !change.deleted) {
            self.log.note(Event::Row(change.clone()));
        }
        let since = replica.since;
        self.log.note(Event::Settled { since, coalesced });
    }

    /// Logs this last, and everything before it.
    pub(super) fn write(&self, event: Event) {
        self.log.write(event);
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
