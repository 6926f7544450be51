//! Logs what a program is called with.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tablecast::replica::{ReplicaTable, RowChange};
use tablecast::subscriber::TopicState;
use tablecast::{Action, DbUpdate, Error, ErrorKind, Subscriber, SyncReason, Topic};

use super::history::{Change, Event, Kind, Log, Number, Told, now};
use super::program::ProgramSpec;

/// The data of the callbacks.
pub(super) struct Witness {
    log: Log,
    topics: Mutex<BTreeSet<String>>,
    /// The state logged last.
    live: Mutex<bool>,
    delivered: AtomicU64,
    /// Number of panics reported to the hook.
    panics: AtomicU64,
    /// When a row of the replica last changed.
    changed: AtomicI64,
}

/// With this many topics the status is too expensive to be read every time.
const MANY: usize = 100;

impl Witness {
    pub(super) fn new(spec: &ProgramSpec, log: Log) -> Witness {
        for topic in &spec.topics {
            log.note(Event::Registered(topic.clone()));
        }
        Witness {
            log,
            topics: Mutex::new(spec.topics.clone()),
            live: Mutex::new(false),
            delivered: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            changed: AtomicI64::new(now()),
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
        self.log.note(Event::Update { change, number });
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sync(&self, reason: &SyncReason) {
        self.log.note(Event::Sync(told(reason)));
        self.log.flush();
    }

    pub(super) fn error(&self, error: &Error) {
        let is_panic = error.kind() == ErrorKind::Panicked;
        self.panics.fetch_add(u64::from(is_panic), Ordering::Relaxed);
    }

    /// A row of the replica has changed.
    pub(super) fn changed(&self, table: &str, change: &RowChange<String>) {
        let (kind, change, old) = parts(table, change);
        self.log.note(Event::RowChange { kind, change, old });
        self.changed.fetch_max(now(), Ordering::Relaxed);
    }

    /// Logs whether everything is live, if that has changed.
    pub(super) fn look(&self, subscriber: &Subscriber) {
        let mut told = self.live.lock();
        let mut live = subscriber.wait_live(Duration::ZERO).is_ok();
        if self.topics.lock().len() < MANY {
            // Both states count.
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

    pub(super) fn unregistered(&self, topic: &str) {
        self.log.note(Event::Unregistered(topic.into()));
        self.topics.lock().remove(topic);
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Logs the program's rows and counts at its end.
    pub(super) fn settle(&self, tables: &[ReplicaTable<String>], coalesced: u64) {
        rows(tables).for_each(|change| self.log.note(Event::Row(change)));
        let since = self.changed.load(Ordering::Relaxed);
        self.log.note(Event::Settled { since, coalesced });
    }

    /// Writes this event, and everything before it, to the file.
    pub(super) fn write(&self, event: Event) {
        self.log.write(event);
    }
}

/// The parts of a row change, and the version before.
pub(super) fn parts(table: &str, change: &RowChange<String>) -> (Kind, Change, Option<u64>) {
    let (kind, row, old) = match change {
        RowChange::Added { new } => (Kind::Added, Some(new), None),
        RowChange::Changed { old, new } => (Kind::Changed, Some(new), Some(old)),
        RowChange::Removed { old, .. } => (Kind::Removed, None, old.as_ref()),
        RowChange::Malformed { .. } => unreachable!("a text is never none"),
    };
    let topic = row.or(old).map(|row| row.topic.to_string());
    let new = Change {
        topic: topic.unwrap_or_default(),
        table: table.into(),
        key: change.key().to_string(),
        version: change.version(),
        deleted: kind == Kind::Removed,
    };
    (kind, new, old.map(|old| old.version))
}

/// The rows of a replica.
pub(super) fn rows(tables: &[ReplicaTable<String>]) -> impl Iterator<Item = Change> {
    tables.iter().flat_map(|table| {
        let name = table.name().to_string();
        table
            .snapshot()
            .iter()
            .collect::<Vec<_>>()
            .into_iter()
            .map(move |row| Change {
                topic: row.topic.to_string(),
                table: name.clone(),
                key: row.key.to_string(),
                version: row.version,
                deleted: false,
            })
    })
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
