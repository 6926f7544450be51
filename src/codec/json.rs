//! JSON: the structure of a payload is read by hand, straight into fields; serde_json reads whatever is not plain.

use std::borrow::Cow;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::decode::{Content, Fault, Fields, Sink};
use super::{MAX_DEPTH, NOT_UTF8, TOO_DEEP, TRUNCATED};

/// Appends `value`, which must be text or a number.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, buf: &mut Vec<u8>) {
    let written = serde_json::to_writer(buf, value);
    debug_assert!(written.is_ok(), "writing text or a number to memory cannot fail");
}

pub(super) fn decode(payload: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
    let text = std::str::from_utf8(payload).map_err(|_| Fault("payload", NOT_UTF8))?;
    let mut reader = Reader(text);
    if reader.accept('[') {
        if !reader.accept(']') {
            object(&mut reader, sink)?;
            while reader.accept(',') {
                object(&mut reader, sink)?;
            }
            reader.expect(']', "expected , or ] after an object")?;
        }
    } else {
        object(&mut reader, sink)?;
    }
    reader.skip_whitespace();
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err(Fault("payload", "trailing bytes"))
    }
}

fn object(reader: &mut Reader<'_>, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut fields = Fields::default();
    reader.expect('{', "expected an object")?;
    if !reader.accept('}') {
        field(reader, &mut fields)?;
        while reader.accept(',') {
            field(reader, &mut fields)?;
        }
        reader.expect('}', "expected , or } after a field")?;
    }
    sink.push(fields)
}

fn field<'a>(reader: &mut Reader<'a>, fields: &mut Fields<'a>) -> Result<(), Fault> {
    reader.skip_whitespace();
    let name = reader.string().map_err(|what| Fault("field name", what))?;
    reader.expect(':', "expected : after a field name")?;
    reader.skip_whitespace();
    fields.read(name.as_bytes(), reader)
}

/// What is left of the payload.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    #[inline]
    fn skip_whitespace(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes this character, if it is the next one after whitespace.
    #[inline]
    fn accept(&mut self, token: char) -> bool {
        self.skip_whitespace();
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, token: char, otherwise: &'static str) -> Result<(), Fault> {
        if self.accept(token) {
            Ok(())
        } else {
            Err(Fault("payload", otherwise))
        }
    }

    fn accept_null(&mut self) -> bool {
        let rest = self.0.strip_prefix("null");
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let body = self.0.strip_prefix('"').ok_or("must be text")?;
        let (text, rest) = split_plain(body).ok_or(TRUNCATED)?;
        if let Some(rest) = rest.strip_prefix('"') {
            self.0 = rest;
            return Ok(Cow::Borrowed(text));
        }
        match unescape(body) {
            Some((text, rest)) => {
                self.0 = rest;
                Ok(Cow::Owned(text))
            }
            None => self.any().map(Cow::Owned),
        }
    }

    /// Takes the next value with all that JSON allows.
    fn any<T: Deserialize<'a>>(&mut self) -> Result<T, &'static str> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter();
        let value = values.next().and_then(Result::ok).ok_or("not JSON")?;
        self.0 = &self.0[values.byte_offset()..];
        Ok(value)
    }

    /// Takes the next value as the text that it is.
    fn exact(&mut self) -> Result<&'a str, &'static str> {
        let text = self.any::<&RawValue>()?.get();
        check_depth(text)?;
        Ok(text)
    }
}

impl<'a> Content<'a> for &mut Reader<'a> {
    #[inline]
    fn text(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        if self.accept_null() {
            Ok(None)
        } else {
            self.string().map(Some)
        }
    }

    #[inline]
    fn integer<T: FromStr>(self) -> Result<Option<T>, &'static str> {
        if self.accept_null() {
            return Ok(None);
        }
        let in_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let end = self.0.bytes().position(|byte| !in_number(byte)).unwrap_or(self.0.len());
        let (number, rest) = self.0.split_at(end);
        self.0 = rest;
        let digits = number.strip_prefix('-').unwrap_or(number);
        if digits.starts_with('+') || digits.len() > 1 && digits.starts_with('0') {
            return Err("not JSON");
        }
        number.parse().map(Some).map_err(|_| "must be an integer in range")
    }

    fn value(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        match self.0.as_bytes().first() {
            Some(b'"' | b'n') => self.text(),
            _ => self.exact().map(|text| Some(Cow::Borrowed(text))),
        }
    }

    fn skip(self) -> Result<(), &'static str> {
        self.exact().map(drop)
    }
}

/// Splits where a string's plain text ends: at its closing quote, an escape, or what may not stand in a string.
#[inline]
fn split_plain(body: &str) -> Option<(&str, &str)> {
    let end = body
        .bytes()
        .position(|byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
    Some(body.split_at(end))
}

/// Reads a string with simple escapes, as a document inside a document has them, and returns what follows it.
fn unescape(body: &str) -> Option<(String, &str)> {
    let mut after = body.bytes();
    pass_string(&mut after);
    let mut text = String::with_capacity(body.len() - after.len());
    let mut rest = body;
    loop {
        let (plain, special) = split_plain(rest)?;
        text.push_str(plain);
        text.push(match special.as_bytes() {
            [b'"', ..] => return Some((text, &special[1..])),
            [b'\\', b'"', ..] => '"',
            [b'\\', b'\\', ..] => '\\',
            [b'\\', b'n', ..] => '\n',
            _ => return None,
        });
        rest = &special[2..];
    }
}

/// serde_json passes over a raw value without recursion, so it bounds no depth.
fn check_depth(json: &str) -> Result<(), &'static str> {
    if !json.starts_with(['{', '[']) {
        return Ok(());
    }
    let mut depth = 0;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' if depth == MAX_DEPTH => return Err(TOO_DEEP),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => pass_string(&mut bytes),
            _ => {}
        }
    }
    Ok(())
}

/// Passes over the rest of a string.
fn pass_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}
