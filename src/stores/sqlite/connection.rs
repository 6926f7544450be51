//! The connections to the file: one that writes and some that read, and what SQLite's errors mean.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::schema;
use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// The connections of one store. Those that read wait for none that writes: in SQLite's write-ahead log they see the
/// state before.
#[derive(Debug)]
pub(super) struct Connections {
    path: PathBuf,
    timeout: Duration,
    writer: Mutex<Connection>,
    /// Those that nobody uses at the moment.
    readers: Mutex<Vec<Connection>>,
}

/// What stops a call: an answer to the caller, or trouble with the database.
pub(super) enum Failure {
    Ours(Error),
    Sqlite(rusqlite::Error),
    /// Trouble with the commit itself.
    Commit(rusqlite::Error),
}

/// More connections than these are closed after use.
const IDLE_READERS: usize = 4;

/// The pauses between tries while another process writes. SQLite itself would pause up to 100 ms, and a process that
/// waits among busy ones would find no turn for seconds.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LAST_PAUSE: Duration = Duration::from_micros(800);

/// The write-ahead log is cut back to so many bytes after it was longer.
const MAX_IDLE_LOG_BYTES: i64 = 64 << 20;

impl Connections {
    /// Opens the file, and makes it and its folder if they are missing.
    pub(super) fn open(path: &Path, timeout: Duration) -> Result<Connections> {
        let fail = |e| Error::new(ErrorKind::Io, format!("database {}", path.display())).with_source(e);
        // An absolute path stays the same when the process changes its folder, and means nothing else to SQLite, as
        // `:memory:` would.
        let path = std::path::absolute(path).map_err(fail)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let writer = retry(thread::deadline(timeout), || {
            let mut writer = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
            schema::prepare(&mut writer)?;
            Ok(writer)
        });
        Ok(Connections {
            writer: Mutex::new(writer.map_err(|failure| failure.explain(&path))?),
            readers: Mutex::default(),
            timeout,
            path,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `read` with a connection. It sees one state of the database if it makes one query.
    pub(super) fn read<T>(&self, read: impl Fn(&Connection) -> Result<T, Failure>) -> Result<T> {
        let result = retry(thread::deadline(self.timeout), || {
            let idle = self.readers.lock().pop();
            let reader = idle.map_or_else(|| connect(&self.path, OpenFlags::empty()), Ok)?;
            let result = read(&reader);
            let mut readers = self.readers.lock();
            if readers.len() < IDLE_READERS {
                readers.push(reader);
            }
            result
        });
        result.map_err(|failure| failure.explain(&self.path))
    }

    /// Calls `change` in a transaction, while no other process writes; what it did counts only if it returns `Ok`.
    pub(super) fn write<T>(&self, change: impl Fn(&Transaction<'_>) -> Result<T, Failure>) -> Result<T> {
        let deadline = thread::deadline(self.timeout);
        let Some(mut writer) = self.writer.try_lock_until(deadline) else {
            let context = format!(
                "database {}: other threads were writing all the time",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Timeout, context));
        };
        let result = retry(deadline, || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            transaction.commit().map_err(Failure::Commit)?;
            Ok(result)
        });
        result.map_err(|failure| failure.explain(&self.path))
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Every commit is on the disk when it returns.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", MAX_IDLE_LOG_BYTES)?;
    Ok(connection)
}

/// Tries again for as long as another process is in the way, until the deadline.
fn retry<T>(deadline: Instant, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Err(failure) if failure.kind() == ErrorKind::Timeout && Instant::now() < deadline => {
                thread::pause(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
            result => return result,
        }
    }
}

impl Failure {
    fn kind(&self) -> ErrorKind {
        let e = match self {
            Failure::Ours(error) => return error.kind(),
            Failure::Sqlite(e) | Failure::Commit(e) => e,
        };
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Timeout,
            Some(ErrorCode::DiskFull) => ErrorKind::Full,
            Some(ErrorCode::TooBig) => ErrorKind::TooLarge,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => ErrorKind::Malformed,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => ErrorKind::Io,
            // What was written may be found again after a crash, though it could not be made sure of.
            Some(_) if matches!(self, Failure::Commit(_)) => ErrorKind::Unconfirmed,
            Some(_) => ErrorKind::Unavailable,
            None => match e {
                rusqlite::Error::NulError(_) => ErrorKind::InvalidInput,
                _ => ErrorKind::Malformed,
            },
        }
    }

    fn explain(self, path: &Path) -> Error {
        let kind = self.kind();
        let path = path.display();
        let context = match kind {
            ErrorKind::Timeout => format!("database {path}: other processes were writing all the time"),
            _ => format!("database {path}"),
        };
        let error = Error::new(kind, context);
        match self {
            Failure::Ours(e) => error.with_source(e),
            Failure::Sqlite(e) | Failure::Commit(e) => error.with_source(e),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ours(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Failure {
        Failure::Sqlite(e)
    }
}
