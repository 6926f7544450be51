//! The connections to the files: one that writes and some that read.

use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::failure::{self, Failure};
use super::files::{Files, Lock, Paths};
use super::schema::{self, Form};
use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// The connections to the open files. Readers never wait for a writer: SQLite's write-ahead log shows them the state
/// before.
///
/// Each call checks that its result is from the files that have these names now.
#[derive(Debug)]
pub(super) struct Connections {
    files: Files,
    access: Access,
    /// The idle readers.
    readers: Mutex<Vec<Connection>>,
    /// Closed last, since the last connection writes the log back. `None` if the files are read-only.
    writer: Option<Mutex<Connection>>,
}

/// The mode in which the files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To write; missing files are created.
    Create,
    Write,
    /// To read, by a process that may not write the files, while others may.
    Read,
    /// To read, while no process writes: there is no log.
    ReadAlone,
}

/// The most idle readers; others are closed after use.
const IDLE_READERS: usize = 8;

/// The pauses between tries while another process writes. SQLite's own pauses grow to 100 ms, so that a process among
/// busy ones may wait for its turn for seconds.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LAST_PAUSE: Duration = Duration::from_micros(800);

/// The size to which a longer write-ahead log is cut back.
const MAX_IDLE_LOG_BYTES: i64 = 64 << 20;

impl Connections {
    /// Opens the files to write; with [`Access::Create`] it creates missing ones.
    pub(super) fn open(paths: &Paths, access: Access, deadline: Instant) -> Result<Connections, Failure> {
        let before = paths.look();
        paths.check_log(&before)?;
        let writer = retry(deadline, || {
            let mut writer = connect(paths.main(), access)?;
            // This opens the log, and writes nothing.
            let checked = schema::check(&writer);
            if before.has_main() && !before.has_same_main(&paths.look()) {
                return Err(paths.replaced(&before).into());
            }
            keep_log(&writer, false)?;
            checked?;
            schema::prepare(&mut writer)?;
            if writer.is_readonly("main")? {
                return Err(failure::read_only(paths.main()).into());
            }
            Ok(writer)
        })?;
        let connections = Connections {
            files: paths.look(),
            access,
            readers: Mutex::default(),
            writer: Some(Mutex::new(writer)),
        };
        if before.has_main() && !before.has_same_main(&connections.files) {
            return Err(paths.replaced(&before).into());
        }
        paths.note_log(&connections.files);
        Ok(connections)
    }

    /// Opens the files to read, by a process that may not write them.
    pub(super) fn open_to_read(paths: &Paths) -> Result<Connections, Failure> {
        let open = |access: Access| {
            let before = access.look(paths);
            paths.check_log(&before)?;
            let reader = connect(paths.main(), access)?;
            match schema::check(&reader)? {
                Form::Current => {}
                Form::New => {
                    return Err(Error::new(ErrorKind::Malformed, "it is empty, and cannot be written").into());
                }
                Form::Earlier => {
                    let context = "it was made by an earlier version; a process that may write it has to open it first";
                    return Err(Error::new(ErrorKind::Unsupported, context).into());
                }
            }
            Ok(Connections {
                // With writers in other processes, the log may be new.
                files: if access == Access::Read {
                    access.look(paths)
                } else {
                    before
                },
                access,
                readers: Mutex::new(vec![reader]),
                writer: None,
            })
        };
        open(Access::Read).or_else(|failure: Failure| {
            if failure.kind() != ErrorKind::Io || !paths.look().has_main() {
                return Err(failure);
            }
            if paths.has_log() {
                let context = "it can only be read, and its last process has left a write-ahead log: a process that may write \
                    it and its folder has to open it once, or keep it open";
                let error = Error::new(ErrorKind::Io, context);
                return Err(match failure {
                    Failure::Sqlite(e) => error.with_source(e),
                    _ => error,
                }
                .into());
            }
            // Without a log the file is complete.
            open(Access::ReadAlone)
        })
    }

    pub(super) fn can_write(&self) -> bool {
        self.writer.is_some()
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Keeps the log from being written back on close: others have begun another one.
    pub(super) fn keep_log(&self) {
        let kept = self.writer.as_ref().map(|writer| keep_log(&writer.lock(), true));
        if let Some(Err(e)) = kept {
            log::warn!("cannot keep SQLite from writing a log back: {e}");
        }
    }

    /// True if these are still the files at `paths`.
    pub(super) fn are_at(&self, paths: &Paths) -> bool {
        self.access.look(paths) == self.files
    }

    /// Calls `read` with a connection. A single query sees one state of the database.
    pub(super) fn read<T>(
        &self,
        paths: &Paths,
        deadline: Instant,
        read: impl Fn(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        retry(deadline, || {
            let idle = self.readers.lock().pop();
            let reader = match idle {
                Some(reader) => reader,
                None if self.are_at(paths) => connect(paths.main(), self.access.of_a_reader())?,
                None => return Err(paths.replaced(&self.files).into()),
            };
            let result = read(&reader);
            let mut readers = self.readers.lock();
            if readers.len() < IDLE_READERS {
                readers.push(reader);
            }
            result
        })
    }

    /// Calls `change` in a transaction, while no other writer runs; commits only if it returns `Ok`.
    pub(super) fn write<T>(
        &self,
        paths: &Paths,
        deadline: Instant,
        change: impl Fn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let writer = self.writer.as_ref().and_then(|writer| writer.try_lock_until(deadline));
        let Some(mut writer) = writer else {
            return Err(Error::new(ErrorKind::Timeout, "other threads were writing all the time").into());
        };
        retry(deadline, || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            let _lock = paths.lock(Lock::Shared, deadline);
            if !self.are_at(paths) {
                return Err(paths.replaced(&self.files).into());
            }
            transaction.commit().map_err(Failure::Commit)?;
            Ok(result)
        })
    }
}

impl Access {
    fn flags(self) -> OpenFlags {
        match self {
            Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Access::ReadAlone => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        }
    }

    /// Readers create no file.
    fn of_a_reader(self) -> Access {
        if self == Access::Create { Access::Write } else { self }
    }

    /// Looks at the files, as far as it takes to see that they are still the same.
    fn look(self, paths: &Paths) -> Files {
        match self {
            Access::ReadAlone => paths.look_inside(),
            _ => paths.look(),
        }
    }
}

fn connect(path: &Path, access: Access) -> Result<Connection, Failure> {
    // A link would lead to files other than those that are looked at.
    let flags = access.flags() | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = match access {
        Access::ReadAlone => Connection::open_with_flags(unchanging(path), flags)?,
        _ => Connection::open_with_flags(path, flags)?,
    };
    // A file that has just taken the place of another one would get that one's log. Only the writer writes it back.
    keep_log(&connection, true)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Otherwise SQLite compiles a statement with a limit anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Every commit is on the disk when it returns.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", MAX_IDLE_LOG_BYTES)?;
    Ok(connection)
}

/// Says whether the log stays when the last connection is closed, or is written back then.
fn keep_log(connection: &Connection, stays: bool) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, stays)
        .map(drop)
}

/// The path as an URI for a file that no process writes, which needs no locks and no other files.
fn unchanging(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// Repeats the attempt while another process is in the way, until the deadline.
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

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_with_a_limit_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = connect(&folder.path().join("test"), Access::Create).unwrap();
        schema::prepare(&mut connection).unwrap();
        let mut statement = connection.prepare("SELECT key FROM entries LIMIT :limit").unwrap();
        for limit in 1..5 {
            let mut rows = statement.query([limit]).unwrap();
            assert!(rows.next().unwrap().is_none());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
