//! The files of a database, by which replaced ones are noticed.
//!
//! SQLite keeps them open and never checks their names again: data that it writes to a removed file is lost when the
//! process ends. Here they are looked at only by name: opening and closing the database file would free SQLite's locks
//! on it.

use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// The paths of a database: its own file, and those that SQLite keeps beside it.
#[derive(Debug)]
pub(super) struct Paths([PathBuf; 3]);

/// The files that existed at one moment.
#[derive(Debug, Clone)]
pub(super) struct Files([Option<Id>; 3], [Born; 3]);

/// When a file was made, in nanoseconds; 0 if the file system does not say. A file in the place of a removed one may
/// get its inode, but not while that is open, so files are compared without this.
type Born = u64;

/// The inodes and ages of the database's own file and of its log.
type Pair = [[u8; 16]; 2];

/// The extended attribute of a log by which it names the file that it was written for, and itself: with a log that was
/// copied, the file was copied too.
const PAIR: &str = "user.tablecast.log-of";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
    /// Length and time of the last change; only for a file that no process writes.
    content: Option<(u64, Option<SystemTime>)>,
}

/// Kinds of locks of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Shared,
    Alone,
}

/// The longest wait for other processes, one of which may be suspended, and the pauses.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// The files, kept as they are for other processes while this lives.
#[derive(Debug)]
pub(super) struct Locked {
    /// `None` if others took too long.
    folder: Option<File>,
    is_alone: bool,
}

/// Positions in these arrays.
const MAIN: usize = 0;
const LOG: usize = 1;

const NAMES: [&str; 3] = ["the file", "its -wal", "its -shm"];

impl Paths {
    /// The paths for an absolute `path` without links.
    pub(super) fn of(path: PathBuf) -> Paths {
        let beside = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (log, index) = (beside("-wal"), beside("-shm"));
        Paths([path, log, index])
    }

    pub(super) fn main(&self) -> &Path {
        &self.0[MAIN]
    }

    /// Keeps the files as they are for other processes, while the result lives. `None` if others take too long.
    ///
    /// Commits, and opening a database whose files are all there, share the lock. What creates or removes a file has it
    /// alone: a file that is removed by its name must not be a new one of another process, and nobody may write a log
    /// whose index, with its locks, is no longer everybody's.
    pub(super) fn lock(&self, lock: Lock, deadline: Instant) -> Option<File> {
        let end = deadline.min(Instant::now() + PATIENCE);
        // No file of its own, which could be removed as well.
        let folder = File::open(self.0[LOG].parent()?).ok()?;
        loop {
            let locked = match lock {
                Lock::Shared => folder.try_lock_shared(),
                Lock::Alone => folder.try_lock(),
            };
            match locked {
                Ok(()) => return Some(folder),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::pause(PAUSE),
                Err(_) => return None,
            }
        }
    }

    /// The lock to open the files.
    pub(super) fn lock_to_open(&self, deadline: Instant) -> Locked {
        let shared = self.lock(Lock::Shared, deadline);
        let files = self.look();
        if files.0.iter().all(Option::is_some) && !self.has_log_of_another(&files) {
            return Locked {
                folder: shared,
                is_alone: false,
            };
        }
        drop(shared);
        let alone = self.lock(Lock::Alone, deadline);
        Locked {
            is_alone: alone.is_some(),
            folder: alone,
        }
    }

    /// The files that exist now.
    pub(super) fn look(&self) -> Files {
        self.look_at(|_| None)
    }

    /// As [`Paths::look`], and shows also changed content.
    pub(super) fn look_inside(&self) -> Files {
        self.look_at(|file| Some((file.len(), file.modified().ok())))
    }

    fn look_at(&self, content: impl Fn(&Metadata) -> Option<(u64, Option<SystemTime>)>) -> Files {
        // A link that has taken the place of a file is another file.
        let files = self.0.each_ref().map(|path| fs::symlink_metadata(path).ok());
        let id = |file: &Metadata| Id {
            device: file.dev(),
            inode: file.ino(),
            content: content(file),
        };
        let born = files.each_ref().map(|file| file.as_ref().map_or(0, born));
        Files(files.each_ref().map(|file| file.as_ref().map(id)), born)
    }

    /// True if there is a write-ahead log that is not empty.
    pub(super) fn has_log(&self) -> bool {
        fs::metadata(&self.0[LOG]).is_ok_and(|log| log.len() > 0)
    }

    /// True if the log was written for another file than the one in `files`, by which that was replaced.
    pub(super) fn has_log_of_another(&self, files: &Files) -> bool {
        let (noted, now) = (self.noted(), files.pair());
        noted
            .zip(now)
            .is_some_and(|(noted, now)| noted[1] == now[1] && noted[0] != now[0])
    }

    /// Fails if the log was written for another file than the one in `files`.
    pub(super) fn check_log(&self, files: &Files) -> Result<()> {
        if !self.has_log_of_another(files) {
            return Ok(());
        }
        let context = "its -wal was written for another file, which this one has replaced, and would destroy it; end \
            the processes that have the other file open, and remove -wal and -shm: they hold the last writes to that";
        Err(Error::new(ErrorKind::Malformed, context))
    }

    /// Notes for which file the log is written, if the file system can.
    pub(super) fn note_log(&self, files: &Files) {
        let Some(pair) = files.pair().filter(|pair| self.noted() != Some(*pair)) else {
            return;
        };
        if let Err(e) = setxattr(&self.0[LOG], PAIR, pair.as_flattened(), XattrFlags::empty()) {
            log::debug!("{}: no note of its file: {e}", self.0[LOG].display());
        }
    }

    fn noted(&self) -> Option<Pair> {
        let mut pair = Pair::default();
        let length = getxattr(&self.0[LOG], PAIR, pair.as_flattened_mut()).ok()?;
        (length == pair.as_flattened().len()).then_some(pair)
    }

    /// Removes files that belong to `files`, which are still open, and not to the present ones: SQLite would take
    /// another database's log, or another log's index, for this one's.
    pub(super) fn remove_left_behind(&self, files: &Files) {
        let (now, old) = (&self.look().0, &files.0);
        let is_of_another = |at: usize| {
            let of = if now[MAIN] == old[MAIN] { LOG } else { MAIN };
            at > of && now[of] != old[of] && now[at] == old[at]
        };
        if now[MAIN].is_some() {
            self.remove_beside(is_of_another);
        }
    }

    /// True if there is now a log or an index that is not of `files`, whose own must not be written back.
    pub(super) fn has_others(&self, files: &Files) -> bool {
        let now = self.look().0;
        (LOG..now.len()).any(|at| now[at].is_some() && now[at] != files.0[at])
    }

    /// Removes files that belong to nothing, before opening: a log and an index without a database, if that is to be
    /// created, an empty log of another file, and an index without a log, which processes that still have it open will
    /// notice. Without the lock alone they might be those of another process by now.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if there are some and the lock was not to be had.
    pub(super) fn remove_orphans(&self, locked: &Locked, makes_main: bool) -> Result<()> {
        let now = self.look();
        let is_empty_log = !self.has_log() && self.has_log_of_another(&now);
        let of = if now.has_main() { LOG } else { MAIN };
        let has_lost = now.0[of].is_none() && (of == LOG || makes_main);
        let is_orphan = |at: usize| now.0[at].is_some() && (is_empty_log || has_lost && at > of);
        if locked.is_alone {
            self.remove_beside(is_orphan);
        } else if locked.folder.is_none() && (LOG..now.0.len()).any(is_orphan) {
            let context = "its -wal or -shm belongs to nothing, and other processes keep it from being removed";
            return Err(Error::new(ErrorKind::Timeout, context));
        }
        Ok(())
    }

    fn remove_beside(&self, is_old: impl Fn(usize) -> bool) {
        for (_, path) in self.0.iter().enumerate().skip(1).filter(|(at, _)| is_old(*at)) {
            if fs::remove_file(path).is_ok() {
                log::warn!("{}: removed, since the file that it belongs to is gone", path.display());
            }
        }
    }

    /// The error for files that are no longer `before`.
    pub(super) fn replaced(&self, before: &Files) -> Error {
        let now = self.look();
        let mut files = NAMES.iter().zip(now.0.iter().zip(&before.0));
        let (name, what) = match files.find(|(_, (now, before))| now != before) {
            Some((name, (None, _))) => (*name, "removed"),
            Some((name, _)) => (*name, "replaced"),
            None => ("a file", "missing for a moment"),
        };
        let context = format!(
            "{name} was {what} while the database was open, and recent writes may be lost with it; the next call \
            reopens the database"
        );
        Error::new(ErrorKind::Io, context)
    }
}

fn born(file: &Metadata) -> Born {
    let since = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

impl PartialEq for Files {
    fn eq(&self, other: &Files) -> bool {
        self.0 == other.0
    }
}

impl Files {
    /// A number that differs for other databases at the same path.
    pub(super) fn number(&self) -> u64 {
        self.0[MAIN]
            .as_ref()
            .map_or(0, |file| file.inode.rotate_left(32) ^ self.1[MAIN])
    }

    /// Both, if there are both.
    fn pair(&self) -> Option<Pair> {
        let name = |at: usize| {
            let inode = self.0[at].as_ref()?.inode;
            let mut name = [0; 16];
            name[..8].copy_from_slice(&inode.to_be_bytes());
            name[8..].copy_from_slice(&self.1[at].to_be_bytes());
            Some(name)
        };
        Some([name(MAIN)?, name(LOG)?])
    }

    pub(super) fn has_main(&self) -> bool {
        self.0[MAIN].is_some()
    }

    pub(super) fn has_same_main(&self, other: &Files) -> bool {
        self.0[MAIN] == other.0[MAIN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise two processes that open the files at one time remove each other's.
    #[test]
    fn an_orphan_is_removed_only_with_the_lock_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::of(folder.path().join("store.db"));
        fs::write(paths.main(), "").unwrap();
        fs::write(&paths.0[2], "").unwrap();
        let soon = Instant::now();
        let shared = paths.lock(Lock::Shared, soon).unwrap();
        let locked = paths.lock_to_open(soon);
        let held_up = paths.remove_orphans(&locked, true).unwrap_err();
        assert!(held_up.kind() == ErrorKind::Timeout && paths.0[2].exists());
        let locked = Locked {
            folder: Some(shared),
            is_alone: false,
        };
        paths.remove_orphans(&locked, true).unwrap();
        assert!(paths.0[2].exists());
        drop(locked);
        paths.remove_orphans(&paths.lock_to_open(soon), true).unwrap();
        assert!(!paths.0[2].exists());
    }

    #[test]
    fn a_file_with_the_inode_of_another_has_another_number() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::of(folder.path().join("store.db"));
        fs::write(paths.main(), "first").unwrap();
        let files = paths.look();
        fs::write(paths.main(), "second").unwrap();
        assert_eq!((paths.look(), paths.look().number()), (files.clone(), files.number()));
        let later = Files(files.0.clone(), files.1.map(|born| born + 1));
        assert_ne!(later.number(), files.number());
    }
}
