//! The rows of one table, typed.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Database, TRIES, contended};
use crate::error::{ErrorKind, Result};
use crate::store::{Listing, Row, Write, Written};
use crate::table::{Entry, Table};
use crate::update::{DbUpdate, Name, Topic};

/// The rows of a table of a [`Database`], or those of one topic.
#[must_use]
pub struct Rows<'a, T> {
    database: &'a Database,
    table: Table<T>,
    topic: Option<Topic>,
    priority: i32,
}

impl Database {
    /// Returns the rows of a typed table.
    pub fn rows<T>(&self, table: Table<T>) -> Rows<'_, T> {
        Rows {
            database: self,
            table,
            topic: None,
            priority: DbUpdate::DEFAULT_PRIORITY,
        }
    }
}

impl<'a, T> Rows<'a, T> {
    /// Restricts the calls to this topic: created rows get it, and rows of other topics are not found. Default: rows of
    /// all topics, and [`Topic::ALL`] for created rows; `set`, `put` and `delete` then learn the row's topic as
    /// [`Database::write`] does, which may take a read more.
    pub fn topic(mut self, topic: &Topic) -> Rows<'a, T> {
        self.topic = Some(topic.clone());
        self
    }

    /// Sets the priority of the updates; lower is more urgent. Default: 5.
    pub fn priority(mut self, priority: i32) -> Rows<'a, T> {
        self.priority = priority;
        self
    }

    /// Deletes a row. Returns the version of the delete.
    ///
    /// # Errors
    /// As [`Database::write`], for example [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub fn delete(&self, key: &str) -> Result<u64> {
        Ok(self.write(Write::delete(self.table.as_str(), key))?.version)
    }

    /// As [`Rows::delete`], but only if the row's last write has this version.
    ///
    /// # Errors
    /// As [`Rows::delete`], and [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it has another version.
    pub fn delete_if(&self, key: &str, version: u64) -> Result<u64> {
        let delete = Write::delete(self.table.as_str(), key).if_version(version);
        Ok(self.write(delete)?.version)
    }

    /// Returns all keys, in the order of their bytes, fetched page by page.
    pub fn keys(&self) -> Listing<'_, Name> {
        self.database.store.keys(self.table.as_str(), self.topic.as_ref())
    }

    fn write(&self, write: Write<'_>) -> Result<Written> {
        let topic = self.topic.as_ref();
        self.database.write(&Write { topic, ..write }, self.priority)
    }
}

impl<T: Serialize> Rows<'_, T> {
    /// Creates a row. Returns its version.
    ///
    /// # Errors
    /// As [`Database::write`], for example [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the row cannot be written as JSON.
    pub fn create(&self, key: &str, row: &T) -> Result<u64> {
        let value = self.table.write(row)?;
        Ok(self.write(Write::create(self.table.as_str(), key, &value))?.version)
    }

    /// Sets a row. Returns its new version, or `None` if its JSON text is the same as before: then nothing is written
    /// or published, and another process that has just stored it may undo it ([`Write::unless_equal`]).
    ///
    /// # Errors
    /// As [`Database::write`], for example [`ErrorKind::NotFound`](crate::ErrorKind::NotFound);
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the row cannot be written as JSON.
    pub fn set(&self, key: &str, row: &T) -> Result<Option<u64>> {
        let value = self.table.write(row)?;
        self.set_value(Write::set(self.table.as_str(), key, &value))
    }

    /// As [`Rows::set`], but only if the row's last write has this version.
    ///
    /// # Errors
    /// As [`Rows::set`], and [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it has another version.
    pub fn set_if(&self, key: &str, row: &T, version: u64) -> Result<Option<u64>> {
        let value = self.table.write(row)?;
        self.set_value(Write::set(self.table.as_str(), key, &value).if_version(version))
    }

    /// Creates the row, or sets it if it exists. Returns its new version, or `None` if it already has the same JSON
    /// text, as [`Rows::set`] does.
    ///
    /// # Errors
    /// As [`Rows::set`]. [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) if the row exists with another
    /// topic; [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if other writers keep creating and deleting it; try
    /// again.
    pub fn put(&self, key: &str, row: &T) -> Result<Option<u64>> {
        let (table, value) = (self.table.as_str(), self.table.write(row)?);
        for _ in 0..TRIES {
            match self.set_value(Write::set(table, key, &value)) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                result => return result,
            }
            match self.write(Write::create(table, key, &value)) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists && self.is_of_topic(key)? => {}
                result => return Ok(Some(result?.version)),
            }
        }
        Err(contended(table, key))
    }

    fn set_value(&self, write: Write<'_>) -> Result<Option<u64>> {
        let written = self.write(write.unless_equal())?;
        Ok(written.changed.then_some(written.version))
    }

    /// False if the row has another topic.
    fn is_of_topic(&self, key: &str) -> Result<bool> {
        match self.database.store.get(self.table.as_str(), key, None) {
            Ok(row) => Ok(self.topic.as_ref().is_none_or(|topic| row.topic == *topic)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            Err(e) => Err(e),
        }
    }
}

impl<T: DeserializeOwned> Rows<'_, T> {
    /// Returns the row with this key.
    ///
    /// # Errors
    /// As [`Store::get`](crate::Store::get); [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) if its value is not
    /// a JSON document of type `T`.
    pub fn get(&self, key: &str) -> Result<Entry<T>> {
        let table = self.table.as_str();
        let row = self.database.store.get(table, key, self.topic.as_ref());
        self.entry(row.map_err(|e| e.with_row(table, key))?)
    }

    /// Returns all rows, in the order of their keys' bytes, fetched page by page. A malformed row is an error, and the
    /// next rows follow; an error of the store ends the listing.
    pub fn list(&self) -> impl Iterator<Item = Result<Entry<T>>> {
        let rows = self.database.store.entries(self.table.as_str(), self.topic.as_ref());
        rows.map(|row| self.entry(row?))
    }

    fn entry(
        &self,
        Row {
            key,
            value,
            topic,
            version,
        }: Row,
    ) -> Result<Entry<T>> {
        Ok(Entry {
            row: Table::read(self.table.as_str(), &key, &value)?,
            key,
            topic: Arc::new(topic),
            version,
        })
    }
}

impl<T> fmt::Debug for Rows<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("table", &self.table)
            .field("topic", &self.topic)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}
