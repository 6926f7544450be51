//! The embedded store: one file that any number of processes of a host share.
//!
//! What was written is on the disk when the call returns; a process that is killed, or a machine that loses its power,
//! leaves a whole database behind. Writers take turns, readers never wait for them. Beside the file are two of SQLite's
//! own, `-wal` and `-shm`, that belong to it. It must be on a local file system: those of a network lack what the
//! processes need to agree.

mod connection;
mod schema;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Transaction, named_params, params};

use crate::error::Result;
use crate::store::{Change, DELETES_REMEMBERED, Item, Page, Row, Store, StoreOptions, Write, Written, not_found};
use crate::update::{Name, Topic};
use connection::{Connections, Failure};

/// The store in a file; its alias is `sqlite`. Clones share their connections.
#[derive(Clone)]
pub struct SqliteStore {
    connections: Arc<Connections>,
    batch_amount: usize,
}

/// What a write finds.
struct Found {
    table_id: i64,
    /// Of the table's last write.
    version: u64,
    row: Option<(Topic, u64)>,
    /// The row's value, if it was asked for.
    value: Option<String>,
    /// The version of the row's delete, if it is remembered.
    delete: Option<u64>,
}

impl SqliteStore {
    /// Opens the file, and makes it and its folder if they are missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the file or its folder cannot be written,
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if it is no database, or one of another program, which is
    /// left as it is, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it is of a later version.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<SqliteStore> {
        Ok(SqliteStore {
            connections: Arc::new(Connections::open(path.as_ref(), options.timeout)?),
            batch_amount: options.batch_amount.max(1),
        })
    }

    /// A page of the rows, or with `columns` cut short, of the keys.
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
        self.connections.read(|reader| {
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
        self.connections.read(|reader| {
            let row = reader.prepare_cached(query)?.query_row([table, key], read_row);
            let row = row
                .optional()?
                .filter(|row| topic.is_none_or(|topic| *topic == row.topic));
            Ok(row.ok_or_else(|| not_found(table, key, topic))?)
        })
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        self.connections.write(|transaction| Ok(make(transaction, write)??))
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        self.connections
            .write(|transaction| writes.iter().map(|write| make(transaction, write)).collect())
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
        self.connections
            .write(|transaction| Ok(transaction.prepare_cached(statement)?.execute([table])? > 0))
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        self.connections.write(|transaction| {
            let hide = "UPDATE tables SET live = 0, version = version + 1 WHERE name = ?1 AND live RETURNING id";
            let table_id = transaction.prepare_cached(hide)?.query_row([table], |row| row.get(0));
            let Some(table_id): Option<i64> = table_id.optional()? else {
                return Ok(false);
            };
            for statement in [
                "DELETE FROM entries WHERE table_id = ?1",
                "DELETE FROM deletes WHERE table_id = ?1",
            ] {
                transaction.prepare_cached(statement)?.execute([table_id])?;
            }
            Ok(true)
        })
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        let statement = "INSERT INTO tables (name, unique_key) VALUES (?1, 1)
            ON CONFLICT (name) DO UPDATE SET unique_key = unique_key + 1 RETURNING unique_key";
        self.connections.write(|transaction| {
            let key = transaction
                .prepare_cached(statement)?
                .query_row([table], |row| unsigned(row, 0));
            Ok(key?)
        })
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        self.connections.write(|transaction| {
            let mut removed = 0;
            for key in keys {
                let delete = Write::delete(table, key);
                let found = find(transaction, &delete)?;
                if found.row.is_some() {
                    found.apply(transaction, &delete)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
    }

    fn table_version(&self, table: &str) -> Result<Option<u64>> {
        let query = "SELECT version FROM tables WHERE name = ?1";
        self.connections.read(|reader| {
            let version = reader.prepare_cached(query)?.query_row([table], |row| unsigned(row, 0));
            Ok(Some(version.optional()?.unwrap_or(0)))
        })
    }
}

/// Makes a write, or says why it is not to be made.
fn make(transaction: &Transaction<'_>, write: &Write<'_>) -> Result<Result<Written>, Failure> {
    let found = find(transaction, write)?;
    let row = found.row.as_ref().map(|(topic, version)| (topic, *version));
    match write.check(row, found.delete) {
        Ok(()) => found.apply(transaction, write).map(Ok),
        Err(e) => Ok(Err(e)),
    }
}

/// Looks for what the write is about; a table that was never used is added.
fn find(transaction: &Transaction<'_>, write: &Write<'_>) -> Result<Found, Failure> {
    let query = "SELECT tables.id, tables.version, entries.topic, entries.version,
            CASE WHEN ?3 THEN entries.value END, deletes.version
        FROM tables
            LEFT JOIN entries ON entries.table_id = tables.id AND entries.key = ?2
            LEFT JOIN deletes ON deletes.table_id = tables.id AND deletes.key = ?2
        WHERE tables.name = ?1";
    let needs_value = write.returning || write.unless_equal;
    let found = transaction
        .prepare_cached(query)?
        .query_row(params![write.table, write.key, needs_value], |row| {
            let is_there = row.get::<_, Option<String>>(2)?.is_some();
            let is_remembered = row.get::<_, Option<i64>>(5)?.is_some();
            Ok(Found {
                table_id: row.get(0)?,
                version: unsigned(row, 1)?,
                row: is_there
                    .then(|| Ok::<_, rusqlite::Error>((topic(row, 2)?, unsigned(row, 3)?)))
                    .transpose()?,
                value: row.get(4)?,
                delete: is_remembered.then(|| unsigned(row, 5)).transpose()?,
            })
        });
    if let Some(found) = found.optional()? {
        return Ok(found);
    }
    let add = "INSERT INTO tables (name) VALUES (?1) RETURNING id";
    let table_id = transaction
        .prepare_cached(add)?
        .query_row([write.table], |row| row.get(0))?;
    Ok(Found {
        table_id,
        version: 0,
        row: None,
        value: None,
        delete: None,
    })
}

impl Found {
    /// Makes a write that was checked.
    fn apply(self, transaction: &Connection, write: &Write<'_>) -> Result<Written, Failure> {
        let (topic, row_version) = match self.row {
            Some((topic, version)) => (topic, version),
            None => (write.topic.unwrap_or(&Topic::ALL).clone(), 0),
        };
        let changed = match write.change {
            Change::Set(value) => !write.unless_equal || self.value.as_deref() != Some(value),
            Change::Create(_) | Change::Delete => true,
        };
        let mut written = Written {
            version: row_version,
            topic,
            changed,
            before: self.value.filter(|_| write.returning),
        };
        if !changed {
            return Ok(written);
        }
        let version = self.version + 1;
        written.version = version;
        let table_id = self.table_id;
        let execute = |statement: &str, parameters: &[&dyn rusqlite::ToSql]| -> Result<(), Failure> {
            transaction.prepare_cached(statement)?.execute(parameters)?;
            Ok(())
        };
        let stored = signed(version);
        execute(
            "UPDATE tables SET version = ?2, live = 1 WHERE id = ?1",
            &[&table_id, &stored],
        )?;
        match write.change {
            Change::Create(value) => {
                let forget = "DELETE FROM deletes WHERE table_id = ?1 AND key = ?2";
                execute(forget, &[&table_id, &write.key])?;
                let insert = "INSERT INTO entries (table_id, key, topic, version, value) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(
                    insert,
                    &[&table_id, &write.key, &written.topic.as_str(), &stored, &value],
                )?;
            }
            Change::Set(value) => {
                let update = "UPDATE entries SET version = ?3, value = ?4 WHERE table_id = ?1 AND key = ?2";
                execute(update, &[&table_id, &write.key, &stored, &value])?;
            }
            Change::Delete => {
                let delete = "DELETE FROM entries WHERE table_id = ?1 AND key = ?2";
                execute(delete, &[&table_id, &write.key])?;
                let remember = "INSERT INTO deletes (table_id, key, version) VALUES (?1, ?2, ?3)";
                execute(remember, &[&table_id, &write.key, &stored])?;
                let oldest = signed(version.saturating_sub(DELETES_REMEMBERED));
                execute(
                    "DELETE FROM deletes WHERE table_id = ?1 AND version < ?2",
                    &[&table_id, &oldest],
                )?;
            }
        }
        Ok(written)
    }
}

/// Reads `key, topic, version, value`.
fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        key: row.get::<_, String>(0)?.into(),
        topic: topic(row, 1)?,
        version: unsigned(row, 2)?,
        value: row.get(3)?,
    })
}

fn topic(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Topic> {
    let name: String = row.get(column)?;
    Topic::new(name).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// Versions and unique numbers stay far below 2^63.
fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.connections.path())
            .finish_non_exhaustive()
    }
}
