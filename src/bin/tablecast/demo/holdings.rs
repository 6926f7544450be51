//! The rows that a subscriber holds after all that it was told, to be held against the store.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use tablecast::store::Row;
use tablecast::{DbUpdate, Name, Result, Store};

/// A row: its table and key, its version, and a hash of its value and topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Held(String, String, u64, u64);

/// What a subscriber holds.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// By table and key; the version that was told last, and the hash, if the row was not deleted with it.
    rows: HashMap<(Name, Name), (u64, Option<u64>)>,
}

impl Holdings {
    pub(super) fn apply(&mut self, update: &DbUpdate) {
        let Some(version) = update.version else { return };
        let row = self.rows.entry((update.table.clone(), update.key.clone())).or_default();
        if version > row.0 {
            let value = update.value.as_deref();
            *row = (version, value.map(|value| hash(value, update.topic.as_str())));
        }
    }

    /// The rows that are there, in no order.
    pub(super) fn rows(&self) -> Vec<Held> {
        let rows = self.rows.iter().filter_map(|((table, key), (version, hash))| {
            let hash = (*hash)?;
            Some(Held(table.to_string(), key.to_string(), *version, hash))
        });
        rows.collect()
    }
}

/// The rows of these topics that the store has in these tables.
pub(super) fn stored(store: &dyn Store, tables: &[String], topics: &[String]) -> Result<BTreeSet<Held>> {
    let mut all = BTreeSet::new();
    for table in tables {
        for row in store.entries(table, None) {
            let Row {
                key,
                value,
                topic,
                version,
                ..
            } = row?;
            if topics.iter().any(|wanted| *wanted == *topic.as_str()) {
                let hash = hash(&value, topic.as_str());
                all.insert(Held(table.clone(), key.to_string(), version, hash));
            }
        }
    }
    Ok(all)
}

/// How many rows are only on one side, or differ.
pub(super) fn differing(held: &[Held], stored: &BTreeSet<Held>) -> usize {
    let held: BTreeSet<_> = held.iter().cloned().collect();
    let rows = held
        .symmetric_difference(stored)
        .map(|Held(table, key, ..)| (table, key));
    rows.collect::<BTreeSet<_>>().len()
}

fn hash(value: &str, topic: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (value, topic).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tablecast::stores::memory::MemoryStore;
    use tablecast::{Action, Topic};

    use super::*;

    fn told(key: &str, value: Option<&str>, version: u64) -> DbUpdate {
        let action = if value.is_some() { Action::Set } else { Action::Delete };
        let mut update = DbUpdate::new("t", key, action);
        update.value = value.map(str::to_owned);
        update.version = Some(version);
        update
    }

    #[test]
    fn what_is_held_is_compared_row_by_row() {
        let store = Arc::new(MemoryStore::new());
        let mut holdings = Holdings::default();
        for key in ["a", "b", "c"] {
            let version = store.create("t", key, "1", &Topic::ALL).unwrap();
            holdings.apply(&told(key, Some("1"), version));
        }
        let compare = |holdings: &Holdings| {
            let stored = stored(&*store, &["t".into()], &["D".into()]).unwrap();
            differing(&holdings.rows(), &stored)
        };
        assert_eq!(compare(&holdings), 0);
        let other_topic = Topic::new("x").unwrap();
        store.create("t", "d", "1", &other_topic).unwrap();
        assert_eq!(compare(&holdings), 0);
        let set = store.set("t", "a", "2").unwrap();
        assert_eq!(compare(&holdings), 1);
        let delete = store.delete("t", "b").unwrap();
        assert_eq!(compare(&holdings), 2);
        holdings.apply(&told("a", Some("2"), set));
        holdings.apply(&told("b", None, delete));
        assert_eq!(compare(&holdings), 0);
        // One that comes late changes nothing.
        holdings.apply(&told("b", Some("1"), 1));
        assert_eq!(compare(&holdings), 0);
        holdings.apply(&told("a", Some("other"), set + 9));
        assert_eq!(compare(&holdings), 1);
    }
}
