//! Typed tables: the name of a table joined with the type of its rows, for readers and writers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::update::{Action, DbUpdate, Name, Topic};

/// A table whose rows are JSON documents of type `T`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tablecast::Table;
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct LogicalPort { chassis: String }
/// const LPORT: Table<LogicalPort> = Table::new("lport");
///
/// let update = LPORT.create("port-1", &LogicalPort { chassis: "host1".into() })?;
/// assert_eq!(LPORT.decode(&update)?, Some(LogicalPort { chassis: "host1".into() }));
/// # Ok::<(), tablecast::Error>(())
/// ```
pub struct Table<T> {
    name: &'static str,
    row: PhantomData<fn() -> T>,
}

/// A row with its metadata in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The key.
    pub key: Name,
    /// The row.
    pub row: T,
    /// The topic of its changes; shared by the rows of a replica.
    pub topic: Arc<Topic>,
    /// The version, which every write raises.
    pub version: u64,
}

impl<T> Table<T> {
    /// A table of this name. For names that are known only at run time, see
    /// [`Replica::raw_table`](crate::Replica::raw_table) and [`Database::write`](crate::Database::write).
    pub const fn new(name: &'static str) -> Table<T> {
        Table { name, row: PhantomData }
    }

    /// The table's name.
    pub const fn name(&self) -> Name {
        Name::from_static(self.name)
    }

    pub(crate) const fn as_str(&self) -> &'static str {
        self.name
    }

    /// An update for a row that is gone.
    pub fn delete(&self, key: impl Into<Name>) -> DbUpdate {
        DbUpdate::new(self.name(), key, Action::Delete)
    }
}

impl<T: Serialize> Table<T> {
    /// An update for a new row.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the row cannot be written as JSON.
    pub fn create(&self, key: impl Into<Name>, row: &T) -> Result<DbUpdate> {
        self.update(key, Action::Create, row)
    }

    /// An update for a row's new value.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the row cannot be written as JSON.
    pub fn set(&self, key: impl Into<Name>, row: &T) -> Result<DbUpdate> {
        self.update(key, Action::Set, row)
    }

    fn update(&self, key: impl Into<Name>, action: Action, row: &T) -> Result<DbUpdate> {
        Ok(DbUpdate::new(self.name(), key, action).value(self.write(row)?))
    }

    /// The row as JSON.
    pub(crate) fn write(&self, row: &T) -> Result<String> {
        serde_json::to_string(row).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, format!("a row of table {} as JSON", self.name)).with_source(e)
        })
    }
}

impl<T: DeserializeOwned> Table<T> {
    /// The row that an update carries; `None` if it carries none, as a delete.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the value is not a JSON document of type `T`.
    pub fn decode(&self, update: &DbUpdate) -> Result<Option<T>> {
        let value = update.value.as_ref();
        value
            .map(|value| Table::read(&update.table, &update.key, value))
            .transpose()
    }

    /// The row that this JSON says.
    pub(crate) fn read(table: &str, key: &str, value: &str) -> Result<T> {
        serde_json::from_str(value).map_err(|e| {
            let context = format!("table {table:?} key {key:?}: the value does not decode as the table's row type");
            Error::new(ErrorKind::Malformed, context)
                .with_source(e)
                .with_row(table, key)
        })
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}
