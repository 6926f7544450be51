//! A database, shared by the whole process and reopened when its files were replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use rusqlite::{Connection, Transaction};

use super::connection::{Access, Connections};
use super::failure::Failure;
use super::files::{Lock, Paths};
use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// The database at a path. A process has one for each path: SQLite shares locks and the log's index between all
/// connections of a process to a file, so all must be closed before other files are opened.
#[derive(Debug)]
pub(super) struct Database {
    paths: Paths,
    /// `None`: not open, for example since the files were replaced.
    connections: RwLock<Option<Connections>>,
}

/// The longest wait for other processes when the last store is dropped.
const LAST_WAIT: Duration = Duration::from_millis(100);

impl Database {
    /// Opens the database at a path without links, and creates a missing file. A read-only file is opened to read.
    pub(super) fn open(path: PathBuf, timeout: Duration) -> Result<Arc<Database>> {
        let database = Database::shared(path);
        let deadline = thread::deadline(timeout);
        let written = database.enter(deadline, Access::Create).map(drop);
        match written {
            Err(e) if e.kind() == ErrorKind::Io && database.path().is_file() => {
                database.enter(deadline, Access::Read).map(drop)?;
            }
            written => written?,
        }
        Ok(database)
    }

    /// The database at a path without links, opened by the first call.
    pub(super) fn shared(path: PathBuf) -> Arc<Database> {
        static SHARED: Mutex<BTreeMap<PathBuf, Weak<Database>>> = Mutex::new(BTreeMap::new());
        let mut shared = SHARED.lock();
        shared.retain(|_, database| database.strong_count() > 0);
        let database = shared.entry(path.clone()).or_default();
        database.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Database {
                paths: Paths::of(path),
                connections: RwLock::default(),
            });
            *database = Arc::downgrade(&new);
            new
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.paths.main()
    }

    /// Calls `read` with a connection, and with a number that differs for other files at the same path.
    pub(super) fn read<T>(
        &self,
        timeout: Duration,
        read: impl Fn(&Connection, u64) -> Result<T, Failure>,
    ) -> Result<T> {
        let deadline = thread::deadline(timeout);
        loop {
            let connections = self.enter(deadline, Access::Read)?;
            let number = connections.files().number();
            let result = connections.read(&self.paths, deadline, |reader| read(reader, number));
            if connections.are_at(&self.paths) {
                return result.map_err(|failure| failure.explain(self.path()));
            }
            let was_written = connections.can_write();
            let replaced = self.close(connections, deadline);
            // Files that only others write may well change: tries again.
            if was_written || Instant::now() >= deadline {
                return Err(replaced);
            }
        }
    }

    /// Calls `change` in a transaction, while no other process writes; commits only if it returns `Ok`.
    pub(super) fn write<T>(
        &self,
        timeout: Duration,
        change: impl Fn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let deadline = thread::deadline(timeout);
        let connections = self.enter(deadline, Access::Write)?;
        let result = connections.write(&self.paths, deadline, change);
        if connections.are_at(&self.paths) {
            return result.map_err(|failure| failure.explain(self.path()));
        }
        let replaced = self.close(connections, deadline);
        let may_be_there = match result {
            Ok(_) => true,
            Err(failure) => failure.kind() == ErrorKind::Unconfirmed,
        };
        Err(match may_be_there {
            true => Error::new(ErrorKind::Unconfirmed, "the write was already made").with_source(replaced),
            false => replaced,
        })
    }

    /// The connections, opened if necessary.
    fn enter(&self, deadline: Instant, access: Access) -> Result<MappedRwLockReadGuard<'_, Connections>> {
        let can_do_it = |connections: &&Connections| access == Access::Read || connections.can_write();
        loop {
            let open = self.connections.try_read_until(deadline).ok_or_else(|| self.busy())?;
            match RwLockReadGuard::try_map(open, |open| open.as_ref().filter(can_do_it)) {
                Ok(connections) => return Ok(connections),
                Err(open) => drop(open),
            }
            let mut open = self.connections.try_write_until(deadline).ok_or_else(|| self.busy())?;
            if open.as_ref().filter(can_do_it).is_none() {
                // All are closed before one is opened.
                *open = None;
                let opened = self.reopen(access, deadline);
                *open = Some(opened.map_err(|failure| failure.explain(self.path()))?);
            }
        }
    }

    fn reopen(&self, access: Access, deadline: Instant) -> Result<Connections, Failure> {
        let locked = self.paths.lock_to_open(deadline);
        self.paths.remove_orphans(&locked, access != Access::Read)?;
        if access == Access::Read {
            let opened = Connections::open(&self.paths, Access::Write, deadline);
            return opened.or_else(|failure| match failure.kind() {
                ErrorKind::Io => Connections::open_to_read(&self.paths),
                _ => Err(failure),
            });
        }
        // Removed files are created again.
        Connections::open(&self.paths, Access::Create, deadline)
    }

    /// Closes these connections, since other files have taken the names of theirs.
    fn close(&self, connections: MappedRwLockReadGuard<'_, Connections>, deadline: Instant) -> Error {
        let files = connections.files().clone();
        let replaced = Failure::from(self.paths.replaced(&files)).explain(self.path());
        drop(connections);
        // If the time runs out, the next call does it.
        if let Some(mut open) = self.connections.try_write_until(deadline)
            && let Some(now) = open.take_if(|now| *now.files() == files)
        {
            log::warn!("{replaced}");
            self.leave(now, deadline);
        }
        replaced
    }

    /// Closes connections whose files others have replaced, and touches none of the new ones.
    fn leave(&self, connections: Connections, deadline: Instant) {
        let files = connections.files();
        let _lock = self.paths.lock(Lock::Alone, deadline);
        if connections.can_write() {
            self.paths.remove_left_behind(files);
        }
        if self.paths.has_others(files) {
            connections.keep_log();
        }
        drop(connections);
    }

    fn busy(&self) -> Error {
        let context = format!("database {}: it is being reopened", self.path().display());
        Error::new(ErrorKind::Timeout, context)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // As in a store that a link has left: no further call has noticed it.
        if let Some(open) = self.connections.get_mut().take_if(|open| !open.are_at(&self.paths)) {
            self.leave(open, Instant::now() + LAST_WAIT);
        }
    }
}
