//! The contents of a member's row.

use serde::{Deserialize, Serialize};

use crate::config::split_key;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Row;

/// The contents of a member's row; the row's key is the member's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The id, unique among running members, and the same after a restart.
    #[serde(skip)]
    pub id: String,
    /// The epoch of its run; later runs have higher ones.
    pub epoch: u64,
    /// Its address: a publisher's listen address, with its public key if it has one.
    pub address: String,
    /// Its role, if it has one; a subscriber may follow only some roles.
    #[serde(default)]
    pub role: String,
    /// Its load at the last renewal.
    #[serde(default)]
    pub load: Load,
    /// True if it is stopping and accepts no new work, or has just ended.
    #[serde(default)]
    pub leaving: bool,
    /// Other data, by kind of member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The load of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Updates handled, or sent, since it began.
    pub handled: u64,
    /// Updates waiting.
    pub waiting: u64,
}

impl Member {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the row is not a member's.
    pub fn from_row(row: &Row) -> Result<Member> {
        let member: Member = serde_json::from_str(&row.value).map_err(|e| {
            let context = format!("row {:?} does not describe a member", row.key);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })?;
        Ok(Member {
            id: row.key.to_string(),
            ..member
        })
    }

    /// True if the address states the public key by which the publisher proves who it is.
    pub fn is_authenticated(&self) -> bool {
        split_key(&self.address).1.is_some()
    }

    pub(super) fn to_value(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a member").with_source(e))
    }

    /// True if this is the same run at the same place.
    pub(super) fn is_run_of(&self, other: &Member) -> bool {
        self.epoch == other.epoch && self.address == other.address
    }
}
