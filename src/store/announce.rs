//! Writing and publishing in one step.

use super::{Write, Written};
use crate::codec::Codec;
use crate::error::Result;
use crate::update::Topic;

/// A store that can publish what it writes.
pub trait Announcer: Send + Sync {
    /// As [`Store::write`](super::Store::write); if that changed something, publishes the announcement in the same
    /// atomic step. No reader ever sees one without the other, even if a process is killed.
    ///
    /// # Errors
    /// As [`Store::write`](super::Store::write). After [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed) both
    /// may have happened, after any other error neither has.
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written>;
}

/// A message that lacks only what the store alone knows. It consists of `head`, the version, the name of the field
/// `after`, [`Written::after`], and `tail`.
#[derive(Debug, Clone, Copy)]
pub struct Announcement<'a> {
    /// Topic to publish on. It is the row's topic, which the write requires.
    pub topic: &'a Topic,
    /// Payload before the version.
    pub head: &'a [u8],
    /// Payload after the two versions.
    pub tail: &'a [u8],
    /// How the two versions are written. JSON: in decimal digits, with `,"after":` between them. MessagePack: as `uint
    /// 64`, which is the byte 0xcf and eight bytes, the most significant one first, with the name as `fixstr`, which is
    /// 0xa5 and `after`.
    pub codec: Codec,
}

impl Announcement<'_> {
    /// Returns an upper bound of the payload's length in bytes.
    pub fn max_payload_len(&self) -> usize {
        /// `,"after":` and twice the digits of the highest version in JSON; MessagePack needs less.
        const VERSIONS: usize = 9 + 2 * 20;
        self.head.len() + VERSIONS + self.tail.len()
    }

    /// Returns the payload of a write with this version and this previous version of its topic.
    pub fn payload(&self, version: u64, after: u64) -> Vec<u8> {
        let mut payload = self.head.to_vec();
        match self.codec {
            Codec::Json | Codec::Dragonflow1 => {
                payload.extend_from_slice(format!("{version},\"after\":{after}").as_bytes());
            }
            Codec::MessagePack => {
                payload.push(0xcf);
                payload.extend_from_slice(&version.to_be_bytes());
                payload.extend_from_slice(b"\xa5after\xcf");
                payload.extend_from_slice(&after.to_be_bytes());
            }
        }
        payload.extend_from_slice(self.tail);
        payload
    }
}
