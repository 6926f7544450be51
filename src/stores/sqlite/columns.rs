//! Values in the columns of a query.

use rusqlite::types::Type;

use crate::store::Row;
use crate::update::Topic;

/// Reads `key, topic, version, value`.
pub(super) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        key: row.get::<_, String>(0)?.into(),
        topic: topic(row, 1)?,
        version: unsigned(row, 2)?,
        value: row.get(3)?,
    })
}

pub(super) fn topic(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Topic> {
    let name: String = row.get(column)?;
    Topic::new(name).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// Versions and unique numbers stay far below 2^63.
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
