//! The publishing end: an XPUB socket, which is PUB plus the sight of its subscriptions.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::drivers::wake::{self, Wakeable};
use crate::error::Result;
use crate::transport::{Outbound, Waiter, WaiterAndWake};
use crate::update::Topic;

use super::census::Census;
use super::endpoint::{Endpoint, PathLock, Role};
use super::filter::filter;
use super::monitor::{Change, Monitor};
use super::{Context, ZmqOptions, millis, push, zmq_error};

pub(super) struct ZmqOutbound {
    socket: zmq::Socket,
    endpoint: Endpoint,
    address: Option<String>,
    monitor: Monitor,
    census: Census,
    // Fields drop in order: the lock goes after the socket.
    _lock: Option<PathLock>,
    _context: Arc<Context>,
}

/// The longest subscription that is accepted, in bytes; our own are at most 200 bytes long.
const MAX_SUBSCRIPTION: i64 = 16 << 10;

impl ZmqOutbound {
    pub(super) fn open(endpoint: &Endpoint, options: &ZmqOptions) -> Result<ZmqOutbound> {
        let context = Context::shared();
        let socket = context.socket(zmq::XPUB, options.linger, options)?;
        // Also show a subscription that another subscriber has already: each probe must be answered.
        let verbose = socket.set_xpub_verbose(true);
        // All that comes in is subscriptions, and libzmq keeps a hundred times the size of each.
        let limited = verbose.and_then(|()| socket.set_maxmsgsize(MAX_SUBSCRIPTION));
        limited.map_err(|e| zmq_error(e, format!("cannot set up {endpoint}")))?;
        let monitor = Monitor::of(&socket, &context)?;
        let (address, lock) = match endpoint.role_or(Role::Bind) {
            Role::Bind => {
                let (address, lock) = endpoint.bind(&socket)?;
                (Some(address), lock)
            }
            Role::Connect => {
                endpoint.connect(&socket)?;
                (None, None)
            }
        };
        Ok(ZmqOutbound {
            socket,
            endpoint: endpoint.clone(),
            address,
            monitor,
            census: Census::default(),
            _lock: lock,
            _context: context,
        })
    }

    fn look_at_connections(&mut self) {
        while let Some(change) = self.monitor.next() {
            match change {
                Change::Opened(connection) => self.census.opened(connection),
                Change::Closed(connection) => self.census.closed(connection),
                Change::Greeted => {}
            }
        }
    }
}

impl Outbound for ZmqOutbound {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        push::send(&self.socket, topic, payload, timeout, &self.endpoint)
    }

    fn address(&self) -> Option<String> {
        self.address.clone()
    }

    fn probes(&mut self) -> Result<Vec<Topic>> {
        self.look_at_connections();
        let mut probes = Vec::new();
        loop {
            let mut message = match self.socket.recv_msg(zmq::DONTWAIT) {
                Ok(message) => message,
                Err(zmq::Error::EAGAIN) => return Ok(probes),
                Err(zmq::Error::EINTR) => continue,
                Err(e) => {
                    return Err(zmq_error(
                        e,
                        format!("cannot see the subscriptions of {}", self.endpoint),
                    ));
                }
            };
            // Whose it is, if it is told; that connection was opened before, and may be closed already.
            let connection = message.gets("__fd").and_then(|fd| fd.parse().ok());
            // A subscription is a byte 1 and the topic; taking it back is a byte 0; anything else is a stranger's.
            match message.split_first() {
                Some((1, topic)) => {
                    probes.extend(Topic::probe_from(topic));
                    self.look_at_connections();
                    self.census.subscribed(connection, topic);
                }
                Some((0, topic)) => self.census.unsubscribed(topic),
                _ => {}
            }
        }
    }

    fn subscribers(&self) -> Option<usize> {
        (!self.endpoint.is_silent()).then_some(self.census.subscribers())
    }

    fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        self.census.is_subscribed(filter(topic))
    }

    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        let fd = |socket: &zmq::Socket| {
            let fd = socket.get_fd();
            fd.map_err(|e| zmq_error(e, format!("cannot watch {}", self.endpoint)))
        };
        let (wakeable, waker) = wake::pair()?;
        let waiter = FdWaiter {
            sockets: [fd(&self.socket)?, fd(&self.monitor.0)?],
            wakeable,
        };
        Ok(Some((Box::new(waiter), waker)))
    }
}

impl Drop for ZmqOutbound {
    fn drop(&mut self) {
        self.monitor.detach(&self.socket);
    }
}

/// Waits on the file descriptors by which libzmq signals that a socket has something to do. They say so once:
/// after each wait, and whenever the socket was used by somebody else, [`Outbound::probes`] must be asked.
struct FdWaiter {
    sockets: [RawFd; 2],
    wakeable: Wakeable,
}

impl Waiter for FdWaiter {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let [socket, monitor] = self.sockets;
        let mut items =
            [socket, monitor, self.wakeable.as_fd().as_raw_fd()].map(|fd| zmq::PollItem::from_fd(fd, zmq::POLLIN));
        let timeout = timeout.map_or(-1, |timeout| i64::from(millis(timeout)));
        match zmq::poll(&mut items, timeout) {
            Ok(_) | Err(zmq::Error::EINTR) => {}
            Err(e) => return Err(zmq_error(e, "cannot wait for subscriptions".into())),
        }
        self.wakeable.take();
        Ok(())
    }
}
