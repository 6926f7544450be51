//! Updates that wait beside the channel when the queue fills up: the newest update of each row.

use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::lane::Urgency;
use crate::update::{DbUpdate, Name};

/// A value behind a lock, with a flag that shows without the lock whether it is empty.
#[derive(Debug, Default)]
pub(super) struct Aside<T> {
    filled: AtomicBool,
    content: Mutex<T>,
}

impl<T> Aside<T> {
    /// False if the value is empty.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::SeqCst)
    }

    /// Edits the value; `edit` also returns whether it is filled afterwards. Returns true if it was empty before.
    pub(super) fn edit<R>(&self, edit: impl FnOnce(&mut T) -> (R, bool)) -> (R, bool) {
        let mut content = self.content.lock();
        let (result, filled) = edit(&mut content);
        let was_filled = self.filled.swap(filled, Ordering::SeqCst);
        (result, filled && !was_filled)
    }
}

/// The newest update of each row, in the order in which the rows came.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    places: HashMap<(Name, Name), usize>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) urgency: Urgency,
    pub(super) update: DbUpdate,
    /// Room is reserved for it. An update without a reservation has room if its row is pending in the heap, which only
    /// the receiver knows, or if the receiver has made room by then.
    pub(super) reserved: bool,
}

/// Outcome of [`Backlog::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Added,
    /// Replaced an earlier update of its row.
    Replaced,
    /// There was no room for another row.
    Refused,
}

impl Backlog {
    /// Puts an update in. It replaces an earlier one of its row and takes the higher urgency of the two. Otherwise
    /// `reserve` says whether there is room for one more; without room it is still taken while there are fewer than
    /// `limit` rows.
    pub(super) fn put(&mut self, update: DbUpdate, limit: usize, reserve: impl FnOnce() -> bool) -> Put {
        let urgency = Urgency::of(&update);
        let row = (update.table.clone(), update.key.clone());
        if let Some(&place) = self.places.get(&row) {
            let earlier = &mut self.entries[place];
            earlier.urgency = earlier.urgency.min(urgency);
            earlier.update = update;
            return Put::Replaced;
        }
        let reserved = reserve();
        if !reserved && self.entries.len() >= limit {
            return Put::Refused;
        }
        self.places.insert(row, self.entries.len());
        self.entries.push(Entry {
            urgency,
            update,
            reserved,
        });
        Put::Added
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in the order in which they are to be taken out.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}
