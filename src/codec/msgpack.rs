//! MessagePack, read by hand: borrowed from the payload, and without allocating for a length that is merely declared.

use std::borrow::Cow;

use serde::Serialize;

use super::fields::{Collect, Content, Fault, Field, Fields, InOrder, NOT_UTF8, Sink, Spares, TOO_DEEP};
use super::limits::{MAX_DEPTH, MAX_UPDATES};
use super::pattern::Patterns;
use super::plain;
use super::token::{Reader, Token};

pub(super) fn decode(
    payload: &[u8],
    patterns: &mut Patterns,
    spares: &mut Spares,
    sink: &mut Sink<'_, impl Collect>,
) -> Result<(), Fault> {
    let at_payload = |what| Fault("payload", what);
    let mut reader = Reader(payload);
    match reader.token().map_err(at_payload)? {
        Token::Map(len) => map(&mut reader, len, patterns, spares, sink)?,
        Token::Array(len) => {
            sink.reserve(len as usize, reader.0.len());
            for _ in 0..len {
                match reader.token().map_err(at_payload)? {
                    Token::Map(len) => map(&mut reader, len, patterns, spares, sink)?,
                    _ => return Err(at_payload("must be an array of maps")),
                }
            }
        }
        _ => return Err(at_payload("must be a map or an array of maps")),
    }
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err(at_payload("trailing bytes"))
    }
}

/// The text that the whole payload is.
pub(super) fn text(payload: &[u8]) -> Result<&[u8], &'static str> {
    let mut reader = Reader(payload);
    match reader.token()? {
        Token::Text(text) if reader.0.is_empty() => Ok(text),
        Token::Text(_) => Err("trailing bytes"),
        _ => Err("must be text"),
    }
}

fn map(
    reader: &mut Reader<'_>,
    len: u32,
    patterns: &mut Patterns,
    spares: &mut Spares,
    sink: &mut Sink<'_, impl Collect>,
) -> Result<(), Fault> {
    if plain::read(reader, len, patterns, spares, sink).is_some() {
        return Ok(());
    }
    let fields = Fields::default();
    let mut map = Map {
        reader,
        fields,
        left: len,
    };
    Field::offer(&mut map)?;
    let Map {
        reader,
        mut fields,
        left,
    } = map;
    for _ in 0..left {
        match reader.token() {
            Ok(Token::Text(name)) => fields.read(Field::named(name), &mut *reader)?,
            Ok(_) => return Err(Fault("field name", "must be text")),
            Err(what) => return Err(Fault("field name", what)),
        }
    }
    sink.push(fields, spares)
}

/// A map that is being read, and the number of its fields left.
struct Map<'r, 'a> {
    reader: &'r mut Reader<'a>,
    fields: Fields<'a>,
    left: u32,
}

impl InOrder for Map<'_, '_> {
    #[inline(always)]
    fn expect<const N: usize>(&mut self, field: Field, name: &[u8; N]) -> Result<(), Fault> {
        if self.left > 0 && self.reader.takes(name) {
            self.left -= 1;
            self.fields.read(field, &mut *self.reader)?;
        }
        Ok(())
    }
}

/// The maps of an array of maps, as bytes; `None` if the payload is not one.
pub(super) fn parts(payload: &[u8]) -> Option<Vec<&[u8]>> {
    let mut reader = Reader(payload);
    let Ok(Token::Array(len @ 1..)) = reader.token() else {
        return None;
    };
    let mut parts = Vec::new();
    for _ in 0..len {
        let before = reader.0;
        let Ok(Token::Map(fields)) = reader.token() else {
            return None;
        };
        let skipped = (0..2 * u64::from(fields)).try_for_each(|_| reader.skip_value(0));
        if skipped.is_err() || parts.len() == MAX_UPDATES {
            return None;
        }
        parts.push(before.get(..before.len() - reader.0.len())?);
    }
    reader.0.is_empty().then_some(parts)
}

impl Reader<'_> {
    /// Skips one value that has `depth` arrays and maps around it.
    fn skip_value(&mut self, depth: usize) -> Result<(), &'static str> {
        let parts = match self.token()? {
            Token::Array(len) => u64::from(len),
            Token::Map(len) => 2 * u64::from(len),
            _ => return Ok(()),
        };
        let depth = deeper(depth)?;
        (0..parts).try_for_each(|_| self.skip_value(depth))
    }

    /// Appends one value that has `depth` arrays and maps around it to `json`. The text is at most six times as long as
    /// its source: a control character of one byte becomes six, as does a `false` with its comma.
    fn value_to_json(&mut self, depth: usize, json: &mut Vec<u8>) -> Result<(), &'static str> {
        match self.token()? {
            Token::Nil => put(json, &()),
            Token::Bool(truth) => put(json, &truth),
            Token::Unsigned(number) => put(json, &number),
            Token::Signed(number) => put(json, &number),
            Token::Float(number) if number.is_finite() => put(json, &number),
            Token::Text(bytes) => put(json, utf8(bytes)?),
            Token::Array(len) => {
                let depth = deeper(depth)?;
                json.push(b'[');
                for i in 0..len {
                    if i > 0 {
                        json.push(b',');
                    }
                    self.value_to_json(depth, json)?;
                }
                json.push(b']');
                Ok(())
            }
            Token::Map(len) => {
                let depth = deeper(depth)?;
                json.push(b'{');
                for i in 0..len {
                    if i > 0 {
                        json.push(b',');
                    }
                    put(json, &*self.text()?.ok_or("a key must be text")?)?;
                    json.push(b':');
                    self.value_to_json(depth, json)?;
                }
                json.push(b'}');
                Ok(())
            }
            Token::Float(_) | Token::Extension => Err("has no form in JSON"),
        }
    }
}

/// Appends text, a number, or a truth value to JSON; the unit is null.
fn put<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> Result<(), &'static str> {
    serde_json::to_writer(json, value).map_err(|_| "has no form in JSON")
}

impl<'a> Content<'a> for &mut Reader<'a> {
    #[inline(never)]
    fn text(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        match self.token()? {
            Token::Text(bytes) => utf8(bytes).map(|text| Some(Cow::Borrowed(text))),
            Token::Nil => Ok(None),
            _ => Err("must be text"),
        }
    }

    #[inline]
    fn integer<T: TryFrom<u64> + TryFrom<i64>>(self) -> Result<Option<T>, &'static str> {
        let number = match self.token()? {
            Token::Nil => return Ok(None),
            Token::Unsigned(number) => T::try_from(number).ok(),
            Token::Signed(number) => T::try_from(number).ok(),
            _ => None,
        };
        number.map(Some).ok_or("must be an integer in range")
    }

    fn value(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        let start = self.0;
        match self.token()? {
            Token::Text(bytes) => return utf8(bytes).map(|text| Some(Cow::Borrowed(text))),
            Token::Nil => return Ok(None),
            _ => self.0 = start,
        }
        let mut json = Vec::new();
        self.value_to_json(0, &mut json)?;
        let mut json = String::from_utf8(json).map_err(|_| NOT_UTF8)?;
        json.shrink_to_fit();
        Ok(Some(Cow::Owned(json)))
    }

    fn skip(self) -> Result<(), &'static str> {
        self.skip_value(0)
    }
}

fn deeper(depth: usize) -> Result<usize, &'static str> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(TOO_DEEP)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)
}
