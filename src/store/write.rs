//! One write of one row, and what becomes of it.

use crate::error::{Error, ErrorKind, Result};
use crate::update::Topic;

/// Writes of the same table for which a store remembers the version of a delete, at least; see [`Write::if_version`].
pub const DELETES_REMEMBERED: u64 = 1000;

/// One write of one row, and when it is to be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// The change.
    pub op: WriteOp<'a>,
    /// To create: the new row's topic; `None` is [`Topic::ALL`]. To set and delete: the topic that the row must have, or
    /// it is not found; `None` is any.
    pub topic: Option<&'a Topic>,
    /// Makes the write only if this is the version of the last write of the row, or else fails with
    /// [`ErrorKind::Conflict`]. To create, this is the version of the delete: it conflicts if the row was created
    /// since, even if it is deleted again, and if the store has forgotten the delete, which it may after
    /// [`DELETES_REMEMBERED`] writes.
    pub if_version: Option<u64>,
    /// To set: only if the row has another value; otherwise nothing is written, and [`Written::changed`] says so.
    pub unless_equal: bool,
    /// True if [`Written::before`] is wanted.
    pub returning: bool,
}

/// The kind of a [`Write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOp<'a> {
    /// Makes a new row of this value.
    Create(&'a str),
    /// Gives a row this value.
    Set(&'a str),
    /// Removes a row.
    Delete,
}

/// Outcome of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The version of this write, also of a delete; that of the row if nothing was changed.
    pub version: u64,
    /// The version of the last write of this table and topic before this one, deletes of the table included; 0 if there was none.
    /// `None` if nothing was changed, or if the store does not keep it.
    pub after: Option<u64>,
    /// The row's topic.
    pub topic: Topic,
    /// False if the row had the value already and [`Write::unless_equal`] asked for nothing to be done then.
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

    /// Creates a row.
    pub fn create(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, WriteOp::Create(value))
    }

    /// Sets a row.
    pub fn set(table: &'a str, key: &'a str, value: &'a str) -> Write<'a> {
        Write::new(table, key, WriteOp::Set(value))
    }

    /// Deletes a row.
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

    /// Checks that this write is to be made, given the topic and the version of the `row` that is there, or the version
    /// of the `delete` that is remembered of it. For stores that look first and then write, under a lock.
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
            Some(_) => Err(self.conflict()),
        }
    }

    /// A store's answer if there is no row of this key.
    pub fn not_found(&self) -> Error {
        not_found(self.table, self.key, self.topic)
    }

    /// A store's answer if there is a row of this key.
    pub fn already_exists(&self) -> Error {
        self.error(ErrorKind::AlreadyExists, row_name(self.table, self.key))
    }

    /// A store's answer if the row has another version.
    pub fn conflict(&self) -> Error {
        let row = row_name(self.table, self.key);
        let since = self.if_version.map(|version| format!(" after version {version}"));
        let context = format!("{row} was written by another writer{}", since.unwrap_or_default());
        self.error(ErrorKind::Conflict, context)
    }

    fn error(&self, kind: ErrorKind, context: String) -> Error {
        Error::new(kind, context).with_row(self.table, self.key)
    }
}

/// A store's answer if there is no row of this key.
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
