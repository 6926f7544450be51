//! One table of the store in memory: its rows, the history of each topic, and the remembered deletes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::history::{Deletes, History};
use crate::error::Result;
use crate::store::{ChangePage, Changes, Row, StoredChange, TableVersion, Write, WriteOp, Written};
use crate::update::{Name, Topic};

pub(super) struct Table {
    incarnation: u64,
    pub(super) exists: bool,
    /// The version of the last write, or of the table's own delete.
    pub(super) version: u64,
    /// The last unique number that was allocated.
    pub(super) unique: u64,
    /// The version at which the table was last deleted; 0 if it never was.
    pub(super) deleted: u64,
    pub(super) content: Content,
}

/// The content that a delete of the table drops.
#[derive(Default)]
pub(super) struct Content {
    pub(super) rows: BTreeMap<Name, Arc<Stored>>,
    topics: HashMap<Topic, OfTopic>,
    deletes: Deletes,
}

/// The keys and history of a topic. It stays when its last row is deleted, since it has the topic's last version.
struct OfTopic {
    keys: BTreeSet<Name>,
    history: History<Stored>,
}

#[derive(Clone)]
pub(super) struct Stored {
    value: String,
    topic: Topic,
    version: u64,
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
    pub(super) fn state(&self) -> TableVersion {
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
    pub(super) fn last_of(&self, topic: &Topic) -> u64 {
        let of_topic = self.content.topics.get(topic);
        of_topic.map_or(self.deleted, |of_topic| of_topic.history.last())
    }

    pub(super) fn changes(&self, topic: &Topic, since: TableVersion, limit: usize) -> Result<Changes> {
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

    pub(super) fn write(&mut self, write: &Write<'_>, remembered: u64) -> Result<Written> {
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
    pub(super) fn after<'a>(
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
    pub(super) fn has(&self, topic: Option<&Topic>) -> bool {
        topic.is_none_or(|topic| *topic == self.topic)
    }

    pub(super) fn row(&self, key: &Name) -> Row {
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
