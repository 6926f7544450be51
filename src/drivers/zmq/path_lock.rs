//! Lets only one process serve a Unix socket; libzmq would take it over.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

use super::access::Access;

/// Proof that no other process serves this Unix socket; libzmq would silently unlink a live server's socket and take
/// its place. The lock is a file beside the socket, and is removed with it (libzmq removes neither). The kernel frees
/// the lock when its holder dies.
#[derive(Debug)]
pub(super) struct PathLock {
    socket: PathBuf,
    access: Access,
    path: PathBuf,
    file: File,
    /// The file of the socket bound under this lock.
    bound: Option<Inode>,
}

/// Identifies a file, whatever its name.
type Inode = (u64, u64);

impl PathLock {
    pub(super) fn take(socket: &Path, access: Access) -> Result<PathLock> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let mut lock = PathLock {
            file: lock(&path, socket)?,
            socket: socket.to_owned(),
            access,
            path,
            bound: None,
        };
        lock.check_free()?;
        // A socket left by a killed server is removed with the lock.
        lock.bound();
        Ok(lock)
    }

    /// Binds the socket with `bind`.
    pub(super) fn bind(&mut self, bind: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.access.make(&self.socket, bind)?;
        self.bound();
        Ok(())
    }

    fn bound(&mut self) {
        self.bound = inode(&self.socket);
    }

    /// True if something else has removed or replaced the socket.
    pub(super) fn is_lost(&self) -> bool {
        inode(&self.socket) != self.bound
    }

    /// Makes sure that the path can be bound again.
    pub(super) fn retake(&mut self) -> Result<()> {
        if inode(&self.path) != of(&self.file) {
            self.file = lock(&self.path, &self.socket)?;
        }
        self.check_free()
    }

    fn check_free(&self) -> Result<()> {
        // libzmq deletes any file at the path.
        if fs::metadata(&self.socket).is_ok_and(|there| !there.file_type().is_socket()) {
            let context = format!("{}: exists already, and is no socket", self.socket.display());
            return Err(Error::new(ErrorKind::Io, context));
        }
        // A server that takes no locks, for example one in another language, answers here.
        match UnixStream::connect(&self.socket) {
            Ok(_) => Err(in_use(&self.socket)),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // The file at the path may be a successor's by now.
        if self.bound.is_some() && !self.is_lost() {
            let _ = fs::remove_file(&self.socket);
        }
        if inode(&self.path) == of(&self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path, socket: &Path) -> Result<File> {
    let failed = |e: io::Error| {
        let context = format!("cannot lock {}", path.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    };
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(socket)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        // The holder before us may have removed the file after we opened it; such a lock is worthless.
        if inode(path) == of(&file) {
            return Ok(file);
        }
    }
}

fn in_use(socket: &Path) -> Error {
    let context = format!("{}: another process serves this socket", socket.display());
    Error::new(ErrorKind::AddressInUse, context)
}

fn inode(path: &Path) -> Option<Inode> {
    let there = fs::metadata(path).ok()?;
    Some((there.dev(), there.ino()))
}

fn of(file: &File) -> Option<Inode> {
    let ours = file.metadata().ok()?;
    Some((ours.dev(), ours.ino()))
}

/// Why this process may not connect to a Unix socket, if so.
pub(super) fn denied(socket: &Path) -> Option<Error> {
    let refused = UnixStream::connect(socket).err()?;
    if refused.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    // The folder that denies access, or the socket itself.
    let seen = socket
        .ancestors()
        .find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let (path, it) = seen?;
    let what = if path == socket { "the socket" } else { "the folder" };
    let context = format!(
        "permission denied: {what} {} belongs to user {} and group {}, with mode {:o}",
        path.display(),
        it.uid(),
        it.gid(),
        it.mode() & 0o777
    );
    Some(Error::new(ErrorKind::Denied, context).with_source(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(socket: &Path) -> Result<PathLock> {
        PathLock::take(socket, Access::default())
    }

    #[test]
    fn a_path_is_served_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let lock = take(&socket).unwrap();
        assert_eq!(take(&socket).unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(lock);
        drop(take(&socket).unwrap());
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(take(&socket).unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(listener);
        // A killed server leaves a socket without a listener.
        drop(take(&socket).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_a_successors_stays() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let bind = || {
            let mut lock = take(&socket).unwrap();
            let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            lock.bound();
            (lock, listener)
        };
        let (mut first, _listener) = bind();
        assert!(!first.is_lost());
        let clean = || {
            for file in fs::read_dir(folder.path()).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
        };
        clean();
        assert!(first.is_lost());
        let (second, _listener) = bind();
        assert!(first.is_lost() && !second.is_lost());
        assert_eq!(first.retake().unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        clean();
        let mut second = second;
        second.retake().unwrap();
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
