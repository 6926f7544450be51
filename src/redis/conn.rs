//! One connection to one server.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

use crate::error::{Error, ErrorKind, Result};

use super::buffer::Buffer;
use super::node::Node;
use super::resp::{self, Message, Parser, Value};
use super::stream::{self, Limit, Stream};
use super::{Access, refused};

/// A connection on which the server has let us in. After an error it is of no use any more.
pub(crate) struct Conn {
    node: Node,
    stream: Stream,
    parser: Parser,
    input: Buffer,
    /// Where the last message has its channel and its payload, and how long it is.
    message: [(usize, usize); 2],
    length: usize,
    /// All that came was read.
    drained: bool,
    /// What is to be sent, and how much of it was.
    output: Vec<u8>,
    sent: usize,
    /// The server is one of a cluster.
    pub(crate) in_cluster: bool,
}

/// What came.
pub(crate) enum Incoming {
    /// A message; [`Conn::message`] has it.
    Message,
    /// A message that was over the limit.
    TooLarge,
    Value(Value),
}

/// An output buffer that has grown beyond this is given back when it is empty.
const MAX_KEPT: usize = 1 << 20;

impl Conn {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`] if nobody answers, [`ErrorKind::Denied`] if the server
    /// does not let us in.
    pub(crate) fn open(node: &Node, access: &Access, limit: Limit<'_>) -> Result<Conn> {
        let socket = stream::connect(node, limit).map_err(|e| lost(node, e))?;
        #[cfg(feature = "redis-tls")]
        let stream = match &access.tls {
            None => Stream::Plain(socket),
            Some(tls) => Stream::Tls(Box::new(tls.session(node).map_err(|e| lost(node, e))?), socket),
        };
        #[cfg(not(feature = "redis-tls"))]
        let stream = Stream::Plain(socket);
        let mut conn = Conn {
            node: node.clone(),
            stream,
            parser: Parser::default(),
            input: Buffer::default(),
            message: [(0, 0); 2],
            length: 0,
            drained: false,
            output: Vec::new(),
            sent: 0,
            in_cluster: false,
        };
        let (user, password) = (access.user.as_bytes(), access.password.expose().as_bytes());
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if !password.is_empty() {
            let user = if user.is_empty() { b"default" } else { user };
            hello.extend([b"AUTH", user, password]);
        }
        hello.extend([&b"SETNAME"[..], b"tablecast"]);
        let about = conn.ask(&hello, limit)?;
        let Some(mode) = about.entry("mode").and_then(Value::text) else {
            return Err(conn.nonsense("no answer to HELLO"));
        };
        conn.in_cluster = mode == "cluster";
        Ok(conn)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Sends a request and waits for its reply. On a connection that has subscriptions use the other methods.
    ///
    /// # Errors
    /// As [`Conn::flush`] and [`Conn::reply`]; and what the server says if it refuses.
    pub(crate) fn ask(&mut self, words: &[&[u8]], limit: Limit<'_>) -> Result<Value> {
        self.push(words);
        self.flush(limit)?;
        match self.reply(limit)? {
            Value::Refused(why) => Err(refused(&self.node, &why)),
            value => Ok(value),
        }
    }

    /// Adds a request to what is to be sent.
    pub(crate) fn push(&mut self, words: &[&[u8]]) {
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(MAX_KEPT);
            self.sent = 0;
        }
        resp::command(&mut self.output, words);
    }

    /// Sends what there is to be sent.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`]; the server does not have all of it then.
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
    /// [`ErrorKind::Transport`] or [`ErrorKind::Timeout`]; what the request asked for may have been done.
    pub(crate) fn reply(&mut self, limit: Limit<'_>) -> Result<Value> {
        loop {
            match self.next(usize::MAX)? {
                Some(Incoming::Value(Value::Push(_)) | Incoming::Message | Incoming::TooLarge) => continue,
                Some(Incoming::Value(value)) => return Ok(value),
                None => {}
            }
            // A reply takes a while: waiting first saves the read that would find nothing.
            let waited = limit.wait(self.stream.as_fd(), self.stream.news());
            waited.map_err(|e| lost(&self.node, e))?;
            self.fill()?;
        }
    }

    /// Sends what there is room for; true if that was all.
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

    /// What has come, without reading or waiting. A message whose payload is over the limit is left out.
    pub(crate) fn next(&mut self, max_payload: usize) -> Result<Option<Incoming>> {
        let broken = |e| lost(&self.node, io::Error::new(io::ErrorKind::InvalidData, e));
        if self.parser.is_empty() {
            match resp::message(self.input.bytes(), max_payload).map_err(broken)? {
                Message::Whole {
                    channel,
                    payload,
                    length,
                } => {
                    self.input.consume(length);
                    (self.message, self.length) = ([channel, payload], length);
                    return Ok(Some(Incoming::Message));
                }
                Message::TooLarge { length } => {
                    self.input.consume(length);
                    return Ok(Some(Incoming::TooLarge));
                }
                Message::Partial => return Ok(None),
                Message::Other => {}
            }
        }
        let (value, used) = self.parser.next(self.input.bytes()).map_err(broken)?;
        self.input.consume(used);
        Ok(value.map(Incoming::Value))
    }

    /// The channel and the payload of the message that [`Conn::next`] has just told of.
    pub(crate) fn message(&self) -> [&[u8]; 2] {
        self.message.map(|part| self.input.consumed_part(self.length, part))
    }

    /// Reads once; true if something came.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] if the connection is lost.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        match self.input.fill(|room| self.stream.read(room)) {
            Ok((0, _)) => Err(lost(&self.node, io::ErrorKind::ConnectionAborted.into())),
            Ok((_, full)) => {
                self.drained = !full && self.stream.shows_all();
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.drained = true;
                Ok(false)
            }
            Err(e) => Err(lost(&self.node, e)),
        }
    }

    /// True if only a wait for [`Conn::news`] can tell that there is more to read.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    /// A wait has ended: there may be something to read.
    pub(crate) fn may_read(&mut self) {
        self.drained = false;
    }

    /// What to wait for.
    pub(crate) fn news(&self) -> PollFlags {
        match self.sent < self.output.len() {
            true => self.stream.news() | self.stream.room(),
            false => self.stream.news(),
        }
    }

    /// The error for an answer that is none.
    pub(crate) fn nonsense(&self, what: &str) -> Error {
        Error::new(ErrorKind::Transport, format!("Redis at {}: {what}", self.node))
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The error for a connection that failed.
fn lost(node: &Node, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Transport,
    };
    Error::new(kind, format!("Redis at {node}")).with_source(e)
}
