//! A program's view of one table of a replica.

use std::fmt;
use std::sync::Arc;

use super::index::Index;
use super::map::Map;
use super::part::Part;
use super::row::{Held, MalformedRow, RowChange, Undecoded};
use super::typed::Typed;
use crate::dispatcher::{Guard, Handler};
use crate::error::{Error, ErrorKind, Result};
use crate::table::Entry;
use crate::update::Name;

/// A table of a [`Replica`](super::Replica), read from memory without waiting for the network or the store; cheap to
/// clone.
///
/// Rows are of type `T`, or `String` for a [raw table](super::Replica::raw_table).
pub struct ReplicaTable<T>(pub(super) Arc<Typed<T>>);

impl<T: Send + Sync + 'static> ReplicaTable<T> {
    /// The table's name.
    pub fn name(&self) -> &Name {
        self.0.name()
    }

    /// The row with this key, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if its value does not decode as `T`.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Entry<T>>>> {
        row(self.0.get(key))
    }

    /// The number of rows, including those that do not decode.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows at this moment. The cost does not depend on the number of rows, and later changes of the table do not
    /// change the snapshot.
    pub fn snapshot(&self) -> Snapshot<T> {
        let (decoded, malformed) = self.0.rows();
        Snapshot { decoded, malformed }
    }

    /// Calls `handler` for every change of a row, on the dispatcher's threads: first for all present rows, as
    /// [`RowChange::Added`] (one that does not decode as its last state that did, if there is one, and then as
    /// [`RowChange::Malformed`]), then for changes. See [`RowChange`] for the promises.
    ///
    /// When the handler is called, [`ReplicaTable::get`] returns the new state or a newer one. Without dispatcher
    /// workers all handlers run one after the other; with workers, handlers of different rows run at the same time.
    ///
    /// A bounded channel that stays full for too long misses a change for good, as [`Handler`] says; this is counted
    /// and reported.
    pub fn on_change(&self, handler: impl Handler<RowChange<T>>) -> Guard {
        self.0.watch(handler, false)
    }

    /// Indexes the rows by the keys that `keys` returns. A row may have several keys, or none; a row that does not
    /// decode has the keys of its last state that did, and one for which `keys` panics has none.
    ///
    /// The call visits all rows, also if the dispatcher has stopped. From then on the index has a change before
    /// handlers are called with it, and before [`Replica::wait_current`](super::Replica::wait_current) and the other
    /// waits return, so `keys` may not wait for the replica. Keys are compared and cloned under the index's lock, so
    /// neither may use the index.
    pub fn index<K, I>(&self, keys: impl Fn(&Entry<T>) -> I + Send + Sync + 'static) -> Index<T, K>
    where
        K: Ord + Clone + Send + Sync + 'static,
        I: IntoIterator<Item = K>,
    {
        Index::new(|handler| self.0.watch(handler, true), keys)
    }
}

impl<T> Clone for ReplicaTable<T> {
    fn clone(&self) -> ReplicaTable<T> {
        ReplicaTable(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for ReplicaTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaTable")
            .field("name", self.name())
            .field("rows", &self.len())
            .finish()
    }
}

/// The rows of a table at one moment.
pub struct Snapshot<T> {
    decoded: Map<Entry<T>>,
    malformed: Map<Undecoded<T>>,
}

impl<T> Snapshot<T> {
    /// The row with this key, if there was one.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if its value does not decode as `T`.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Entry<T>>>> {
        let decoded = self.decoded.get(key).cloned().map(Held::Row);
        row(decoded.or_else(|| self.malformed.get(key).cloned().map(Held::Malformed)))
    }

    /// The number of rows, including those that do not decode.
    pub fn len(&self) -> usize {
        self.decoded.len() + self.malformed.len()
    }

    /// True if there were no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows that decode, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Entry<T>>> + use<T> {
        self.decoded.iter()
    }

    /// The rows that do not decode, in no order.
    pub fn malformed(&self) -> impl Iterator<Item = Arc<MalformedRow>> + use<T> {
        self.malformed.iter().map(|it| Arc::clone(&it.row))
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Snapshot<T> {
        Snapshot {
            decoded: self.decoded.clone(),
            malformed: self.malformed.clone(),
        }
    }
}

impl<T> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("rows", &self.len()).finish()
    }
}

fn row<T>(held: Option<Held<T>>) -> Result<Option<Arc<Entry<T>>>> {
    match held {
        None => Ok(None),
        Some(Held::Row(row)) => Ok(Some(row)),
        Some(Held::Malformed(it)) => {
            let (text, version) = (it.row.error.to_string(), it.row.version);
            let text = text.strip_prefix("malformed: ").unwrap_or(&text);
            let error = Error::new(ErrorKind::Malformed, format!("{text} (version {version})"));
            Err(match it.row.error.row() {
                Some((table, key)) => error.with_row(table, key),
                None => error,
            })
        }
    }
}
