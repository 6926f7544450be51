//! The store in memory, for the threads of one program.

mod history;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::store::{
    ChangePage, Changes, DELETES_REMEMBERED, Page, Row, Store, StoreOptions, StoredChange, StoredTable, TableVersion,
    TopicVersions, Write, WriteOp, Written, not_found,
};
use crate::update::{Name, Topic};
use history::{Deletes, History};

/// The store in memory; its alias is `memory`. Clones share their rows, which the last one drops.
#[derive(Clone)]
pub struct MemoryStore {
    world: Arc<World>,
    options: StoreOptions,
}

type World = RwLock<HashMap<Name, Table>>;

struct Table {
    incarnation: u64,
    exists: bool,
    /// The version of the last write, or of the table's own delete.
    version: u64,
    /// The last unique number that was allocated.
    unique: u64,
    /// The version at which the table was last deleted; 0 if it never was.
    deleted: u64,
    content: Content,
}

/// The content that a delete of the table drops.
#[derive(Default)]
struct Content {
    rows: BTreeMap<Name, Arc<Stored>>,
    topics: HashMap<Topic, OfTopic>,
    deletes: Deletes,
}

/// The keys and history of a topic. It stays when its last row is deleted, since it has the topic's last version.
struct OfTopic {
    keys: BTreeSet<Name>,
    history: History<Stored>,
}

#[derive(Clone)]
struct Stored {
    value: String,
    topic: Topic,
    version: u64,
}

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

impl Default for Table {
    fn default() -> Table {
        Table {
            incarnation: fastrand::u64(1..),
            exists: false,
            version: 0,
            unique: 0,
            deleted: 0,
            content: Content::default(),
        }
    }
}

impl Table {
    fn state(&self) -> TableVersion {
        match self.version {
            0 => TableVersion::default(),
            version => TableVersion {
                incarnation: self.incarnation,
                version,
                tip: 0,
                source: 0,
            },
        }
    }

    /// The version of the topic's last write.
    fn last_of(&self, topic: &Topic) -> u64 {
        let of_topic = self.content.topics.get(topic);
        of_topic.map_or(self.deleted, |of_topic| of_topic.history.last())
    }

    fn changes(&self, topic: &Topic, since: TableVersion, limit: usize) -> Result<Changes> {
        let of_topic = self.content.topics.get(topic);
        let forgotten = of_topic
            .map_or(0, |of_topic| of_topic.history.forgotten())
            .max(self.deleted);
        if self.state().went_back_since(&since) || since.version < forgotten {
            return Ok(Changes::Unknown);
        }
        let written = of_topic
            .into_iter()
            .flat_map(|of_topic| of_topic.history.after(since.version));
        let is_left = |key: &Name| !self.content.rows.get(key).is_some_and(|stored| stored.has(Some(topic)));
        let changes = written
            // A row that left the topic and came back has an entry for its delete too.
            .filter(|(_, key, stored)| stored.is_some() || is_left(key))
            .map(|(version, key, stored)| {
                Ok(StoredChange {
                    key: key.clone(),
                    version,
                    value: stored.map(|stored| stored.value.clone()),
                })
            });
        ChangePage::fill(changes, limit, self.state()).map(Changes::Page)
    }

    fn write(&mut self, write: &Write<'_>, remembered: u64) -> Result<Written> {
        let Content { rows, deletes, .. } = &self.content;
        let row = rows.get(write.key).map(|stored| (&stored.topic, stored.version));
        write.check(row, deletes.of(write.key))?;
        let written = match write.op {
            WriteOp::Create(value) => self.create(write, value),
            WriteOp::Set(value) => self.set(write, value)?,
            WriteOp::Delete => self.delete(write)?,
        };
        while let Some(oldest) = self.version.checked_sub(remembered)
            && let Some((version, topic)) = self.content.deletes.forget_before(oldest)
        {
            if let Some(of_topic) = self.content.topics.get_mut(&topic) {
                of_topic.history.forget(version);
            }
        }
        Ok(written)
    }

    fn create(&mut self, write: &Write<'_>, value: &str) -> Written {
        self.exists = true;
        self.version += 1;
        let (key, version) = (Name::from(write.key), self.version);
        let stored = Arc::new(Stored {
            value: value.to_owned(),
            topic: write.topic.unwrap_or(&Topic::ALL).clone(),
            version,
        });
        let Content { rows, topics, deletes } = &mut self.content;
        let of_topic = topics.entry(stored.topic.clone()).or_insert_with(|| OfTopic {
            keys: BTreeSet::new(),
            history: History::after_delete(self.deleted),
        });
        of_topic.keys.insert(key.clone());
        let deleted = deletes.end(&key, &stored.topic);
        let row = Some(Arc::clone(&stored));
        let after = of_topic.history.note(version, key.clone(), row, deleted);
        let written = stored.written(version, Some(after), None);
        rows.insert(key, stored);
        written
    }

    fn set(&mut self, write: &Write<'_>, value: &str) -> Result<Written> {
        let Content { rows, topics, .. } = &mut self.content;
        let Some(stored) = rows.get_mut(write.key) else {
            return Err(write.not_found());
        };
        if write.unless_equal && stored.value == value {
            let before = write.returning.then(|| value.to_owned());
            let unchanged = stored.written(stored.version, None, before);
            return Ok(Written {
                changed: false,
                ..unchanged
            });
        }
        self.version += 1;
        let new = Arc::new(Stored {
            value: value.to_owned(),
            topic: stored.topic.clone(),
            version: self.version,
        });
        let before = std::mem::replace(stored, Arc::clone(&new));
        let history = topics.get_mut(&new.topic).map(|of_topic| &mut of_topic.history);
        let row = Some(Arc::clone(&new));
        let after = history.map(|history| history.note(self.version, write.key.into(), row, Some(before.version)));
        let before = write.returning.then(|| Arc::unwrap_or_clone(before).value);
        Ok(new.written(self.version, after, before))
    }

    fn delete(&mut self, write: &Write<'_>) -> Result<Written> {
        let Content { rows, topics, deletes } = &mut self.content;
        let (key, stored) = rows.remove_entry(write.key).ok_or_else(|| write.not_found())?;
        self.version += 1;
        let after = topics.get_mut(&stored.topic).map(|of_topic| {
            of_topic.keys.remove(&key);
            let history = &mut of_topic.history;
            history.note(self.version, key.clone(), None, Some(stored.version))
        });
        deletes.remember(key, stored.topic.clone(), self.version);
        let written = stored.written(self.version, after, None);
        let before = write.returning.then(|| Arc::unwrap_or_clone(stored).value);
        Ok(Written { before, ..written })
    }
}

impl Content {
    /// The rows after this key, of this topic or of any.
    fn after<'a>(
        &'a self,
        topic: Option<&Topic>,
        after: Option<&'a str>,
    ) -> Box<dyn Iterator<Item = (&'a Name, &'a Arc<Stored>)> + 'a> {
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let Some(topic) = topic else {
            return Box::new(self.rows.range::<str, _>(from));
        };
        let of_topic = self.topics.get(topic).into_iter();
        let keys = of_topic.flat_map(move |of_topic| of_topic.keys.range::<str, _>(from));
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

    fn written(&self, version: u64, after: Option<u64>, before: Option<String>) -> Written {
        Written {
            version,
            after,
            topic: self.topic.clone(),
            changed: true,
            before,
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
