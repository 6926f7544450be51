//! The input of a connection, taken apart into messages and replies as it comes.

use std::io;

use ::redis::{Parser, Value};

use super::buffer::Buffer;
use super::message::{Message, message};
use super::reply::Search;

/// A part of the input.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message; [`Input::message`] has it.
    Message,
    /// A message over the limit.
    TooLarge,
    Value(Value),
}

/// Received bytes, and how far they are understood. It cannot be used after an error.
#[derive(Default)]
pub(super) struct Input {
    buffer: Buffer,
    search: Search,
    parser: Parser,
    /// The places of the last message's channel and payload, and its length.
    message: [(usize, usize); 2],
    length: usize,
}

impl Input {
    /// Takes the next part; `None` if it has not come whole. A message whose payload is over the limit is skipped.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for bytes that violate the protocol.
    pub(super) fn next(&mut self, max_payload: usize) -> io::Result<Option<Incoming>> {
        let input = self.buffer.bytes();
        match message(input, max_payload).map_err(broken)? {
            Message::Whole {
                channel,
                payload,
                length,
            } => {
                self.buffer.consume(length);
                (self.message, self.length) = ([channel, payload], length);
                return Ok(Some(Incoming::Message));
            }
            Message::TooLarge { length } => {
                self.buffer.consume(length);
                return Ok(Some(Incoming::TooLarge));
            }
            Message::Partial => return Ok(None),
            Message::Other => {}
        }
        let Some(end) = self.search.end(input).map_err(broken)? else {
            return Ok(None);
        };
        let reply = input.get(..end).unwrap_or_default();
        let value = match reply.starts_with(b"-") {
            // A refusal quotes the request, cut at any byte; the parser accepts only UTF-8.
            true => self.parser.parse_value(String::from_utf8_lossy(reply).as_bytes()),
            false => self.parser.parse_value(reply),
        };
        let value = value.map_err(broken)?;
        self.buffer.consume(end);
        Ok(Some(Incoming::Value(value)))
    }

    /// The channel and the payload of the message that [`Input::next`] has just returned.
    pub(super) fn message(&self) -> [&[u8]; 2] {
        self.message.map(|part| self.buffer.consumed_part(self.length, part))
    }

    /// Reads once. Returns the number of bytes read, and true if there may be more.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<(usize, bool)> {
        self.buffer.fill(read)
    }
}

fn broken(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}
