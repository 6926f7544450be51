//! Copies of libzmq's own descriptors, of which only the numbers are known. Linux hands them out (`pidfd_getfd`).

use std::net::SocketAddr;

use super::keepalive::Keepalive;

/// Both ends of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// Why there is no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    Gone,
    /// The system does not allow it, as in many containers.
    Denied,
    /// No descriptor is left for the copy.
    NoRoom,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Connection;

#[cfg(not(target_os = "linux"))]
pub(super) struct Connection;

#[cfg(not(target_os = "linux"))]
impl Connection {
    pub(super) fn copy(_: u32, _: &str) -> Result<Connection, Miss> {
        Err(Miss::Denied)
    }

    pub(super) fn ends(&self) -> Option<Ends> {
        None
    }

    pub(super) fn keep_alive(&self, _: Keepalive) {}

    pub(super) fn hang_up(&self) {}
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::OwnedFd;
    use std::sync::Once;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::net::{Shutdown, SocketAddrUnix, getpeername, getsockname, shutdown, sockopt};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    use super::{Ends, Keepalive, Miss};

    /// A copy of a connection.
    pub(in super::super) struct Connection(OwnedFd);

    impl Connection {
        /// Copies libzmq's connection with this descriptor. `address` is the one that libzmq reports: the far end of a
        /// connection that was made, the near end of one that was accepted.
        pub(in super::super) fn copy(fd: u32, address: &str) -> Result<Connection, Miss> {
            let number = i32::try_from(fd).map_err(|_| Miss::Gone)?;
            let copy = pidfd_open(getpid(), PidfdFlags::empty())
                .and_then(|this| pidfd_getfd(this, number, PidfdGetfdFlags::empty()));
            let copy = Connection(copy.map_err(|e| match e {
                Errno::MFILE | Errno::NFILE => Miss::NoRoom,
                Errno::BADF => Miss::Gone,
                e => {
                    warn(e);
                    Miss::Denied
                }
            })?);
            // The connection may be gone, and its number reused by now.
            if copy.is_at(address) { Ok(copy) } else { Err(Miss::Gone) }
        }

        fn is_at(&self, address: &str) -> bool {
            match self.ends() {
                // libzmq writes the scope of a link-local address as a name.
                Some(ends) => {
                    let named = end(address);
                    [ends.remote, ends.local]
                        .map(|end| Some((end.ip(), end.port())))
                        .contains(&named)
                }
                None => self
                    .path()
                    .is_some_and(|path| address.strip_prefix("ipc://") == Some(&path)),
            }
        }

        /// The path of a Unix socket, if it has one, as an accepted connection does.
        fn path(&self) -> Option<String> {
            let local = SocketAddrUnix::try_from(getsockname(&self.0).ok()?).ok()?;
            Some(local.path()?.to_string_lossy().into_owned())
        }

        /// The ends of a TCP connection.
        pub(in super::super) fn ends(&self) -> Option<Ends> {
            Some(Ends {
                local: SocketAddr::try_from(getsockname(&self.0).ok()?).ok()?,
                remote: SocketAddr::try_from(getpeername(&self.0).ok()??).ok()?,
            })
        }

        /// Sets the options of a TCP connection.
        pub(in super::super) fn keep_alive(&self, keepalive: Keepalive) {
            // Fails only if the connection is gone.
            let _ = self.set(keepalive);
        }

        fn set(&self, keepalive: Keepalive) -> rustix::io::Result<()> {
            let interval = Duration::from_secs(keepalive.interval.into());
            sockopt::set_socket_keepalive(&self.0, true)?;
            sockopt::set_tcp_keepidle(&self.0, interval)?;
            sockopt::set_tcp_keepintvl(&self.0, interval)?;
            sockopt::set_tcp_keepcnt(&self.0, keepalive.checks.into())?;
            sockopt::set_tcp_user_timeout(&self.0, keepalive.user_timeout)
        }

        /// Ends the connection as if the other end had: libzmq then closes its descriptor.
        pub(in super::super) fn hang_up(&self) {
            let _ = shutdown(&self.0, Shutdown::Both);
        }
    }

    /// The IP address and the port in an address of libzmq.
    fn end(address: &str) -> Option<(IpAddr, u16)> {
        let (host, port) = address.strip_prefix("tcp://")?.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        let ip = host.split_once('%').map_or(host, |(ip, _scope)| ip);
        Some((ip.parse().ok()?, port.parse().ok()?))
    }

    /// Warns once if this system does not allow copies.
    fn warn(e: Errno) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            log::warn!("heartbeat_interval_ms and heartbeat_timeout_ms have no effect on ZeroMQ here: {e}");
        });
    }
}
