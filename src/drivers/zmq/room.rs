//! Keeps descriptors free below the limit of open files. Where libzmq finds none it ends the process (for its threads,
//! and for a connection over a Unix socket), or keeps a processor busy (for one over TCP).

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use crate::drivers::accepted::{self, Accepted};
use crate::error::{Error, ErrorKind, Result};

use super::copy::{Connection, Miss};
use super::endpoint::{Endpoint, Role};
use super::monitor::PACE;

/// More than a line takes, and libzmq's threads with the first line.
const ROOM: u64 = 24;

/// One part in this many of the limit is kept free of accepted connections: several may come before the first is
/// refused.
const PART: u64 = 8;

/// As many may come over a Unix socket, where libzmq would end the process: its unread events, and those that it is
/// just accepting or closing.
const BURST: u64 = PACE as u64 + 100;

/// The bound Unix sockets of this process, at which other connections leave room.
static LOCAL: AtomicUsize = AtomicUsize::new(0);

/// Descriptors needed to copy a connection, and a few more, since other threads take freed ones.
const SPARE: usize = 4;

/// Fails if too few descriptors are left for another line to this address, or, at a bound one, for any connection.
pub(super) fn check(endpoint: &Endpoint, role: Role) -> Result<()> {
    let accepted = match role {
        Role::Bind => limit().map_or(0, |limit| kept(limit, endpoint.is_ipc())),
        Role::Connect => 0,
    };
    let open = || {
        let lowest = any()?;
        match is_room(lowest.as_raw_fd().unsigned_abs(), ROOM + accepted) {
            true => Ok(()),
            false => Err(io::Error::from(rustix::io::Errno::MFILE)),
        }
    };
    open().map_err(|e: io::Error| crowded(endpoint.uri()).with_source(e))
}

/// A descriptor that needs nothing else of the system: a container may have no devices.
fn any() -> io::Result<UnixDatagram> {
    UnixDatagram::unbound()
}

/// The error for too few descriptors.
pub(super) fn crowded(address: &str) -> Error {
    let context = format!(
        "no file descriptors are left for {address}: raise the limit of open files (`ulimit -n`, `LimitNOFILE=`)"
    );
    Error::new(ErrorKind::Io, context)
}

/// True if there is room for more: the system hands out the lowest free number, so all lower numbers are taken.
fn is_room(lowest: u32, more: u64) -> bool {
    limit().is_none_or(|limit| u64::from(lowest) + more <= limit)
}

/// The descriptors that a bound end keeps free at this limit.
fn kept(limit: u64, is_ipc: bool) -> u64 {
    let part = ROOM.max(limit / PART);
    let kept_by_ipc = part.max(BURST.min(limit / 2));
    match is_ipc {
        true => kept_by_ipc,
        false if LOCAL.load(Ordering::Relaxed) > 0 => kept_by_ipc + part,
        false => part,
    }
}

fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Refuses connections when there is no room.
pub(super) struct Doorkeeper {
    is_ipc: bool,
    /// The connections that are open, those that are being refused too.
    open: usize,
    /// Reserved descriptors, freed while a connection is being refused.
    spare: Vec<UnixDatagram>,
    /// Peers still to be refused, by descriptor, and the address of each.
    crowd: Vec<(u32, String)>,
    /// Peers cannot be refused here one by one.
    is_helpless: bool,
}

impl Doorkeeper {
    /// At a Unix socket, or another one.
    pub(super) fn new(is_ipc: bool) -> Doorkeeper {
        LOCAL.fetch_add(usize::from(is_ipc), Ordering::Relaxed);
        Doorkeeper {
            is_ipc,
            open: 0,
            spare: Vec::new(),
            crowd: Vec::new(),
            is_helpless: false,
        }
    }

    /// Called for an accepted connection. Returns false if it is refused, since there would be no room for others.
    pub(super) fn admits(&mut self, fd: u32, address: &str) -> bool {
        let admits = is_room(fd, limit().map_or(ROOM, |limit| kept(limit, self.is_ipc)));
        self.open += 1;
        self.accepted().opened();
        if !admits {
            self.accepted().refuse();
            self.crowd.push((fd, address.to_owned()));
        }
        self.turn_away();
        admits
    }

    /// Called when an accepted connection is closed.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
        self.accepted().closed(1);
    }

    fn accepted(&self) -> &'static Accepted {
        if self.is_ipc { &accepted::IPC } else { &accepted::TCP }
    }

    /// Closes refused connections that are still open.
    pub(super) fn turn_away(&mut self) {
        if !self.crowd.is_empty() {
            self.spare.clear();
            self.crowd.retain(|(fd, address)| match Connection::copy(*fd, address) {
                Ok(connection) => {
                    connection.hang_up();
                    false
                }
                Err(miss) => {
                    self.is_helpless |= miss == Miss::Denied;
                    miss == Miss::NoRoom
                }
            });
        }
        while self.spare.len() < SPARE
            && let Ok(descriptor) = any()
        {
            self.spare.push(descriptor);
        }
    }

    /// True if a peer could not be refused, and never can be.
    pub(super) fn is_helpless(&self) -> bool {
        self.is_helpless
    }

    /// True if a peer is still to be refused.
    pub(super) fn is_busy(&self) -> bool {
        !self.crowd.is_empty()
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        LOCAL.fetch_sub(usize::from(self.is_ipc), Ordering::Relaxed);
        self.accepted().closed(self.open);
    }
}
