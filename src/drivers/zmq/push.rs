//! The sending end between processes: a PUSH socket that connects on the first send.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::config::JoinFrames;
use crate::drivers::wake::{self, Wakeable};
use crate::error::{Error, ErrorKind, Result};
use crate::thread;
use crate::transport::Outbound;

use super::calls::{patiently, poll, zmq_error};
use super::connection::Connection;
use super::endpoint::{Endpoint, Role};
use super::line::Kind;
use super::path_lock;
use super::settings::Settings;

pub(super) struct PushOutbound {
    endpoint: Endpoint,
    options: Settings,
    opened: Option<Opened>,
}

struct Opened {
    connection: Connection,
    wakeable: Wakeable,
    /// The next check of the connection, even if messages are being sent.
    look_at: Instant,
}

const PUSH: Kind = Kind {
    socket: zmq::PUSH,
    role: Role::Connect,
    sends: true,
    counts: false,
    is_gated: false,
    // Messages go only to a running service: without one, a send fails instead of queueing in vain.
    prepare: |socket| socket.set_immediate(true),
};

const LOOK: Duration = Duration::from_secs(1);

impl PushOutbound {
    pub(super) fn new(endpoint: Endpoint, options: Settings) -> PushOutbound {
        PushOutbound {
            endpoint,
            options,
            opened: None,
        }
    }

    fn open(&self) -> Result<Opened> {
        let (wakeable, waker) = wake::pair()?;
        Ok(Opened {
            connection: Connection::open(self.endpoint.clone(), PUSH, &self.options, waker)?,
            wakeable,
            look_at: Instant::now(),
        })
    }
}

impl Opened {
    fn try_send(&self, topic: &[u8], payload: &[u8]) -> zmq::Result<bool> {
        match self.connection.line() {
            Some(line) => send(line.socket(), topic, payload),
            None => Ok(false),
        }
    }

    /// Notes changes of the connection, and does what is due.
    fn look(&mut self, now: Instant) {
        self.look_at = now + LOOK;
        while self.connection.news(now).is_some() {}
        if let Some(e) = self.connection.tend(now) {
            // The sender gets this as an error if it persists.
            log::warn!("{e}");
        }
    }

    /// Waits until a message may be sent, the connection has changed, or `deadline` has passed.
    fn wait(&mut self, deadline: Instant, now: Instant) -> zmq::Result<()> {
        let wakeable = self.wakeable.as_fd().as_raw_fd();
        let mut items = vec![zmq::PollItem::from_fd(wakeable, zmq::POLLIN)];
        if let Some(line) = self.connection.line() {
            items.push(line.socket().as_poll_item(zmq::POLLOUT));
            items.extend(line.monitor().map(|monitor| monitor.as_poll_item(zmq::POLLIN)));
        }
        let until = self.connection.deadline().map_or(deadline, |due| due.min(deadline));
        poll(&mut items, Some(until), now)?;
        self.wakeable.take();
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.connection.end();
    }
}

impl Outbound for PushOutbound {
    /// The receiver is not visible; it is taken to be a publisher service of this library.
    fn takes_joined(&self) -> bool {
        self.options.join_frames != JoinFrames::Never
    }

    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let opened = match &mut self.opened {
            Some(opened) => opened,
            None => {
                let opened = self.open()?;
                self.opened.insert(opened)
            }
        };
        let failed = |e| zmq_error(e, format!("cannot send to {}", self.endpoint));
        let mut now = Instant::now();
        if now >= opened.look_at {
            opened.look(now);
        }
        let mut deadline = None;
        while !opened.try_send(topic, payload).map_err(failed)? {
            opened.look(now);
            let deadline = *deadline.get_or_insert_with(|| thread::deadline(timeout));
            if now >= deadline {
                let endpoint = &self.endpoint;
                if let Some(denied) = endpoint.path().and_then(path_lock::denied) {
                    return Err(denied);
                }
                let connection = &opened.connection;
                let context = if connection.is_greeted() {
                    format!(
                        "the publisher service at {endpoint} takes no more messages: it waits for its network, is stopped, \
                         or is too slow"
                    )
                } else if connection.is_unheard() {
                    format!(
                        "the process at {endpoint} accepts connections and takes no messages: is it a publisher service, and \
                         does it wait for its network?"
                    )
                } else {
                    format!("no process takes messages at {endpoint}: is the publisher service running?")
                };
                let error = Error::new(ErrorKind::Timeout, context);
                return Err(match connection.trouble() {
                    Some(trouble) => error.with_source(trouble.to_owned()),
                    None => error,
                });
            }
            opened.wait(deadline, now).map_err(failed)?;
            now = Instant::now();
        }
        Ok(())
    }
}

/// Sends the two frames of a message. Returns false if there is no receiver, or no room; then nothing was sent.
pub(super) fn send(socket: &zmq::Socket, topic: &[u8], payload: &[u8]) -> zmq::Result<bool> {
    match begin(socket, topic) {
        Ok(()) => end(socket, payload).map(|()| true),
        Err(zmq::Error::EAGAIN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends the first frame of a message; the other one must follow.
pub(super) fn begin(socket: &zmq::Socket, topic: &[u8]) -> zmq::Result<()> {
    patiently(|| socket.send(topic, zmq::DONTWAIT | zmq::SNDMORE))
}

/// Sends the second frame. After the first frame it is never refused for lack of room.
pub(super) fn end(socket: &zmq::Socket, payload: &[u8]) -> zmq::Result<()> {
    patiently(|| socket.send(payload, 0))
}
