//! The last published state of each row: in memory to compare with, and in the store for the next run.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Row, Store, TableVersion, Write};
use crate::update::{Name, Topic};

/// The rows by the hash of their key, in parts, each stored as a row: storing a few changes takes a few writes, and
/// storing a whole table at most one write per part.
pub(super) struct Told {
    /// The table that stores it.
    name: String,
    /// That table's version, as last seen.
    seen: Option<TableVersion>,
    parts: Vec<Part>,
    /// The number of this listing.
    listing: u64,
}

/// A part of the rows, stored as a JSON array of `[key, version, topic, print]`.
#[derive(Default)]
struct Part {
    rows: BTreeMap<Name, Last>,
    /// The version of the row that stores it, if there is one.
    version: Option<u64>,
    is_changed: bool,
    /// The prints of contents whose writes were not confirmed.
    tried: Vec<u32>,
}

/// What is stored, compared with memory.
pub(super) struct Found {
    /// The store went back, since no other process removes these rows.
    pub(super) went_back: bool,
    /// Another process has written there.
    is_foreign: bool,
}

/// The last published state of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) version: u64,
    pub(super) topic: Topic,
    /// A sum of the value, since a store that went back may use a version again.
    print: u32,
    listing: u64,
}

/// The number of parts. The stored format depends on it.
const PARTS: u64 = 256;

impl Told {
    /// Loads the memory of earlier runs of this monitor. A part that cannot be read is passed to `fail`, and its rows
    /// count as never published.
    ///
    /// # Errors
    /// The store's errors.
    pub(super) fn load(store: &dyn Store, table: &str, id: &str, fail: impl Fn(&Error)) -> Result<Told> {
        // The length before it keeps apart ids and tables that look alike together.
        let name = format!("tablecast/monitor/{}:{id}/{table}", id.len());
        let seen = store.table_version(&name)?;
        let mut parts: Vec<Part> = (0..PARTS).map(|_| Part::default()).collect();
        for row in store.entries(&name, None) {
            let row = row?;
            let part = row.key.parse().ok().and_then(|number: usize| parts.get_mut(number));
            let Some(part) = part else { continue };
            part.version = Some(row.version);
            match read(&row.value) {
                Ok(rows) => part.rows = rows,
                Err(e) => {
                    let context = format!("table {name:?} key {:?}: the memory of the monitor", &*row.key);
                    fail(&Error::new(ErrorKind::Malformed, context).with_source(e));
                }
            }
        }
        Ok(Told {
            name,
            seen,
            parts,
            listing: 0,
        })
    }

    /// True if no row is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.rows.is_empty())
    }

    /// Begins a listing of all rows.
    pub(super) fn begin(&mut self) {
        self.listing += 1;
    }

    /// Notes that the listing has this row; returns its last published state.
    pub(super) fn look(&mut self, row: &Row) -> Option<&Last> {
        let listing = self.listing;
        let last = self.part(&row.key).rows.get_mut(&row.key)?;
        last.listing = listing;
        Some(last)
    }

    /// The rows missing in the listing.
    pub(super) fn missing(&self) -> Vec<(Name, Last)> {
        let rows = self.parts.iter().flat_map(|part| &part.rows);
        let missing = rows.filter(|(_, last)| last.listing != self.listing);
        missing.map(|(key, last)| (key.clone(), last.clone())).collect()
    }

    /// Notes that the row was published.
    pub(super) fn told(&mut self, row: Row) {
        let last = Last {
            version: row.version,
            topic: row.topic,
            print: print(&row.value),
            listing: self.listing,
        };
        let part = self.part(&row.key);
        part.is_changed = true;
        part.rows.insert(row.key, last);
    }

    /// Notes that the row was published as deleted.
    pub(super) fn told_deleted(&mut self, key: &str) {
        let part = self.part(key);
        part.is_changed |= part.rows.remove(key).is_some();
    }

    /// Stores the changed parts, while `go_on`; if the store went back, also those that it has lost.
    ///
    /// # Errors
    /// The store's errors, and [`ErrorKind::Conflict`] if another monitor has written there. Parts that were not stored
    /// are stored the next time.
    pub(super) fn save(&mut self, store: &dyn Store, mut go_on: impl FnMut() -> bool) -> Result<()> {
        let conflict = match self.save_changed(store, &mut go_on) {
            Err(e) if e.is_overtaken() => e,
            saved => return saved,
        };
        let found = self.find(store)?;
        let saved = match found.went_back || !found.is_foreign {
            // Otherwise only the answer to a write was lost.
            true => self.save_changed(store, &mut go_on),
            false => Err(conflict),
        };
        saved.map_err(|e| match e.is_overtaken() {
            true => Error::new(ErrorKind::Conflict, "another monitor of this id may be running").with_source(e),
            false => e,
        })
    }

    fn save_changed(&mut self, store: &dyn Store, go_on: &mut dyn FnMut() -> bool) -> Result<()> {
        let changed = self.parts.iter_mut().enumerate().filter(|(_, part)| part.is_changed);
        for (number, part) in changed {
            if !go_on() {
                let context = "published changes could not be remembered";
                return Err(Error::new(ErrorKind::Stopped, context));
            }
            let version = part.save(store, &self.name, &number.to_string())?;
            if let Some(seen) = &mut self.seen {
                *seen = seen.at(seen.version.max(version));
            }
        }
        Ok(())
    }

    /// Compares the stored parts with memory.
    ///
    /// # Errors
    /// The store's errors.
    pub(super) fn find(&mut self, store: &dyn Store) -> Result<Found> {
        let now = store.table_version(&self.name)?;
        let rows = store.entries(&self.name, None).collect::<Result<Vec<_>>>()?;
        let mut went_back = now.zip(self.seen).is_some_and(|(now, seen)| now.went_back_since(&seen));
        let mut is_foreign = false;
        let mut rows: BTreeMap<Name, Row> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        for (number, part) in self.parts.iter_mut().enumerate() {
            let row = rows.remove(number.to_string().as_str());
            let version = row.as_ref().map(|row| row.version);
            went_back |= version < part.version;
            let is_same = version == part.version;
            part.version = version;
            let tried = std::mem::take(&mut part.tried);
            part.is_changed = match &row {
                Some(row) => row.value != part.write()?,
                None => !part.rows.is_empty(),
            };
            let is_own = is_same || row.is_some_and(|row| tried.contains(&print(&row.value)));
            is_foreign |= part.is_changed && !is_own;
        }
        self.seen = now;
        Ok(Found { went_back, is_foreign })
    }

    fn part(&mut self, key: &str) -> &mut Part {
        let part = hash(key) % PARTS;
        &mut self.parts[part as usize]
    }
}

impl Last {
    /// True if this is the published state.
    pub(super) fn is(&self, row: &Row) -> bool {
        self.version == row.version && self.topic == row.topic && self.print == print(&row.value)
    }
}

impl Part {
    /// Stores the part, and returns the version.
    fn save(&mut self, store: &dyn Store, table: &str, key: &str) -> Result<u64> {
        let value = self.write()?;
        let write = match self.version {
            None => Write::create(table, key, &value),
            Some(version) => Write::set(table, key, &value).if_version(version),
        };
        let written = store.write(&write);
        if written.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unconfirmed) {
            self.tried.push(print(&value));
        }
        let version = written?.version;
        self.tried.clear();
        self.version = Some(version);
        self.is_changed = false;
        Ok(version)
    }

    fn write(&self) -> Result<String> {
        let rows = self.rows.iter();
        let rows: Vec<_> = rows
            .map(|(key, last)| (key.as_str(), last.version, last.topic.as_str(), last.print))
            .collect();
        serde_json::to_string(&rows)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "the memory of the monitor").with_source(e))
    }
}

fn read(value: &str) -> Result<BTreeMap<Name, Last>, Box<dyn std::error::Error + Send + Sync>> {
    let rows: Vec<(String, u64, String, u32)> = serde_json::from_str(value)?;
    let rows = rows.into_iter().map(|(key, version, topic, print)| {
        let last = Last {
            version,
            topic: Topic::new(topic)?,
            print,
            listing: 0,
        };
        Ok((Name::from(key), last))
    });
    rows.collect()
}

/// A sum that differs for most values.
fn print(value: &str) -> u32 {
    let hash = hash(value);
    (hash ^ (hash >> 32)) as u32
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

    fn row(key: &str, version: u64, topic: Topic) -> Row {
        Row {
            key: key.into(),
            value: "x".into(),
            topic,
            version,
        }
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
            told.told(row(&format!("{number}"), number, tenant.clone()));
        }
        told.save(&store, || true).unwrap();
        told.told(row("1", 5000, Topic::ALL));
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
        one.told(row("k", 1, Topic::ALL));
        other.told(row("k", 2, Topic::ALL));
        one.save(&store, || true).unwrap();
        assert_eq!(other.save(&store, || true).unwrap_err().kind(), ErrorKind::Conflict);
        other.save(&store, || true).unwrap();
        assert_eq!(last(&mut load(&store, "a"), "k"), Some((2, Topic::ALL)));
    }

    #[test]
    fn what_the_store_has_lost_is_stored_again_at_once() {
        let store = MemoryStore::new();
        let mut told = load(&store, "a");
        for number in 0..1000 {
            told.told(row(&format!("{number}"), number, Topic::ALL));
        }
        told.save(&store, || true).unwrap();
        let name = told.name.clone();
        store.delete_table(&name).unwrap();
        told.told(row("1", 5000, Topic::ALL));
        told.save(&store, || true).unwrap();
        let mut again = load(&store, "a");
        assert!((0..1000).all(|number| last(&mut again, &format!("{number}")).is_some()));
        assert_eq!(last(&mut again, "1"), Some((5000, Topic::ALL)));
    }

    #[test]
    fn nonsense_counts_as_never_told() {
        let store = MemoryStore::new();
        let mut told = load(&store, "a");
        told.told(row("k", 1, Topic::ALL));
        told.save(&store, || true).unwrap();
        let name = told.name.clone();
        let part = store.keys(&name, None).next().unwrap().unwrap();
        for value in [
            "",
            "nonsense",
            r#"[["k",1,"D"]]"#,
            r#"[["k",1,"",7]]"#,
            r#"[["k",-1,"D",7]]"#,
        ] {
            store.set(&name, &part, value).unwrap();
            let failed = std::cell::Cell::new(false);
            let mut told = Told::load(&store, "t", "a", |e| {
                assert_eq!(e.kind(), ErrorKind::Malformed);
                failed.set(true);
            })
            .unwrap();
            assert!(failed.get() && told.missing().is_empty(), "{value}");
            told.told(row("k", 3, Topic::ALL));
            told.save(&store, || true).unwrap();
            assert_eq!(last(&mut load(&store, "a"), "k"), Some((3, Topic::ALL)));
        }
    }

    /// Not even if more has changed since then.
    #[test]
    fn an_own_write_whose_reply_was_lost_is_no_conflict() {
        let store = MemoryStore::new();
        let mut told = load(&store, "a");
        told.told(row("k", 1, Topic::ALL));
        let value = told.part("k").write().unwrap();
        told.save(&store, || true).unwrap();
        (told.part("k").version, told.part("k").tried) = (None, vec![print(&value)]);
        told.told(row("k", 2, Topic::ALL));
        told.save(&store, || true).unwrap();
        assert_eq!(last(&mut load(&store, "a"), "k"), Some((2, Topic::ALL)));
    }
}
