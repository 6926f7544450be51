//! Many replicas in one process, each with a subscriber of its own. Their changes are judged as they come, since a log
//! of them would take too long to read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::registry::RegistryOptions;
use tablecast::replica::{Replica, ReplicaOptions, ReplicaTable, RowChange};
use tablecast::{Dispatcher, DispatcherOptions, Subscriber, SubscriberOptions, Topic};

use super::actor;
use super::checker::{Proof, Told};
use super::history::{micros, now};
use super::stage::STORE_TIMEOUT;
use super::store::{digest, open};
use super::witness::{parts, rows};
use super::writer::TABLES;

/// Options of a fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FleetSpec {
    /// Beginning of the ids of its replicas, under which writers wait for them.
    pub(crate) name: String,
    pub(crate) replicas: usize,
    pub(crate) store: String,
    pub(crate) address: String,
    pub(crate) topics: Vec<String>,
    pub(crate) hello_interval: Duration,
}

/// Orders for a fleet, which answers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Waits until all are synced.
    WaitSynced,
    /// The [`digest`] of each.
    Digests,
    /// The staleness that each reports, and its rows: a [`Proof`].
    Proofs,
    /// Ends the replicas, and answers with their outcomes.
    End,
}

/// Outcome of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Number of reported changes.
    pub(crate) changes: u64,
    /// The first changes that do not follow from earlier ones.
    pub(crate) untrue: Vec<String>,
    /// True if its last reported changes agree with its rows.
    pub(crate) is_told: bool,
    pub(crate) stats: String,
}

#[derive(Default)]
struct Book {
    told: Told,
    outcome: Outcome,
}

/// Fields drop in order.
struct Member {
    replica: Replica,
    tables: Vec<ReplicaTable<String>>,
    book: Arc<Mutex<Book>>,
    topics: Vec<Topic>,
    _subscriber: Arc<Subscriber>,
    _dispatcher: Dispatcher,
}

impl Member {
    fn start(spec: &FleetSpec, number: usize) -> Member {
        let dispatcher = Dispatcher::new(DispatcherOptions::default()).unwrap();
        let driver = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
        let options = SubscriberOptions {
            hello_interval: spec.hello_interval,
            ..SubscriberOptions::default()
        };
        let subscriber = Arc::new(Subscriber::new(driver, dispatcher.queue(), options));
        subscriber.register_listen_address(&spec.address).unwrap();
        subscriber.daemonize().unwrap();
        let topics: Vec<_> = spec.topics.iter().map(|topic| Topic::new(&**topic).unwrap()).collect();
        let options = ReplicaOptions {
            topics: topics.clone(),
            check_interval: spec.hello_interval * 3,
            id: Some(format!("{}-{number}", spec.name).into()),
            // On a busy machine renewals are late.
            registry: RegistryOptions {
                timeout: Duration::from_secs(120),
                ..RegistryOptions::default()
            },
            ..ReplicaOptions::default()
        };
        let replica = Replica::new(&subscriber, &dispatcher, open(&spec.store, STORE_TIMEOUT), options).unwrap();
        let book = Arc::<Mutex<Book>>::default();
        let tables = TABLES.iter().map(|name| {
            let table = replica.raw_table(*name).unwrap();
            let book = Arc::clone(&book);
            let change = move |change: &RowChange<String>| book.lock().take(name, change);
            table.on_change(change).detach();
            table
        });
        Member {
            tables: tables.collect(),
            replica,
            book,
            topics,
            _subscriber: subscriber,
            _dispatcher: dispatcher,
        }
    }

    fn proof(&self) -> Proof {
        let since = self.topics.iter().filter_map(|topic| {
            // Taken first, so that the age is that of a later time.
            let at = now();
            let age = self.replica.staleness(topic)?;
            Some((topic.to_string(), at - micros(age)))
        });
        Proof {
            since: since.collect::<BTreeMap<_, _>>(),
            rows: rows(&self.tables).collect(),
        }
    }

    fn end(self) -> Outcome {
        let stats = format!("{:?}", self.replica.stats());
        drop(self.replica);
        let rows = rows(&self.tables).map(|change| (change.row(), change.version));
        let rows: BTreeMap<_, _> = rows.collect();
        let book = self.book.lock();
        Outcome {
            is_told: book.told.rows() == rows,
            stats,
            ..book.outcome.clone()
        }
    }
}

impl Book {
    fn take(&mut self, table: &str, change: &RowChange<String>) {
        let (kind, change, old) = parts(table, change);
        self.outcome.changes += 1;
        if let Err(last) = self.told.take(kind, &change, old)
            && self.outcome.untrue.len() < 5
        {
            let untrue = format!("{kind:?} {change:?} of {old:?} after {last:?}");
            self.outcome.untrue.push(untrue);
        }
    }
}

/// The body of a fleet's process.
pub(crate) fn run(spec: &FleetSpec) {
    let members: Vec<_> = (0..spec.replicas).map(|number| Member::start(spec, number)).collect();
    actor::answer(&());
    for order in actor::orders::<Order>() {
        match order {
            Order::WaitSynced => {
                let synced = |member: &Member| member.replica.wait_synced(actor::LIMIT);
                let synced: Result<(), _> = members.iter().try_for_each(synced);
                actor::answer(&synced.map_err(|e| e.to_string()));
            }
            Order::Digests => {
                let digest = |member: &Member| digest(&rows(&member.tables).collect::<Vec<_>>());
                actor::answer(&members.iter().map(digest).collect::<Vec<_>>());
            }
            Order::Proofs => actor::answer(&members.iter().map(Member::proof).collect::<Vec<_>>()),
            Order::End => {
                let outcomes: Vec<_> = members.into_iter().map(Member::end).collect();
                return actor::answer(&outcomes);
            }
        }
    }
}
