//! MessagePack in parts: markers, lengths and contents, borrowed from the payload.

use rmp::Marker;

use super::fields::TRUNCATED;

/// The rest of the payload.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// A value, or the head of a value that has parts.
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// `str` or `bin`.
    Text(&'a [u8]),
    Array(u32),
    Map(u32),
    Extension,
}

impl<'a> Reader<'a> {
    /// Takes this short text if it comes next.
    #[inline(always)]
    pub(super) fn takes<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        /// The marker of the shortest `fixstr`.
        const FIXSTR: usize = 0xa0;
        let [marker, rest @ ..] = self.0 else { return false };
        let Some((next, rest)) = rest.split_first_chunk::<N>() else {
            return false;
        };
        let is_it = usize::from(*marker) == FIXSTR + N && next == text;
        if is_it {
            self.0 = rest;
        }
        is_it
    }

    #[inline(always)]
    pub(super) fn token(&mut self) -> Result<Token<'a>, &'static str> {
        Ok(match Marker::from_u8(u8::from_be_bytes(self.bytes()?)) {
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(number) => Token::Unsigned(number.into()),
            Marker::U8 => Token::Unsigned(self.u8()?.into()),
            Marker::U16 => Token::Unsigned(self.u16()?.into()),
            Marker::U32 => Token::Unsigned(self.u32()?.into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.bytes()?)),
            Marker::FixNeg(number) => Token::Signed(number.into()),
            Marker::I8 => Token::Signed(i8::from_be_bytes(self.bytes()?).into()),
            Marker::I16 => Token::Signed(i16::from_be_bytes(self.bytes()?).into()),
            Marker::I32 => Token::Signed(i32::from_be_bytes(self.bytes()?).into()),
            Marker::I64 => Token::Signed(i64::from_be_bytes(self.bytes()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.bytes()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.bytes()?)),
            Marker::FixStr(len) => Token::Text(self.take(len.into())?),
            Marker::Str8 | Marker::Bin8 => self.u8().and_then(|len| self.take(len.into())).map(Token::Text)?,
            Marker::Str16 | Marker::Bin16 => self.u16().and_then(|len| self.take(len.into())).map(Token::Text)?,
            Marker::Str32 | Marker::Bin32 => self.u32().and_then(|len| self.take(len)).map(Token::Text)?,
            Marker::FixArray(len) => Token::Array(len.into()),
            Marker::Array16 => Token::Array(self.u16()?.into()),
            Marker::Array32 => Token::Array(self.u32()?),
            Marker::FixMap(len) => Token::Map(len.into()),
            Marker::Map16 => Token::Map(self.u16()?.into()),
            Marker::Map32 => Token::Map(self.u32()?),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.u8().and_then(|len| self.extension(len.into()))?,
            Marker::Ext16 => self.u16().and_then(|len| self.extension(len.into()))?,
            Marker::Ext32 => self.u32().and_then(|len| self.extension(len))?,
            Marker::Reserved => return Err("the reserved byte 0xc1"),
        })
    }

    fn extension(&mut self, len: u32) -> Result<Token<'a>, &'static str> {
        self.u8()?; // its type
        self.take(len)?;
        Ok(Token::Extension)
    }

    pub(super) fn u8(&mut self) -> Result<u8, &'static str> {
        self.bytes().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, &'static str> {
        self.bytes().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, &'static str> {
        self.bytes().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(super) fn take(&mut self, len: u32) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).map_err(|_| TRUNCATED)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(bytes)
    }
}
