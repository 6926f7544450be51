//! A store in memory with faults.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Changes, Page, Row, Store, StoredTable, TableVersion, TopicVersions, Write, Written};
use crate::stores::memory::MemoryStore;
use crate::thread::deadline;
use crate::update::{Name, Topic};

/// A store in memory that fails, or is emptied, on command.
#[derive(Debug, Default)]
pub struct FaultyStore {
    state: Mutex<State>,
    mended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    store: Arc<MemoryStore>,
    failure: Option<ErrorKind>,
    /// How long calls wait for a store that is locked.
    lock: Option<Duration>,
    loses_replies: bool,
}

impl FaultyStore {
    /// An empty store without faults.
    pub fn new() -> FaultyStore {
        FaultyStore::default()
    }

    /// From now on every call fails with an error of this kind, for example [`ErrorKind::Unavailable`].
    pub fn fail(&self, kind: ErrorKind) {
        self.state.lock().failure = Some(kind);
    }

    /// From now on every call waits, as for a database that another process has locked; those that have waited this
    /// long fail as [`ErrorKind::Unavailable`]. With SQLite the kind is [`ErrorKind::Timeout`]; both are transient.
    pub fn lock(&self, limit: Duration) {
        self.state.lock().lock = Some(limit);
    }

    /// From now on writes are made, and fail as [`ErrorKind::Unconfirmed`], as if the connection to a server had been
    /// lost before its reply.
    pub fn lose_replies(&self) {
        self.state.lock().loses_replies = true;
    }

    /// Ends [`FaultyStore::fail`], [`FaultyStore::lock`] and [`FaultyStore::lose_replies`].
    pub fn mend(&self) {
        let mut state = self.state.lock();
        (state.failure, state.lock, state.loses_replies) = (None, None, false);
        self.mended.notify_all();
    }

    /// Begins anew without any row, as a database that was removed: its tables are of another incarnation.
    pub fn empty(&self) {
        self.state.lock().store = Arc::default();
    }

    fn store(&self) -> Result<Arc<MemoryStore>> {
        let mut state = self.state.lock();
        let until = state.lock.map(deadline);
        while let Some(until) = until.filter(|_| state.lock.is_some()) {
            if self.mended.wait_until(&mut state, until).timed_out() {
                return Err(Error::new(ErrorKind::Unavailable, "the store was told to be locked"));
            }
        }
        match state.failure {
            Some(kind) => Err(Error::new(kind, "the store was told to fail")),
            None => Ok(Arc::clone(&state.store)),
        }
    }

    /// The reply to a write that was made.
    fn reply<T>(&self, made: T) -> Result<T> {
        let is_lost = self.state.lock().loses_replies;
        match is_lost {
            true => Err(Error::new(ErrorKind::Unconfirmed, "the store was told to lose replies")),
            false => Ok(made),
        }
    }
}

impl Store for FaultyStore {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        self.store()?.get(table, key, topic)
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        let written = self.store()?.write(write)?;
        self.reply(written)
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let written = self.store()?.write_each(writes)?;
        self.reply(written)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        self.store()?.page_of_entries(table, topic, after)
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        self.store()?.page_of_keys(table, topic, after)
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        let made = self.store()?.create_table(table)?;
        self.reply(made)
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        let made = self.store()?.delete_table(table)?;
        self.reply(made)
    }

    fn tables(&self) -> Result<Vec<StoredTable>> {
        self.store()?.tables()
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let made = self.store()?.allocate_unique_key(table)?;
        self.reply(made)
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.store()?.table_version(table)
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        self.store()?.topic_versions(table, topics)
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        self.store()?.changes(table, topic, since)
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        let deleted = self.store()?.delete_rows(table, keys)?;
        self.reply(deleted)
    }
}
