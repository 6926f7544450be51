//! The newest state of each row of a table, and the remembered deletes.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::replica::map::Map;
use crate::replica::row::{Held, NewRow, Step, Undecoded};
use crate::table::Entry;
use crate::update::Name;

/// The most deletes that are remembered.
const MAX_DELETES: usize = 1 << 16;

/// The rows of a table. Each is in one of the two maps.
pub(in crate::replica) struct Rows<T> {
    pub(in crate::replica) decoded: Map<Entry<T>>,
    pub(in crate::replica) malformed: Map<Undecoded<T>>,
    deletes: Deletes,
}

impl<T> Default for Rows<T> {
    fn default() -> Rows<T> {
        Rows {
            decoded: Map::default(),
            malformed: Map::default(),
            deletes: Deletes::default(),
        }
    }
}

/// The deletes that not every topic's position has passed: late updates may be from before them.
#[derive(Default)]
struct Deletes {
    by_key: HashMap<Name, u64>,
    by_version: BTreeSet<(u64, Name)>,
}

impl Deletes {
    fn remember(&mut self, key: &Name, version: u64) {
        if let Some(before) = self.by_key.insert(key.clone(), version) {
            self.by_version.remove(&(before, key.clone()));
        }
        self.by_version.insert((version, key.clone()));
    }

    fn forget_to(&mut self, version: u64) {
        while let Some((first, _)) = self.by_version.first()
            && *first <= version
            && let Some((_, key)) = self.by_version.pop_first()
        {
            self.by_key.remove(&key);
        }
    }
}

impl<T> Rows<T> {
    pub(in crate::replica) fn get(&self, key: &str) -> Option<Held<T>> {
        if let Some(row) = self.decoded.get(key) {
            return Some(Held::Row(Arc::clone(row)));
        }
        // Nearly always empty.
        let malformed = self.malformed.get(key)?;
        Some(Held::Malformed(Arc::clone(malformed)))
    }

    pub(in crate::replica) fn version(&self, key: &str) -> Option<u64> {
        match self.decoded.get(key) {
            Some(row) => Some(row.version),
            None => self.malformed.get(key).map(|it| it.row.version),
        }
    }

    /// The row's version, and the sum of its text.
    pub(in crate::replica) fn stamp(&self, key: &str) -> Option<(u64, u32)> {
        let sum = self.decoded.note(key).or_else(|| self.malformed.note(key))?;
        Some((self.version(key)?, sum))
    }

    /// The version of the row, or of its remembered delete.
    pub(super) fn newest(&self, key: &str) -> Option<u64> {
        self.version(key).max(self.deletes.by_key.get(key).copied())
    }

    /// True if this version is newer than the row's or its delete's.
    pub(super) fn is_news(&self, key: &str, version: u64) -> bool {
        self.version(key).is_none_or(|held| held < version)
            && (self.deletes.by_key.is_empty() || self.deletes.by_key.get(key).is_none_or(|deleted| *deleted < version))
    }

    /// Takes in a state of a row if it is newer. It stays the caller's, who drops it without the table's lock, since
    /// that runs the program's code.
    pub(super) fn put(&mut self, new: &NewRow<T>) -> Option<Step<T>> {
        // The common case: one look, in one map.
        if let Ok(entry) = &new.row
            && self.malformed.len() == 0
            && self.deletes.by_key.is_empty()
        {
            let version = entry.version;
            let is_older = |held: &Entry<T>| held.version < version;
            let before = self.decoded.insert_over(Arc::clone(entry), new.sum, is_older).ok()?;
            let (before, sum) = before.unzip();
            return Some(Step {
                key: entry.key.clone(),
                before: before.map(Held::Row),
                after: Some(Held::Row(Arc::clone(entry))),
                version,
                sums: [sum.unwrap_or_default(), new.sum],
            });
        }
        self.is_news(new.key(), new.version()).then(|| self.replace(new))
    }

    /// Replaces the known state of a row, unless it is the same.
    pub(super) fn correct(&mut self, new: &NewRow<T>) -> Option<Step<T>> {
        let is_same = self.stamp(new.key()) == Some((new.version(), new.sum));
        let is_known = is_same && self.get(new.key()).is_some_and(|held| held.topic() == new.topic());
        (!is_known).then(|| self.replace(new))
    }

    fn replace(&mut self, new: &NewRow<T>) -> Step<T> {
        let (key, version, sum) = (new.key().clone(), new.version(), new.sum);
        let (before, after) = match &new.row {
            Ok(entry) => {
                let before = match self.decoded.insert(Arc::clone(entry), sum) {
                    Some((before, sum)) => Some((Held::Row(before), sum)),
                    None => self.remove_malformed(&key),
                };
                (before.unzip(), Held::Row(Arc::clone(entry)))
            }
            Err(row) => {
                let before = self.remove(&key).unzip();
                let last = before.0.as_ref().and_then(|before| before.decoded().cloned());
                let row = Arc::clone(row);
                let malformed = Arc::new(Undecoded { row, last });
                self.malformed.insert(Arc::clone(&malformed), sum);
                (before, Held::Malformed(malformed))
            }
        };
        Step {
            key,
            before: before.0,
            after: Some(after),
            version,
            sums: [before.1.unwrap_or_default(), sum],
        }
    }

    /// Takes in a delete; it is remembered until [`Rows::forget_deletes`].
    pub(super) fn delete(&mut self, key: &Name, version: u64) -> Option<Step<T>> {
        self.deletes.remember(key, version);
        self.remove_at(key, version)
    }

    /// Removes a row that was missing at a time when everything up to this version was written.
    pub(super) fn gone(&mut self, key: &Name, version: u64) -> Option<Step<T>> {
        self.version(key).filter(|held| *held <= version)?;
        self.deletes.remember(key, version);
        self.take_out(key)
    }

    /// Removes a row whose delete has no known version.
    pub(super) fn take_out(&mut self, key: &Name) -> Option<Step<T>> {
        let version = self.version(key)?;
        self.remove_at(key, version)
    }

    /// As [`Rows::take_out`], for a row that the store still has. If the row is `trusted`, states older than it stay
    /// old.
    pub(super) fn evict(&mut self, key: &Name, trusted: bool) -> Option<Step<T>> {
        let version = self.version(key)?;
        if trusted {
            self.deletes.remember(key, version.saturating_sub(1));
        }
        self.remove_at(key, version)
    }

    fn remove_at(&mut self, key: &Name, version: u64) -> Option<Step<T>> {
        let (before, sum) = self.remove(key)?;
        Some(Step {
            key: key.clone(),
            before: Some(before),
            after: None,
            version,
            sums: [sum, 0],
        })
    }

    fn remove(&mut self, key: &str) -> Option<(Held<T>, u32)> {
        match self.decoded.remove(key) {
            Some((row, sum)) => Some((Held::Row(row), sum)),
            None => self.remove_malformed(key),
        }
    }

    fn remove_malformed(&mut self, key: &str) -> Option<(Held<T>, u32)> {
        let (row, sum) = self.malformed.remove(key)?;
        Some((Held::Malformed(row), sum))
    }

    /// Forgets the deletes up to this version.
    pub(super) fn forget_deletes(&mut self, version: u64) {
        self.deletes.forget_to(version);
    }

    /// True if a delete is remembered.
    pub(super) fn remembers_deletes(&self) -> bool {
        !self.deletes.by_version.is_empty()
    }

    /// True if more deletes are remembered than there should be.
    pub(super) fn has_too_many_deletes(&self) -> bool {
        self.deletes.by_version.len() > MAX_DELETES
    }
}
