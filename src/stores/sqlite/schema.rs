//! What the file looks like, and how it is told from other files.

use rusqlite::{Connection, TransactionBehavior};

use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// Marks the file as ours: "tcst" in SQLite's `application_id`.
const APPLICATION: i64 = 0x7463_7374;

/// Which form of the tables this is, in SQLite's `user_version`. A change of the form raises it.
const VERSION: i64 = 2;

/// `version` and `unique_key` are the last that were given; they outlive the rows, so `live` tells whether the table
/// exists. `incarnation` is a table's for as long as the file is there. `unknown` is the version up to which no changes are
/// known: that of the table's own delete.
const TABLES: &str = "
    CREATE TABLE tables (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        live INTEGER NOT NULL DEFAULT 0,
        version INTEGER NOT NULL DEFAULT 0,
        incarnation INTEGER NOT NULL DEFAULT (random()),
        unique_key INTEGER NOT NULL DEFAULT 0,
        unknown INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE entries (
        table_id INTEGER NOT NULL,
        key TEXT NOT NULL,
        topic TEXT NOT NULL,
        version INTEGER NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (table_id, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_by_topic ON entries (table_id, topic, key);
";

/// `deletes` has what was deleted lately: one delete of a key in each topic where it is not there now, and, whatever became of
/// the row since, the version by which it may be created again. `topics` has the last version of each topic, and that of the last delete which
/// `deletes` has no more.
const HISTORY: &str = "
    CREATE INDEX entries_by_version ON entries (table_id, topic, version);
    CREATE TABLE deletes (
        table_id INTEGER NOT NULL,
        version INTEGER NOT NULL,
        key TEXT NOT NULL,
        topic TEXT NOT NULL,
        PRIMARY KEY (table_id, version)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX deletes_by_key ON deletes (table_id, key, version);
    CREATE INDEX deletes_by_topic ON deletes (table_id, topic, version);
    CREATE TABLE topics (
        table_id INTEGER NOT NULL,
        topic TEXT NOT NULL,
        version INTEGER NOT NULL,
        forgotten INTEGER NOT NULL,
        PRIMARY KEY (table_id, topic)
    ) STRICT, WITHOUT ROWID;
";

/// Makes of a file of the first version one of the second. Of what was written before no changes are known.
const UPGRADE: &str = "
    ALTER TABLE tables ADD COLUMN unknown INTEGER NOT NULL DEFAULT 0;
    UPDATE tables SET unknown = version;
    DROP TABLE deletes;
";

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Empty.
    New,
    /// Of an earlier version of the library, which this one can make its own.
    Earlier,
    Current,
}

/// Checks that the file is ours, or makes it so if it is new.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Failure> {
    let form = check(connection)?;
    // Only now: a file of another program stays as it was.
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let context = format!("the database cannot have a write-ahead log here, only the journal mode {mode:?}");
        return Err(Error::new(ErrorKind::Unsupported, context).into());
    }
    if form != Form::Current {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        let tables = match check(&transaction)? {
            Form::New => TABLES,
            Form::Earlier => UPGRADE,
            Form::Current => return Ok(()),
        };
        transaction.execute_batch(tables)?;
        transaction.execute_batch(HISTORY)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// What the file is. Fails if it is of another program, or of a later version of this one.
pub(super) fn check(connection: &Connection) -> Result<Form, Failure> {
    let query = "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
        FROM pragma_application_id, pragma_user_version";
    let found = connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    match found {
        (0, 0, 0) => Ok(Form::New),
        (APPLICATION, 1, _) => Ok(Form::Earlier),
        (APPLICATION, VERSION, _) => Ok(Form::Current),
        (APPLICATION, version, _) => {
            let context = format!("the database has version {version}, this build knows version {VERSION}");
            Err(Error::new(ErrorKind::Unsupported, context).into())
        }
        _ => Err(Error::new(ErrorKind::Malformed, "the database is of another program").into()),
    }
}
