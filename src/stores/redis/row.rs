//! Stored rows, in the format that `write.lua` describes.

use crate::error::{Error, ErrorKind, Result};
use crate::store::Row;
use crate::update::{Name, Topic};

/// Unpacks the row of this key.
pub(super) fn unpack(table: &str, key: Name, mut packed: Vec<u8>) -> Result<Row> {
    let malformed = || {
        let context = format!("table {table:?} key {:?}: the stored value is no row", &*key);
        Error::new(ErrorKind::Malformed, context)
    };
    let header = |packed: &[u8]| {
        let (version, rest) = packed.split_first_chunk()?;
        let topic_length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        let value_at = topic_length.checked_add(12)?;
        let topic = std::str::from_utf8(packed.get(12..value_at)?).ok()?;
        Some((u64::from_be_bytes(*version), Topic::new(topic).ok()?, value_at))
    };
    let (version, topic, value_at) = header(&packed).ok_or_else(malformed)?;
    packed.drain(..value_at);
    let value = String::from_utf8(packed).map_err(|_| malformed())?;
    Ok(Row {
        key,
        value,
        topic,
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unpacked() {
        let mut packed = vec![0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3];
        packed.extend(b"Dx\xc3\xa9value".iter().take(2));
        packed.extend(b"yvalue");
        let row = unpack("t", "k".into(), packed.clone()).unwrap();
        assert_eq!((row.version, row.topic.as_str(), &*row.value), (258, "Dxy", "value"));
        for length in 0..15 {
            let cut = packed.get(..length).unwrap().to_vec();
            assert_eq!(
                unpack("t", "k".into(), cut).unwrap_err().kind(),
                ErrorKind::Malformed,
                "{length}"
            );
        }
    }
}
