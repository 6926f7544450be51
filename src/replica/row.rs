//! The rows of a replica and their reported changes.

use std::sync::Arc;

use super::map::Keyed;
use crate::error::Error;
use crate::table::Entry;
use crate::update::{Name, Topic};

/// A change of a row of a replica.
///
/// The changes of one row are in the order of versions, begin with [`RowChange::Added`], and end with the newest state.
/// States in between may be skipped; none is repeated or goes back, unless the store itself went back. A state that
/// does not decode is reported as [`RowChange::Malformed`] at any place, also before the first [`RowChange::Added`].
#[derive(Debug)]
pub enum RowChange<T> {
    /// The row is there.
    Added {
        /// The state now.
        new: Arc<Entry<T>>,
    },
    /// The row has a new value.
    Changed {
        /// The last reported state.
        old: Arc<Entry<T>>,
        /// The state now.
        new: Arc<Entry<T>>,
    },
    /// The row is gone.
    Removed {
        /// The key.
        key: Name,
        /// The last reported state; `None` if none of its states decoded.
        old: Option<Arc<Entry<T>>>,
        /// The version of the delete, or of the row's last state if only its absence was seen.
        version: u64,
    },
    /// The row's value does not decode as its table's type.
    Malformed {
        /// The last state that decoded, if one did.
        old: Option<Arc<Entry<T>>>,
        /// The state now.
        new: Arc<MalformedRow>,
    },
}

/// A row whose value does not decode as its table's type.
#[derive(Debug)]
#[non_exhaustive]
pub struct MalformedRow {
    /// The key.
    pub key: Name,
    /// The topic on which its changes are published; shared by the rows of a replica.
    pub topic: Arc<Topic>,
    /// The version, which every write raises.
    pub version: u64,
    /// The value as it is stored.
    pub text: String,
    /// Why it did not decode, with table and key.
    pub error: Error,
}

impl<T> RowChange<T> {
    /// The row's key.
    pub fn key(&self) -> &Name {
        match self {
            RowChange::Added { new } | RowChange::Changed { new, .. } => &new.key,
            RowChange::Removed { key, .. } => key,
            RowChange::Malformed { new, .. } => &new.key,
        }
    }

    /// The row's version now, or that of its delete.
    pub fn version(&self) -> u64 {
        match self {
            RowChange::Added { new } | RowChange::Changed { new, .. } => new.version,
            RowChange::Removed { version, .. } => *version,
            RowChange::Malformed { new, .. } => new.version,
        }
    }
}

impl<T> Clone for RowChange<T> {
    fn clone(&self) -> RowChange<T> {
        match self {
            RowChange::Added { new } => RowChange::Added { new: Arc::clone(new) },
            RowChange::Changed { old, new } => RowChange::Changed {
                old: Arc::clone(old),
                new: Arc::clone(new),
            },
            RowChange::Removed { key, old, version } => RowChange::Removed {
                key: key.clone(),
                old: old.clone(),
                version: *version,
            },
            RowChange::Malformed { old, new } => RowChange::Malformed {
                old: old.clone(),
                new: Arc::clone(new),
            },
        }
    }
}

/// An incoming state of a row, decoded if possible.
pub(super) struct NewRow<T> {
    pub(super) row: Result<Arc<Entry<T>>, Arc<MalformedRow>>,
    /// A sum of the text.
    pub(super) sum: u32,
}

impl<T> NewRow<T> {
    /// From a decoded row, or from the text with its error.
    pub(super) fn new(
        key: Name,
        topic: Arc<Topic>,
        version: u64,
        row: Result<T, (String, Error)>,
        sum: u32,
    ) -> NewRow<T> {
        let row = match row {
            Ok(row) => Ok(Arc::new(Entry {
                key,
                row,
                topic,
                version,
            })),
            Err((text, error)) => Err(Arc::new(MalformedRow {
                key,
                topic,
                version,
                text,
                error,
            })),
        };
        NewRow { row, sum }
    }

    pub(super) fn key(&self) -> &Name {
        match &self.row {
            Ok(row) => &row.key,
            Err(row) => &row.key,
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        match &self.row {
            Ok(row) => &row.topic,
            Err(row) => &row.topic,
        }
    }

    pub(super) fn version(&self) -> u64 {
        match &self.row {
            Ok(row) => row.version,
            Err(row) => row.version,
        }
    }
}

/// A row as a replica holds it.
pub(super) enum Held<T> {
    Row(Arc<Entry<T>>),
    Malformed(Arc<Undecoded<T>>),
}

/// A row that does not decode, with its last state that did.
pub(super) struct Undecoded<T> {
    pub(super) row: Arc<MalformedRow>,
    pub(super) last: Option<Arc<Entry<T>>>,
}

impl<T> Held<T> {
    pub(super) fn version(&self) -> u64 {
        match self {
            Held::Row(row) => row.version,
            Held::Malformed(it) => it.row.version,
        }
    }

    pub(super) fn key(&self) -> &Name {
        match self {
            Held::Row(row) => &row.key,
            Held::Malformed(it) => &it.row.key,
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        match self {
            Held::Row(row) => &row.topic,
            Held::Malformed(it) => &it.row.topic,
        }
    }

    /// The last state that decoded.
    pub(super) fn decoded(&self) -> Option<&Arc<Entry<T>>> {
        match self {
            Held::Row(row) => Some(row),
            Held::Malformed(it) => it.last.as_ref(),
        }
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Held<T> {
        match self {
            Held::Row(row) => Held::Row(Arc::clone(row)),
            Held::Malformed(it) => Held::Malformed(Arc::clone(it)),
        }
    }
}

impl<T> Keyed for Entry<T> {
    fn key(&self) -> &str {
        &self.key
    }
}

impl<T> Keyed for Undecoded<T> {
    fn key(&self) -> &str {
        &self.row.key
    }
}

/// A change of a row by a merge.
pub(super) struct Step<T> {
    pub(super) key: Name,
    pub(super) before: Option<Held<T>>,
    pub(super) after: Option<Held<T>>,
    pub(super) version: u64,
    /// Sums of the texts before and after.
    pub(super) sums: [u32; 2],
}

impl<T> Step<T> {
    /// The step for a row that was unknown before.
    pub(super) fn appears(held: Held<T>) -> Step<T> {
        Step {
            key: held.key().clone(),
            before: None,
            version: held.version(),
            after: Some(held),
            sums: [0; 2],
        }
    }

    /// Joins this step and the next of the same row. Returns the state in between.
    pub(super) fn join(&mut self, next: Step<T>) -> Option<Held<T>> {
        self.version = next.version;
        self.sums[1] = next.sums[1];
        std::mem::replace(&mut self.after, next.after)
    }

    /// The changes to report to handlers that know the state before. There are two if the last state that decoded is
    /// news to them.
    pub(super) fn told(&self) -> impl Iterator<Item = RowChange<T>> + use<T> {
        let old = self.before.as_ref().and_then(|before| before.decoded().cloned());
        let (first, second) = match &self.after {
            None => (self.before.as_ref().map(|_| self.removed(old, self.version)), None),
            // It came back as it was.
            Some(Held::Row(new)) if self.is_same(new) => (None, None),
            Some(Held::Row(new)) => (Some(shown(old, Arc::clone(new))), None),
            Some(Held::Malformed(it)) => {
                let first = match (old, it.last.clone()) {
                    (Some(old), Some(last)) if Arc::ptr_eq(&old, &last) => None,
                    (old, Some(last)) => Some(shown(old, last)),
                    // It was removed in between.
                    (Some(old), None) => {
                        let version = old.version;
                        Some(self.removed(Some(old), version))
                    }
                    (None, None) => None,
                };
                let malformed = RowChange::Malformed {
                    old: it.last.clone(),
                    new: Arc::clone(&it.row),
                };
                (first, Some(malformed))
            }
        };
        first.into_iter().chain(second)
    }

    fn is_same(&self, new: &Entry<T>) -> bool {
        let Some(Held::Row(old)) = &self.before else {
            return false;
        };
        old.version == new.version && old.topic == new.topic && self.sums[0] == self.sums[1]
    }

    fn removed(&self, old: Option<Arc<Entry<T>>>, version: u64) -> RowChange<T> {
        RowChange::Removed {
            key: self.key.clone(),
            old,
            version,
        }
    }
}

/// The change to a state that decodes.
fn shown<T>(old: Option<Arc<Entry<T>>>, new: Arc<Entry<T>>) -> RowChange<T> {
    match old {
        None => RowChange::Added { new },
        Some(old) => RowChange::Changed { old, new },
    }
}

impl<T> Clone for Step<T> {
    fn clone(&self) -> Step<T> {
        Step {
            key: self.key.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            version: self.version,
            sums: self.sums,
        }
    }
}
