//! The sending end between processes: a PUSH socket that connects on the first send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::thread;
use crate::transport::Outbound;

use super::endpoint::{Endpoint, PathLock, Role};
use super::{Context, ZmqOptions, millis, zmq_error};

pub(super) struct PushOutbound {
    endpoint: Endpoint,
    options: ZmqOptions,
    socket: Option<Opened>,
}

// Fields drop in order: the lock goes after the socket.
struct Opened {
    socket: zmq::Socket,
    _lock: Option<PathLock>,
    _context: Arc<Context>,
}

impl PushOutbound {
    pub(super) fn new(endpoint: Endpoint, options: ZmqOptions) -> PushOutbound {
        PushOutbound {
            endpoint,
            options,
            socket: None,
        }
    }

    fn open(&self) -> Result<Opened> {
        let context = Context::shared();
        let socket = context.socket(zmq::PUSH, self.options.linger, &self.options)?;
        // Only a service that is there gets messages: with none, a send fails instead of queueing for nobody.
        let immediate = socket.set_immediate(true);
        immediate.map_err(|e| zmq_error(e, format!("cannot set up {}", self.endpoint)))?;
        let lock = match self.endpoint.role_or(Role::Connect) {
            Role::Connect => {
                self.endpoint.connect(&socket)?;
                None
            }
            Role::Bind => self.endpoint.bind(&socket)?.1,
        };
        Ok(Opened {
            socket,
            _lock: lock,
            _context: context,
        })
    }
}

impl Outbound for PushOutbound {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let socket = match &self.socket {
            Some(opened) => &opened.socket,
            None => {
                let opened = self.open()?;
                &self.socket.insert(opened).socket
            }
        };
        send(socket, topic, payload, timeout, &self.endpoint)
    }
}

/// Sends the two frames of a message, or fails after `timeout` with nothing sent.
pub(super) fn send(
    socket: &zmq::Socket,
    topic: &[u8],
    payload: &[u8],
    timeout: Duration,
    endpoint: &Endpoint,
) -> Result<()> {
    let failed = |e| zmq_error(e, format!("cannot send to {endpoint}"));
    // The clock is read only if there is something to wait for.
    let mut deadline = None;
    loop {
        match socket.send(topic, zmq::DONTWAIT | zmq::SNDMORE) {
            Ok(()) => break,
            Err(zmq::Error::EAGAIN) => {
                let deadline = *deadline.get_or_insert_with(|| thread::deadline(timeout));
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let context = format!("nobody takes messages at {endpoint}: is the publisher service running?");
                    return Err(Error::new(ErrorKind::Timeout, context));
                }
                match socket.poll(zmq::POLLOUT, i64::from(millis(left).max(1))) {
                    Ok(_) | Err(zmq::Error::EINTR) => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            Err(zmq::Error::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    // The rest of a message that was begun is never refused for lack of room.
    loop {
        match socket.send(payload, 0) {
            Err(zmq::Error::EINTR) => {}
            sent => return sent.map_err(failed),
        }
    }
}
