//! The embedded store: one file, shared by any number of processes on a host.
//!
//! A write is on the disk when the call returns; a killed process or a loss of power leaves a consistent database.
//! Writers take turns; readers never wait for them. SQLite keeps two files beside it, `-wal` and `-shm`, that belong to
//! it. The file must be on a local file system: network file systems lack the locks and shared memory that the
//! processes need.
//!
//! **Files that are removed or replaced** while they are open, in whole or in part, are noticed by the next call. It
//! fails with [`ErrorKind::Io`](crate::ErrorKind::Io), or, if it had just written, with
//! [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed); no result comes from files that are gone. The following
//! call opens the present files; a write creates a missing file, a read does not. To replace an open database, move
//! another one to its place: overwriting the file goes unnoticed, and processes that have it open damage it. A link on
//! the way to the file may be led to another one: that is noticed likewise, and the earlier file stays as it is.
//!
//! **A log of another file** would destroy a database that was moved to the place of one that was open, or whose last
//! process was killed. So the log has an extended attribute (`user.tablecast.log-of`) that names its file and itself;
//! beside a log of another file, opening fails with [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) and touches
//! nothing, until processes that have the other one open have noticed it and taken their log away, or `-wal` and
//! `-shm` are removed. Copies of all three files together belong together. A log without the attribute, as on a file
//! system that has none, is taken for the file's own: end the processes first there, and remove `-wal` and `-shm`.
//!
//! **Without the right to write** the file or its folder, a process can read rows while another one that may write has
//! it open, or if the last one ended cleanly. If that was killed, its log may have to be written back first; the error
//! says so.

mod columns;
mod connection;
mod database;
mod failure;
mod files;
mod history;
mod named;
mod schema;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, named_params};

use crate::error::Result;
use crate::store::{
    Changes, DELETES_REMEMBERED, Item, Page, Row, Store, StoreOptions, StoredTable, TableVersion, TopicVersions, Write,
    Written, not_found,
};
use crate::update::{Name, Topic};
use columns::{read_row, unsigned};
use named::Named;
use write::Writes;

/// The store in a file; its alias is `sqlite`. All stores of a process with the same file share its connections.
#[derive(Clone)]
pub struct SqliteStore {
    database: Arc<Named>,
    batch_amount: usize,
    timeout: Duration,
    deletes_remembered: u64,
}

impl SqliteStore {
    /// Opens the file, and creates it and its folder if they are missing. If this process may only read it, writes fail
    /// with [`ErrorKind::Io`](crate::ErrorKind::Io).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be opened or created,
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if it is no database, another program's, or beside a log of
    /// another file, which is left as it is, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it is of a
    /// later version.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<SqliteStore> {
        Ok(SqliteStore {
            database: Arc::new(Named::open(path.as_ref(), options.timeout)?),
            batch_amount: options.batch_amount.max(1),
            timeout: options.timeout,
            deletes_remembered: options.deletes_remembered.max(DELETES_REMEMBERED),
        })
    }

    /// Makes writes in one transaction.
    fn write_all<'w>(&self, writes: impl IntoIterator<Item = &'w Write<'w>> + Clone) -> Result<Vec<Result<Written>>> {
        self.database.write(self.timeout, |transaction| {
            let mut made = Writes::new(transaction, self.deletes_remembered);
            let written = writes.clone().into_iter().map(|write| made.make(write));
            let written = written.collect::<Result<_, _>>()?;
            made.finish()?;
            Ok(written)
        })
    }

    /// A page of rows, or of keys, as `columns` says.
    fn page<T: Item>(
        &self,
        columns: &str,
        (table, topic, after): (&str, Option<&Topic>, Option<&str>),
        item: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Page<T>> {
        let (index, of_topic) = match topic {
            Some(_) => ("INDEXED BY entries_by_topic", "AND topic = :topic"),
            None => ("NOT INDEXED", "AND :topic IS NULL"),
        };
        let comparison = if after.is_some() { ">" } else { ">=" };
        let query = format!(
            "SELECT {columns} FROM entries {index}
            WHERE table_id = (SELECT id FROM tables WHERE name = :table) {of_topic} AND key {comparison} :after
            ORDER BY key LIMIT :limit"
        );
        let limit = i64::try_from(self.batch_amount).unwrap_or(i64::MAX);
        self.database.read(self.timeout, |reader, _| {
            let mut statement = reader.prepare_cached(&query)?;
            let parameters = named_params! {
                ":table": table, ":topic": topic.map(Topic::as_str), ":after": after.unwrap_or(""), ":limit": limit,
            };
            let items = statement.query_map(parameters, &item)?;
            Ok(Page::fill(items, self.batch_amount)?)
        })
    }
}

impl Store for SqliteStore {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        let query = "SELECT key, topic, version, value FROM entries
            WHERE table_id = (SELECT id FROM tables WHERE name = ?1) AND key = ?2";
        self.database.read(self.timeout, |reader, _| {
            let row = reader.prepare_cached(query)?.query_row([table, key], read_row);
            let row = row
                .optional()?
                .filter(|row| topic.is_none_or(|topic| *topic == row.topic));
            Ok(row.ok_or_else(|| not_found(table, key, topic))?)
        })
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        let written = self.write_all([write])?.pop();
        written.unwrap_or_else(|| Err(write.not_found()))
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        self.write_all(writes)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        self.page("key, topic, version, value", (table, topic, after), read_row)
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        let read_key = |row: &rusqlite::Row<'_>| Ok(Name::from(row.get::<_, String>(0)?));
        self.page("key", (table, topic, after), read_key)
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        let statement = "INSERT INTO tables (name, live) VALUES (?1, 1)
            ON CONFLICT (name) DO UPDATE SET live = 1 WHERE NOT live";
        self.database.write(self.timeout, |transaction| {
            Ok(transaction.prepare_cached(statement)?.execute([table])? > 0)
        })
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        self.database.write(self.timeout, |transaction| {
            let hide = "UPDATE tables SET live = 0, version = version + 1, unknown = version + 1
                WHERE name = ?1 AND live RETURNING id";
            let table_id = transaction.prepare_cached(hide)?.query_row([table], |row| row.get(0));
            let Some(table_id): Option<i64> = table_id.optional()? else {
                return Ok(false);
            };
            for statement in [
                "DELETE FROM entries WHERE table_id = ?1",
                "DELETE FROM deletes WHERE table_id = ?1",
                "DELETE FROM topics WHERE table_id = ?1",
            ] {
                transaction.prepare_cached(statement)?.execute([table_id])?;
            }
            Ok(true)
        })
    }

    fn tables(&self) -> Result<Vec<StoredTable>> {
        let query = "SELECT name FROM tables WHERE live ORDER BY name";
        // To count rows is to read an index of them.
        let read_table = |row: &rusqlite::Row<'_>| {
            Ok(StoredTable {
                name: row.get::<_, String>(0)?.into(),
                rows: None,
            })
        };
        self.database.read(self.timeout, |reader, _| {
            let mut statement = reader.prepare_cached(query)?;
            let tables = statement.query_map([], read_table)?;
            Ok(tables.collect::<Result<Vec<_>, _>>()?)
        })
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let statement = "INSERT INTO tables (name, unique_key) VALUES (?1, 1)
            ON CONFLICT (name) DO UPDATE SET unique_key = unique_key + 1 RETURNING unique_key";
        self.database.write(self.timeout, |transaction| {
            let key = transaction
                .prepare_cached(statement)?
                .query_row([table], |row| unsigned(row, 0));
            Ok(key?)
        })
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        let deletes: Vec<_> = keys.iter().map(|key| Write::delete(table, key)).collect();
        let written = self.write_all(&deletes)?;
        Ok(written.iter().filter(|written| written.is_ok()).count())
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.database.read(self.timeout, |reader, file| {
            Ok(Some(history::table_version(reader, file, table)?))
        })
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        self.database.read(self.timeout, |reader, file| {
            Ok(Some(history::topic_versions(reader, file, table, topics)?))
        })
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        self.database.read(self.timeout, |reader, file| {
            history::changes(reader, file, (table, topic), since, self.batch_amount)
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.database.path())
            .finish_non_exhaustive()
    }
}
