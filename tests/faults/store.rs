//! The store: the union of what the writers have logged before they published it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::history::{Change, Event, Row, Tail, paths};

/// What the names of the writers' files begin with.
pub(crate) const WRITER: &str = "writer-";

/// The store as it was when it was last read.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    tails: BTreeMap<PathBuf, Tail>,
    rows: BTreeMap<Row, Change>,
}

impl Store {
    pub(crate) fn of(folder: &Path) -> Store {
        Store {
            folder: folder.to_owned(),
            tails: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Reads what was written meanwhile. Rows that were deleted stay, with their version, as in a store that keeps
    /// revisions: an update may come after a later read of the store.
    pub(crate) fn read(&mut self) -> &BTreeMap<Row, Change> {
        for path in paths(&self.folder, WRITER) {
            let tail = self.tails.entry(path).or_insert_with_key(|path| Tail::of(path));
            let rows = &mut self.rows;
            tail.read(|line| {
                if let Event::Stored(change) = line.event {
                    rows.insert(change.row(), change);
                }
            });
        }
        &self.rows
    }

    /// The digest of what a program of these topics has when it has everything.
    pub(crate) fn digest(&mut self, topics: &BTreeSet<String>) -> u64 {
        digest(self.read().values().filter(|change| topics.contains(&change.topic)))
    }
}

/// A number for what these rows say, whatever their order; deleted rows are no rows.
pub(crate) fn digest<'a>(rows: impl Iterator<Item = &'a Change>) -> u64 {
    let rows = rows.filter(|change| !change.deleted).map(|change| {
        let mut hasher = DefaultHasher::new();
        change.hash(&mut hasher);
        hasher.finish()
    });
    rows.fold(0, u64::wrapping_add)
}
