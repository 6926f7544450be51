//! The store in memory, for the threads of one program.

mod history;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::store::{
    Changes, DELETES_REMEMBERED, Page, Row, Store, StoreOptions, StoredTable, TableVersion, TopicVersions, Write,
    Written, not_found,
};
use crate::update::{Name, Topic};
use table::Table;

/// The store in memory; its alias is `memory`. Clones share their rows, which the last one drops.
#[derive(Clone)]
pub struct MemoryStore {
    world: Arc<World>,
    options: StoreOptions,
}

type World = RwLock<HashMap<Name, Table>>;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore {
            world: Arc::default(),
            options: StoreOptions::default(),
        }
    }

    /// The store shared by the whole process; its rows live as long as one of its handles. The alias `memory` stands
    /// for it.
    pub fn shared() -> MemoryStore {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut store = MemoryStore::new();
        let mut shared = SHARED.lock();
        match shared.upgrade() {
            Some(world) => store.world = world,
            None => *shared = Arc::downgrade(&store.world),
        }
        store
    }

    /// The same rows with other options; `timeout` has no effect, since no call waits.
    #[must_use]
    pub fn with_options(mut self, options: StoreOptions) -> MemoryStore {
        self.options = options;
        self
    }

    /// Reads a table, if it exists or once did.
    fn read<T>(&self, table: &str, read: impl FnOnce(&Table) -> T) -> Option<T> {
        self.world.read().get(table).map(read)
    }

    fn remembered(&self) -> u64 {
        self.options.deletes_remembered.max(DELETES_REMEMBERED)
    }

    /// Changes a table, which need not exist.
    fn change<T>(&self, table: &str, change: impl FnOnce(&mut Table) -> T) -> T {
        change(table_of(&mut self.world.write(), table))
    }
}

/// A table, which need not exist.
fn table_of<'a>(tables: &'a mut HashMap<Name, Table>, name: &str) -> &'a mut Table {
    tables.entry(name.into()).or_default()
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Store for MemoryStore {
    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        let row = self.read(table, |table| {
            let (key, stored) = table.content.rows.get_key_value(key)?;
            stored.has(topic).then(|| stored.row(key))
        });
        row.flatten().ok_or_else(|| not_found(table, key, topic))
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        table_of(&mut self.world.write(), write.table).write(write, self.remembered())
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let mut tables = self.world.write();
        let write = |write: &Write<'_>| table_of(&mut tables, write.table).write(write, self.remembered());
        Ok(writes.iter().map(write).collect())
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        let page = self.read(table, |table| {
            let rows = table.content.after(topic, after);
            let rows = rows.map(|(key, stored)| Ok(stored.row(key)));
            Page::fill(rows, self.options.batch_amount)
        });
        page.unwrap_or_else(|| Ok(Page::default()))
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        let page = self.read(table, |table| {
            let keys = table.content.after(topic, after).map(|(key, _)| Ok(key.clone()));
            Page::fill(keys, self.options.batch_amount)
        });
        page.unwrap_or_else(|| Ok(Page::default()))
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        Ok(self.change(table, |table| !std::mem::replace(&mut table.exists, true)))
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        // The content is dropped after the lock.
        let (existed, _content) = self.change(table, |table| {
            let existed = std::mem::replace(&mut table.exists, false);
            if existed {
                table.version += 1;
                table.deleted = table.version;
            }
            (existed, std::mem::take(&mut table.content))
        });
        Ok(existed)
    }

    fn tables(&self) -> Result<Vec<StoredTable>> {
        let world = self.world.read();
        let there = world.iter().filter(|(_, table)| table.exists);
        let mut tables: Vec<_> = there
            .map(|(name, table)| StoredTable {
                name: name.clone(),
                rows: Some(table.content.rows.len() as u64),
            })
            .collect();
        drop(world);
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tables)
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        Ok(self.change(table, |table| {
            table.unique += 1;
            table.unique
        }))
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        Ok(Some(self.read(table, Table::state).unwrap_or_default()))
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        let versions = self.read(table, |table| TopicVersions {
            table: table.state(),
            versions: topics.iter().map(|topic| table.last_of(topic)).collect(),
        });
        Ok(Some(versions.unwrap_or_else(|| TopicVersions {
            table: TableVersion::default(),
            versions: vec![0; topics.len()],
        })))
    }

    fn changes(&self, table: &str, topic: &Topic, since: TableVersion) -> Result<Changes> {
        let changes = self.read(table, |table| table.changes(topic, since, self.options.batch_amount));
        changes.unwrap_or_else(|| Ok(Changes::of_no_table(since)))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
