//! The last writes of rows, by topic, in the order of their versions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::update::{Name, Topic};

/// The last write of each row of a topic, and the remembered deletes, oldest first.
pub(super) struct History<R> {
    entries: VecDeque<Entry<R>>,
    /// The number of entries with a key.
    current: usize,
    /// The version of the topic's last write.
    last: u64,
    /// The version of the last delete that is no longer remembered.
    forgotten: u64,
}

struct Entry<R> {
    version: u64,
    /// The key, and the row unless it was deleted; `None` if a later write of the row has replaced it.
    ///
    /// The row itself, since finding a thousand of them in a large table would take longer than all else.
    of: Option<(Name, Option<Arc<R>>)>,
}

impl<R> History<R> {
    /// The history of a topic whose table was deleted with this version, or never.
    pub(super) fn after_delete(version: u64) -> History<R> {
        History {
            entries: VecDeque::new(),
            current: 0,
            last: version,
            forgotten: version,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Notes a write, in place of the row's earlier write; returns the version of the topic's write before it.
    pub(super) fn note(&mut self, version: u64, key: Name, row: Option<Arc<R>>, before: Option<u64>) -> u64 {
        /// The entries without a key that are always kept.
        const FEW: usize = 64;
        if let Some(before) = before {
            self.drop_entry(before);
        }
        if self.entries.len() > 2 * self.current + FEW {
            self.entries.retain(|entry| entry.of.is_some());
        }
        let of = Some((key, row));
        self.entries.push_back(Entry { version, of });
        self.current += 1;
        std::mem::replace(&mut self.last, version)
    }

    /// Forgets a delete.
    pub(super) fn forget(&mut self, version: u64) {
        self.drop_entry(version);
        self.forgotten = version;
    }

    /// The writes after this version, with their keys, and their rows unless they are deletes.
    pub(super) fn after(&self, version: u64) -> impl Iterator<Item = (u64, &Name, Option<&R>)> {
        let from = self.entries.partition_point(|entry| entry.version <= version);
        self.entries.range(from..).filter_map(|entry| {
            let (key, row) = entry.of.as_ref()?;
            Some((entry.version, key, row.as_deref()))
        })
    }

    fn drop_entry(&mut self, version: u64) {
        if let Ok(at) = self.entries.binary_search_by_key(&version, |entry| entry.version)
            && self.entries[at].of.take().is_some()
        {
            self.current -= 1;
        }
    }
}

/// The remembered deletes.
#[derive(Default)]
pub(super) struct Deletes {
    /// The deletes of keys that do not exist now.
    by_key: HashMap<Name, (u64, Topic)>,
    by_version: BTreeMap<u64, (Name, Topic)>,
}

impl Deletes {
    /// The version of this key's delete.
    pub(super) fn of(&self, key: &str) -> Option<u64> {
        self.by_key.get(key).map(|(version, _)| *version)
    }

    pub(super) fn remember(&mut self, key: Name, topic: Topic, version: u64) {
        self.by_version.insert(version, (key.clone(), topic.clone()));
        self.by_key.insert(key, (version, topic));
    }

    /// Ends the delete of a key that is created again. Returns its version if it had the same topic; for another topic
    /// the row stays deleted.
    pub(super) fn end(&mut self, key: &str, topic: &Topic) -> Option<u64> {
        let (version, of) = self.by_key.remove(key)?;
        if of != *topic {
            return None;
        }
        self.by_version.remove(&version);
        Some(version)
    }

    /// Forgets a delete before this version, if there is one; returns its version and topic.
    pub(super) fn forget_before(&mut self, version: u64) -> Option<(u64, Topic)> {
        let oldest = self.by_version.first_entry().filter(|oldest| *oldest.key() < version)?;
        let (version, (key, topic)) = oldest.remove_entry();
        if self.of(&key) == Some(version) {
            self.by_key.remove(&key);
        }
        Some((version, topic))
    }
}
