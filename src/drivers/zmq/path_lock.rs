//! Lets only one process serve a Unix socket; libzmq would take it over.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;

use crate::denied;
use crate::error::{Error, ErrorKind, Result};

use super::access::Access;

/// Proof that no other process serves this Unix socket; libzmq would silently unlink a live server's socket and take
/// its place. The lock is a file beside the socket, and is removed with it (libzmq removes neither). The kernel frees
/// the lock when its holder dies.
#[derive(Debug)]
pub(super) struct PathLock {
    socket: PathBuf,
    folder: Folder,
    access: Access,
    path: PathBuf,
    file: File,
    /// The file of the socket bound under this lock.
    bound: Option<Inode>,
    /// Where it was bound, before it was moved.
    made: PathBuf,
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
            folder: Folder::of(socket)?,
            socket: socket.to_owned(),
            access,
            path,
            bound: None,
            made: socket.to_owned(),
        };
        lock.check_free()?;
        // A socket left by a killed server is removed with the lock.
        lock.bound();
        Ok(lock)
    }

    /// Binds the socket with `bind`.
    pub(super) fn bind(&mut self, bind: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.access.make(&self.socket, |path| {
            path.clone_into(&mut self.made);
            bind(path)
        })?;
        self.bound();
        Ok(())
    }

    /// The address under which libzmq knows the socket.
    pub(super) fn uri(&self) -> String {
        uri(&self.made)
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
        self.folder.keep()?;
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
        match reach(&self.socket) {
            // So many wait to be accepted that there is no place for another.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(in_use(&self.socket)),
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

/// The address of a Unix socket for libzmq.
pub(super) fn uri(socket: &Path) -> String {
    format!("ipc://{}", socket.display())
}

/// The folder of a socket as it was when the socket was first served.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    user: u32,
    group: u32,
    mode: u32,
}

impl Folder {
    fn of(socket: &Path) -> Result<Folder> {
        let folder = socket.parent().filter(|folder| *folder != Path::new(""));
        let path = folder.unwrap_or(Path::new(".")).to_owned();
        let about = fs::metadata(&path).map_err(|e| failed("cannot examine", &path, e))?;
        Ok(Folder {
            user: about.uid(),
            group: about.gid(),
            mode: about.mode() & 0o7777,
            path,
        })
    }

    /// Makes the folder again if something has removed it, as the end of a user's session does.
    fn keep(&self) -> Result<()> {
        let path = &self.path;
        match fs::metadata(path) {
            Ok(there) if there.uid() == self.user => Ok(()),
            Ok(_) => {
                let context = format!("the folder {} belongs to another user now", path.display());
                Err(Error::new(ErrorKind::Denied, context))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().mode(0o700).create(path);
                made.and_then(|()| self.give())
                    .map_err(|e| failed("cannot make the folder again:", path, e))
            }
            Err(e) => Err(failed("cannot examine", path, e)),
        }
    }
}

impl Folder {
    /// Gives the folder its group and mode.
    fn give(&self) -> io::Result<()> {
        if fs::metadata(&self.path)?.gid() != self.group {
            chown(&self.path, None, Some(self.group))?;
        }
        fs::set_permissions(&self.path, Permissions::from_mode(self.mode))
    }
}

fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what} {}", path.display())).with_source(e)
}

/// The lock's mode: a user who can open the file can hold the lock, and so keep a service from starting.
const PRIVATE: u32 = 0o600;

fn lock(path: &Path, socket: &Path) -> Result<File> {
    let failed = |e: io::Error| failed("cannot lock", path, e);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            // Not a file elsewhere, which would get this mode.
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.mode() & 0o777 != PRIVATE && about.uid() == geteuid().as_raw() {
            // One left by a killed process; some filesystems have no modes.
            let _ = file.set_permissions(Permissions::from_mode(PRIVATE));
        }
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

/// Connects to a socket, without waiting for a server that accepts nothing.
fn reach(socket: &Path) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let ours = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&ours, &SocketAddrUnix::new(socket)?)?)
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
    let refused = reach(socket).err()?;
    if refused.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    Some(Error::new(ErrorKind::Denied, denied::owner(socket)?).with_source(refused))
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

    /// Otherwise a user who may only use the socket could lock it, and no service would start.
    #[test]
    fn no_other_user_can_open_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, path) = (folder.path().join("socket"), folder.path().join("socket.lock"));
        let is_private = || fs::metadata(&path).unwrap().mode() & 0o7777 == 0o600;
        let lock = take(&socket).unwrap();
        assert!(is_private());
        drop(lock);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let lock = take(&socket).unwrap();
        assert!(is_private());
        drop(lock);
        let other = folder.path().join("other");
        fs::write(&other, "").unwrap();
        let before = fs::metadata(&other).unwrap().mode();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(take(&socket).is_err(), "the lock of something else");
        assert_eq!(fs::metadata(&other).unwrap().mode(), before);
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
