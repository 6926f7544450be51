//! Replicas: a process's own copy of some tables and topics, kept equal to the store.
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//! use tablecast::{Config, Node, Result, RowChange, Table};
//!
//! #[derive(Serialize, Deserialize)]
//! struct LogicalPort { chassis: String }
//! const LPORT: Table<LogicalPort> = Table::new("lport");
//!
//! # fn main() -> Result<()> {
//! let node = Node::open(&Config::in_memory("replica"))?;
//! let replica = node.replica()?;
//! let ports = replica.table(LPORT)?;
//! let (changes, changed) = crossbeam_channel::unbounded::<RowChange<LogicalPort>>();
//! let _guard = ports.on_change(changes);
//!
//! node.database()?.rows(LPORT).create("port-1", &LogicalPort { chassis: "host1".into() })?;
//! replica.wait_current(Duration::from_secs(5))?;
//! assert_eq!(ports.get("port-1")?.expect("it is there").row.chassis, "host1");
//! assert_eq!(changed.recv().expect("it is reported").key(), "port-1");
//! # Ok(())
//! # }
//! ```
//!
//! A replica registers its topics, receives sync events, reads the store and catches up by itself. **The promise**:
//! within the bound it equals the store's rows of its topics, whatever was lost, killed, restarted or undone; no
//! deleted row stays, and none goes back to an older version. The bound is the [`ReplicaOptions::check_interval`] plus
//! the time to read the missed changes; in normal operation a change arrives with its update.
//!
//! **Mechanism.** The store's versions decide which state is newer. For each topic of a table a replica has a
//! *position*: everything up to it is included. A stored update names the version before its own on its topic. If the
//! position has reached that version, the update moves it; otherwise something is missing, and if it does not arrive
//! soon, the replica reads the changes since the position. At a low rate it asks the store for the last versions; if
//! they equal the positions, nothing is missing, and the age of this proof is the [staleness](Replica::staleness).
//!
//! **A store that goes back** to an earlier state, for example after a failover or with an older file restored, is the
//! truth: its versions begin anew. The replica notices it when the store's version is lower than known, or another
//! write's. A store that loses its last writes and receives more others before the next check shows it by its
//! [source](TableVersion::source), at which the replica lists all rows anew; one without shows it only to
//! [`Replica::verify`].
//!
//! **Cost.** A store without [`Store::topic_versions`] and [`Store::changes`] is listed instead: at every check, or,
//! with [`Store::table_version`], at every check that finds a new version.

mod core;
mod holdings;
mod index;
mod intake;
mod leaving;
mod map;
mod options;
#[cfg(feature = "metrics")]
mod outline;
mod part;
mod reader;
mod row;
mod signal;
mod stats;
mod table;
mod telling;
mod typed;
mod verify;
mod waiting;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

pub use index::Index;
pub use options::ReplicaOptions;
#[cfg(feature = "metrics")]
pub(crate) use outline::Outline;
pub use row::{MalformedRow, RowChange};
pub use stats::ReplicaStats;
pub use table::{ReplicaTable, Snapshot};
pub use verify::Difference;

use crate::barrier::Answers;
use crate::clock;
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::{self, Error, ErrorKind, Result};
use crate::store::{Store, TableVersion};
use crate::subscriber::Subscriber;
use crate::table::Table;
use crate::thread::{Background, Stop, deadline};
use crate::update::{Name, Topic};
use holdings::Holdings;
use part::Part;
use reader::{Parts, Reader};
use typed::Decode;

/// A process's own copy of some tables and topics; [the module](self) has an example, and the promise. Dropping it ends
/// it and its handlers; the tables keep their rows.
///
/// All methods may be called from any thread. On the dispatcher's thread, methods that have to wait for a read can only
/// time out, unless another worker is free: results are merged on the dispatcher's threads.
pub struct Replica {
    // Dropped in this order.
    answers: Option<Answers>,
    _sync: Guard,
    self_check: Option<Background>,
    reader: Background,
    holdings: Arc<Holdings>,
}

impl Replica {
    /// Creates a replica. It holds the rows of the given topics in the tables that are [added](Replica::table).
    ///
    /// The subscriber need not be running or live: it only makes changes arrive sooner.
    ///
    /// # Errors
    /// As [`Subscriber::register_topic`]; [`ErrorKind::Io`] if a thread cannot be started; with an id, also the store's
    /// errors.
    pub fn new(
        subscriber: &Arc<Subscriber>,
        dispatcher: &DispatcherHandle,
        store: Arc<dyn Store>,
        options: ReplicaOptions,
    ) -> Result<Replica> {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let parts = Arc::new(Parts::default());
        let reader = Reader::new(Arc::clone(&store), Arc::clone(&parts), woken);
        let hook = options.hook.clone();
        let run = move |stop: Stop| reader.run(&stop);
        let reader = Background::spawn("tc-replica", "a replica".into(), hook, run)?;
        let holdings = Arc::new(Holdings {
            subscriber: Arc::clone(subscriber),
            dispatcher: dispatcher.clone(),
            store,
            options,
            topics: Mutex::default(),
            tables: Mutex::default(),
            parts: Arc::clone(&parts),
            wake,
            signal: Arc::default(),
            ended: Arc::default(),
            counted: Arc::default(),
        });
        for topic in &holdings.options.topics {
            holdings.add_topic(topic)?;
        }
        let about = Arc::downgrade(&holdings);
        let sync = dispatcher.on_own_sync(move |reason| {
            if let Some(holdings) = about.upgrade() {
                holdings.handle_sync(reason);
            }
        });
        Ok(Replica {
            answers: holdings.register()?,
            _sync: sync,
            self_check: holdings.begin_self_check()?,
            reader,
            holdings,
        })
    }

    /// Holds the rows of a table, decoded as `T`. A table already held with this type is returned.
    ///
    /// Rows are decoded on the replica's reading thread, and rows of updates on a thread of the dispatcher. If `T`'s
    /// decoding panics, the row is reported as [malformed](RowChange::Malformed), with [`ErrorKind::Panicked`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is held with another type, or [as text](Replica::raw_table).
    pub fn table<T: DeserializeOwned + Send + Sync + 'static>(&self, table: Table<T>) -> Result<ReplicaTable<T>> {
        let decode: Decode<T> = |table, key, text| {
            // The row type's own code: a panic must not end the reading thread.
            let what = || format!("the row type of table {table:?}, reading key {key:?}");
            let row = error::contain(what, || Table::read(table, key, &text));
            row.flatten()
                .map_err(|error| (text.into_owned(), error.with_row(table, key)))
        };
        let table = self.holdings.table(table.name(), decode, false);
        self.tell_holdings();
        table
    }

    /// Holds the rows of a table as text. A table already held as text is returned.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if its rows are decoded.
    pub fn raw_table(&self, table: impl Into<Name>) -> Result<ReplicaTable<String>> {
        let decode: Decode<String> = |_, _, text| Ok(text.into_owned());
        let table = self.holdings.table(table.into(), decode, true);
        self.tell_holdings();
        table
    }

    /// Publishes the held tables and topics to barriers.
    fn tell_holdings(&self) {
        if let Some(answers) = &self.answers {
            answers.renew();
        }
    }

    /// Stops holding a table, and reports its rows as removed; returns true if it was held.
    pub fn remove_table(&self, table: &str) -> bool {
        let Some(held) = self.holdings.tables.lock().remove(table) else {
            return false;
        };
        // By identity: the table may be held anew meanwhile.
        self.holdings.close(|part| Arc::ptr_eq(part, &held.part));
        held.part.close();
        self.tell_holdings();
        true
    }

    /// Begins to hold the rows of this topic; returns true if it was not held.
    ///
    /// # Errors
    /// As [`Subscriber::register_topic`].
    pub fn add_topic(&self, topic: &Topic) -> Result<bool> {
        let is_new = self.holdings.add_topic(topic)?;
        self.tell_holdings();
        Ok(is_new)
    }

    /// Stops holding the rows of this topic, and reports them as removed; returns true if it was held.
    pub fn remove_topic(&self, topic: &Topic) -> bool {
        let is_held = self.holdings.remove_topic(topic);
        if is_held {
            self.tell_holdings();
        }
        is_held
    }

    /// True if all rows of all tables and topics have been read, and the store has not gone back since. A replica that
    /// has missed changes is synced, too: see [`Replica::staleness`] and [`Replica::wait_current`].
    pub fn is_synced(&self) -> bool {
        self.holdings.parts.read().iter().all(|part| part.is_synced())
    }

    /// Waits until [`Replica::is_synced`] is true and, as the other waits do, until the indexes have every change.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], with the tables that are missing.
    pub fn wait_synced(&self, timeout: Duration) -> Result<()> {
        let missing = |part: &Arc<dyn Part>| !part.is_synced();
        self.holdings.wait(timeout, "not synced", missing)
    }

    /// Waits until everything written before this call, by any process, is included.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], with the tables that are missing.
    pub fn wait_current(&self, timeout: Duration) -> Result<()> {
        self.holdings.wait_current(timeout)
    }

    /// The version of a table up to which everything of this topic is included; `None` if the topic is not held or not
    /// synced.
    pub fn position(&self, table: &str, topic: &Topic) -> Option<TableVersion> {
        self.holdings.part(table)?.position(topic)
    }

    /// Waits until the [position](Replica::position) is at least this one.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; [`ErrorKind::NotFound`] if the table or topic is not held.
    pub fn wait_version(&self, table: &str, topic: &Topic, version: TableVersion, timeout: Duration) -> Result<()> {
        let covers = || self.holdings.covers(table, topic, version);
        let deadline = deadline(timeout);
        self.holdings.signal.wait(deadline, || covers() != Some(false));
        match covers() {
            Some(true) if self.holdings.wait_indexed(deadline) => Ok(()),
            Some(_) => {
                let context = format!("table {table:?} not at version {} within {timeout:?}", version.version);
                Err(Error::new(ErrorKind::Timeout, context))
            }
            None => {
                let context = format!("the replica does not hold topic {topic:?} of table {table:?}");
                Err(Error::new(ErrorKind::NotFound, context))
            }
        }
    }

    /// The age of the last proof that nothing of this topic is missing in any table; `None` without one. Everything
    /// written before that time is included.
    pub fn staleness(&self, topic: &Topic) -> Option<Duration> {
        let now = clock::now();
        let parts = self.holdings.parts.read();
        let mut oldest = None;
        for part in parts.iter().filter(|part| part.holds(topic)) {
            let age = now.saturating_duration_since(part.proven(topic)?);
            oldest = oldest.max(Some(age));
        }
        oldest
    }

    /// The counters so far.
    pub fn stats(&self) -> ReplicaStats {
        self.holdings.stats()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> Outline {
        Outline::of(&self.holdings)
    }

    /// Reads all held rows from the store, on the calling thread, and compares them with the replica's. A row that
    /// still differs after the replica has caught up is counted and reported, and its table is listed anew.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], and the store's errors.
    pub fn verify(&self, timeout: Duration) -> Result<Vec<Difference>> {
        self.holdings.verify(timeout)
    }

    /// [`Replica::verify`] for another thread, which does not keep the replica.
    #[doc(hidden)]
    pub fn verifier(&self) -> impl FnOnce(Duration) -> Result<Vec<Difference>> + Send + use<> {
        let holdings = Arc::clone(&self.holdings);
        move |timeout| holdings.verify(timeout)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // All at once: a silent store costs the time of one.
        self.answers.iter().for_each(Answers::tell);
        self.self_check.iter().for_each(Background::tell);
        self.reader.tell();
        self.holdings.ended.store(true, Ordering::Release);
        self.holdings.parts().iter().for_each(|part| part.end());
        self.holdings.close(|_| true);
        self.holdings.tables.lock().clear();
        self.holdings.topics.lock().clear();
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("topics", &self.holdings.topics.lock().keys().collect::<Vec<_>>())
            .field("tables", &self.holdings.tables.lock().keys().collect::<Vec<_>>())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
