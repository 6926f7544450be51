//! A store that is put back to another state in one step.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::sync::Arc;

use parking_lot::RwLock;
use tablecast::Store;

use crate::front::pass_on;

/// Stands in front of another store, which can be changed while every call waits.
#[derive(Debug)]
pub(crate) struct Swap(RwLock<Arc<dyn Store>>);

impl Swap {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Swap> {
        Arc::new(Swap(RwLock::new(store)))
    }

    /// Changes or replaces the store; no call sees a state in between.
    pub(crate) fn at_once(&self, change: impl FnOnce(&mut Arc<dyn Store>)) {
        change(&mut self.0.write());
    }
}

impl Store for Swap {
    pass_on!(|this| this.0.read(); get write page_of_entries page_of_keys create_table delete_table
        allocate_unique_key table_version topic_versions changes);
}
