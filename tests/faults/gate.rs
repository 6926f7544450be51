//! A store that one process alone can be cut off from.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tablecast::{Error, ErrorKind, Result, Store};

use crate::front::pass_on;

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

impl Gated {
    fn pass(&self) -> Result<&dyn Store> {
        self.gate.pass()?;
        Ok(&*self.store)
    }
}

impl Store for Gated {
    pass_on!(|this| this.pass()?; get write write_each page_of_entries page_of_keys create_table delete_table
        allocate_unique_key table_version delete_rows);
}
