//! The store in memory, for the threads of one program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::store::{Change, DELETES_REMEMBERED, Page, Row, Store, StoreOptions, Write, Written, not_found};
use crate::update::{Name, Topic};

/// The store in memory; its alias is `memory`. Clones share their rows, which are gone with the last one.
#[derive(Clone)]
pub struct MemoryStore {
    world: Arc<World>,
    options: StoreOptions,
}

type World = RwLock<HashMap<Name, Table>>;

#[derive(Default)]
struct Table {
    exists: bool,
    /// The version of the last write, or of the table's own delete.
    version: u64,
    /// The unique number that was last given.
    unique: u64,
    content: Content,
}

/// What goes when the table is deleted.
#[derive(Default)]
struct Content {
    rows: BTreeMap<Name, Stored>,
    keys: HashMap<Topic, BTreeSet<Name>>,
    deletes: Deletes,
}

struct Stored {
    value: String,
    topic: Topic,
    version: u64,
}

/// The keys that were deleted lately and not created again, with the versions of their deletes.
#[derive(Default)]
struct Deletes {
    by_key: HashMap<Name, u64>,
    by_version: BTreeMap<u64, Name>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore {
            world: Arc::default(),
            options: StoreOptions::default(),
        }
    }

    /// The store that all of the process share, for as long as somebody has it; this is what the alias `memory` stands
    /// for.
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

    /// The same rows with other options; of these only `batch_amount` counts here, since nothing waits.
    #[must_use]
    pub fn with_options(mut self, options: StoreOptions) -> MemoryStore {
        self.options = options;
        self
    }

    /// Reads a table, if it was ever used.
    fn read<T>(&self, table: &str, read: impl FnOnce(&Content) -> T) -> Option<T> {
        let tables = self.world.read();
        tables.get(table).map(|table| read(&table.content))
    }

    /// Changes a table, used or not.
    fn change<T>(&self, table: &str, change: impl FnOnce(&mut Table) -> T) -> T {
        change(table_of(&mut self.world.write(), table))
    }
}

/// A table, used or not.
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
        let row = self.read(table, |content| {
            let (key, stored) = content.rows.get_key_value(key)?;
            stored.has(topic).then(|| stored.row(key))
        });
        row.flatten().ok_or_else(|| not_found(table, key, topic))
    }

    fn write(&self, write: &Write<'_>) -> Result<Written> {
        table_of(&mut self.world.write(), write.table).write(write)
    }

    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let mut tables = self.world.write();
        let write = |write: &Write<'_>| table_of(&mut tables, write.table).write(write);
        Ok(writes.iter().map(write).collect())
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        let page = self.read(table, |content| {
            let rows = content.after(topic, after);
            let rows = rows.map(|(key, stored)| Ok(stored.row(key)));
            Page::fill(rows, self.options.batch_amount)
        });
        page.unwrap_or_else(|| Ok(Page::default()))
    }

    fn page_of_keys(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Name>> {
        let page = self.read(table, |content| {
            let keys = content.after(topic, after).map(|(key, _)| Ok(key.clone()));
            Page::fill(keys, self.options.batch_amount)
        });
        page.unwrap_or_else(|| Ok(Page::default()))
    }

    fn create_table(&self, table: &str) -> Result<bool> {
        Ok(self.change(table, |table| !std::mem::replace(&mut table.exists, true)))
    }

    fn delete_table(&self, table: &str) -> Result<bool> {
        // What was in it is dropped after the lock.
        let (existed, _content) = self.change(table, |table| {
            let existed = std::mem::replace(&mut table.exists, false);
            table.version += u64::from(existed);
            (existed, std::mem::take(&mut table.content))
        });
        Ok(existed)
    }

    fn allocate_unique_key(&self, table: &str) -> Result<u64> {
        Ok(self.change(table, |table| {
            table.unique += 1;
            table.unique
        }))
    }

    fn table_version(&self, table: &str) -> Result<Option<u64>> {
        let tables = self.world.read();
        Ok(Some(tables.get(table).map_or(0, |table| table.version)))
    }
}

impl Table {
    fn write(&mut self, write: &Write<'_>) -> Result<Written> {
        let Content { rows, deletes, .. } = &self.content;
        let row = rows.get(write.key).map(|stored| (&stored.topic, stored.version));
        write.check(row, deletes.by_key.get(write.key).copied())?;
        match write.change {
            Change::Create(value) => Ok(self.create(write, value)),
            Change::Set(value) => self.set(write, value),
            Change::Delete => self.delete(write),
        }
    }

    fn create(&mut self, write: &Write<'_>, value: &str) -> Written {
        let Content { rows, keys, deletes } = &mut self.content;
        self.exists = true;
        self.version += 1;
        deletes.forget(write.key);
        deletes.forget_before(self.version);
        let key = Name::from(write.key);
        let stored = Stored {
            value: value.to_owned(),
            topic: write.topic.unwrap_or(&Topic::ALL).clone(),
            version: self.version,
        };
        keys.entry(stored.topic.clone()).or_default().insert(key.clone());
        let written = stored.written(self.version, None);
        rows.insert(key, stored);
        written
    }

    fn set(&mut self, write: &Write<'_>, value: &str) -> Result<Written> {
        let stored = self.content.rows.get_mut(write.key).ok_or_else(|| write.not_found())?;
        if write.unless_equal && stored.value == value {
            let before = write.returning.then(|| value.to_owned());
            let unchanged = stored.written(stored.version, before);
            return Ok(Written {
                changed: false,
                ..unchanged
            });
        }
        self.version += 1;
        stored.version = self.version;
        let before = std::mem::replace(&mut stored.value, value.to_owned());
        let written = stored.written(self.version, write.returning.then_some(before));
        self.content.deletes.forget_before(self.version);
        Ok(written)
    }

    fn delete(&mut self, write: &Write<'_>) -> Result<Written> {
        let Content { rows, keys, deletes } = &mut self.content;
        let (key, mut stored) = rows.remove_entry(write.key).ok_or_else(|| write.not_found())?;
        if let Some(of_topic) = keys.get_mut(&stored.topic) {
            of_topic.remove(&key);
            if of_topic.is_empty() {
                keys.remove(&stored.topic);
            }
        }
        self.version += 1;
        deletes.remember(key, self.version);
        deletes.forget_before(self.version);
        let before = write.returning.then(|| std::mem::take(&mut stored.value));
        Ok(stored.written(self.version, before))
    }
}

impl Content {
    /// The rows after this key, of this topic or of any.
    fn after<'a>(
        &'a self,
        topic: Option<&Topic>,
        after: Option<&'a str>,
    ) -> Box<dyn Iterator<Item = (&'a Name, &'a Stored)> + 'a> {
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let Some(topic) = topic else {
            return Box::new(self.rows.range::<str, _>(from));
        };
        let keys = self.keys.get(topic).into_iter();
        let keys = keys.flat_map(move |keys| keys.range::<str, _>(from));
        Box::new(keys.filter_map(|key| self.rows.get_key_value(key)))
    }
}

impl Stored {
    fn has(&self, topic: Option<&Topic>) -> bool {
        topic.is_none_or(|topic| *topic == self.topic)
    }

    fn row(&self, key: &Name) -> Row {
        Row {
            key: key.clone(),
            value: self.value.clone(),
            topic: self.topic.clone(),
            version: self.version,
        }
    }

    fn written(&self, version: u64, before: Option<String>) -> Written {
        Written {
            version,
            topic: self.topic.clone(),
            changed: true,
            before,
        }
    }
}

impl Deletes {
    fn remember(&mut self, key: Name, version: u64) {
        self.by_version.insert(version, key.clone());
        self.by_key.insert(key, version);
    }

    fn forget(&mut self, key: &str) {
        if let Some(version) = self.by_key.remove(key) {
            self.by_version.remove(&version);
        }
    }

    /// Forgets what need not be remembered any more now that `version` was given.
    fn forget_before(&mut self, version: u64) {
        while let Some(oldest) = self.by_version.first_entry()
            && oldest.key() + DELETES_REMEMBERED < version
        {
            self.by_key.remove(&oldest.remove());
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
