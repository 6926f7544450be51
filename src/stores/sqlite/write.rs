//! One write, in a transaction.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::failure::Failure;
use super::{SqliteStore, signed, topic, unsigned};
use crate::error::Result;
use crate::store::{Change, Write, Written};
use crate::update::Topic;

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
    /// The version of the topic's last write.
    after: u64,
}

impl SqliteStore {
    /// Makes a write, or says why it is not to be made.
    pub(super) fn make(&self, transaction: &Transaction<'_>, write: &Write<'_>) -> Result<Result<Written>, Failure> {
        let found = find(transaction, write)?;
        let row = found.row.as_ref().map(|(topic, version)| (topic, *version));
        match write.check(row, found.delete) {
            Ok(()) => found.apply(transaction, write, self.deletes_remembered).map(Ok),
            Err(e) => Ok(Err(e)),
        }
    }
}

/// Looks for what the write is about; a table that was never used is added.
fn find(transaction: &Transaction<'_>, write: &Write<'_>) -> Result<Found, Failure> {
    let query = "SELECT tables.id, tables.version, entries.topic, entries.version,
            CASE WHEN ?3 THEN entries.value END,
            CASE WHEN entries.key IS NULL THEN
                (SELECT max(version) FROM deletes WHERE table_id = tables.id AND key = ?2)
            END,
            coalesce(topics.version, tables.unknown)
        FROM tables
            LEFT JOIN entries ON entries.table_id = tables.id AND entries.key = ?2
            LEFT JOIN topics ON topics.table_id = tables.id AND topics.topic = coalesce(entries.topic, ?4)
        WHERE tables.name = ?1";
    let needs_value = write.returning || write.unless_equal;
    let found = transaction.prepare_cached(query)?.query_row(
        params![write.table, write.key, needs_value, topic_of_new(write).as_str()],
        |row| {
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
                after: unsigned(row, 6)?,
            })
        },
    );
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
        after: 0,
    })
}

impl Found {
    /// Makes a write that was checked.
    fn apply(self, transaction: &Connection, write: &Write<'_>, remembered: u64) -> Result<Written, Failure> {
        let (topic, row_version) = match self.row {
            Some((topic, version)) => (topic, version),
            None => (topic_of_new(write), 0),
        };
        let changed = match write.change {
            Change::Set(value) => !write.unless_equal || self.value.as_deref() != Some(value),
            Change::Create(_) | Change::Delete => true,
        };
        let mut written = Written {
            version: row_version,
            after: changed.then_some(self.after),
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
        let topic = written.topic.as_str();
        match write.change {
            Change::Create(value) => {
                let forget = "DELETE FROM deletes WHERE table_id = ?1 AND key = ?2 AND topic = ?3";
                execute(forget, &[&table_id, &write.key, &topic])?;
                let insert = "INSERT INTO entries (table_id, key, topic, version, value) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(insert, &[&table_id, &write.key, &topic, &stored, &value])?;
            }
            Change::Set(value) => {
                let update = "UPDATE entries SET version = ?3, value = ?4 WHERE table_id = ?1 AND key = ?2";
                execute(update, &[&table_id, &write.key, &stored, &value])?;
            }
            Change::Delete => {
                let delete = "DELETE FROM entries WHERE table_id = ?1 AND key = ?2";
                execute(delete, &[&table_id, &write.key])?;
                let remember = "INSERT INTO deletes (table_id, version, key, topic) VALUES (?1, ?2, ?3, ?4)";
                execute(remember, &[&table_id, &stored, &write.key, &topic])?;
            }
        }
        let note = "INSERT INTO topics (table_id, topic, version, forgotten) VALUES (?1, ?2, ?3, 0)
            ON CONFLICT (table_id, topic) DO UPDATE SET version = ?3";
        execute(note, &[&table_id, &topic, &stored])?;
        if write.change == Change::Delete {
            forget_before(transaction, table_id, signed(version.saturating_sub(remembered)))?;
        }
        Ok(written)
    }
}

/// Forgets the deletes before this version, and notes it at their topics.
fn forget_before(transaction: &Connection, table_id: i64, version: i64) -> Result<(), Failure> {
    let forget = "DELETE FROM deletes WHERE table_id = ?1 AND version < ?2 RETURNING topic, version";
    let mut forget = transaction.prepare_cached(forget)?;
    let forgotten = forget.query_map([table_id, version], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let forgotten: Vec<(String, i64)> = forgotten.collect::<rusqlite::Result<_>>()?;
    let note = "UPDATE topics SET forgotten = max(forgotten, ?3) WHERE table_id = ?1 AND topic = ?2";
    for (topic, version) in forgotten {
        transaction
            .prepare_cached(note)?
            .execute(params![table_id, topic, version])?;
    }
    Ok(())
}

/// The topic of a row that the write creates.
fn topic_of_new(write: &Write<'_>) -> Topic {
    write.topic.unwrap_or(&Topic::ALL).clone()
}
