//! A store that takes the time of its calls.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::{Error, ErrorCounts, ErrorKind, Result};
use crate::histogram::{Counts, Histogram};
use crate::store::{
    Announcement, Announcer, Changes, Page, Row, Store, StoredTable, TableVersion, TopicVersions, Write, Written,
};
use crate::update::{Name, Topic};

/// The calls that are timed, each under its own name.
const CALLS: [&str; 14] = [
    "get",
    "write",
    "write_each",
    "write_and_publish",
    "page_of_entries",
    "page_of_keys",
    "create_table",
    "delete_table",
    "delete_rows",
    "tables",
    "allocate_unique_key",
    "table_version",
    "topic_versions",
    "changes",
];

/// The times of calls by name, and the numbers of their errors.
#[derive(Debug)]
pub(crate) struct Times {
    calls: [Histogram; CALLS.len()],
    pub(crate) errors: ErrorCounts,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            calls: Default::default(),
            errors: ErrorCounts::new(),
        }
    }
}

impl Times {
    /// The calls that were made.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, Counts)> {
        let counts = self.calls.iter().map(Histogram::counts);
        CALLS.into_iter().zip(counts).filter(|(_, counts)| counts.count > 0)
    }

    fn take<T>(&self, name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = call();
        if let Some(call) = CALLS.iter().position(|call| *call == name) {
            self.calls[call].record(start.elapsed());
        }
        if let Err(e) = &result {
            self.errors.add(e.kind());
        }
        result
    }
}

/// Stands in front of another store.
#[derive(Debug)]
pub(crate) struct TimedStore {
    store: Arc<dyn Store>,
    times: Arc<Times>,
    /// The address for which this is the announcer; for others it is the store itself.
    announces: OnceLock<String>,
}

impl TimedStore {
    pub(crate) fn new(store: Arc<dyn Store>, times: Arc<Times>) -> TimedStore {
        TimedStore {
            store,
            times,
            announces: OnceLock::new(),
        }
    }
}

impl Store for TimedStore {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        self.times.take("get", || self.store.get(table, key, topic))
    }

    fn create(&self, table: &str, key: &str, value: &str, topic: &Topic) -> Result<u64> {
        let call = || self.store.create(table, key, value, topic);
        self.times.take("write", call)
    }

    fn set(&self, table: &str, key: &str, value: &str) -> Result<u64> {
        self.times.take("write", || self.store.set(table, key, value))
    }

    fn delete(&self, table: &str, key: &str) -> Result<u64> {
        self.times.take("write", || self.store.delete(table, key))
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        self.times.take("write", || self.store.write(write))
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        self.times.take("write_each", || self.store.write_each(writes))
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        let call = || self.store.page_of_entries(table, topic, after);
        self.times.take("page_of_entries", call)
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        let call = || self.store.page_of_keys(table, topic, after);
        self.times.take("page_of_keys", call)
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        self.times.take("create_table", || self.store.create_table(table))
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        self.times.take("delete_table", || self.store.delete_table(table))
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        self.times.take("delete_rows", || self.store.delete_rows(table, keys))
    }

    fn tables(&self) -> Result<Vec<StoredTable>> {
        self.times.take("tables", || self.store.tables())
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let call = || self.store.allocate_unique_key(table);
        self.times.take("allocate_unique_key", call)
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.times.take("table_version", || self.store.table_version(table))
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        let call = || self.store.topic_versions(table, topics);
        self.times.take("topic_versions", call)
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        let call = || self.store.changes(table, topic, since);
        self.times.take("changes", call)
    }

    fn announcer(&self, address: &str) -> Option<&dyn Announcer> {
        let announcer = self.store.announcer(address)?;
        match self.announces.get_or_init(|| address.to_owned()) == address {
            true => Some(self),
            false => Some(announcer),
        }
    }
}

impl Announcer for TimedStore {
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written> {
        let announcer = self.announces.get().and_then(|address| self.store.announcer(address));
        let gone = || Error::new(ErrorKind::Unsupported, "the store does not publish any more");
        let announcer = announcer.ok_or_else(gone)?;
        let call = || announcer.write_and_publish(write, announcement);
        self.times.take("write_and_publish", call)
    }
}
