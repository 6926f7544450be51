//! The database to which a path leads, through links that may be changed while it is open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rusqlite::{Connection, Transaction};

use super::database::Database;
use super::failure::Failure;
use crate::error::{Error, ErrorKind, Result};

/// A path with the database to which it leads. Each call checks that its result is from that database.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    database: RwLock<Arc<Database>>,
}

/// The most links that lead to links, as in Linux.
const MAX_LINKS: usize = 40;

impl Named {
    /// Opens the database, and creates its file and folder if they are missing. A read-only file is opened to read.
    pub(super) fn open(path: &Path, timeout: Duration) -> Result<Named> {
        let fail = |e| Error::new(ErrorKind::Io, format!("database {}", path.display())).with_source(e);
        // An absolute path stays valid when the process changes its folder, and has no special meaning to SQLite, as
        // `:memory:` has.
        let path = std::path::absolute(path).map_err(fail)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let database = Database::open(real(&path), timeout)?;
        Ok(Named {
            path,
            database: RwLock::new(database),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `read` with a connection, and with a number that differs for other files at the same path.
    pub(super) fn read<T>(
        &self,
        timeout: Duration,
        read: impl Fn(&Connection, u64) -> Result<T, Failure>,
    ) -> Result<T> {
        let database = self.database();
        self.check(&database, database.read(timeout, read))
    }

    /// Calls `change` in a transaction, while no other process writes; commits only if it returns `Ok`.
    pub(super) fn write<T>(
        &self,
        timeout: Duration,
        change: impl Fn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let database = self.database();
        self.check(&database, Ok(()))?;
        let result = database.write(timeout, change);
        let was_made = result.is_ok();
        self.check(&database, result).map_err(|e| match was_made {
            true => Error::new(ErrorKind::Unconfirmed, "the write was already made").with_source(e),
            false => e,
        })
    }

    fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database.read())
    }

    /// Returns the result of a call to `database`, unless the path leads to another one now, which the next call uses.
    fn check<T>(&self, database: &Arc<Database>, result: Result<T>) -> Result<T> {
        let kind = result.as_ref().err().map(Error::kind);
        // It may have noticed that its file is gone, or have found a link there.
        let may_be_gone = matches!(kind, Some(ErrorKind::Io | ErrorKind::Unconfirmed));
        if !may_be_gone && self.leads_to(database) {
            return result;
        }
        let now = real(&self.path);
        if now == database.path() {
            return result;
        }
        let context = format!(
            "database {}: a link was changed while the database was open, from {} to {}; the next call opens that",
            self.path.display(),
            database.path().display(),
            now.display()
        );
        let mut current = self.database.write();
        if Arc::ptr_eq(&current, database) {
            *current = Database::shared(now);
        }
        match kind {
            Some(ErrorKind::Unconfirmed) => result,
            _ => Err(Error::new(ErrorKind::Io, context)),
        }
    }

    /// True if the path leads to the file of `database`.
    fn leads_to(&self, database: &Database) -> bool {
        let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        // A database notices by itself what takes the place of its file.
        self.path == database.path() || file(&self.path).is_some_and(|found| file(database.path()) == Some(found))
    }
}

/// The path without links, also for a missing file: SQLite keeps its files beside the target of a link.
fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(real) = fs::canonicalize(&path) {
            return real;
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return path;
        };
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let missing = folder.join(name);
        match fs::read_link(&missing) {
            Ok(target) => path = folder.join(target),
            Err(_) => return missing,
        }
    }
    path
}
