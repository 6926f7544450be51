//! Addresses, and binding to them without stealing from a live server.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

use super::zmq_error;

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// What `@` or `>` in front says, if there is one.
    role: Option<Role>,
    /// The address as libzmq takes it.
    uri: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Bind,
    Connect,
}

/// The longest path of a Unix socket on Linux, less the closing zero.
const MAX_PATH: usize = 107;

impl Endpoint {
    pub(super) fn parse(address: &str) -> Result<Endpoint> {
        let (role, uri) = match address.split_at_checked(1) {
            Some(("@", uri)) => (Some(Role::Bind), uri),
            Some((">", uri)) => (Some(Role::Connect), uri),
            _ => (None, address),
        };
        let invalid = |expected: &str| {
            Err(Error::new(
                ErrorKind::InvalidInput,
                format!("address {address:?}: expected {expected}"),
            ))
        };
        if uri.contains('\0') {
            return invalid("no NUL character");
        }
        let Some((scheme, rest)) = uri.split_once("://") else {
            return invalid("transport://address, for example tcp://127.0.0.1:8866");
        };
        match scheme {
            "tcp" => {
                let port = rest.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
                if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
                    return invalid("tcp://host:port with a port from 0 to 65535");
                }
            }
            "ipc" if rest.is_empty() => return invalid("ipc:// and a path"),
            "ipc" if rest.len() > MAX_PATH => return invalid("a path of at most 107 bytes, the limit of Unix sockets"),
            "inproc" if rest.is_empty() => return invalid("inproc:// and a name"),
            "ipc" | "inproc" => {}
            "pgm" | "epgm" if zmq::has("pgm") != Some(true) => {
                let context = format!(
                    "address {address:?}: this libzmq ({}) was built without PGM; link the system's libzmq, as the README tells",
                    super::libzmq()
                );
                return Err(Error::new(ErrorKind::Unsupported, context));
            }
            "pgm" | "epgm" => {}
            _ => return invalid("one of the transports tcp, ipc, inproc, epgm"),
        }
        Ok(Endpoint {
            role,
            uri: uri.to_owned(),
        })
    }

    pub(super) fn role_or(&self, default: Role) -> Role {
        self.role.unwrap_or(default)
    }

    /// True if libzmq has no connection events for it: it is there at once, and for good.
    pub(super) fn is_silent(&self) -> bool {
        !(self.uri.starts_with("tcp:") || self.uri.starts_with("ipc:"))
    }

    /// What to bind: libzmq takes an address or an interface, and for a host name that name's address.
    fn bind_uri(&self) -> String {
        let named = self
            .uri
            .strip_prefix("tcp://")
            .filter(|rest| !rest.starts_with(['*', '[']));
        let resolved = named.and_then(|rest| rest.to_socket_addrs().ok());
        let resolved = resolved.and_then(|found| found.min_by_key(SocketAddr::is_ipv6));
        resolved.map_or_else(|| self.uri.clone(), |address| format!("tcp://{address}"))
    }

    pub(super) fn connect(&self, socket: &zmq::Socket) -> Result<()> {
        let connected = prepare(socket, &self.uri).and_then(|()| socket.connect(&self.uri));
        connected.map_err(|e| zmq_error(e, format!("cannot connect to {self}")))
    }

    /// Binds, and returns the address with its real port, and the lock that must be held as long.
    pub(super) fn bind(&self, socket: &zmq::Socket) -> Result<(String, Option<PathLock>)> {
        let lock = match self.uri.strip_prefix("ipc://") {
            Some(path) if !path.starts_with('@') => Some(PathLock::take(Path::new(path))?),
            _ => None,
        };
        let uri = self.bind_uri();
        let bound = prepare(socket, &uri).and_then(|()| socket.bind(&uri));
        bound.map_err(|e| zmq_error(e, format!("cannot bind {self}")))?;
        let address = match socket.get_last_endpoint() {
            Ok(Ok(address)) if !self.is_silent() => address.trim_end_matches('\0').to_owned(),
            _ => self.uri.clone(),
        };
        Ok((address, lock))
    }
}

/// IPv6 only where the address says so: otherwise libzmq reports IPv4 addresses in a form that few know.
fn prepare(socket: &zmq::Socket, uri: &str) -> zmq::Result<()> {
    socket.set_ipv6(uri.contains('['))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// Proof that no other process serves this Unix socket: libzmq would unlink a live server's socket and take its
/// place without a word. The lock is a file beside the socket, and goes away with it (libzmq removes neither); the
/// kernel frees the lock when its holder dies.
#[derive(Debug)]
pub(super) struct PathLock {
    /// Set once the path is known to be ours.
    socket: Option<PathBuf>,
    path: PathBuf,
    _file: File,
}

impl PathLock {
    fn take(socket: &Path) -> Result<PathLock> {
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
            // The holder before us may have removed the file after we opened it: then the lock is worth nothing.
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
            let context = format!("{}: is there already, and is no socket", socket.display());
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
    fn addresses_are_checked() {
        for good in [
            "tcp://127.0.0.1:0",
            "@tcp://*:8866",
            ">tcp://[::1]:1",
            "ipc:///run/x",
            "inproc://a",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "8866",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://h:65536",
            "udp://h:1",
            "ipc://",
            "tcp://a\0:1",
        ] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        assert_eq!(
            Endpoint::parse("@inproc://a").unwrap().role_or(Role::Connect),
            Role::Bind
        );
    }

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
        // What a killed server leaves: a socket that nobody answers.
        drop(PathLock::take(&socket).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
