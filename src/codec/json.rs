//! JSON: the structure of a payload is read by hand, straight into fields; serde_json reads everything else.

use std::borrow::Cow;
use std::slice;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::{Collect, Content, Fault, Field, Fields, NOT_UTF8, Scratch, Sink, TOO_DEEP, TRUNCATED};
use super::limits::MAX_DEPTH;

/// Appends `value`, which must be text or a number.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, buf: &mut Vec<u8>) {
    let written = serde_json::to_writer(buf, value);
    debug_assert!(written.is_ok(), "writing text or a number to memory cannot fail");
}

pub(super) fn decode(payload: &[u8], scratch: &mut Scratch, sink: &mut Sink<'_, impl Collect>) -> Result<(), Fault> {
    let text = std::str::from_utf8(payload).map_err(|_| Fault("payload", NOT_UTF8))?;
    let mut reader = Reader { text, at: 0, scratch };
    if reader.accept(b'[') {
        if !reader.accept(b']') {
            object(&mut reader, sink)?;
            while reader.accept(b',') {
                object(&mut reader, sink)?;
            }
            reader.expect(b']', "expected , or ] after an object")?;
        }
    } else {
        object(&mut reader, sink)?;
    }
    reader.skip_whitespace();
    if reader.at == text.len() {
        Ok(())
    } else {
        Err(Fault("payload", "trailing bytes"))
    }
}

fn object(reader: &mut Reader<'_, '_>, sink: &mut Sink<'_, impl Collect>) -> Result<(), Fault> {
    let mut fields = Fields::default();
    reader.expect(b'{', "expected an object")?;
    if !reader.accept(b'}') {
        let mut expected = Field::NAMED.iter();
        loop {
            reader.skip_whitespace();
            let field = match reader.expected(&mut expected) {
                Some(field) => field,
                None => {
                    let name = reader.string().map_err(|what| Fault("field name", what))?;
                    reader.expect(b':', "expected : after a field name")?;
                    Field::named(name.as_bytes())
                }
            };
            reader.skip_whitespace();
            fields.read(field, &mut *reader)?;
            if !reader.accept(b',') {
                break;
            }
        }
        reader.expect(b'}', "expected , or } after a field")?;
    }
    sink.push(fields, &mut reader.scratch.spares)
}

struct Reader<'a, 's> {
    text: &'a str,
    /// Start of the rest of the text.
    at: usize,
    scratch: &'s mut Scratch,
}

impl<'a> Reader<'a, '_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes this ASCII byte, if it is the next one after whitespace.
    #[inline]
    fn accept(&mut self, token: u8) -> bool {
        self.skip_whitespace();
        let accepted = self.peek() == Some(token);
        self.at += usize::from(accepted);
        accepted
    }

    #[inline]
    fn expect(&mut self, token: u8, otherwise: &'static str) -> Result<(), Fault> {
        if self.accept(token) {
            Ok(())
        } else {
            Err(Fault("payload", otherwise))
        }
    }

    #[inline]
    fn accept_null(&mut self) -> bool {
        let null = self.text.as_bytes().get(self.at..self.at + 4) == Some(b"null");
        self.at += 4 * usize::from(null);
        null
    }

    /// Takes the name of one of the next two of `fields`, with its colon: most messages are in an encoder's order.
    #[inline]
    fn expected(&mut self, fields: &mut slice::Iter<'_, (Field, &[u8])>) -> Option<Field> {
        let rest = self.text.as_bytes().get(self.at..)?.strip_prefix(b"\"")?;
        for (field, name) in fields.by_ref().take(2) {
            if rest.strip_prefix(*name).is_some_and(|after| after.starts_with(b"\":")) {
                self.at += name.len() + 3;
                return Some(*field);
            }
        }
        None
    }

    #[inline(never)]
    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        if self.peek() != Some(b'"') {
            return Err("must be text");
        }
        let start = self.at + 1;
        let end = plain_end(self.text.as_bytes(), start);
        match self.text.as_bytes().get(end) {
            None => Err(TRUNCATED),
            Some(b'"') => {
                self.at = end + 1;
                Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()))
            }
            Some(_) => self.escaped().map(Cow::Owned),
        }
    }

    /// Takes a string with escapes: directly the simple ones of a document inside a document, and any others that JSON
    /// allows.
    #[inline(never)]
    fn escaped(&mut self) -> Result<String, &'static str> {
        let bytes = self.text.as_bytes();
        let (mut at, mut length) = (self.at + 1, 0);
        // Whole words are copied, so one too many.
        let room = bytes.len() - self.at + size_of::<u64>();
        if self.scratch.text.len() < room {
            self.scratch.text.resize(room, 0);
        }
        let scratch = self.scratch.text.as_mut_slice();
        'text: loop {
            let word = word(bytes, at);
            let plain = plain(word);
            if let Some(to) = scratch.get_mut(length..).and_then(|to| to.first_chunk_mut()) {
                *to = word;
            }
            (at, length) = (at + plain, length + plain);
            if plain == word.len() {
                continue;
            }
            loop {
                let escape = match (bytes.get(at), bytes.get(at + 1)) {
                    (Some(b'"'), _) => break 'text,
                    (Some(b'\\'), Some(&byte @ (b'"' | b'\\'))) => byte,
                    (Some(b'\\'), Some(b'n')) => b'\n',
                    _ => return self.any(),
                };
                // Between two texts of a document there is only one byte.
                match (scratch.get_mut(length..length + 2), bytes.get(at + 2..at + 5)) {
                    (Some(to), Some(&[between @ (b':' | b','), b'\\', b'"'])) => {
                        to.copy_from_slice(&[escape, between]);
                        (at, length) = (at + 3, length + 2);
                    }
                    (Some([to, _]), _) => {
                        *to = escape;
                        (at, length) = (at + 2, length + 1);
                        break;
                    }
                    _ => return self.any(),
                }
            }
        }
        self.at = at + 1;
        let text = self.scratch.text.get(..length).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| NOT_UTF8)?;
        Ok(self.scratch.spares.owned(text))
    }

    /// Takes the next value, with everything that JSON allows.
    #[cold]
    fn any<T: Deserialize<'a>>(&mut self) -> Result<T, &'static str> {
        let mut values = serde_json::Deserializer::from_str(self.text.get(self.at..).unwrap_or_default()).into_iter();
        let value = values.next().and_then(Result::ok).ok_or("not JSON")?;
        self.at += values.byte_offset();
        Ok(value)
    }

    /// Takes the next value as its exact text.
    fn exact(&mut self) -> Result<&'a str, &'static str> {
        let text = self.any::<&RawValue>()?.get();
        check_depth(text)?;
        Ok(text)
    }
}

impl<'a> Content<'a> for &mut Reader<'a, '_> {
    #[inline(never)]
    fn text(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        if self.accept_null() {
            Ok(None)
        } else {
            self.string().map(Some)
        }
    }

    #[inline]
    fn integer<T: FromStr + TryFrom<u64>>(self) -> Result<Option<T>, &'static str> {
        if self.accept_null() {
            return Ok(None);
        }
        let bytes = self.text.as_bytes();
        let start = self.at + usize::from(self.peek() == Some(b'-'));
        let (mut end, mut number) = (start, 0_u64);
        while let Some(digit @ b'0'..=b'9') = bytes.get(end) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            end += 1;
        }
        let number = match (end - start, bytes.get(start), bytes.get(end)) {
            (0, ..) | (_, _, Some(b'.' | b'e' | b'E')) => None,
            (2.., Some(b'0'), _) => return Err("not JSON"),
            (..20, ..) if start == self.at => T::try_from(number).ok(),
            _ => self.text.get(self.at..end).and_then(|number| number.parse().ok()),
        };
        self.at = end;
        number.map(Some).ok_or("must be an integer in range")
    }

    fn value(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        match self.peek() {
            Some(b'"' | b'n') => self.text(),
            _ => self.exact().map(|text| Some(Cow::Borrowed(text))),
        }
    }

    fn skip(self) -> Result<(), &'static str> {
        self.exact().map(drop)
    }
}

/// The end of the plain part of a string that begins at `at`.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let word = word(bytes, at);
        let plain = plain(word);
        at += plain;
        if plain < word.len() {
            return at;
        }
    }
}

/// The eight bytes from `at` on, padded with zeros.
#[inline]
fn word(bytes: &[u8], at: usize) -> [u8; 8] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; 8];
        padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        padded
    })
}

/// Number of bytes before a quote, an escape, or a byte not allowed in a string.
#[inline]
fn plain(word: [u8; 8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(word);
    // Marks every byte below `limit`, and perhaps bytes that come after one of them.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & (ONES * 0x80);
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let marks = below(word, 0x20) | equal(b'"') | equal(b'\\');
    marks.trailing_zeros() as usize / 8
}

/// serde_json skips a raw value without recursion, so it does not limit the depth.
fn check_depth(json: &str) -> Result<(), &'static str> {
    let (mut depth, mut in_string, mut bytes) = (0, false, json.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' if depth == MAX_DEPTH => return Err(TOO_DEEP),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    Ok(())
}
