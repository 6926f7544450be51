//! Indexes: rows by something other than their key.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::row::RowChange;
use crate::dispatcher::Guard;
use crate::table::Entry;
use crate::update::Name;

/// The rows of a table by a function of the row; dropping the index ends it. See
/// [`ReplicaTable::index`](super::ReplicaTable::index).
pub struct Index<T, K> {
    rows: Arc<RwLock<Rows<T, K>>>,
    _guard: Guard,
}

struct Rows<T, K> {
    by_key: BTreeMap<K, BTreeMap<Name, Arc<Entry<T>>>>,
    /// The index keys of each row.
    keys: HashMap<Name, Vec<K>>,
}

impl<T: Send + Sync + 'static, K: Ord + Clone + Send + Sync + 'static> Index<T, K> {
    pub(super) fn new<I: IntoIterator<Item = K>>(
        watch: impl FnOnce(Box<dyn Fn(&RowChange<T>) + Send + Sync>) -> Guard,
        keys: impl Fn(&Entry<T>) -> I + Send + Sync + 'static,
    ) -> Index<T, K> {
        let rows = Arc::new(RwLock::new(Rows {
            by_key: BTreeMap::new(),
            keys: HashMap::new(),
        }));
        let kept = Arc::clone(&rows);
        let follow = move |change: &RowChange<T>| match change {
            RowChange::Added { new } | RowChange::Changed { new, .. } => {
                // This runs the program's code, so without the lock; as does dropping what was there.
                let found = catch_unwind(AssertUnwindSafe(|| keys(new).into_iter().collect()));
                let (keys, panic) = found.map_or_else(|panic| (Vec::new(), Some(panic)), |keys| (keys, None));
                let gone = kept.write().put(new, keys);
                drop(gone);
                if let Some(panic) = panic {
                    // It is counted and reported as any handler's.
                    resume_unwind(panic);
                }
            }
            RowChange::Removed { key, .. } => {
                let gone = kept.write().remove(key);
                drop(gone);
            }
            RowChange::Malformed { .. } => {}
        };
        let guard = watch(Box::new(follow));
        Index { rows, _guard: guard }
    }

    /// The rows under this key, in the order of their own keys.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Vec<Arc<Entry<T>>>
    where
        K: Borrow<Q>,
    {
        let rows = self.rows.read();
        let rows = rows.by_key.get(key).into_iter();
        rows.flat_map(BTreeMap::values).cloned().collect()
    }

    /// The keys that have rows, in order.
    pub fn keys(&self) -> Vec<K> {
        self.rows.read().by_key.keys().cloned().collect()
    }
}

/// The keys and rows taken out of an index.
type Gone<T, K> = (Vec<K>, Vec<Arc<Entry<T>>>);

impl<T, K: Ord + Clone> Rows<T, K> {
    fn put(&mut self, row: &Arc<Entry<T>>, keys: Vec<K>) -> Gone<T, K> {
        let gone = self.remove(&row.key);
        for key in &keys {
            let rows = self.by_key.entry(key.clone()).or_default();
            rows.insert(row.key.clone(), Arc::clone(row));
        }
        self.keys.insert(row.key.clone(), keys);
        gone
    }

    fn remove(&mut self, row: &str) -> Gone<T, K> {
        let mut keys = self.keys.remove(row).unwrap_or_default();
        let (mut rows, mut empty) = (Vec::new(), Vec::new());
        for key in &keys {
            if let Some(of_key) = self.by_key.get_mut(key) {
                rows.extend(of_key.remove(row));
                if of_key.is_empty() {
                    empty.extend(self.by_key.remove_entry(key).map(|(key, _)| key));
                }
            }
        }
        keys.append(&mut empty);
        (keys, rows)
    }
}

impl<T, K> fmt::Debug for Index<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}
