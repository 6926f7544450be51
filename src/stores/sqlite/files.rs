//! Which files a database consists of, so that it shows when others are in their place.
//!
//! SQLite has them open and never looks at their names again: what it writes to a file that was removed is gone with the
//! process. They are looked at by name only. To open and close the database file here would free the locks that SQLite has
//! on it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind};

/// Where the files of a database are: its own, and those that SQLite keeps beside it.
#[derive(Debug)]
pub(super) struct Paths([PathBuf; 3]);

/// The files that were there at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files([Option<Id>; 3]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
    /// Only of a file that nobody may write.
    content: Option<(u64, Option<SystemTime>)>,
}

/// Their places.
const MAIN: usize = 0;
const LOG: usize = 1;

const NAMES: [&str; 3] = ["the file", "its -wal", "its -shm"];

impl Paths {
    /// `path` is absolute.
    pub(super) fn of(path: PathBuf) -> Paths {
        // SQLite keeps its own beside what a link leads to.
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let beside = |suffix: &str| {
            let mut name = real.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (log, index) = (beside("-wal"), beside("-shm"));
        Paths([path, log, index])
    }

    pub(super) fn main(&self) -> &Path {
        &self.0[MAIN]
    }

    /// The files that are there now.
    pub(super) fn look(&self) -> Files {
        self.look_at(|_| None)
    }

    /// As [`Paths::look`], and whether something was written to them.
    pub(super) fn look_inside(&self) -> Files {
        self.look_at(|file| Some((file.len(), file.modified().ok())))
    }

    fn look_at(&self, content: impl Fn(&Metadata) -> Option<(u64, Option<SystemTime>)>) -> Files {
        Files(self.0.each_ref().map(|path| {
            let file = fs::metadata(path).ok()?;
            Some(Id {
                device: file.dev(),
                inode: file.ino(),
                content: content(&file),
            })
        }))
    }

    /// Whether there is a write-ahead log with something in it.
    pub(super) fn has_log(&self) -> bool {
        fs::metadata(&self.0[LOG]).is_ok_and(|log| log.len() > 0)
    }

    /// Removes what does not belong to the files that are there now, but to `files`, which are still open: SQLite would take
    /// the log of another database for a part of this one, and the index of another log for that of this one.
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

    /// Whether there are now a log or an index that are not those of `files`: what those have is not to be written back.
    pub(super) fn has_others(&self, files: &Files) -> bool {
        let now = self.look().0;
        (LOG..now.len()).any(|at| now[at].is_some() && now[at] != files.0[at])
    }

    /// Removes what belongs to nothing, before the files are opened: a log and its index without a database, if that is to
    /// be made, and an index without a log, which those who still have it open will miss.
    pub(super) fn remove_orphans(&self, makes_main: bool) {
        let now = self.look().0;
        let of = match now[MAIN] {
            Some(_) => LOG,
            None if makes_main => MAIN,
            None => return,
        };
        self.remove_beside(|at| at > of && now[of].is_none() && now[at].is_some());
    }

    fn remove_beside(&self, is_old: impl Fn(usize) -> bool) {
        for (_, path) in self.0.iter().enumerate().skip(1).filter(|(at, _)| is_old(*at)) {
            if fs::remove_file(path).is_ok() {
                log::warn!("{}: removed, since what it belongs to is gone", path.display());
            }
        }
    }

    /// The error for files that are not `before` any more.
    pub(super) fn replaced(&self, before: &Files) -> Error {
        let now = self.look();
        let mut files = NAMES.iter().zip(now.0.iter().zip(&before.0));
        let (name, what) = match files.find(|(_, (now, before))| now != before) {
            Some((name, (None, _))) => (*name, "removed"),
            Some((name, _)) => (*name, "replaced"),
            None => ("a file", "away for a moment"),
        };
        let context = format!(
            "{name} was {what} while the database was open, and what was written may be gone with it; the next call opens \
            the database anew"
        );
        Error::new(ErrorKind::Io, context)
    }
}

impl Files {
    /// Tells the database from others that were at the same path.
    pub(super) fn number(&self) -> u64 {
        self.0[MAIN].as_ref().map_or(0, |file| file.inode)
    }

    pub(super) fn has_main(&self) -> bool {
        self.0[MAIN].is_some()
    }

    pub(super) fn has_same_main(&self, other: &Files) -> bool {
        self.0[MAIN] == other.0[MAIN]
    }
}
