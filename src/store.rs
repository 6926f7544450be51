//! The contract between the library and a store: rows, without a network of our own and without policy.
//!
//! A row lives in a table, under a key that is unique there. It has a value, a topic and a version.
//!
//! - **Names.** Tables and keys are any UTF-8 text, also an empty one, and stay literal: no character has a meaning, and
//!   table `a` with key `b.c` never meets table `a.b` with key `c`.
//! - **Topic.** It is given when the row is created, [`Topic::ALL`] by default, and stays until the row is deleted: a row
//!   that moved would have to be told as deleted to one topic and as created to another. Whoever names a topic sees the
//!   rows of that topic only; a row of another one is not found.
//! - **Version.** Every write gives the row a version that is higher than all before it in its table, also if the row
//!   was deleted in between, or the whole table. Versions stay below 2^53. The highest version of a row is its newest.
//! - **Tables** come into being with their first row. [`Store::create_table`] only makes an empty one.
//! - **Cost.** No call costs more for what is in other tables, or, if it names a topic, in other topics.
//! - **Errors.** What cannot be done changes nothing: [`ErrorKind::AlreadyExists`] to create a row that is there,
//!   [`ErrorKind::NotFound`] to set or delete one that is not. An outage is never one of those two, but for example
//!   [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`]. Only after [`ErrorKind::Unconfirmed`] a write may have been
//!   made all the same.
//!
//! A driver implements six calls; the others follow from them. `tests/stores` holds the suite that every store passes.
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

use std::fmt;
use std::time::Duration;
use std::vec;

use crate::codec::Codec;
use crate::error::{Error, ErrorKind, Result};
use crate::update::{Name, Topic};

/// Limits and times of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// How many rows a page of a listing has at most. Default: 1,000.
    pub batch_amount: usize,
    /// How long a call may take before it fails with [`ErrorKind::Timeout`] or [`ErrorKind::Unavailable`]. Default: 5 s.
    pub timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            batch_amount: 1000,
            timeout: Duration::from_secs(5),
        }
    }
}

/// A page of a listing ends early once its keys and values have so many bytes, so that large rows do not fill the
/// memory.
pub const PAGE_BYTES: usize = 4 << 20;

/// A store remembers the version of a delete for at least so many writes of the same table; see [`Write::version`].
pub const DELETES_REMEMBERED: u64 = 1000;

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Name,
    /// Opaque text, usually a JSON document.
    pub value: String,
    /// Who is told of its changes.
    pub topic: Topic,
    /// Every write raises it.
    pub version: u64,
}

/// One write of one row, and when it is to be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// What to do.
    pub change: Change<'a>,
    /// To create: the new row's topic; `None` is [`Topic::ALL`]. To set and delete: the topic that the row must have, or
    /// it is not found; `None` is any.
    pub topic: Option<&'a Topic>,
    /// Only if this is the version of the last write of the row, or else [`ErrorKind::Conflict`]. To create, this is the
    /// version of the delete: it conflicts if somebody has created the row since, even if it is deleted again, and if
    /// the store has forgotten the delete, which it may after [`DELETES_REMEMBERED`] writes.
    pub version: Option<u64>,
    /// To set: only if the row has another value; otherwise nothing is written, and [`Written::changed`] says so.
    pub unless_equal: bool,
    /// Whether [`Written::before`] is wanted.
    pub returning: bool,
}

/// What a [`Write`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Makes a new row of this value.
    Create(&'a str),
    /// Gives a row this value.
    Set(&'a str),
    /// Removes a row.
    Delete,
}

/// What became of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The version of this write, also of a delete; that of the row if nothing was changed.
    pub version: u64,
    /// The row's topic.
    pub topic: Topic,
    /// False if the row had the value already and [`Write::unless_equal`] asked for nothing to be done then.
    pub changed: bool,
    /// The value before a set or a delete, if [`Write::returning`] asked for it.
    pub before: Option<String>,
}

impl<'a> Write<'a> {
    fn new(table: &'a str, key: &'a str, change: Change<'a>) -> Write<'a> {
        Write {
            table,
            key,
            change,
            topic: None,
            version: None,
            unless_equal: false,
            returning: false,
        }
    }

    /// Creates a row.
    pub fn create(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, Change::Create(value))
    }

    /// Sets a row.
    pub fn set(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, Change::Set(value))
    }

    /// Deletes a row.
    pub fn delete(table: &'a str, key: &'a str) -> Write<'a> {
        Write::new(table, key, Change::Delete)
    }

    /// Sets [`Write::topic`].
    #[must_use]
    pub fn topic(mut self, topic: &'a Topic) -> Write<'a> {
        self.topic = Some(topic);
        self
    }

    /// Sets [`Write::version`].
    #[must_use]
    pub fn version(mut self, version: u64) -> Write<'a> {
        self.version = Some(version);
        self
    }

    /// Sets [`Write::unless_equal`].
    #[must_use]
    pub fn unless_equal(mut self) -> Write<'a> {
        self.unless_equal = true;
        self
    }

    /// Sets [`Write::returning`].
    #[must_use]
    pub fn returning(mut self) -> Write<'a> {
        self.returning = true;
        self
    }

    /// Whether this write is to be made, given the topic and the version of the `row` that is there, or the version of
    /// the `delete` that is remembered of it. For stores that look first and then write, under a lock.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn check(&self, row: Option<(&Topic, u64)>, delete: Option<u64>) -> Result<()> {
        let version = match (self.change, row) {
            (Change::Create(_), Some(_)) => return Err(self.already_exists()),
            (Change::Create(_), None) => delete,
            (Change::Set(_) | Change::Delete, Some((topic, version)))
                if self.topic.is_none_or(|wanted| wanted == topic) =>
            {
                Some(version)
            }
            (Change::Set(_) | Change::Delete, _) => return Err(self.not_found()),
        };
        match self.version {
            None => Ok(()),
            wanted if wanted == version => Ok(()),
            Some(_) => Err(self.conflict()),
        }
    }

    /// What a store answers if there is no such row.
    pub fn not_found(&self) -> Error {
        not_found(self.table, self.key, self.topic)
    }

    /// What a store answers if there is such a row.
    pub fn already_exists(&self) -> Error {
        Error::new(ErrorKind::AlreadyExists, row_name(self.table, self.key))
    }

    /// What a store answers if the row has another version.
    pub fn conflict(&self) -> Error {
        let row = row_name(self.table, self.key);
        let version = self.version.unwrap_or_default();
        let context = format!("{row} was written by somebody else after version {version}");
        Error::new(ErrorKind::Conflict, context)
    }
}

/// What a store answers if there is no such row.
pub fn not_found(table: &str, key: &str, topic: Option<&Topic>) -> Error {
    let mut context = row_name(table, key);
    if let Some(topic) = topic {
        context.push_str(&format!(" of topic {topic:?}"));
    }
    Error::new(ErrorKind::NotFound, context)
}

fn row_name(table: &str, key: &str) -> String {
    format!("table {table:?} key {key:?}")
}

/// A database of rows. See [the module](self) for what all stores have in common.
///
/// Any thread may call it; a call blocks until it is done or the time of the option `store_timeout_ms` is over. What
/// returned `Ok` is there for every reader that begins after that, in any process that has the same store.
pub trait Store: fmt::Debug + Send + Sync {
    /// The row of this key. `topic`: only if it has this topic.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row>;

    /// Makes one write, whole or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`], [`ErrorKind::NotFound`] and [`ErrorKind::Conflict`], looked for in this order, and
    /// whatever is wrong with the store. A write that may have been made in spite of an error says
    /// [`ErrorKind::Unconfirmed`]; after any other error it was not.
    fn write(&self, write: &Write<'_>) -> Result<Written>;

    /// The rows after the key `after`, or from the first one on, in the order of their keys' bytes; no more than the
    /// option `batch_amount`, nor many more than [`PAGE_BYTES`].
    ///
    /// A row that is there all the time is in exactly one page; one that comes or goes meanwhile may be in one.
    ///
    /// # Errors
    /// Those of an outage. A table that does not exist has no rows.
    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>>;

    /// As [`Store::page_of_entries`], but only the keys.
    ///
    /// # Errors
    /// As [`Store::page_of_entries`].
    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>>;

    /// Makes an empty table; returns false if it exists. Only of use to a program that wants tables to be seen before
    /// they have rows: writes need none.
    ///
    /// # Errors
    /// Those of an outage.
    fn create_table(&self, table: &str) -> Result<bool>;

    /// Removes a table with all its rows, at once for every reader; returns false if there is none. Takes as long as
    /// the table is large. Versions and unique numbers go on where they were if the table is used again; a store that
    /// tells the [`Store::table_version`] counts this as a write.
    ///
    /// # Errors
    /// Those of an outage.
    fn delete_table(&self, table: &str) -> Result<bool>;

    /// A number that nobody else gets for this table, ever: they count from 1. The table need not exist.
    ///
    /// # Errors
    /// Those of an outage; a number may be lost then.
    fn allocate_unique_key(&self, table: &str) -> Result<u64>;

    /// The highest version that was given in this table so far, or 0 if none was; `None` if the store cannot tell. It
    /// costs the same however large the table is.
    ///
    /// It rises with every write of the table, also with deletes and with [`Store::delete_table`]. So if it is the same
    /// as before, nothing was changed in between.
    ///
    /// # Errors
    /// Those of an outage.
    fn table_version(&self, table: &str) -> Result<Option<u64>> {
        let _ = table;
        Ok(None)
    }

    /// The store itself as a publisher, if what it publishes reaches those who listen at this address. Then a write and
    /// its update can be one step.
    fn announcer(&self, address: &str) -> Option<&dyn Announcer> {
        let _ = address;
        None
    }

    /// Creates a row of this topic; returns its version.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is one under this key, of whatever topic.
    fn create(&self, table: &str, key: &str, value: &str, topic: &Topic) -> Result<u64> {
        let written = self.write(&Write::create(table, key, value).topic(topic))?;
        Ok(written.version)
    }

    /// Gives a row this value, also if it has it already; returns its new version.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such row.
    fn set(&self, table: &str, key: &str, value: &str) -> Result<u64> {
        Ok(self.write(&Write::set(table, key, value))?.version)
    }

    /// Removes a row; returns the version of the delete.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such row.
    fn delete(&self, table: &str, key: &str) -> Result<u64> {
        Ok(self.write(&Write::delete(table, key))?.version)
    }

    /// Removes the rows of these keys, as far as they are there; returns how many. It is as good as so many single deletes, but
    /// quicker where the store can make one step of them.
    ///
    /// # Errors
    /// Those of an outage. Some may have been removed then.
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

    /// All rows of the table, or of its rows those of this topic, page by page.
    fn entries<'a>(&'a self, table: &'a str, topic: Option<&'a Topic>) -> Listing<'a, Row> {
        Listing::new(move |after| self.page_of_entries(table, topic, after))
    }

    /// All keys of the table, or those of this topic, page by page.
    fn keys<'a>(&'a self, table: &'a str, topic: Option<&'a Topic>) -> Listing<'a, Name> {
        Listing::new(move |after| self.page_of_keys(table, topic, after))
    }
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Rows or keys, in order; may be empty.
    pub items: Vec<T>,
    /// Where the next page begins: after this key. `None`: this is the last one.
    pub next: Option<Name>,
}

impl<T> Default for Page<T> {
    /// The last page, without items.
    fn default() -> Page<T> {
        Page {
            items: Vec::new(),
            next: None,
        }
    }
}

/// What a listing has: rows or keys.
pub trait Item {
    /// The row's key.
    fn key(&self) -> &Name;

    /// Roughly how much memory it takes, in bytes.
    fn size(&self) -> usize;
}

impl Item for Row {
    fn key(&self) -> &Name {
        &self.key
    }

    fn size(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl Item for Name {
    fn key(&self) -> &Name {
        self
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl<T: Item> Page<T> {
    /// Takes items until there are no more, or `limit` of them, or [`PAGE_BYTES`].
    ///
    /// # Errors
    /// The first one among the items.
    pub fn fill<E>(items: impl IntoIterator<Item = Result<T, E>>, limit: usize) -> Result<Page<T>, E> {
        let mut page = Page::default();
        let mut bytes = 0;
        for item in items {
            let item = item?;
            bytes += item.size();
            let is_full = page.items.len() + 1 >= limit || bytes >= PAGE_BYTES;
            page.next = is_full.then(|| item.key().clone());
            page.items.push(item);
            if is_full {
                break;
            }
        }
        Ok(page)
    }
}

/// All rows or all keys, fetched a page at a time while it is iterated. It ends after an error.
#[must_use]
pub struct Listing<'a, T> {
    fetch: Fetch<'a, T>,
    items: vec::IntoIter<T>,
    after: Option<Name>,
    is_last: bool,
}

/// Gets the page after this key.
type Fetch<'a, T> = Box<dyn Fn(Option<&str>) -> Result<Page<T>> + Send + 'a>;

impl<'a, T> Listing<'a, T> {
    fn new(fetch: impl Fn(Option<&str>) -> Result<Page<T>> + Send + 'a) -> Listing<'a, T> {
        Listing {
            fetch: Box::new(fetch),
            items: Vec::new().into_iter(),
            after: None,
            is_last: false,
        }
    }
}

impl<T> Iterator for Listing<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(Ok(item));
            }
            if self.is_last {
                return None;
            }
            match (self.fetch)(self.after.as_deref()) {
                Ok(page) => {
                    self.is_last = page.next.is_none();
                    self.after = page.next;
                    self.items = page.items.into_iter();
                }
                Err(e) => {
                    self.is_last = true;
                    return Some(Err(e));
                }
            }
        }
    }
}

impl<T> fmt::Debug for Listing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// A store that can publish what it writes.
pub trait Announcer: Send + Sync {
    /// As [`Store::write`], and if that changed something, publishes the announcement in the same atomic step: nobody
    /// ever sees one without the other, whoever is killed whenever.
    ///
    /// # Errors
    /// As [`Store::write`]. After [`ErrorKind::Unconfirmed`] both may have happened, after any other error neither.
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written>;
}

/// A message that is complete but for the version, which only the store knows: `head`, the version, `tail`.
#[derive(Debug, Clone, Copy)]
pub struct Announcement<'a> {
    /// Where to publish it. The row has this topic: the write asks for it.
    pub topic: &'a Topic,
    /// What comes before the version.
    pub head: &'a [u8],
    /// What comes after it.
    pub tail: &'a [u8],
    /// How the version is written. JSON: in decimal digits. MessagePack: as `uint 64`, which is the byte 0xcf and then
    /// eight bytes, the most significant one first.
    pub codec: Codec,
}

impl Announcement<'_> {
    /// An upper bound of the payload's length in bytes.
    pub fn max_payload_len(&self) -> usize {
        /// The digits of the highest version in JSON; MessagePack needs less.
        const VERSION: usize = 20;
        self.head.len() + VERSION + self.tail.len()
    }

    /// The payload with this version.
    pub fn payload(&self, version: u64) -> Vec<u8> {
        let mut payload = self.head.to_vec();
        match self.codec {
            Codec::Json => payload.extend_from_slice(version.to_string().as_bytes()),
            Codec::MessagePack => {
                payload.push(0xcf);
                payload.extend_from_slice(&version.to_be_bytes());
            }
        }
        payload.extend_from_slice(self.tail);
        payload
    }
}
