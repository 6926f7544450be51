//! One connection to one server.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use ::redis::{Cmd, Value, cmd};
use rustix::event::PollFlags;
use socket2::Socket;

use crate::error::{Error, ErrorKind, Result};

use super::access::Access;
use super::answer::refused;
use super::health::Health;
use super::input::{Incoming, Input};
use super::node::Node;
use super::reply::Resp;
use super::stream::{Limit, Stream};

/// A connection after a successful login. It cannot be used after an error.
pub(crate) struct Conn {
    node: Node,
    stream: Stream,
    input: Input,
    /// Everything received was read.
    drained: bool,
    /// The time of the last input.
    pub(crate) heard: Instant,
    /// The number of bytes received.
    pub(crate) received: u64,
    /// The output, and the number of its bytes already sent.
    output: Vec<u8>,
    sent: usize,
    /// The server's protocol.
    pub(crate) resp: Resp,
    /// The server belongs to a cluster.
    pub(crate) in_cluster: bool,
    /// A number that no other connection has.
    pub(super) mark: u64,
    _counted: Counted,
}

/// One of the process's connections.
struct Counted;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The number of the process's connections.
#[cfg(feature = "metrics")]
pub(crate) fn connections() -> usize {
    COUNT.load(Ordering::Relaxed)
}

impl Counted {
    fn new() -> Counted {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cause of the error of a connection to a replica.
#[derive(Debug)]
pub(super) struct IsReplica;

/// An output buffer larger than this is freed when it is empty.
const MAX_KEPT: usize = 1 << 20;

/// A connection with input less than this ago is not checked before the next request: this is shorter than the request
/// itself, during which the server may be lost as well.
const FRESH: Duration = Duration::from_micros(100);

impl Conn {
    /// A connection before its login.
    pub(super) fn new(socket: Socket, node: &Node, access: &Access) -> Result<Conn> {
        #[cfg(feature = "redis-tls")]
        let stream = match &access.tls {
            None => Stream::plain(socket).map_err(|e| lost(node, e))?,
            Some(tls) => Stream::Tls(Box::new(tls.session(node).map_err(|e| lost(node, e))?), socket),
        };
        #[cfg(not(feature = "redis-tls"))]
        let _ = access;
        #[cfg(not(feature = "redis-tls"))]
        let stream = Stream::plain(socket).map_err(|e| lost(node, e))?;
        Ok(Conn {
            node: node.clone(),
            stream,
            input: Input::default(),
            drained: false,
            heard: Instant::now(),
            received: 0,
            output: Vec::new(),
            sent: 0,
            resp: Resp::Three,
            in_cluster: false,
            mark: RandomState::new().hash_one(0),
            _counted: Counted::new(),
        })
    }

    /// Why there may be no answer.
    pub(super) fn doubt(&self, kind: io::ErrorKind) -> Option<&'static str> {
        self.stream.doubt(kind)
    }

    /// Notes that this is a connection for subscriptions.
    pub(crate) fn will_subscribe(&mut self) {
        self.input.has_pushes_as_arrays = self.resp == Resp::Two;
    }

    /// Asks for the server's health, and fails if it is not healthy, or still loads its data; `None` without permission
    /// to ask.
    pub(crate) fn health(&mut self, limit: Limit<'_>) -> Result<Option<Health>> {
        // Meanwhile a server answers HELLO, and takes subscriptions that it does not confirm.
        if !self.in_cluster
            && let Err(e) = self.ask(&cmd("PING"), limit)
            && e.kind() != ErrorKind::Denied
        {
            return Err(e);
        }
        match self.ask(&Health::question(self.in_cluster, self.resp), limit) {
            Ok(answer) => match Health::read(&answer) {
                Some(health) if !health.ok => Err(self.cut_off()),
                health => Ok(health),
            },
            Err(e) if e.kind() == ErrorKind::Denied => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The error for an unhealthy server.
    pub(crate) fn cut_off(&self) -> Error {
        match self.in_cluster {
            true => self.nonsense("the cluster is down, or this server is cut off from it"),
            false => Error::new(ErrorKind::Transport, format!("Redis at {}", self.node)).with_source(IsReplica),
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Sends a request and waits for its reply; not for a connection with subscriptions.
    ///
    /// # Errors
    /// As [`Conn::flush`] and [`Conn::reply`], and the server's refusal.
    pub(crate) fn ask(&mut self, request: &Cmd, limit: Limit<'_>) -> Result<Value> {
        self.push(request);
        self.flush(limit)?;
        match self.reply(limit)? {
            Value::ServerError(why) => Err(refused(&self.node, &why)),
            value => Ok(value),
        }
    }

    /// Adds a request to the output.
    pub(crate) fn push(&mut self, request: &Cmd) {
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(MAX_KEPT);
            self.sent = 0;
        }
        request.write_packed_command(&mut self.output);
    }

    /// True if a part of the output was sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.sent > 0
    }

    /// Sends the whole output.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`]; the server has not received all of it then.
    pub(crate) fn flush(&mut self, limit: Limit<'_>) -> Result<()> {
        while !self.send_some()? {
            let waited = limit.wait(self.stream.as_fd(), self.stream.room());
            waited.map_err(|e| lost(&self.node, e))?;
        }
        Ok(())
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`]; the request may have been done.
    pub(crate) fn reply(&mut self, limit: Limit<'_>) -> Result<Value> {
        loop {
            match self.next(usize::MAX)? {
                Some(Incoming::Value(Value::Push { .. }) | Incoming::Message | Incoming::TooLarge) => continue,
                Some(Incoming::Value(value)) => return Ok(value),
                None => {}
            }
            // A reply takes a while: waiting first saves a read without input.
            self.fill_by(|stream, room| stream.wait_and_read(room, limit))?;
        }
    }

    /// Sends as much output as there is room for; returns true if that was all.
    pub(crate) fn send_some(&mut self) -> Result<bool> {
        while let Some(left) = self.output.get(self.sent..).filter(|left| !left.is_empty()) {
            match self.stream.write(left) {
                Ok(0) => return Ok(false),
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(lost(&self.node, e)),
            }
        }
        match self.stream.flush() {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(lost(&self.node, e)),
        }
    }

    /// Takes the next part of the received input, without reading or waiting. A message whose payload is over the limit
    /// is skipped.
    pub(crate) fn next(&mut self, max_payload: usize) -> Result<Option<Incoming>> {
        self.input.next(max_payload).map_err(|e| lost(&self.node, e))
    }

    /// The channel and the payload of the message that [`Conn::next`] has just returned.
    pub(crate) fn message(&self) -> [&[u8]; 2] {
        self.input.message()
    }

    /// Reads once; returns true if there was input.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] if the connection is lost.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        self.fill_by(Stream::read)
    }

    fn fill_by(&mut self, read: impl FnOnce(&mut Stream, &mut [u8]) -> io::Result<usize>) -> Result<bool> {
        match self.input.fill(|room| read(&mut self.stream, room)) {
            Ok((0, _)) => Err(lost(&self.node, io::ErrorKind::ConnectionAborted.into())),
            Ok((read, full)) => {
                self.received += read as u64;
                self.drained = !full && self.stream.shows_all();
                self.heard = Instant::now();
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.drained = true;
                Ok(false)
            }
            Err(e) => Err(lost(&self.node, e)),
        }
    }

    /// Checks before a request that the other side has not closed: found now, it is certain that the request was not
    /// sent.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] if the connection cannot be used any more.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.heard.elapsed() >= FRESH && self.fill()? {
            return Err(self.nonsense("a reply without a request"));
        }
        Ok(())
    }

    /// True if only a wait for [`Conn::news`] can show more input.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Notes that a wait has ended, so there may be input.
    pub(crate) fn may_read(&mut self) {
        self.drained = false;
    }

    /// The events to wait for.
    pub(crate) fn news(&self) -> PollFlags {
        match self.sent < self.output.len() {
            true => self.stream.news() | self.stream.room(),
            false => self.stream.news(),
        }
    }

    /// The error for a server that has sent nothing for this time.
    pub(crate) fn silent(&self, timeout: Duration) -> Error {
        let context = format!("Redis at {} has sent nothing for {timeout:?}", self.node);
        Error::new(ErrorKind::Timeout, context)
    }

    /// The error for an unexpected answer.
    pub(crate) fn nonsense(&self, what: &str) -> Error {
        Error::new(ErrorKind::Transport, format!("Redis at {}: {what}", self.node))
    }
}

impl fmt::Display for IsReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is a replica: its master does not receive messages published there")
    }
}

impl std::error::Error for IsReplica {}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The error for a connection that failed.
pub(super) fn lost(node: &Node, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Transport,
    };
    Error::new(kind, format!("Redis at {node}")).with_source(e)
}
