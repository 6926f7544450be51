//! The contract between the library and a store: rows, without a network and without policy.
//!
//! A row lives in a table, under a key that is unique there. It has a value, a topic and a version.
//!
//! - **Names.** Tables and keys are any UTF-8 text, including the empty one, and are taken literally: no character has
//!   a meaning, and table `a` with key `b.c` never meets table `a.b` with key `c`.
//! - **Topic.** It is given when the row is created, [`Topic::ALL`] by default, and stays until the row is deleted: a
//!   row that moved would have to be published as deleted on one topic and as created on another. A call that names a
//!   topic sees only the rows of that topic; a row of another topic is not found.
//! - **Version.** Every write gives the row a version that is higher than all earlier ones in its table, even if the
//!   row or the whole table was deleted in between. Versions stay below 2^53. The highest version of a row is its
//!   newest, unless the store went back to an earlier state, which [`Store::table_version`] shows.
//! - **Tables** come into being with their first row. [`Store::create_table`] only makes an empty one.
//! - **Cost.** The cost of a call does not depend on other tables, nor, if it names a topic, on other topics.
//! - **Errors.** A call that cannot be done changes nothing: [`ErrorKind::AlreadyExists`] to create a row that exists,
//!   [`ErrorKind::NotFound`] to set or delete one that does not. An outage is never one of those two, but for example
//!   [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`]. Only after [`ErrorKind::Unconfirmed`] a write may have been
//!   made in spite of the error.
//!
//! A store implements seven calls; the others have defaults. Every store here passes the suite in `tests/stores`.
//!
//! ```
//! use tablecast::store::Store;
//! use tablecast::stores::memory::MemoryStore;
//! use tablecast::{ErrorKind, Topic};
//!
//! let store = MemoryStore::new();
//! let first = store.create("lport", "port-1", "{}", &Topic::new("tenant1")?)?;
//! let second = store.set("lport", "port-1", r#"{"chassis":"host1"}"#)?;
//! assert!(second > first);
//! for row in store.entries("lport", Some(&Topic::new("tenant1")?)) {
//!     assert_eq!(row?.value, r#"{"chassis":"host1"}"#);
//! }
//! assert_eq!(store.get("lport", "port-2", None).unwrap_err().kind(), ErrorKind::NotFound);
//! # Ok::<(), tablecast::Error>(())
//! ```
//!
//! [`ErrorKind::AlreadyExists`]: crate::ErrorKind::AlreadyExists
//! [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
//! [`ErrorKind::Unavailable`]: crate::ErrorKind::Unavailable
//! [`ErrorKind::Timeout`]: crate::ErrorKind::Timeout
//! [`ErrorKind::Unconfirmed`]: crate::ErrorKind::Unconfirmed

mod announce;
mod changes;
mod listing;
mod row;
mod write;

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::update::{Name, Topic};

pub use announce::{Announcement, Announcer};
pub use changes::{ChangePage, Changes, StoredChange, TopicVersions};
pub use listing::{Item, Listing, PAGE_BYTES, Page};
pub use row::{Row, StoredTable, TableVersion};
pub use write::{DELETES_REMEMBERED, Write, WriteOp, Written, not_found};

/// Limits and times of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Maximum of rows in a page of a listing. Default: 1,000.
    pub batch_amount: usize,
    /// Time limit of a call before it fails with [`ErrorKind::Timeout`] or [`ErrorKind::Unavailable`]. Default: 5 s.
    pub timeout: Duration,
    /// Number of writes of its table for which a delete is remembered, at least [`DELETES_REMEMBERED`]. A reader that
    /// is further behind has to list the table; see [`Store::changes`]. Default: 10,000.
    ///
    /// Redis also notes sets, and forgets the oldest notes of a topic at every 64th write of that topic: each topic
    /// keeps up to 63 more, and one that is no longer written keeps what it had. A note takes about 100 bytes and the
    /// key.
    pub deletes_remembered: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            batch_amount: 1000,
            timeout: Duration::from_secs(5),
            deletes_remembered: 10_000,
        }
    }
}

/// A database of rows. The [module](self) describes what all stores have in common.
///
/// Any thread may call it; a call blocks until it is done or the time of the option `store_timeout_ms` is over. After a
/// call returned `Ok`, its effect is visible to every later read, in any process that uses the same store.
pub trait Store: fmt::Debug + Send + Sync {
    /// Returns the row with this key; if `topic` is given, only if the row has that topic.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row>;

    /// Makes one write, whole or not at all.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists), [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`Conflict`](crate::ErrorKind::Conflict), checked in this order, and the store's own failures. After
    /// [`Unconfirmed`](crate::ErrorKind::Unconfirmed) the write may have been made; after any other error it was not.
    fn write(&self, write: &Write<'_>) -> Result<Written>;

    /// Makes writes in order, each as [`Store::write`] makes it: an error of one does not stop the others. Equivalent
    /// to single writes, but faster where the store can make them in one step. Returns one result for each. The time
    /// limit is that of each step.
    ///
    /// # Errors
    /// The errors of an outage. Each write may or may not have been made then, whatever the kind of the error.
    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let write = |write| match self.write(write) {
            Err(e) if !e.is_overtaken() => Err(e),
            result => Ok(result),
        };
        writes.iter().map(write).collect()
    }

    /// Returns rows in the order of their keys' bytes, beginning after the key `after`, or with the first one. At most
    /// as many as the option `batch_amount` says, and not many more bytes than [`PAGE_BYTES`].
    ///
    /// A row that exists all the time is in exactly one page; a row that is created or deleted meanwhile is in at most
    /// one.
    ///
    /// # Errors
    /// The errors of an outage. A table that does not exist has no rows.
    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>>;

    /// As [`Store::page_of_entries`], but returns only the keys.
    ///
    /// # Errors
    /// As [`Store::page_of_entries`].
    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>>;

    /// Makes an empty table. Returns false if it exists. Only needed if a table should be visible before it has rows:
    /// writes do not need it.
    ///
    /// # Errors
    /// The errors of an outage.
    fn create_table(&self, table: &str) -> Result<bool>;

    /// Deletes a table with all its rows, at once for every reader. Returns false if there is none. Takes time in
    /// proportion to the size of the table. Versions and unique numbers continue if the table is used again; a store
    /// with [`Store::table_version`] counts this as a write.
    ///
    /// # Errors
    /// The errors of an outage.
    fn delete_table(&self, table: &str) -> Result<bool>;

    /// Returns the tables that exist, also those without rows, in the order of their names' bytes. Takes time in
    /// proportion to their number, in Redis to that of all keys of the database; the time limit is that of each step.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the store does not list its tables; the errors of an outage.
    fn tables(&self) -> Result<Vec<StoredTable>> {
        let context = "this store does not list its tables";
        Err(Error::new(ErrorKind::Unsupported, context))
    }

    /// Returns a number that is given only once for this table, counted from 1. The table need not exist.
    ///
    /// # Errors
    /// The errors of an outage; a number may be lost then.
    fn allocate_unique_key(&self, table: &str) -> Result<u64>;

    /// Returns the state of the table; `None` if the store does not keep it. The cost does not depend on the size of
    /// the table.
    ///
    /// The version rises with every write of the table, including deletes and [`Store::delete_table`]. So if all
    /// numbers are the same as before, nothing was changed in between. If the store went back
    /// ([`TableVersion::went_back_since`]), its present content is the truth, and its versions begin anew.
    ///
    /// One case does not show in these numbers: a store that lost its last writes, as Redis may with its master, and
    /// then took more others before the next look (without a tip: as many). The incarnation is then the same, and the
    /// version not lower. A reader that compares its rows finds those whose version or value differs, and
    /// [`Store::topic_versions`] says when another server answers ([`TableVersion::source`]).
    ///
    /// # Errors
    /// The errors of an outage.
    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        let _ = table;
        Ok(None)
    }

    /// Returns the state of the table and of these topics of it, at one moment; `None` if the store does not keep it. A
    /// topic's version is that of the last write of one of its rows, deletes included. The cost does not depend on the
    /// size of the table.
    ///
    /// # Errors
    /// The errors of an outage.
    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        let _ = (table, topics);
        Ok(None)
    }

    /// Returns the rows of this topic that were written, and the keys that were deleted, after this version: the last
    /// change of each key, oldest first; of a key that the topic lacks now, earlier deletes may be there too. At most
    /// as many as the option `batch_amount` says, and not many more bytes than [`PAGE_BYTES`]. A change made meanwhile
    /// is in this page or in a later one.
    ///
    /// The cost depends on the number of changes returned, not on the size of the table. Returns [`Changes::Unknown`]
    /// if a delete since then is no longer remembered (it is for the next `deletes_remembered` writes of the table), if
    /// the table was deleted, or if it is of another incarnation.
    ///
    /// # Errors
    /// The errors of an outage.
    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        let _ = (table, topic, since);
        Ok(Changes::Unknown)
    }

    /// Returns the store itself as a publisher, if its messages reach subscribers of this address. A write and its
    /// update can then be one step.
    fn announcer(&self, address: &str) -> Option<&dyn Announcer> {
        let _ = address;
        None
    }

    /// Creates a row with this topic. Returns its version.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is a row with this key, whatever its topic.
    fn create(&self, table: &str, key: &str, value: &str, topic: &Topic) -> Result<u64> {
        let written = self.write(&Write::create(table, key, value).topic(topic))?;
        Ok(written.version)
    }

    /// Sets the value of a row, even if it is the same as before. Returns the new version.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no row with this key.
    fn set(&self, table: &str, key: &str, value: &str) -> Result<u64> {
        Ok(self.write(&Write::set(table, key, value))?.version)
    }

    /// Deletes a row. Returns the version of the delete.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no row with this key.
    fn delete(&self, table: &str, key: &str) -> Result<u64> {
        Ok(self.write(&Write::delete(table, key))?.version)
    }

    /// Deletes the rows with these keys, as far as they exist. Returns how many. Equivalent to single deletes, but
    /// faster where the store can make them in one step. The time limit is that of each step.
    ///
    /// # Errors
    /// The errors of an outage. Some rows may have been deleted then, whatever the kind of the error.
    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        let mut removed = 0;
        for key in keys {
            match self.delete(table, key) {
                Ok(_) => removed += 1,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(removed)
    }

    /// Returns all rows of the table, or those of this topic, fetched page by page.
    fn entries<'a>(&'a self, table: &'a str, topic: Option<&'a Topic>) -> Listing<'a, Row> {
        Listing::new(move |after| self.page_of_entries(table, topic, after))
    }

    /// Returns all keys of the table, or those of this topic, fetched page by page.
    fn keys<'a>(&'a self, table: &'a str, topic: Option<&'a Topic>) -> Listing<'a, Name> {
        Listing::new(move |after| self.page_of_keys(table, topic, after))
    }
}
