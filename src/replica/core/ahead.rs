//! The states that updates have brought ahead of the position. The store must show each of them, or a newer one, once a
//! read has passed its version; otherwise it is of another history.

use hashbrown::HashMap;

use crate::update::Name;

/// The most keys that are remembered; those beyond are taken on trust.
const MAX_KEYS: usize = 1 << 16;

/// The keys, and their versions.
#[derive(Debug, Default)]
pub(super) struct Ahead(HashMap<Name, u64>);

impl Ahead {
    pub(super) fn note(&mut self, key: &Name, version: u64) {
        if self.0.len() < MAX_KEYS || self.0.contains_key(key) {
            self.0.insert(key.clone(), version);
        }
    }

    /// Takes note that the store has the key in this version.
    pub(super) fn shown(&mut self, key: &Name, version: u64) {
        if !self.0.is_empty() && self.0.get(key).is_some_and(|noted| *noted <= version) {
            self.0.remove(key);
        }
    }

    /// True if a state after one version and up to another was not shown.
    pub(super) fn lacks(&self, after: u64, to: u64) -> bool {
        self.0.values().any(|version| *version > after && *version <= to)
    }

    pub(super) fn forget_to(&mut self, version: u64) {
        self.0.retain(|_, noted| *noted > version);
    }
}
