//! Rows, tables, and the versions of tables.

use serde::Serialize;

use crate::update::{Name, Topic};

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The key.
    pub key: Name,
    /// Opaque text, usually a JSON document.
    pub value: String,
    /// The topic of its changes.
    pub topic: Topic,
    /// The version, which every write raises.
    pub version: u64,
}

/// A table as [`Store::tables`](super::Store::tables) lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredTable {
    /// The name; serialized as `table`.
    #[serde(rename = "table")]
    pub name: Name,
    /// The number of rows; `None` if the store would have to count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// State of a table: its incarnation, and its last write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableVersion {
    /// A random number that the table gets with its first write, and a new one when it begins anew: after `FLUSHALL`,
    /// or in another file at the same path. Versions of two incarnations cannot be compared. 0: nothing was written.
    pub incarnation: u64,
    /// The highest version given so far; 0 if none was.
    pub version: u64,
    /// A number of the write that was given this version, which another write would not have; 0 if it is unknown, or if
    /// the store never loses a write.
    pub tip: u64,
    /// A number of what the state was read from: the run of a Redis server, or the schema of an SQLite file. Another
    /// source may lack the last writes. 0: it is unknown, or there is only one.
    pub source: u64,
}

impl TableVersion {
    /// Returns true if the store went back since `seen`: to another incarnation, to an earlier version, or to one from
    /// which another write has come to the same version.
    pub fn went_back_since(&self, seen: &TableVersion) -> bool {
        let is_other_write = self.tip != seen.tip && self.tip != 0 && seen.tip != 0;
        let is_earlier = self.version < seen.version || self.version == seen.version && is_other_write;
        seen.version > 0 && (self.incarnation != seen.incarnation || is_earlier)
    }

    /// Returns true if the state is of another source than `seen`, so that the store may have gone back unseen.
    pub(crate) fn is_of_another_source(&self, seen: &TableVersion) -> bool {
        self.source != seen.source && self.source != 0 && seen.source != 0
    }

    /// The state at this version, of whose write nothing is known if it is another one.
    pub(crate) fn at(self, version: u64) -> TableVersion {
        let tip = if version == self.version { self.tip } else { 0 };
        TableVersion { version, tip, ..self }
    }
}
