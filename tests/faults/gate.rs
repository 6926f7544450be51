//! A store that one process alone can be cut off from.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tablecast::store::{Page, Row, TableVersion, Write, Written};
use tablecast::{Error, ErrorKind, Name, Result, Store, Topic};

/// Stands between a process and its store.
#[derive(Debug)]
pub(crate) struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    /// How long a call waits while it is closed.
    patience: Duration,
}

impl Gate {
    pub(crate) fn new(patience: Duration) -> Gate {
        Gate {
            is_shut: Mutex::new(false),
            opened: Condvar::new(),
            patience,
        }
    }

    pub(crate) fn shut(&self, is_shut: bool) {
        *self.is_shut.lock() = is_shut;
        self.opened.notify_all();
    }

    /// Waits until it is open, as a store waits for others' locks.
    fn pass(&self) -> Result<()> {
        let mut is_shut = self.is_shut.lock();
        self.opened
            .wait_while_for(&mut is_shut, |is_shut| *is_shut, self.patience);
        match *is_shut {
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "this process is cut off from its store",
            )),
            false => Ok(()),
        }
    }
}

/// The store behind a gate.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) gate: Arc<Gate>,
}

impl Store for Gated {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        self.gate.pass()?;
        self.store.get(table, key, topic)
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        self.gate.pass()?;
        self.store.write(write)
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        self.gate.pass()?;
        self.store.write_each(writes)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        self.gate.pass()?;
        self.store.page_of_entries(table, topic, after)
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        self.gate.pass()?;
        self.store.page_of_keys(table, topic, after)
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        self.gate.pass()?;
        self.store.create_table(table)
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        self.gate.pass()?;
        self.store.delete_table(table)
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        self.gate.pass()?;
        self.store.allocate_unique_key(table)
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.gate.pass()?;
        self.store.table_version(table)
    }

    fn delete_rows(&self, table: &str, keys: &[Name]) -> Result<usize> {
        self.gate.pass()?;
        self.store.delete_rows(table, keys)
    }
}
