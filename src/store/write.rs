//! One write of one row, and its outcome.

use crate::error::{Error, ErrorKind, Result};
use crate::update::Topic;

/// Minimum number of later writes of the same table for which a store remembers the version of a delete; see
/// [`Write::if_version`].
pub const DELETES_REMEMBERED: u64 = 1000;

/// One write of one row, with its conditions.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// The change.
    pub op: WriteOp<'a>,
    /// For a create: the topic of the new row; `None` is [`Topic::ALL`]. For a set or delete: the topic that the row
    /// must have to be found; `None` is any topic.
    pub topic: Option<&'a Topic>,
    /// Makes the write only if the row's last write has this version; otherwise fails with [`ErrorKind::Conflict`]. For
    /// a create this is the version of the delete: it conflicts if the row was created since, even if it is deleted
    /// again, and if the store has forgotten the delete, which it may after [`DELETES_REMEMBERED`] writes.
    pub if_version: Option<u64>,
    /// For a set: writes only if the value differs; otherwise nothing is written, and [`Written::changed`] is false. If
    /// another process has stored that value just now through a [`Database`](crate::Database), and it alone cannot
    /// publish it, it undoes it: then the row has its earlier value again, whatever this write was answered.
    pub unless_equal: bool,
    /// Asks for [`Written::before`].
    pub returning: bool,
}

/// The kind of a [`Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOp<'a> {
    /// Creates a row with this value.
    Create(&'a str),
    /// Sets the value of a row.
    Set(&'a str),
    /// Deletes a row.
    Delete,
}

/// Outcome of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The version of this write, deletes included; the row's version if nothing was changed.
    pub version: u64,
    /// The version of the previous write of this table and topic, deletes of the table included; 0 if there was none.
    /// `None` if nothing was changed, or if the store does not keep it.
    pub after: Option<u64>,
    /// The row's topic.
    pub topic: Topic,
    /// False if the row already had the value and [`Write::unless_equal`] was set.
    pub changed: bool,
    /// The value before a set or a delete, if [`Write::returning`] asked for it.
    pub before: Option<String>,
}

impl<'a> Write<'a> {
    fn new(table: &'a str, key: &'a str, op: WriteOp<'a>) -> Write<'a> {
        Write {
            table,
            key,
            op,
            topic: None,
            if_version: None,
            unless_equal: false,
            returning: false,
        }
    }

    /// Returns a write that creates a row.
    pub fn create(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, WriteOp::Create(value))
    }

    /// Returns a write that sets a row.
    pub fn set(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, WriteOp::Set(value))
    }

    /// Returns a write that deletes a row.
    pub fn delete(table: &'a str, key: &'a str) -> Write<'a> {
        Write::new(table, key, WriteOp::Delete)
    }

    /// Sets [`Write::topic`].
    #[must_use]
    pub fn topic(mut self, topic: &'a Topic) -> Write<'a> {
        self.topic = Some(topic);
        self
    }

    /// Sets [`Write::if_version`].
    #[must_use]
    pub fn if_version(mut self, version: u64) -> Write<'a> {
        self.if_version = Some(version);
        self
    }

    /// Sets [`Write::unless_equal`].
    #[must_use]
    pub fn unless_equal(mut self) -> Write<'a> {
        self.unless_equal = true;
        self
    }

    /// Sets [`Write::returning`].
    #[must_use]
    pub fn returning(mut self) -> Write<'a> {
        self.returning = true;
        self
    }

    /// Checks the conditions of this write, given the topic and the version of the existing `row`, or the remembered
    /// version of its `delete`. For stores that check first and then write, under a lock.
    ///
    /// # Errors
    /// As [`Store::write`](super::Store::write).
    pub fn check(&self, row: Option<(&Topic, u64)>, delete: Option<u64>) -> Result<()> {
        let version = match (self.op, row) {
            (WriteOp::Create(_), Some(_)) => return Err(self.already_exists()),
            (WriteOp::Create(_), None) => delete,
            (WriteOp::Set(_) | WriteOp::Delete, Some((topic, version)))
                if self.topic.is_none_or(|wanted| wanted == topic) =>
            {
                Some(version)
            }
            (WriteOp::Set(_) | WriteOp::Delete, _) => return Err(self.not_found()),
        };
        match self.if_version {
            None => Ok(()),
            wanted if wanted == version => Ok(()),
            Some(_) => Err(version.map_or_else(|| self.conflict(), |version| self.conflict_with(version))),
        }
    }

    /// Returns a store's error if there is no row with this key.
    pub fn not_found(&self) -> Error {
        not_found(self.table, self.key, self.topic)
    }

    /// Returns a store's error if the row already exists.
    pub fn already_exists(&self) -> Error {
        self.error(ErrorKind::AlreadyExists, row_name(self.table, self.key))
    }

    /// Returns a store's error if the row's last write, or its remembered delete, has this version instead.
    pub fn conflict_with(&self, version: u64) -> Error {
        let row = row_name(self.table, self.key);
        let context = match self.if_version {
            Some(wanted) => format!("the last write of {row} has version {version}, not {wanted}"),
            None => format!("{row} was written by another writer, in version {version}"),
        };
        self.error(ErrorKind::Conflict, context).with_version(version)
    }

    /// As [`Write::conflict_with`], for a store that does not know the row's version.
    pub fn conflict(&self) -> Error {
        let row = row_name(self.table, self.key);
        let context = match self.if_version {
            Some(version) => format!("the last write of {row} is not version {version}"),
            None => format!("{row} was written by another writer"),
        };
        self.error(ErrorKind::Conflict, context)
    }

    fn error(&self, kind: ErrorKind, context: String) -> Error {
        Error::new(kind, context).with_row(self.table, self.key)
    }
}

/// Returns a store's error if there is no row with this key.
pub fn not_found(table: &str, key: &str, topic: Option<&Topic>) -> Error {
    let mut context = row_name(table, key);
    if let Some(topic) = topic {
        context.push_str(&format!(" of topic {topic:?}"));
    }
    Error::new(ErrorKind::NotFound, context).with_row(table, key)
}

fn row_name(table: &str, key: &str) -> String {
    format!("table {table:?} key {key:?}")
}
