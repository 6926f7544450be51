//! What a monitor has told last of each row: in memory to compare with, and in the store for its next run.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Row, Store, Write};
use crate::update::{Name, Topic};

/// The rows by the hash of their key, in parts that are stored as a row each: to remember a few changes costs a few
/// writes, and to remember a whole table no more than there are parts.
pub(super) struct Told {
    /// The table where it is stored.
    name: String,
    parts: Vec<Part>,
    /// Tells the rows of this listing from those of earlier ones.
    listing: u64,
}

/// The format is a JSON array of `[key, version, topic]`.
#[derive(Default)]
struct Part {
    rows: BTreeMap<Name, Last>,
    /// The version of the row that it is stored in, if it is there.
    version: Option<u64>,
    is_changed: bool,
}

/// What was told last of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) version: u64,
    pub(super) topic: Topic,
    listing: u64,
}

/// How many parts there are. What is stored depends on it.
const PARTS: u64 = 256;

impl Told {
    /// What earlier runs of this monitor have remembered. A part that cannot be read is told to `fail`, and its rows count
    /// as never told.
    ///
    /// # Errors
    /// Those of an outage.
    pub(super) fn load(store: &dyn Store, table: &str, id: &str, fail: impl Fn(&Error)) -> Result<Told> {
        // With the length before it, no id with a table looks like another one.
        let name = format!("tablecast/monitor/{}:{id}/{table}", id.len());
        let mut parts: Vec<Part> = (0..PARTS).map(|_| Part::default()).collect();
        for row in store.entries(&name, None) {
            let row = row?;
            let part = row.key.parse().ok().and_then(|number: usize| parts.get_mut(number));
            let Some(part) = part else { continue };
            part.version = Some(row.version);
            match read(&row.value) {
                Ok(rows) => part.rows = rows,
                Err(e) => {
                    let context = format!("table {name:?} key {:?}: what the monitor has told", &*row.key);
                    fail(&Error::new(ErrorKind::Malformed, context).with_source(e));
                }
            }
        }
        Ok(Told {
            name,
            parts,
            listing: 0,
        })
    }

    /// A listing of all rows begins.
    pub(super) fn begin(&mut self) {
        self.listing += 1;
    }

    /// The listing has this row. What was told of it last?
    pub(super) fn look(&mut self, row: &Row) -> Option<&Last> {
        let listing = self.listing;
        let last = self.part(&row.key).rows.get_mut(&row.key)?;
        last.listing = listing;
        Some(last)
    }

    /// The rows that the listing did not have.
    pub(super) fn missing(&self) -> Vec<(Name, Last)> {
        let rows = self.parts.iter().flat_map(|part| &part.rows);
        let missing = rows.filter(|(_, last)| last.listing != self.listing);
        missing.map(|(key, last)| (key.clone(), last.clone())).collect()
    }

    /// The row was told with this version.
    pub(super) fn told(&mut self, key: Name, version: u64, topic: Topic) {
        let listing = self.listing;
        let part = self.part(&key);
        part.is_changed = true;
        let last = Last {
            version,
            topic,
            listing,
        };
        part.rows.insert(key, last);
    }

    /// The row was told as deleted.
    pub(super) fn told_deleted(&mut self, key: &str) {
        let part = self.part(key);
        part.is_changed |= part.rows.remove(key).is_some();
    }

    /// Stores what has changed, as long as it is to `go_on`.
    ///
    /// # Errors
    /// Those of an outage; and [`ErrorKind::Conflict`] if somebody else has written there. What was not stored then is
    /// stored the next time.
    pub(super) fn save(&mut self, store: &dyn Store, mut go_on: impl FnMut() -> bool) -> Result<()> {
        let changed = self.parts.iter_mut().enumerate().filter(|(_, part)| part.is_changed);
        for (number, part) in changed {
            if !go_on() {
                let context = "what was told was not remembered";
                return Err(Error::new(ErrorKind::Stopped, context));
            }
            part.save(store, &self.name, &number.to_string())?;
        }
        Ok(())
    }

    fn part(&mut self, key: &str) -> &mut Part {
        let part = hash(key) % PARTS;
        &mut self.parts[part as usize]
    }
}

impl Part {
    fn save(&mut self, store: &dyn Store, table: &str, key: &str) -> Result<()> {
        let value = self.write()?;
        let write = match self.version {
            None => Write::create(table, key, &value),
            Some(version) => Write::set(table, key, &value).version(version),
        };
        match store.write(&write) {
            Ok(written) => {
                self.version = Some(written.version);
                self.is_changed = false;
                Ok(())
            }
            Err(e) => match e.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Conflict => {
                    self.find(store, table, key)?;
                    let context = "another monitor of this id may be running, or an answer was lost";
                    Err(Error::new(ErrorKind::Conflict, context).with_source(e))
                }
                _ => Err(e),
            },
        }
    }

    /// Looks for the row again that it is to be stored in.
    fn find(&mut self, store: &dyn Store, table: &str, key: &str) -> Result<()> {
        self.version = match store.get(table, key, None) {
            Ok(row) => Some(row.version),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(())
    }

    fn write(&self) -> Result<String> {
        let rows = self.rows.iter();
        let rows: Vec<_> = rows
            .map(|(key, last)| (key.as_str(), last.version, last.topic.as_str()))
            .collect();
        serde_json::to_string(&rows)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "what the monitor has told").with_source(e))
    }
}

fn read(value: &str) -> Result<BTreeMap<Name, Last>, Box<dyn std::error::Error + Send + Sync>> {
    let rows: Vec<(String, u64, String)> = serde_json::from_str(value)?;
    let rows = rows.into_iter().map(|(key, version, topic)| {
        let last = Last {
            version,
            topic: Topic::new(topic)?,
            listing: 0,
        };
        Ok((Name::from(key), last))
    });
    rows.collect()
}

/// FNV-1a, which is the same in every run.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::memory::MemoryStore;

    fn load(store: &MemoryStore, id: &str) -> Told {
        Told::load(store, "t", id, |e| panic!("{e}")).unwrap()
    }

    fn last(told: &mut Told, key: &str) -> Option<(u64, Topic)> {
        let row = told.part(key).rows.get(key);
        row.map(|last| (last.version, last.topic.clone()))
    }

    #[test]
    fn what_was_told_is_remembered() {
        let store = MemoryStore::new();
        let mut told = load(&store, "a");
        let tenant = Topic::new("tenant \"1\" \u{1F980}").unwrap();
        for number in 0..1000 {
            told.told(format!("{number}").into(), number, tenant.clone());
        }
        told.save(&store, || true).unwrap();
        told.told("1".into(), 5000, Topic::ALL);
        told.told_deleted("2");
        told.save(&store, || true).unwrap();
        let mut again = load(&store, "a");
        assert_eq!(last(&mut again, "1"), Some((5000, Topic::ALL)));
        assert_eq!(last(&mut again, "2"), None);
        assert_eq!(last(&mut again, "999"), Some((999, tenant)));
        assert!(load(&store, "b").missing().is_empty());
    }

    #[test]
    fn two_of_one_id_notice_it() {
        let store = MemoryStore::new();
        let (mut one, mut other) = (load(&store, "a"), load(&store, "a"));
        one.told("k".into(), 1, Topic::ALL);
        other.told("k".into(), 2, Topic::ALL);
        one.save(&store, || true).unwrap();
        assert_eq!(other.save(&store, || true).unwrap_err().kind(), ErrorKind::Conflict);
        other.save(&store, || true).unwrap();
        assert_eq!(last(&mut load(&store, "a"), "k"), Some((2, Topic::ALL)));
    }

    #[test]
    fn nonsense_counts_as_never_told() {
        let store = MemoryStore::new();
        let mut told = load(&store, "a");
        told.told("k".into(), 1, Topic::ALL);
        told.save(&store, || true).unwrap();
        let name = told.name.clone();
        let part = store.keys(&name, None).next().unwrap().unwrap();
        for value in ["", "nonsense", r#"[["k",1]]"#, r#"[["k",1,""]]"#, r#"[["k",-1,"D"]]"#] {
            store.set(&name, &part, value).unwrap();
            let failed = std::cell::Cell::new(false);
            let mut told = Told::load(&store, "t", "a", |e| {
                assert_eq!(e.kind(), ErrorKind::Malformed);
                failed.set(true);
            })
            .unwrap();
            assert!(failed.get() && told.missing().is_empty(), "{value}");
            told.told("k".into(), 3, Topic::ALL);
            told.save(&store, || true).unwrap();
            assert_eq!(last(&mut load(&store, "a"), "k"), Some((3, Topic::ALL)));
        }
    }
}
