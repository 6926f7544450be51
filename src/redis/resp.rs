//! The protocol that Redis speaks, RESP3: commands as they are written, replies as they are read.

use std::fmt;

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Number(i64),
    /// Text of any kind, perhaps binary.
    Text(Vec<u8>),
    /// The request was refused; the first word says why.
    Refused(String),
    /// An array, a set, or a map as its keys and values in turn.
    List(Vec<Value>),
    /// What nobody asked for.
    Push(Vec<Value>),
}

/// The bytes are not what the protocol says.
#[derive(Debug, PartialEq)]
pub(crate) struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Redis protocol: {}", self.0)
    }
}

impl std::error::Error for Broken {}

impl Value {
    /// The text, where it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// The value of this key, where it is a map.
    pub(crate) fn entry(&self, key: &str) -> Option<&Value> {
        let mut pairs = self.list()?.chunks_exact(2);
        pairs.find_map(|pair| pair.first()?.text().filter(|name| *name == key).and(pair.last()))
    }

    /// The elements, where it has some.
    pub(crate) fn list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Appends a command.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    header(out, b'*', words.len());
    for word in words {
        header(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn header(out: &mut Vec<u8>, kind: u8, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // The longest number has 20 digits.
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Puts values together from bytes that come in pieces; each byte is looked at once, but for a line's.
#[derive(Default)]
pub(crate) struct Parser {
    /// What is not complete yet, the outermost first.
    open: Vec<Open>,
}

struct Open {
    push: bool,
    items: Vec<Value>,
    left: usize,
}

/// No server nests deeper.
const MAX_DEPTH: usize = 32;

/// So many elements get their place before they have come.
const MAX_RESERVED: usize = 1024;

impl Parser {
    /// The next value, and how many bytes of `input` were used up, which is to be done with them in any case.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<(Option<Value>, usize), Broken> {
        let mut used = 0;
        loop {
            let Some((token, length)) = token(input.get(used..).unwrap_or_default())? else {
                return Ok((None, used));
            };
            used += length;
            let value = match token {
                Token::Value(value) => value,
                Token::Open { push, count: 0 } => close(push, Vec::new()),
                Token::Open { push, count } => {
                    if self.open.len() == MAX_DEPTH {
                        return Err(Broken("nested too deeply"));
                    }
                    self.open.push(Open {
                        push,
                        items: Vec::with_capacity(count.min(MAX_RESERVED)),
                        left: count,
                    });
                    continue;
                }
            };
            if let Some(value) = self.add(value) {
                return Ok((Some(value), used));
            }
        }
    }

    /// True between two values.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Puts a value where it belongs, and returns the outermost one if that completes it.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        while let Some(mut open) = self.open.pop() {
            open.items.push(value);
            open.left -= 1;
            if open.left > 0 {
                self.open.push(open);
                return None;
            }
            value = close(open.push, open.items);
        }
        Some(value)
    }
}

fn close(push: bool, items: Vec<Value>) -> Value {
    if push { Value::Push(items) } else { Value::List(items) }
}

enum Token {
    Value(Value),
    Open { push: bool, count: usize },
}

/// The first token and its length; `None` if it is not all there.
fn token(input: &[u8]) -> Result<Option<(Token, usize)>, Broken> {
    let Some((line, length)) = line(input)? else {
        return Ok(None);
    };
    let Some((&kind, rest)) = line.split_first() else {
        return Err(Broken("an empty line"));
    };
    let value = match kind {
        b'+' | b',' | b'(' => Value::Text(rest.to_vec()),
        b'-' => Value::Refused(String::from_utf8_lossy(rest).into_owned()),
        b':' => Value::Number(number(rest).ok_or(Broken("a number that is none"))?),
        b'#' => Value::Number(i64::from(rest == b"t")),
        b'_' => Value::Null,
        b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' if rest == b"-1" => Value::Null,
        b'$' | b'=' | b'!' => {
            let count = count(rest)?;
            let end = length.saturating_add(count);
            let Some(text) = input.get(length..end) else {
                return Ok(None);
            };
            let Some(after) = input.get(end..end + 2) else {
                return Ok(None);
            };
            if after != b"\r\n" {
                return Err(Broken("a text that is longer than it says"));
            }
            let value = match kind {
                b'!' => Value::Refused(String::from_utf8_lossy(text).into_owned()),
                // Three letters and a colon say what kind of text it is.
                b'=' => Value::Text(text.get(4..).unwrap_or_default().to_vec()),
                _ => Value::Text(text.to_vec()),
            };
            return Ok(Some((Token::Value(value), end + 2)));
        }
        b'*' | b'~' | b'>' | b'%' => {
            let count = count(rest)?;
            let token = Token::Open {
                push: kind == b'>',
                count: if kind == b'%' { count.saturating_mul(2) } else { count },
            };
            return Ok(Some((token, length)));
        }
        _ => return Err(Broken("an unknown type")),
    };
    Ok(Some((Token::Value(value), length)))
}

/// No line is longer: texts of any length come as `$`.
const MAX_LINE: usize = 64 << 10;

/// The first line without its end, and its length with it.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Broken> {
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

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// No server sends longer texts.
const MAX_TEXT: usize = 1 << 30;

fn count(text: &[u8]) -> Result<usize, Broken> {
    let count = number(text).and_then(|count| usize::try_from(count).ok());
    count
        .filter(|count| *count <= MAX_TEXT)
        .ok_or(Broken("a length that is none"))
}

/// What the input begins with, as far as messages of channels are concerned.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// A message: where its channel and its payload are, and how long it is.
    Whole {
        channel: (usize, usize),
        payload: (usize, usize),
        length: usize,
    },
    /// A message whose payload is over the limit, and how long it is.
    TooLarge {
        length: usize,
    },
    /// Perhaps a message: more is needed to tell.
    Partial,
    Other,
}

/// Looks for a message at the beginning of `input`, where a value begins. Nothing is copied.
pub(crate) fn message(input: &[u8], limit: usize) -> Result<Message, Broken> {
    const START: &[u8] = b">3\r\n$7\r\nmessage\r\n";
    if !input.starts_with(START) {
        let partial = START.starts_with(input);
        return Ok(if partial { Message::Partial } else { Message::Other });
    }
    let Some(channel) = text(input, START.len())? else {
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
            return Err(Broken("a text that is longer than it says"));
        }
    }
    Ok(Message::Whole {
        channel,
        payload,
        length,
    })
}

/// Where the text is whose length stands at `at`; its end may be beyond the input.
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

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn parse(input: &[u8]) -> Result<(Option<Value>, usize), Broken> {
        Parser::default().next(input)
    }

    #[test]
    fn writes_commands() {
        let mut out = Vec::new();
        command(&mut out, &[b"PUBLISH", b"", &[b'x'; 1234]]);
        let expected = format!("*3\r\n$7\r\nPUBLISH\r\n$0\r\n\r\n$1234\r\n{}\r\n", "x".repeat(1234));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn reads_every_type() {
        let cases: &[(&str, Value)] = &[
            ("+OK\r\n", text("OK")),
            ("-ERR no\r\n", Value::Refused("ERR no".into())),
            ("!6\r\nERR no\r\n", Value::Refused("ERR no".into())),
            (":-12\r\n", Value::Number(-12)),
            ("$3\r\na\r\n\r\n", text("a\r\n")),
            ("=8\r\ntxt:abcd\r\n", text("abcd")),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            ("#t\r\n", Value::Number(1)),
            (",1.5\r\n", text("1.5")),
            ("*0\r\n", Value::List(vec![])),
            ("~1\r\n:1\r\n", Value::List(vec![Value::Number(1)])),
            ("%1\r\n+a\r\n:1\r\n", Value::List(vec![text("a"), Value::Number(1)])),
            (
                ">2\r\n+a\r\n*1\r\n*0\r\n",
                Value::Push(vec![text("a"), Value::List(vec![Value::List(vec![])])]),
            ),
        ];
        for (input, value) in cases {
            assert_eq!(
                parse(input.as_bytes()),
                Ok((Some(value.clone()), input.len())),
                "{input:?}"
            );
            // And a byte at a time.
            let mut parser = Parser::default();
            let (mut held, mut got) = (Vec::new(), None);
            for byte in input.bytes() {
                assert_eq!(got, None);
                held.push(byte);
                let (value, used) = parser.next(&held).unwrap();
                held.drain(..used);
                got = value;
            }
            assert_eq!(got.as_ref(), Some(value), "{input:?}");
            assert!(parser.is_empty() && held.is_empty());
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
            ":x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$1\r\nab\r\n",
            "*99999999999\r\n",
            &deep,
            &endless,
        ] {
            assert!(parse(input.as_bytes()).is_err(), "{input:?}");
        }
    }

    #[test]
    fn finds_messages() {
        let input = b">3\r\n$7\r\nmessage\r\n$1\r\nD\r\n$2\r\n{}\r\n+OK\r\n";
        let Message::Whole {
            channel,
            payload,
            length,
        } = message(input, 100).unwrap()
        else {
            panic!("no message");
        };
        assert_eq!(
            (&input[channel.0..channel.1], &input[payload.0..payload.1]),
            (&b"D"[..], &b"{}"[..])
        );
        assert_eq!(&input[length..], b"+OK\r\n");
        for cut in 0..length {
            assert_eq!(message(&input[..cut], 100), Ok(Message::Partial), "{cut}");
        }
        assert_eq!(message(&input[..length - 4], 1), Ok(Message::TooLarge { length }));
        for other in [&b"+OK\r\n"[..], b">3\r\n$9\r\nsubscribe\r\n", b">2\r\n"] {
            assert_eq!(message(other, 100), Ok(Message::Other));
        }
        assert!(message(b">3\r\n$7\r\nmessage\r\n:1\r\n", 100).is_err());
        assert!(message(b">3\r\n$7\r\nmessage\r\n$1\r\nDDD$2\r\n{}\r\n", 100).is_err());
    }
}
