//! The embedded store: one file that any number of processes of a host share.
//!
//! What was written is on the disk when the call returns; a process that is killed, or a machine that loses its power,
//! leaves a whole database behind. Writers take turns, readers never wait for them. Beside the file are two of SQLite's
//! own, `-wal` and `-shm`, that belong to it. It must be on a local file system: those of a network lack what the
//! processes need to agree.
//!
//! **Files that are removed or replaced** while they are open, in whole or in part, are noticed by the next call. It fails
//! with [`ErrorKind::Io`](crate::ErrorKind::Io), or, if it had just written, with
//! [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed); nothing is answered from files that are not there any more. The
//! call after it opens what is there then; a write makes a file that is missing, a read does not. To put another database in
//! the place of one that is open, move it there: a file that is written over is not noticed, and damaged by those who have
//! it open.
//!
//! **Without the right to write** the file or its folder, rows are read while a process that writes is there, and also if
//! the last one ended cleanly. If it was killed, its log may have to be written back first; the error says so.

mod connection;
mod database;
mod failure;
mod files;
mod schema;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Transaction, named_params, params};

use crate::error::Result;
use crate::store::{
    Change, DELETES_REMEMBERED, Item, Page, Row, Store, StoreOptions, TableVersion, Write, Written, not_found,
};
use crate::update::{Name, Topic};
use database::Database;
use failure::Failure;

/// The store in a file; its alias is `sqlite`. All of a process that have one file open share their connections.
#[derive(Clone)]
pub struct SqliteStore {
    database: Arc<Database>,
    batch_amount: usize,
    timeout: Duration,
}

/// The writes of one transaction. What they change of a table is stored once, at the end.
struct Writes<'t> {
    transaction: &'t Transaction<'t>,
    /// Those that were looked for, by name.
    tables: HashMap<String, Table>,
}

#[derive(Clone, Copy)]
struct Table {
    id: i64,
    /// Of its last write.
    version: u64,
    is_changed: bool,
    has_deletes: bool,
}

/// What a write finds.
struct Found {
    row: Option<(Topic, u64)>,
    /// The row's value, if it was asked for.
    value: Option<String>,
    /// The version of the row's delete, if it is remembered.
    delete: Option<u64>,
}

impl SqliteStore {
    /// Opens the file, and makes it and its folder if they are missing. One that this process may only read is opened to
    /// read: writes fail with [`ErrorKind::Io`](crate::ErrorKind::Io).
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be opened or made,
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if it is no database, or one of another program, which is
    /// left as it is, and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it is of a later version.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<SqliteStore> {
        Ok(SqliteStore {
            database: Database::open(path.as_ref(), options.timeout)?,
            batch_amount: options.batch_amount.max(1),
            timeout: options.timeout,
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
        self.database.write(self.timeout, |transaction| {
            let mut writes = Writes::new(transaction);
            let written = writes.make(write)??;
            writes.finish()?;
            Ok(written)
        })
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        self.database.write(self.timeout, |transaction| {
            let mut made = Writes::new(transaction);
            let written = writes
                .iter()
                .map(|write| made.make(write))
                .collect::<Result<_, Failure>>()?;
            made.finish()?;
            Ok(written)
        })
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
        self.database.write(self.timeout, |transaction| {
            let key = transaction
                .prepare_cached(statement)?
                .query_row([table], |row| unsigned(row, 0));
            Ok(key?)
        })
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        self.database.write(self.timeout, |transaction| {
            let mut writes = Writes::new(transaction);
            let mut removed = 0;
            for key in keys {
                removed += usize::from(writes.make(&Write::delete(table, key))?.is_ok());
            }
            writes.finish()?;
            Ok(removed)
        })
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        let query = "SELECT incarnation, version FROM tables WHERE name = ?1 AND version > 0";
        self.database.read(self.timeout, |reader, file| {
            let state = reader.prepare_cached(query)?.query_row([table], |row| {
                Ok(TableVersion {
                    // A copy of the file is another one: it may be an older one.
                    incarnation: row.get::<_, i64>(0)?.cast_unsigned() ^ file,
                    version: unsigned(row, 1)?,
                })
            });
            Ok(Some(state.optional()?.unwrap_or_default()))
        })
    }
}

impl<'t> Writes<'t> {
    fn new(transaction: &'t Transaction<'t>) -> Writes<'t> {
        Writes {
            transaction,
            tables: HashMap::new(),
        }
    }

    /// Makes a write, or says why it is not to be made.
    fn make(&mut self, write: &Write<'_>) -> Result<Result<Written>, Failure> {
        let table = self.table(write.table)?;
        let found = self.find(table.id, write)?;
        let row = found.row.as_ref().map(|(topic, version)| (topic, *version));
        match write.check(row, found.delete) {
            Ok(()) => self.apply(table, found, write).map(Ok),
            Err(e) => Ok(Err(e)),
        }
    }

    /// The table as it is by now; one that was never used is added.
    fn table(&mut self, name: &str) -> Result<Table, Failure> {
        if let Some(table) = self.tables.get(name) {
            return Ok(*table);
        }
        let query = "SELECT id, version FROM tables WHERE name = ?1";
        let add = "INSERT INTO tables (name) VALUES (?1) RETURNING id, version";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Table {
                id: row.get(0)?,
                version: unsigned(row, 1)?,
                is_changed: false,
                has_deletes: false,
            })
        };
        let found = self.transaction.prepare_cached(query)?.query_row([name], read);
        let table = match found.optional()? {
            Some(table) => table,
            None => self.transaction.prepare_cached(add)?.query_row([name], read)?,
        };
        self.tables.insert(name.to_owned(), table);
        Ok(table)
    }

    fn find(&self, table_id: i64, write: &Write<'_>) -> Result<Found, Failure> {
        let query = "SELECT topic, version, CASE WHEN ?3 THEN value END FROM entries WHERE table_id = ?1 AND key = ?2";
        let needs_value = write.returning || write.unless_equal;
        let found =
            self.transaction
                .prepare_cached(query)?
                .query_row(params![table_id, write.key, needs_value], |row| {
                    Ok(Found {
                        row: Some((topic(row, 0)?, unsigned(row, 1)?)),
                        value: row.get(2)?,
                        delete: None,
                    })
                });
        if let Some(found) = found.optional()? {
            return Ok(found);
        }
        // Only a row that is not there has one.
        let query = "SELECT version FROM deletes WHERE table_id = ?1 AND key = ?2";
        let delete = self
            .transaction
            .prepare_cached(query)?
            .query_row(params![table_id, write.key], |row| unsigned(row, 0));
        Ok(Found {
            row: None,
            value: None,
            delete: delete.optional()?,
        })
    }

    /// Makes a write that was checked.
    fn apply(&mut self, mut table: Table, found: Found, write: &Write<'_>) -> Result<Written, Failure> {
        let (topic, row_version) = match found.row {
            Some((topic, version)) => (topic, version),
            None => (write.topic.unwrap_or(&Topic::ALL).clone(), 0),
        };
        let changed = match write.change {
            Change::Set(value) => !write.unless_equal || found.value.as_deref() != Some(value),
            Change::Create(_) | Change::Delete => true,
        };
        let mut written = Written {
            version: row_version,
            topic,
            changed,
            before: found.value.filter(|_| write.returning),
        };
        if !changed {
            return Ok(written);
        }
        table.version += 1;
        table.is_changed = true;
        written.version = table.version;
        let (id, version) = (table.id, signed(table.version));
        match write.change {
            Change::Create(value) => {
                if found.delete.is_some() {
                    let forget = "DELETE FROM deletes WHERE table_id = ?1 AND key = ?2";
                    self.execute(forget, &[&id, &write.key])?;
                }
                let insert = "INSERT INTO entries (table_id, key, topic, version, value) VALUES (?1, ?2, ?3, ?4, ?5)";
                self.execute(insert, &[&id, &write.key, &written.topic.as_str(), &version, &value])?;
            }
            Change::Set(value) => {
                let update = "UPDATE entries SET version = ?3, value = ?4 WHERE table_id = ?1 AND key = ?2";
                self.execute(update, &[&id, &write.key, &version, &value])?;
            }
            Change::Delete => {
                table.has_deletes = true;
                let delete = "DELETE FROM entries WHERE table_id = ?1 AND key = ?2";
                self.execute(delete, &[&id, &write.key])?;
                let remember = "INSERT INTO deletes (table_id, key, version) VALUES (?1, ?2, ?3)";
                self.execute(remember, &[&id, &write.key, &version])?;
            }
        }
        if let Some(known) = self.tables.get_mut(write.table) {
            *known = table;
        }
        Ok(written)
    }

    /// Stores where the tables stand.
    fn finish(self) -> Result<(), Failure> {
        for table in self.tables.values().filter(|table| table.is_changed) {
            let update = "UPDATE tables SET version = ?2, live = 1 WHERE id = ?1";
            self.execute(update, &[&table.id, &signed(table.version)])?;
            if table.has_deletes {
                let oldest = signed(table.version.saturating_sub(DELETES_REMEMBERED));
                let forget = "DELETE FROM deletes WHERE table_id = ?1 AND version < ?2";
                self.execute(forget, &[&table.id, &oldest])?;
            }
        }
        Ok(())
    }

    fn execute(&self, statement: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<(), Failure> {
        self.transaction.prepare_cached(statement)?.execute(parameters)?;
        Ok(())
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
            .field("path", &self.database.path())
            .finish_non_exhaustive()
    }
}
