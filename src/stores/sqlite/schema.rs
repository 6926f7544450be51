//! The schema of the file, and the check that it is a file of this library.

use rusqlite::{Connection, TransactionBehavior};

use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// Marks the library's files: "tcst" in SQLite's `application_id`.
const APPLICATION: i64 = 0x7463_7374;

/// The version of the schema, in SQLite's `user_version`. Every change of the schema raises it.
const VERSION: i64 = 2;

/// `version` and `unique_key` are the last given ones; they outlive the rows, so `live` says whether the table exists.
/// `incarnation` stays for the life of the file. `unknown` is the version of the table's own delete, up to which no
/// changes are known.
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

/// `deletes` has the recent deletes: for each topic the last delete of each key that it lacks now. The newest one of a
/// key has the version by which it may be created again. `topics` has each topic's last version, and the version of its
/// last delete that `deletes` has forgotten.
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

/// Upgrades a file from the first version to the second. Changes before it are unknown.
const UPGRADE: &str = "
    ALTER TABLE tables ADD COLUMN unknown INTEGER NOT NULL DEFAULT 0;
    UPDATE tables SET unknown = version;
    DROP TABLE deletes;
";

/// The state of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Empty.
    New,
    /// Of an earlier schema, which can be upgraded.
    Earlier,
    Current,
}

/// Checks that the file is the library's, or makes a new one so.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Failure> {
    let form = check(connection)?;
    // After the check, so that another program's file stays as it was.
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

/// The state of the file. Fails if it is another program's, or of a later version.
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
        _ => Err(Error::new(ErrorKind::Malformed, "the file is another program's database").into()),
    }
}
