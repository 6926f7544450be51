//! The input of a connection, taken apart into messages and replies as it comes.

use std::io;

use ::redis::{Parser, PushKind, Value};

use super::buffer::Buffer;
use super::flat::flat;
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
    /// The connection has subscriptions and speaks RESP2.
    pub(super) has_pushes_as_arrays: bool,
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
        let kind = if self.has_pushes_as_arrays { b'*' } else { b'>' };
        match message(input, kind, max_payload).map_err(broken)? {
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
        let value = match flat(reply) {
            Some(value) => Ok(value),
            // A refusal quotes the request, cut at any byte; the parser accepts only UTF-8.
            None if reply.starts_with(b"-") => self.parser.parse_value(String::from_utf8_lossy(reply).as_bytes()),
            None => self.parser.parse_value(reply),
        };
        let value = value.map_err(broken)?;
        self.buffer.consume(end);
        Ok(Some(Incoming::Value(match self.has_pushes_as_arrays {
            true => as_in_resp3(value),
            false => value,
        })))
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

/// The value that RESP3 has for an array on a connection with subscriptions in RESP2.
fn as_in_resp3(value: Value) -> Value {
    let Value::Array(mut parts) = value else {
        return value;
    };
    let kind = match parts.first() {
        Some(Value::BulkString(kind)) => &**kind,
        _ => b"",
    };
    let kind = match kind {
        b"subscribe" => PushKind::Subscribe,
        b"unsubscribe" => PushKind::Unsubscribe,
        b"pong" => return parts.pop().unwrap_or(Value::Nil),
        _ => return Value::Array(parts),
    };
    Value::Push {
        kind,
        data: parts.split_off(1),
    }
}

fn broken(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes on a connection with subscriptions means the same in both protocols.
    #[test]
    fn takes_arrays_for_pushes() {
        let in_resp2 =
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\nD\r\n:1\r\n*2\r\n$4\r\npong\r\n$1\r\np\r\n*3\r\n$7\r\nmessage\r\n\
            $1\r\nD\r\n$2\r\n{}\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nD\r\n:0\r\n-ERR no\r\n$1\r\np\r\n*0\r\n";
        let in_resp3 = b">3\r\n$9\r\nsubscribe\r\n$1\r\nD\r\n:1\r\n$1\r\np\r\n>3\r\n$7\r\nmessage\r\n\
            $1\r\nD\r\n$2\r\n{}\r\n>3\r\n$11\r\nunsubscribe\r\n$1\r\nD\r\n:0\r\n-ERR no\r\n$1\r\np\r\n*0\r\n";
        assert_eq!(parts(in_resp2, true), parts(in_resp3, false));
    }

    fn parts(mut bytes: &[u8], has_pushes_as_arrays: bool) -> Vec<String> {
        let mut input = Input {
            has_pushes_as_arrays,
            ..Input::default()
        };
        input.fill(|room| io::Read::read(&mut bytes, room)).unwrap();
        let mut parts = Vec::new();
        while let Some(part) = input.next(100).unwrap() {
            let [channel, payload] = input.message();
            parts.push(match part {
                Incoming::Message => format!("{channel:?} {payload:?}"),
                part => format!("{part:?}"),
            });
        }
        parts
    }
}
