//! Connects to a server, at its addresses side by side, so that a silent one does not delay the others.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::{SockAddr, Socket};

use crate::error::{ErrorKind, Result};

use super::access::Access;
use super::conn::{Conn, lost};
use super::login::Login;
use super::node::Node;
use super::stream::{self, Limit};

/// After this time without an answer the next address is tried as well; earlier if the time is short, so that the last
/// one has at least a third of it.
const HEAD_START: Duration = Duration::from_millis(250);

/// A try at one address.
enum Try {
    Connecting(Socket),
    /// The login is under way.
    Greeting(Box<Login>),
}

enum Step {
    Wait(Try),
    Open(Box<Conn>),
}

impl Conn {
    /// Connects at the first address of the server that answers, and logs in. The address that answered last is tried
    /// first.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`] if there is no answer, [`ErrorKind::Denied`] if the server
    /// refuses the login.
    pub(crate) fn open(node: &Node, access: &Access, limit: Limit<'_>) -> Result<Conn> {
        let looked_up = stream::look_up(node, limit);
        let mut addresses = looked_up.map_err(|e| e.context(format!("Redis at {node}")))?;
        let count = addresses.len();
        access.answered.put_first(node, &mut addresses);
        let mut addresses = addresses.into_iter();
        let mut tries: Vec<(SockAddr, Try)> = Vec::with_capacity(count);
        let mut error = lost(node, io::ErrorKind::AddrNotAvailable.into());
        let mut next_start = Instant::now();
        loop {
            if tries.is_empty() || next_start <= Instant::now() {
                match addresses.next() {
                    Some(address) => match stream::connect(&address) {
                        Ok(socket) => tries.push((address, Try::Connecting(socket))),
                        Err(e) => {
                            error = lost(node, e);
                            continue;
                        }
                    },
                    None if tries.is_empty() => return Err(error),
                    None => {}
                }
                next_start = match addresses.len() {
                    0 => limit.deadline,
                    left => limit.part(2 * left + 1).min(Instant::now() + HEAD_START),
                };
            }
            let fds = tries.iter().map(|(_, it)| it.news()).collect();
            let ready = limit.wait_any(fds, next_start).map_err(|e| {
                let e = lost(node, e);
                match tries.iter().find_map(|(_, it)| it.greeting()) {
                    Some(login) => login.unanswered(e),
                    None => e,
                }
            })?;
            for ((address, it), is_ready) in std::mem::take(&mut tries).into_iter().zip(ready) {
                let step = match is_ready {
                    true => it.go_on(node, access),
                    false => Ok(Step::Wait(it)),
                };
                match step {
                    Ok(Step::Open(conn)) => {
                        if count > 1 {
                            access.answered.remember(node, address);
                        }
                        return Ok(*conn);
                    }
                    Ok(Step::Wait(it)) => tries.push((address, it)),
                    Err(e) if e.kind() == ErrorKind::Denied => return Err(e),
                    Err(e) => {
                        error = e;
                        next_start = Instant::now();
                    }
                }
            }
        }
    }
}

impl Try {
    /// The events to wait for.
    fn news(&self) -> PollFd<'_> {
        match self {
            Try::Connecting(socket) => PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT),
            Try::Greeting(login) => PollFd::from_borrowed_fd(login.conn.as_fd(), login.conn.news()),
        }
    }

    /// The login, if it has begun.
    fn greeting(&self) -> Option<&Login> {
        match self {
            Try::Connecting(_) => None,
            Try::Greeting(login) => Some(login),
        }
    }

    /// Continues after an awaited event.
    fn go_on(self, node: &Node, access: &Access) -> Result<Step> {
        let mut login = match self {
            Try::Connecting(socket) => {
                let socket = stream::connected(socket).map_err(|e| lost(node, e))?;
                Box::new(Login::begin(socket, node, access)?)
            }
            Try::Greeting(login) => login,
        };
        match login.go_on(access)? {
            true => Ok(Step::Open(Box::new(login.conn))),
            false => Ok(Step::Wait(Try::Greeting(login))),
        }
    }
}
