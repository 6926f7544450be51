//! A Unix socket is served by one process: libzmq would steal it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Proof that no other process serves this Unix socket: libzmq would unlink a live server's socket and take its
/// place without a word. The lock is a file beside the socket, and goes away with it (libzmq removes neither); the
/// kernel frees the lock when its holder dies.
#[derive(Debug)]
pub(super) struct PathLock {
    /// Set once this process owns the path.
    socket: Option<PathBuf>,
    path: PathBuf,
    _file: File,
}

impl PathLock {
    pub(super) fn take(socket: &Path) -> Result<PathLock> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let in_use = || {
            let context = format!("{}: another process serves this socket", socket.display());
            Err(Error::new(ErrorKind::AddressInUse, context))
        };
        let failed = |e: io::Error| {
            let context = format!("cannot lock {}", path.display());
            Error::new(ErrorKind::Io, context).with_source(e)
        };
        let file = loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return in_use(),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            // The holder before this one may have removed the file after it was opened here: then the lock is worth
            // nothing.
            let ours = file.metadata().map_err(failed)?;
            if fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                break file;
            }
        };
        let mut lock = PathLock {
            socket: None,
            path,
            _file: file,
        };
        // libzmq deletes whatever is there.
        if fs::metadata(socket).is_ok_and(|there| !there.file_type().is_socket()) {
            let context = format!("{}: exists already, and is no socket", socket.display());
            return Err(Error::new(ErrorKind::Io, context));
        }
        // A server that takes no locks, for example one written in another language, answers here.
        if UnixStream::connect(socket).is_ok() {
            return in_use();
        }
        lock.socket = Some(socket.to_owned());
        Ok(lock)
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_served_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let lock = PathLock::take(&socket).unwrap();
        assert_eq!(PathLock::take(&socket).unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(lock);
        drop(PathLock::take(&socket).unwrap());
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(PathLock::take(&socket).unwrap_err().kind(), ErrorKind::AddressInUse);
        drop(listener);
        // A killed server leaves a socket without a listener.
        drop(PathLock::take(&socket).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
