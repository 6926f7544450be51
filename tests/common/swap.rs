//! A store that is put back to another state in one step.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::sync::Arc;

use parking_lot::RwLock;
use tablecast::store::{ChangePage, Changes, TableVersion, TopicVersions};
use tablecast::{Result, Store, Topic};

use crate::front::pass_on;

/// Stands in front of another store, which can be changed while every call waits.
#[derive(Debug)]
pub(crate) struct Swap(RwLock<Arc<dyn Store>>, Option<u64>);

impl Swap {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Swap> {
        Arc::new(Swap(RwLock::new(store), None))
    }

    /// Shows all stores as one incarnation, as a server is that lost writes in a failover.
    pub(crate) fn of_one_incarnation(store: Arc<dyn Store>) -> Arc<Swap> {
        Arc::new(Swap(RwLock::new(store), Some(1)))
    }

    fn shown(&self, table: TableVersion) -> TableVersion {
        let incarnation = self.1.unwrap_or(table.incarnation);
        TableVersion { incarnation, ..table }
    }

    /// Changes or replaces the store; no call sees a state in between.
    pub(crate) fn at_once(&self, change: impl FnOnce(&mut Arc<dyn Store>)) {
        change(&mut self.0.write());
    }
}

impl Store for Swap {
    pass_on!(|this| this.0.read(); get write page_of_entries page_of_keys create_table delete_table
        allocate_unique_key);

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        let version = self.0.read().table_version(table)?;
        Ok(version.map(|version| self.shown(version)))
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        let versions = self.0.read().topic_versions(table, topics)?;
        Ok(versions.map(|versions| TopicVersions {
            table: self.shown(versions.table),
            ..versions
        }))
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        let store = self.0.read();
        let incarnation = match (self.1, store.table_version(table)?) {
            (Some(_), Some(table)) => table.incarnation,
            _ => since.incarnation,
        };
        Ok(
            match store.changes(table, topic, TableVersion { incarnation, ..since })? {
                Changes::Page(page) => Changes::Page(ChangePage {
                    version: self.shown(page.version),
                    ..page
                }),
                Changes::Unknown => Changes::Unknown,
            },
        )
    }
}
