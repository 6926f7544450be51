//! The rows of a subscriber's replica, for comparison with the store.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use tablecast::replica::ReplicaTable;
use tablecast::store::Row;
use tablecast::{Result, Store};

/// A row: its table and key, its version, and a hash of its value and topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Held(String, String, u64, u64);

/// The rows of these tables as a replica holds them, in no order.
pub(super) fn held(tables: &[ReplicaTable<String>]) -> Vec<Held> {
    let rows = tables.iter().flat_map(|table| {
        let name = table.name().to_string();
        let rows = table.snapshot().iter().collect::<Vec<_>>().into_iter();
        rows.map(move |entry| {
            let hash = hash(&entry.row, entry.topic.as_str());
            Held(name.clone(), entry.key.to_string(), entry.version, hash)
        })
    });
    rows.collect()
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

/// The number of rows that are only on one side, or differ.
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
    use super::*;

    fn row(key: &str, version: u64, value: &str) -> Held {
        Held("t".into(), key.into(), version, hash(value, "D"))
    }

    #[test]
    fn what_is_held_is_compared_row_by_row() {
        let stored = BTreeSet::from([row("a", 1, "1"), row("b", 2, "1")]);
        let differ = |held: &[Held]| differing(held, &stored);
        assert_eq!(differ(&[row("b", 2, "1"), row("a", 1, "1")]), 0);
        assert_eq!(differ(&[row("a", 1, "1")]), 1);
        // One row, not two: it is there on both sides.
        assert_eq!(differ(&[row("a", 3, "1"), row("b", 2, "1")]), 1);
        assert_eq!(differ(&[row("a", 1, "other"), row("b", 2, "1"), row("c", 4, "1")]), 2);
    }
}
