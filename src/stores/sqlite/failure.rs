//! Failures of calls, and the meaning of SQLite's errors.

use std::path::Path;

use rusqlite::ErrorCode;
use rustix::fs::Access;
use rustix::io::Errno;

use crate::denied;
use crate::error::{Error, ErrorKind};

/// The failure of a call: an error for the caller, or one of SQLite.
#[derive(Debug)]
pub(super) enum Failure {
    Ours(Error),
    Sqlite(rusqlite::Error),
    /// A failed commit.
    Commit(rusqlite::Error),
}

impl Failure {
    pub(super) fn kind(&self) -> ErrorKind {
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
            // The write may reappear after a crash, although it failed.
            Some(_) if matches!(self, Failure::Commit(_)) => ErrorKind::Unconfirmed,
            Some(_) => ErrorKind::Unavailable,
            None => match e {
                rusqlite::Error::NulError(_) => ErrorKind::InvalidInput,
                _ => ErrorKind::Malformed,
            },
        }
    }

    pub(super) fn explain(self, path: &Path) -> Error {
        let kind = self.kind();
        let reason = match &self {
            Failure::Sqlite(e) | Failure::Commit(e) => match e.sqlite_error_code() {
                Some(ErrorCode::CannotOpen) if path.is_dir() => Some("it is a folder".into()),
                Some(ErrorCode::CannotOpen) => denied(path, Access::READ_OK),
                Some(ErrorCode::ReadOnly) => denied(path, Access::WRITE_OK),
                _ => None,
            },
            Failure::Ours(_) => None,
        };
        let path = path.display();
        let context = match (kind, reason) {
            (_, Some(reason)) => format!("database {path}: {reason}"),
            (ErrorKind::Timeout, _) => format!("database {path}: other processes were writing all the time"),
            _ => format!("database {path}"),
        };
        let error = Error::new(kind, context);
        match self {
            Failure::Ours(e) => error.with_source(e),
            Failure::Sqlite(e) | Failure::Commit(e) => error.with_source(e),
        }
    }
}

/// The error of a write by a process that can only read the file.
pub(super) fn read_only(path: &Path) -> Error {
    let reason = denied(path, Access::WRITE_OK);
    let reason = reason.unwrap_or_else(|| "this process may not write its file or folder".into());
    Error::new(ErrorKind::Io, reason)
}

/// Why this process may not use the file like this, if so: SQLite does not say it.
fn denied(path: &Path, access: Access) -> Option<String> {
    let folder = path.parent()?;
    let may = |path: &Path, access| rustix::fs::access(path, access) != Err(Errno::ACCESS);
    let owner = match may(path, access) {
        false => denied::owner(path),
        true if may(folder, Access::WRITE_OK | Access::EXEC_OK) => None,
        true => denied::owner(folder),
    };
    owner.map(|owner| format!("permission denied: {owner}"))
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
