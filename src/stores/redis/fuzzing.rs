//! A target of the fuzzer: what a Redis server answers to a store, and the rows that it keeps.

use super::{answer, row};
use crate::redis::fuzzing::value;
use crate::store::{Row, Write};

/// A reply to writes; and the same bytes as a stored row, which is returned if it is one.
pub(crate) fn stored(bytes: &[u8]) -> Option<Row> {
    if let Some(reply) = value(bytes) {
        for write in [
            Write::create("t", "k", "v"),
            Write::set("t", "k", "v"),
            Write::delete("t", "k"),
        ] {
            let _ = answer::read_answer(reply.clone(), &write);
        }
    }
    let row = row::unpack("t", "k".into(), bytes.to_vec()).ok()?;
    let (version, topic) = (row.version.to_be_bytes(), row.topic.as_str().as_bytes());
    let length = u32::try_from(topic.len()).unwrap_or_default().to_be_bytes();
    let packed = [&version[..], &length[..], topic, row.value.as_bytes()].concat();
    assert_eq!(packed, bytes);
    Some(row)
}
