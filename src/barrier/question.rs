//! The question whether a write is applied.

use serde::{Deserialize, Serialize};

use crate::store::TableVersion;
use crate::update::Name;

/// The topic and table of questions.
pub(super) const TOPIC: &str = "replica/barrier";
pub(super) const TABLE: &str = "replica_barrier";

/// The question whether a version of a table's topic is applied; the update's key is its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) table: Name,
    pub(super) topic: Name,
    pub(super) incarnation: u64,
    pub(super) version: u64,
}

impl Question {
    pub(super) fn at(&self) -> TableVersion {
        TableVersion {
            incarnation: self.incarnation,
            version: self.version,
            tip: 0,
        }
    }
}
