//! Messages of channels, found in the receive buffer: the `redis` crate would copy each of them twice, and cannot lend
//! them.

use super::reply::{Broken, count, line};

/// The beginning of the input.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// A message: the places of its channel and its payload, and its length.
    Whole {
        channel: (usize, usize),
        payload: (usize, usize),
        length: usize,
    },
    /// A message whose payload is over the limit, and its length.
    TooLarge {
        length: usize,
    },
    /// Perhaps a message: more input is needed.
    Partial,
    Other,
}

/// Looks for a message at the beginning of `input`, where a value begins, without copying. Its type is `kind`.
pub(super) fn message(input: &[u8], kind: u8, limit: usize) -> Result<Message, Broken> {
    const START: &[u8] = b"3\r\n$7\r\nmessage\r\n";
    let Some((first, rest)) = input.split_first() else {
        return Ok(Message::Partial);
    };
    if *first != kind || !rest.starts_with(START) {
        let partial = *first == kind && START.starts_with(rest);
        return Ok(if partial { Message::Partial } else { Message::Other });
    }
    let Some(channel) = text(input, 1 + START.len())? else {
        return Ok(Message::Partial);
    };
    let after_channel = channel.1 + 2;
    if input.len() < after_channel {
        return Ok(Message::Partial);
    }
    let Some(payload) = text(input, after_channel)? else {
        return Ok(Message::Partial);
    };
    let length = payload.1 + 2;
    if payload.1 - payload.0 > limit {
        return Ok(Message::TooLarge { length });
    }
    if input.len() < length {
        return Ok(Message::Partial);
    }
    for (_, end) in [channel, payload] {
        if input.get(end..end + 2) != Some(b"\r\n") {
            return Err(Broken("a text longer than its stated length"));
        }
    }
    Ok(Message::Whole {
        channel,
        payload,
        length,
    })
}

/// The place of the text whose length is at `at`; its end may be beyond the input.
fn text(input: &[u8], at: usize) -> Result<Option<(usize, usize)>, Broken> {
    let Some((line, length)) = line(input.get(at..).unwrap_or_default())? else {
        return Ok(None);
    };
    let count = count(line.strip_prefix(b"$").ok_or(Broken("a message without text"))?)?;
    let start = at + length;
    Ok(Some((start, start + count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_messages() {
        finds(b'>', b">3\r\n$7\r\nmessage\r\n$1\r\nD\r\n$2\r\n{}\r\n+OK\r\n");
        finds(b'*', b"*3\r\n$7\r\nmessage\r\n$1\r\nD\r\n$2\r\n{}\r\n+OK\r\n");
        // In RESP3 that is a reply.
        assert_eq!(message(b"*3\r\n$7\r\nmessage\r\n", b'>', 100), Ok(Message::Other));
        for other in [&b"+OK\r\n"[..], b">3\r\n$9\r\nsubscribe\r\n", b">2\r\n"] {
            assert_eq!(message(other, b'>', 100), Ok(Message::Other));
        }
        assert!(message(b">3\r\n$7\r\nmessage\r\n:1\r\n", b'>', 100).is_err());
        assert!(message(b">3\r\n$7\r\nmessage\r\n$1\r\nDDD$2\r\n{}\r\n", b'>', 100).is_err());
    }

    /// Finds the message before `+OK`.
    fn finds(kind: u8, input: &[u8]) {
        let Message::Whole {
            channel,
            payload,
            length,
        } = message(input, kind, 100).unwrap()
        else {
            panic!("no message");
        };
        assert_eq!(
            (&input[channel.0..channel.1], &input[payload.0..payload.1]),
            (&b"D"[..], &b"{}"[..])
        );
        assert_eq!(&input[length..], b"+OK\r\n");
        for cut in 0..length {
            assert_eq!(message(&input[..cut], kind, 100), Ok(Message::Partial), "{cut}");
        }
        assert_eq!(message(&input[..length - 4], kind, 1), Ok(Message::TooLarge { length }));
    }
}
