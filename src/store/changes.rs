//! Changes of a topic's rows after a version, for a copy that catches up without reading all rows.

use super::listing::{Item, Page};
use super::row::{Row, TableVersion};
use crate::error::Result;
use crate::update::Name;

/// Versions of a table and some of its topics, at one moment; see
/// [`Store::topic_versions`](super::Store::topic_versions).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicVersions {
    /// The table's last version.
    pub table: TableVersion,
    /// The last version of each topic, in the order in which the topics were given; 0 if it has none. A delete of the
    /// whole table counts as a write of every topic.
    pub versions: Vec<u64>,
}

/// Result of [`Store::changes`](super::Store::changes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// The changes, or the first of them.
    Page(ChangePage),
    /// The changes are no longer known, or the store does not keep them: the reader has to list the table.
    Unknown,
}

impl Changes {
    /// Those of a table to which nothing was ever written.
    pub(crate) fn of_no_table(since: TableVersion) -> Changes {
        match TableVersion::default().went_back_since(&since) {
            true => Changes::Unknown,
            false => Changes::Page(ChangePage::default()),
        }
    }
}

/// A part of the changes of a topic, oldest first. It may be empty though there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangePage {
    /// The last change of each key, and perhaps earlier deletes of keys that the topic lacks now.
    pub changes: Vec<StoredChange>,
    /// Up to this version nothing is missing; the next changes are those after it.
    pub version: TableVersion,
    /// True if there were more changes when this page was read.
    pub more: bool,
}

/// The last change of a row, as a store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange {
    /// The row's key.
    pub key: Name,
    /// The version of the row, or of its delete.
    pub version: u64,
    /// The row's value; `None` if the row was deleted.
    pub value: Option<String>,
}

impl ChangePage {
    /// Takes changes, oldest first, until there are no more, or `limit` of them, or [`PAGE_BYTES`](super::PAGE_BYTES).
    /// `table` is the table's version, up to which the changes are complete if all are taken.
    ///
    /// # Errors
    /// The first error among the changes.
    pub fn fill<E>(
        changes: impl IntoIterator<Item = Result<StoredChange, E>>,
        limit: usize,
        table: TableVersion,
    ) -> Result<ChangePage, E> {
        let Page { items, next } = Page::fill(changes, limit)?;
        let more = next.is_some();
        let version = match items.last().filter(|_| more) {
            Some(last) => last.version,
            None => table.version,
        };
        Ok(ChangePage {
            changes: items,
            version: table.at(version),
            more,
        })
    }
}

impl From<Row> for StoredChange {
    fn from(row: Row) -> StoredChange {
        StoredChange {
            key: row.key,
            version: row.version,
            value: Some(row.value),
        }
    }
}

impl Item for StoredChange {
    fn key(&self) -> &Name {
        &self.key
    }

    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, String::len)
    }
}
