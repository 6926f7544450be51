//! The question whether a write is applied.

use serde::{Deserialize, Serialize};

use crate::store::TableVersion;
use crate::update::{DbUpdate, Name};

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
    /// The table's version before the question was first asked; `None` from an older version of this library.
    #[serde(default)]
    pub(super) stands: Option<u64>,
}

/// The most bytes of a question's id, which goes into the rows of replicas, and of its text. A barrier's ids have 16; a
/// topic has at most 1 MiB, which JSON can make six times as long.
const MAX_ID: usize = 64;
const MAX_TEXT: usize = 8 << 20;

/// False for an update that no barrier sends: any peer may publish on the topic.
pub(super) fn is_question(update: &DbUpdate) -> bool {
    let length = update.value.as_ref().map_or(0, String::len);
    update.key.len() <= MAX_ID && length <= MAX_TEXT
}

impl Question {
    pub(super) fn at(&self) -> TableVersion {
        TableVersion {
            incarnation: self.incarnation,
            version: self.version,
            tip: 0,
            source: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Action;

    #[test]
    fn what_is_too_large_is_no_question() {
        let update = |id: usize, text: usize| {
            let ask = Action::Other("ask".into());
            DbUpdate::new(TABLE, "0".repeat(id), ask).value("x".repeat(text))
        };
        assert!(is_question(&update(16, 100)));
        assert!(!is_question(&update(MAX_ID + 1, 100)) && !is_question(&update(16, MAX_TEXT + 1)));
    }
}
