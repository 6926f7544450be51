//! The versions of tables and topics, and the changes of rows.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::columns::{signed, unsigned};
use super::failure::Failure;
use crate::store::{ChangePage, Changes, StoredChange, TableVersion, TopicVersions};
use crate::update::{Name, Topic};

/// The version of a table; `file` is a number that differs for other files at the same path.
pub(super) fn table_version(reader: &Connection, file: u64, table: &str) -> Result<TableVersion, Failure> {
    let query = "SELECT incarnation, version FROM tables WHERE name = ?1 AND version > 0";
    // Restoring a backup into the open file raises it, as SQLite's backup does to make others read the schema again.
    let schema = reader
        .prepare_cached("PRAGMA schema_version")?
        .query_row([], |row| unsigned(row, 0))?;
    let state = reader.prepare_cached(query)?.query_row([table], |row| {
        Ok(TableVersion {
            // A copy of the file is another incarnation: it may be older.
            incarnation: row.get::<_, i64>(0)?.cast_unsigned() ^ file,
            version: unsigned(row, 1)?,
            tip: 0,
            source: schema,
        })
    });
    Ok(state.optional()?.unwrap_or_default())
}

pub(super) fn topic_versions(
    reader: &Connection,
    file: u64,
    table: &str,
    topics: &[Topic],
) -> Result<TopicVersions, Failure> {
    let query = "SELECT coalesce(topics.version, tables.unknown) FROM tables
        LEFT JOIN topics ON topics.table_id = tables.id AND topics.topic = ?2 WHERE tables.name = ?1";
    // One transaction, so that all are from one moment.
    let moment = reader.unchecked_transaction()?;
    let mut statement = moment.prepare_cached(query)?;
    let last_of = |topic: &Topic| {
        let last = statement.query_row([table, topic.as_str()], |row| unsigned(row, 0));
        Ok::<_, Failure>(last.optional()?.unwrap_or(0))
    };
    Ok(TopicVersions {
        versions: topics.iter().map(last_of).collect::<Result<_, _>>()?,
        table: table_version(&moment, file, table)?,
    })
}

pub(super) fn changes(
    reader: &Connection,
    file: u64,
    (table, topic): (&str, &Topic),
    since: TableVersion,
    limit: usize,
) -> Result<Changes, Failure> {
    let moment = reader.unchecked_transaction()?;
    let now = table_version(&moment, file, table)?;
    let query = "SELECT tables.id, max(tables.unknown, coalesce(topics.forgotten, 0)) FROM tables
        LEFT JOIN topics ON topics.table_id = tables.id AND topics.topic = ?2 WHERE tables.name = ?1";
    let found = moment.prepare_cached(query)?.query_row([table, topic.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, unsigned(row, 1)?))
    });
    let Some((table_id, forgotten)) = found.optional()? else {
        return Ok(Changes::of_no_table(since));
    };
    if now.went_back_since(&since) || since.version < forgotten {
        return Ok(Changes::Unknown);
    }
    // A row that left the topic and came back has an old delete here too.
    let query = "SELECT key, version, value FROM entries INDEXED BY entries_by_version
            WHERE table_id = :table AND topic = :topic AND version > :since
        UNION ALL
        SELECT key, version, NULL FROM deletes INDEXED BY deletes_by_topic
            WHERE table_id = :table AND topic = :topic AND version > :since AND NOT EXISTS (
                SELECT 1 FROM entries
                WHERE entries.table_id = :table AND entries.key = deletes.key AND entries.topic = :topic
            )
        ORDER BY version LIMIT :limit";
    let parameters = named_params! {
        ":table": table_id, ":topic": topic.as_str(), ":since": signed(since.version),
        ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let mut statement = moment.prepare_cached(query)?;
    let changes = statement.query_map(parameters, |row| {
        Ok(StoredChange {
            key: Name::from(row.get::<_, String>(0)?),
            version: unsigned(row, 1)?,
            value: row.get(2)?,
        })
    })?;
    Ok(Changes::Page(ChangePage::fill(changes, limit, now)?))
}
