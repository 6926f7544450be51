//! The ends of replies. The `redis` crate parses replies only from input that it owns and may wait for. So each end is
//! searched for here, piece by piece without waiting, and only complete replies are parsed.

use std::fmt;

/// The version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resp {
    Two,
    Three,
}

/// The error for bytes that violate the protocol.
#[derive(Debug, PartialEq)]
pub(super) struct Broken(pub(super) &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Redis protocol: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// Finds the end of each reply; looks at each byte once, except those of an incomplete line.
#[derive(Default)]
pub(super) struct Search {
    /// The known extent of the reply, which may be beyond the input.
    at: usize,
    /// The numbers of missing elements of each incomplete array, the outermost first.
    open: Vec<usize>,
}

/// The deepest nesting of a reply.
const MAX_DEPTH: usize = 32;

/// The largest reply.
const MAX_REPLY: usize = 1 << 30;

impl Search {
    /// The length of the reply at the beginning of `input`; `None` if it is incomplete, in which case the next call
    /// must have the same input with more behind it.
    pub(super) fn end(&mut self, input: &[u8]) -> Result<Option<usize>, Broken> {
        while self.at == 0 || !self.open.is_empty() {
            let rest = input.get(self.at..).unwrap_or_default();
            let Some((line, length)) = line(rest)? else {
                return Ok(None);
            };
            self.at += length;
            let (text, elements) = head(line)?;
            self.at += text;
            if self.at > MAX_REPLY || elements > MAX_REPLY {
                return Err(Broken("a reply of more than the maximum size"));
            }
            match elements {
                0 => self.close(),
                _ if self.open.len() == MAX_DEPTH => return Err(Broken("nested too deeply")),
                _ => self.open.push(elements),
            }
        }
        if input.len() < self.at {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.at)))
    }

    /// Completes an element, and possibly the arrays around it.
    fn close(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            self.open.pop();
        }
    }
}

/// The numbers of bytes and of elements that follow a line.
fn head(line: &[u8]) -> Result<(usize, usize), Broken> {
    let (kind, rest) = line.split_first().ok_or(Broken("an empty line"))?;
    match kind {
        b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => Ok((0, 0)),
        // A null value.
        b'$' | b'*' if rest == b"-1" => Ok((0, 0)),
        b'$' | b'=' | b'!' => Ok((count(rest)? + 2, 0)),
        b'*' | b'~' | b'>' => Ok((0, count(rest)?)),
        b'%' => Ok((0, count(rest)? * 2)),
        _ => Err(Broken("an unknown type")),
    }
}

/// The longest line: texts of any length are sent as `$`.
const MAX_LINE: usize = 64 << 10;

/// The first line without its end, and its length with it.
pub(super) fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Broken> {
    match input.iter().take(MAX_LINE).position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r"));
            line.map(|line| Some((line, end + 1)))
                .ok_or(Broken("a line that ends too early"))
        }
        None if input.len() >= MAX_LINE => Err(Broken("a line that does not end")),
        None => Ok(None),
    }
}

/// Parses the length of a text, or a number of elements.
pub(super) fn count(digits: &[u8]) -> Result<usize, Broken> {
    let count = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    count
        .filter(|count| *count <= MAX_REPLY)
        .ok_or(Broken("a malformed length"))
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    #[test]
    fn finds_where_replies_end() {
        for reply in [
            "+OK\r\n",
            "-ERR no\r\n",
            "!6\r\nERR no\r\n",
            ":-12\r\n",
            "$3\r\na\r\n\r\n",
            "$0\r\n\r\n",
            "=8\r\ntxt:abcd\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(123456789012345678901234567890\r\n",
            "*0\r\n",
            "~1\r\n:1\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "*3\r\n*2\r\n$2\r\n\r\n\r\n*0\r\n%0\r\n*1\r\n_\r\n",
            ">2\r\n+a\r\n*1\r\n*0\r\n",
        ] {
            let input = format!("{reply}+more\r\n");
            assert_eq!(
                Search::default().end(input.as_bytes()),
                Ok(Some(reply.len())),
                "{reply:?}"
            );
            // Also one byte at a time.
            let mut search = Search::default();
            for length in 0..reply.len() {
                assert_eq!(search.end(&input.as_bytes()[..length]), Ok(None), "{reply:?} {length}");
            }
            assert_eq!(search.end(reply.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
            assert_eq!(search.end(b"+more\r\n"), Ok(Some(7)), "{reply:?}");
            // The crate finds the same end.
            assert!(parse_redis_value(reply.as_bytes()).is_ok(), "{reply:?}");
            assert!(
                parse_redis_value(&reply.as_bytes()[..reply.len() - 1]).is_err(),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_protocol() {
        let deep = "*1\r\n".repeat(40);
        let endless = "+".repeat(MAX_LINE + 1);
        for input in [
            "\r\n",
            "\n",
            "?\r\n",
            "$x\r\n",
            "$-2\r\n",
            ">-1\r\n",
            "*99999999999\r\n",
            &deep,
            &endless,
        ] {
            assert!(Search::default().end(input.as_bytes()).is_err(), "{input:?}");
        }
        // A reply with an end, but with an error before it, is left to the crate.
        for input in [":x\r\n", "$1\r\nab\r\n", "#x\r\n"] {
            assert!(parse_redis_value(input.as_bytes()).is_err(), "{input:?}");
        }
    }

    #[test]
    fn a_long_reply_comes_whole() {
        let long = "x".repeat(100_000);
        let reply = format!("*2\r\n$100000\r\n{long}\r\n$1\r\ny\r\n");
        let mut search = Search::default();
        for length in (0..reply.len()).step_by(997) {
            assert_eq!(search.end(&reply.as_bytes()[..length]), Ok(None));
        }
        let end = search.end(reply.as_bytes()).unwrap().unwrap();
        let texts = [long.as_bytes(), b"y"].map(|text| Value::BulkString(text.to_vec()));
        assert_eq!(
            parse_redis_value(&reply.as_bytes()[..end]).unwrap(),
            Value::Array(texts.to_vec())
        );
    }
}
