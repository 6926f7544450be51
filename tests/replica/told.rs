//! The changes of each row that a handler was called with, held against C8: added first, then changes in order, each
//! once, then removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tablecast::Guard;
use tablecast::replica::{ReplicaTable, RowChange};

use crate::Content;

#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<BTreeMap<String, Vec<RowChange<String>>>>>);

impl Told {
    pub(crate) fn of(table: &ReplicaTable<String>) -> (Told, Guard) {
        Told::after(table, |_| ())
    }

    /// As [`Told::of`], for a handler that does this first.
    pub(crate) fn after(
        table: &ReplicaTable<String>,
        first: impl Fn(&RowChange<String>) + Send + Sync + 'static,
    ) -> (Told, Guard) {
        let told = Told::default();
        let heard = told.clone();
        let guard = table.on_change(move |change: &RowChange<String>| {
            first(change);
            let mut rows = heard.0.lock();
            rows.entry(change.key().to_string()).or_default().push(change.clone());
        });
        (told, guard)
    }

    /// Number of changes.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }

    /// The rows after these changes.
    #[track_caller]
    pub(crate) fn rows(&self) -> Content {
        let mut rows = Content::new();
        for (key, changes) in &*self.0.lock() {
            let mut state: Option<Arc<_>> = None;
            let mut version = 0;
            for change in changes {
                let next = match (change, &state) {
                    (RowChange::Added { new }, None) => Some(Arc::clone(new)),
                    (RowChange::Changed { old, new }, Some(state)) if Arc::ptr_eq(old, state) => Some(Arc::clone(new)),
                    (RowChange::Removed { old: Some(old), .. }, Some(state)) if Arc::ptr_eq(old, state) => None,
                    _ => panic!("{key}: {change:?} after {state:?}: {changes:?}"),
                };
                // A removed topic removes its rows under their own versions, and brings them back when it returns.
                let may_repeat = next.is_none() || state.is_none();
                assert!(
                    change.version() > version || may_repeat && change.version() == version,
                    "{key}: {changes:?}"
                );
                version = change.version();
                state = next;
            }
            if let Some(row) = state {
                rows.push((key.clone(), row.topic.to_string(), row.version, row.row.clone()));
            }
        }
        rows
    }
}
