//! The writes of one transaction.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::columns::{signed, topic, unsigned};
use super::failure::Failure;
use crate::error::Result;
use crate::store::{Write, WriteOp, Written};
use crate::update::Topic;

/// The writes of one transaction. The new versions of tables and topics are stored once, at the end.
pub(super) struct Writes<'t> {
    transaction: &'t Transaction<'t>,
    /// The number of writes for which deletes are remembered.
    remembered: u64,
    /// The tables looked up so far, by name.
    tables: HashMap<String, Table>,
}

struct Table {
    id: i64,
    /// The version of its last write.
    version: u64,
    /// The version up to which no changes are known.
    unknown: u64,
    is_changed: bool,
    has_deletes: bool,
    /// The topics looked up so far.
    topics: HashMap<Topic, Last>,
}

/// The last version of a topic.
#[derive(Clone, Copy)]
struct Last {
    version: u64,
    is_changed: bool,
}

/// The row, or its delete, before a write.
struct Found {
    row: Option<(Topic, u64)>,
    /// The row's value, if the write needs it.
    value: Option<String>,
    /// The version of the row's delete, if that is remembered.
    delete: Option<u64>,
}

/// Forgets a delete of a key that is created again. SQLite would look through all deletes of the table.
const END_DELETE: &str =
    "DELETE FROM deletes INDEXED BY deletes_by_key WHERE table_id = ?1 AND key = ?2 AND topic = ?3";

impl<'t> Writes<'t> {
    pub(super) fn new(transaction: &'t Transaction<'t>, remembered: u64) -> Writes<'t> {
        Writes {
            transaction,
            remembered,
            tables: HashMap::new(),
        }
    }

    /// Makes a write, or returns the reason why it is not made.
    pub(super) fn make(&mut self, write: &Write<'_>) -> Result<Result<Written>, Failure> {
        if !self.tables.contains_key(write.table)
            && let Some(table) = Table::find(self.transaction, write)?
        {
            self.tables.insert(write.table.to_owned(), table);
        }
        let Some(table) = self.tables.get_mut(write.table) else {
            return Ok(Err(write.not_found()));
        };
        let found = Found::find(self.transaction, table.id, write)?;
        let row = found.row.as_ref().map(|(topic, version)| (topic, *version));
        match write.check(row, found.delete) {
            Ok(()) => table.apply(self.transaction, found, write).map(Ok),
            Err(e) => Ok(Err(e)),
        }
    }

    /// Stores the versions of tables and topics.
    pub(super) fn finish(self) -> Result<(), Failure> {
        for table in self.tables.values().filter(|table| table.is_changed) {
            let update = "UPDATE tables SET version = ?2, live = 1 WHERE id = ?1";
            execute(self.transaction, update, &[&table.id, &signed(table.version)])?;
            for (topic, last) in table.topics.iter().filter(|(_, last)| last.is_changed) {
                let note = "INSERT INTO topics (table_id, topic, version, forgotten) VALUES (?1, ?2, ?3, 0)
                    ON CONFLICT (table_id, topic) DO UPDATE SET version = ?3";
                let parameters: [&dyn rusqlite::ToSql; 3] = [&table.id, &topic.as_str(), &signed(last.version)];
                execute(self.transaction, note, &parameters)?;
            }
            if table.has_deletes {
                table.forget_before(self.transaction, table.version.saturating_sub(self.remembered))?;
            }
        }
        Ok(())
    }
}

impl Table {
    /// The table of this write; a new one is added for a create.
    fn find(transaction: &Transaction<'_>, write: &Write<'_>) -> Result<Option<Table>, Failure> {
        let query = "SELECT id, version, unknown FROM tables WHERE name = ?1";
        let add = "INSERT INTO tables (name) VALUES (?1) RETURNING id, version, unknown";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Table {
                id: row.get(0)?,
                version: unsigned(row, 1)?,
                unknown: unsigned(row, 2)?,
                is_changed: false,
                has_deletes: false,
                topics: HashMap::new(),
            })
        };
        let name = [write.table];
        let found = transaction.prepare_cached(query)?.query_row(name, read).optional()?;
        Ok(match write.op {
            WriteOp::Create(_) if found.is_none() => Some(transaction.prepare_cached(add)?.query_row(name, read)?),
            _ => found,
        })
    }

    /// Makes a checked write.
    fn apply(&mut self, transaction: &Transaction<'_>, found: Found, write: &Write<'_>) -> Result<Written, Failure> {
        let (topic, row_version) = match found.row {
            Some((topic, version)) => (topic, version),
            None => (write.topic.unwrap_or(&Topic::ALL).clone(), 0),
        };
        let changed = match write.op {
            WriteOp::Set(value) => !write.unless_equal || found.value.as_deref() != Some(value),
            WriteOp::Create(_) | WriteOp::Delete => true,
        };
        let mut written = Written {
            version: row_version,
            after: None,
            topic,
            changed,
            before: found.value.filter(|_| write.returning),
        };
        if !changed {
            return Ok(written);
        }
        self.version += 1;
        self.is_changed = true;
        written.version = self.version;
        written.after = Some(self.note(transaction, &written.topic)?);
        let (id, version, topic) = (self.id, signed(self.version), written.topic.as_str());
        match write.op {
            WriteOp::Create(value) => {
                if found.delete.is_some() {
                    execute(transaction, END_DELETE, &[&id, &write.key, &topic])?;
                }
                let insert = "INSERT INTO entries (table_id, key, topic, version, value) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(transaction, insert, &[&id, &write.key, &topic, &version, &value])?;
            }
            WriteOp::Set(value) => {
                let update = "UPDATE entries SET version = ?3, value = ?4 WHERE table_id = ?1 AND key = ?2";
                execute(transaction, update, &[&id, &write.key, &version, &value])?;
            }
            WriteOp::Delete => {
                self.has_deletes = true;
                let delete = "DELETE FROM entries WHERE table_id = ?1 AND key = ?2";
                execute(transaction, delete, &[&id, &write.key])?;
                let remember = "INSERT INTO deletes (table_id, version, key, topic) VALUES (?1, ?2, ?3, ?4)";
                execute(transaction, remember, &[&id, &version, &write.key, &topic])?;
            }
        }
        Ok(written)
    }

    /// Gives the topic the table's version; returns its earlier one.
    fn note(&mut self, transaction: &Transaction<'_>, topic: &Topic) -> Result<u64, Failure> {
        let now = Last {
            version: self.version,
            is_changed: true,
        };
        if let Some(last) = self.topics.get_mut(topic) {
            return Ok(std::mem::replace(last, now).version);
        }
        let query = "SELECT version FROM topics WHERE table_id = ?1 AND topic = ?2";
        let last = transaction
            .prepare_cached(query)?
            .query_row(params![self.id, topic.as_str()], |row| unsigned(row, 0));
        self.topics.insert(topic.clone(), now);
        Ok(last.optional()?.unwrap_or(self.unknown))
    }

    /// Forgets the deletes before this version, and notes this for their topics.
    fn forget_before(&self, transaction: &Transaction<'_>, version: u64) -> Result<(), Failure> {
        let forget = "DELETE FROM deletes WHERE table_id = ?1 AND version < ?2 RETURNING topic, version";
        let mut forget = transaction.prepare_cached(forget)?;
        let forgotten = forget.query_map([self.id, signed(version)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let forgotten: Vec<(String, i64)> = forgotten.collect::<rusqlite::Result<_>>()?;
        let note = "UPDATE topics SET forgotten = max(forgotten, ?3) WHERE table_id = ?1 AND topic = ?2";
        for (topic, version) in forgotten {
            execute(transaction, note, &[&self.id, &topic, &version])?;
        }
        Ok(())
    }
}

impl Found {
    fn find(transaction: &Transaction<'_>, table_id: i64, write: &Write<'_>) -> Result<Found, Failure> {
        let query = "SELECT topic, version, CASE WHEN ?3 THEN value END FROM entries WHERE table_id = ?1 AND key = ?2";
        let needs_value = write.returning || write.unless_equal;
        let found = transaction
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
        // A delete counts only if there is no row.
        let query = "SELECT version FROM deletes WHERE table_id = ?1 AND key = ?2 ORDER BY version DESC LIMIT 1";
        let delete = transaction
            .prepare_cached(query)?
            .query_row(params![table_id, write.key], |row| unsigned(row, 0));
        Ok(Found {
            row: None,
            value: None,
            delete: delete.optional()?,
        })
    }
}

fn execute(transaction: &Transaction<'_>, statement: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<(), Failure> {
    transaction.prepare_cached(statement)?.execute(parameters)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::super::schema;
    use super::*;
    use crate::error::ErrorKind;

    fn open() -> (TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(folder.path().join("test")).unwrap();
        schema::prepare(&mut connection).unwrap();
        (folder, connection)
    }

    #[test]
    fn a_write_that_is_not_made_leaves_no_table() {
        let (_folder, mut connection) = open();
        let transaction = connection.transaction().unwrap();
        let mut writes = Writes::new(&transaction, 1000);
        for write in [Write::set("t", "k", "v"), Write::delete("t", "k")] {
            let e = writes.make(&write).unwrap().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound);
        }
        writes.finish().unwrap();
        let tables: i64 = transaction
            .query_row("SELECT count(*) FROM tables", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn a_key_that_is_created_again_costs_the_same_whatever_is_remembered() {
        let (_folder, connection) = open();
        let plan = format!("EXPLAIN QUERY PLAN {END_DELETE}");
        let plan: String = connection
            .query_row(&plan, params![1, "k", "t"], |row| row.get("detail"))
            .unwrap();
        assert!(plan.contains("deletes_by_key (table_id=? AND key=?"), "{plan}");
    }
}
