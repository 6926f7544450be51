//! A store and a publisher together: every write is stored, then published.

mod guess;
mod rows;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::publisher::Publisher;
use crate::store::{Announcer, Store, Write, WriteOp, Written};
use crate::update::{Action, DbUpdate, Topic};

use guess::Guess;

pub use crate::table::Entry;
pub use rows::Rows;

/// Times of a [`Database`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// How long to wait for other threads that write the same row, or one of the rows that wait with it. Default: 5 s.
    pub timeout: Duration,
}

impl Default for DatabaseOptions {
    fn default() -> DatabaseOptions {
        DatabaseOptions {
            timeout: Duration::from_secs(5),
        }
    }
}

/// A store whose changes are published, each on the topic of its row and with the row's version.
///
/// If the store can publish by itself, both are one step. Otherwise the write comes first; if the update cannot be
/// sent, the write is undone, unless another writer has changed the row meanwhile. An undo is a write like any other,
/// with its own version, and is published, so that readers of the state in between learn of it. If it was not undone,
/// or the undo cannot be published either, a number of the publisher is used up, and subscribers that hear the
/// publisher again find a [gap](crate::SyncReason::Gap). A process that is killed in between leaves a change that was
/// stored but not published.
///
/// A database may be shared between threads. They write a row one after the other, so that its updates are sent in the
/// order of its versions; a few other rows wait with it. Between processes there is no such order; versions show which
/// state is newer.
///
/// ```
/// use std::sync::Arc;
/// use serde::{Deserialize, Serialize};
/// use tablecast::drivers::memory::MemoryDriver;
/// use tablecast::stores::memory::MemoryStore;
/// use tablecast::*;
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct LogicalPort { chassis: String }
/// const LPORT: Table<LogicalPort> = Table::new("lport");
///
/// # fn main() -> Result<()> {
/// let driver = MemoryDriver::new("memory://network")?;
/// let publisher = Publisher::new(&driver, PublisherOptions::default())?;
/// let store = Arc::new(MemoryStore::new());
/// let database = Database::new(store, publisher, DatabaseOptions::default());
/// let tenant = Topic::new("tenant1")?;
/// let ports = database.rows(LPORT).topic(&tenant);
/// ports.create("port-1", &LogicalPort { chassis: "host1".into() })?;
/// let moved = LogicalPort { chassis: "host2".into() };
/// assert!(ports.set("port-1", &moved)?.is_some());
/// assert!(ports.set("port-1", &moved)?.is_none(), "nothing changed");
/// assert_eq!(ports.get("port-1")?.row, moved);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Database {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    /// The address that the publisher's subscribers connect to.
    address: Option<String>,
    options: DatabaseOptions,
    /// Held while a row is stored and published; several rows share a lock.
    turns: [Mutex<Guess>; 64],
    hasher: RandomState,
}

impl Database {
    /// Joins a store and a publisher, which others may use as well.
    pub fn new(store: Arc<dyn Store>, publisher: impl Into<Arc<Publisher>>, options: DatabaseOptions) -> Database {
        let publisher = publisher.into();
        Database {
            store,
            address: publisher.address(),
            publisher,
            options,
            turns: [const { Mutex::new(Guess::new()) }; 64],
            hasher: RandomState::new(),
        }
    }

    /// Returns the store, for reads, and for writes that are not to be published.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Returns the publisher, for updates that are not rows.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Makes one write and publishes it with this priority. A write that changes nothing is not published; it fails if
    /// nothing can be, since another process may have to undo what it has found ([`Write::unless_equal`]). A write
    /// takes a single round trip if the store publishes by itself. A set or delete that does not name the row's topic
    /// reads the row first to learn it, until two such rows in a row had the same; and where that was wrong.
    ///
    /// # Errors
    /// As [`Store::write`] and [`Publisher::send_event`]. After [`ErrorKind::Unconfirmed`] the row may have been
    /// written, and the update may have been sent: also if another writer changed the row before an unpublished write
    /// could be undone. After any other error neither happened.
    ///
    /// [`Error::row`] names the row.
    pub fn write(&self, write: &Write<'_>, priority: i32) -> Result<Written> {
        let written = self.write_in_turn(write, priority);
        written.map_err(|e| e.with_row(write.table, write.key))
    }

    fn write_in_turn(&self, write: &Write<'_>, priority: i32) -> Result<Written> {
        let mut turn = self.turn(write)?;
        let announcer = self
            .address
            .as_deref()
            .filter(|_| self.publisher.takes_versions())
            .and_then(|address| self.store.announcer(address));
        let make = |topic: &Topic| {
            let write = Write {
                topic: Some(topic),
                ..*write
            };
            match announcer {
                Some(announcer) => self.write_and_publish(announcer, &write, topic, priority),
                None => self.write_then_publish(&write, topic, priority),
            }
        };
        match (write.topic, write.op) {
            (Some(topic), _) => make(topic),
            (None, WriteOp::Create(_)) => make(&Topic::ALL),
            // Known before the write: afterwards the row may be gone, or the store away, and yet it has to be told.
            (None, WriteOp::Set(_) | WriteOp::Delete) => {
                if let Some(topic) = turn.topic() {
                    match make(&topic) {
                        // Or its topic is another one.
                        Err(e) if e.kind() == ErrorKind::NotFound => {}
                        // The guess may be wrong and not be sendable: it was not compared with the row.
                        Err(e) if announcer.is_some() && is_refusal(e.kind()) => {}
                        result => return result,
                    }
                }
                for _ in 0..TRIES {
                    let topic = self.store.get(write.table, write.key, None)?.topic;
                    turn.learn(&topic);
                    match make(&topic) {
                        // Another writer may have created it again with another topic.
                        Err(e) if e.kind() == ErrorKind::NotFound => {}
                        result => return result,
                    }
                }
                Err(contended(write.table, write.key))
            }
        }
    }

    /// Waits until no other thread writes the row.
    fn turn(&self, write: &Write<'_>) -> Result<MutexGuard<'_, Guess>> {
        let hash = self.hasher.hash_one((write.table, write.key));
        let turn = &self.turns[hash as usize % self.turns.len()];
        turn.try_lock_for(self.options.timeout).ok_or_else(|| {
            let context = format!(
                "table {:?} key {:?}: other threads kept writing this row, or others that share its turn; try again",
                write.table, write.key
            );
            Error::new(ErrorKind::Timeout, context)
        })
    }

    fn write_and_publish(
        &self,
        announcer: &dyn Announcer,
        write: &Write<'_>,
        topic: &Topic,
        priority: i32,
    ) -> Result<Written> {
        let update = update(write, priority);
        self.publisher.send_stored(topic, &update, |announcement| {
            announcer.write_and_publish(write, announcement)
        })
    }

    fn write_then_publish(&self, write: &Write<'_>, topic: &Topic, priority: i32) -> Result<Written> {
        let written = self.store.write(&write.returning());
        let mut written = written.inspect_err(|e| {
            if e.kind() == ErrorKind::Unconfirmed {
                // Readers may have seen it.
                self.publisher.skip(topic);
            }
        })?;
        if !written.changed {
            // The write that made it equal may be undone yet, if its process cannot publish it.
            self.publisher.prove(topic).map_err(|e| {
                let (table, key) = (write.table, write.key);
                e.context(format!(
                    "table {table:?} key {key:?}: already so, but nothing can be published"
                ))
            })?;
        } else if let Err(e) = self.publisher.send_event(&stored(write, &written, priority)) {
            return Err(self.undo(write, &written, priority, e));
        }
        written.before = written.before.filter(|_| write.returning);
        Ok(written)
    }

    /// Undoes an unpublished write, publishes the undo, and returns the error with its reason.
    fn undo(&self, write: &Write<'_>, written: &Written, priority: i32, e: Error) -> Error {
        let context = |outcome| format!("table {:?} key {:?}: not published, {outcome}", write.table, write.key);
        if e.kind() == ErrorKind::Unconfirmed {
            // Not undone: subscribers that received the update might not receive the undo.
            return e.context(context("as far as is known, but stored"));
        }
        let before = written.before.as_deref().unwrap_or_default();
        let undo = match write.op {
            WriteOp::Create(_) => Write::delete(write.table, write.key),
            WriteOp::Set(_) => Write::set(write.table, write.key, before),
            WriteOp::Delete => Write::create(write.table, write.key, before).topic(&written.topic),
        };
        match self.store.write(&undo.if_version(written.version)) {
            Ok(undone) => {
                // A caller that has already waited as long as a send may take does not wait again.
                let has_waited = e.kind() == ErrorKind::Timeout;
                let timeout = has_waited.then_some(Duration::ZERO);
                self.publisher.send_or_skip(&stored(&undo, &undone, priority), timeout);
                e.context(context("and undone"))
            }
            Err(undone) => {
                // Readers may have seen the write, and the other writer may yet undo its own, which restores this one.
                self.publisher.skip(&written.topic);
                let outcome = match (undone.kind(), write.op) {
                    (ErrorKind::NotFound | ErrorKind::AlreadyExists, _)
                    | (ErrorKind::Conflict, WriteOp::Set(_) | WriteOp::Create(_)) => {
                        "but written by another writer since"
                    }
                    // A delete that the store has forgotten looks like another writer's.
                    _ => &format!("and not undone ({undone})"),
                };
                Error::new(ErrorKind::Unconfirmed, context(outcome)).with_source(e)
            }
        }
    }
}

/// The tries of a change in two steps, between which other writers may create or delete the row.
const TRIES: usize = 8;

/// True if an update of another topic may be accepted.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidInput | ErrorKind::TooLarge)
}

fn contended(table: &str, key: &str) -> Error {
    let context = format!("table {table:?} key {key:?}: other writers keep creating and deleting this row; try again");
    Error::new(ErrorKind::Conflict, context)
}

/// The update for a write that was made.
fn stored(write: &Write<'_>, written: &Written, priority: i32) -> DbUpdate {
    let mut update = update(write, priority).topic(written.topic.clone());
    update.version = Some(written.version);
    update.after = written.after;
    update
}

/// The update for a write whose version is not known yet.
fn update(write: &Write<'_>, priority: i32) -> DbUpdate {
    let (action, value) = match write.op {
        WriteOp::Create(value) => (Action::Create, Some(value)),
        WriteOp::Set(value) => (Action::Set, Some(value)),
        WriteOp::Delete => (Action::Delete, None),
    };
    let mut update = DbUpdate::new(write.table, write.key, action).priority(priority);
    update.value = value.map(str::to_owned);
    update
}
