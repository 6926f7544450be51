//! Updates that wait beside the channel under pressure: the newest state of each row.

use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::lane::Urgency;
use crate::update::{DbUpdate, Name};

/// A value behind a lock, with a flag that shows without the lock that there is nothing in it.
#[derive(Debug, Default)]
pub(super) struct Aside<T> {
    filled: AtomicBool,
    content: Mutex<T>,
}

impl<T> Aside<T> {
    /// False if nothing is in it.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Edits the content; `edit` also returns whether there is something in it now. True if there was nothing before.
    pub(super) fn edit<R>(&self, edit: impl FnOnce(&mut T) -> (R, bool)) -> (R, bool) {
        let mut content = self.content.lock();
        let (result, filled) = edit(&mut content);
        let was_filled = self.filled.swap(filled, Ordering::AcqRel);
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
    /// There is room for it. For the others there is if their row turns out to be pending in the heap, which only the
    /// receiver knows, or has made room by then.
    pub(super) reserved: bool,
}

/// Outcome of an update in the [`Backlog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Added,
    /// It replaced an earlier one of its row.
    Replaced,
    /// There was no room for one more row.
    Refused,
}

impl Backlog {
    /// Puts an update in. It takes the place of an earlier one of its row and the more urgent of both urgencies;
    /// otherwise `reserve` says whether there is room for one more. Where there is none it is taken all the same, as long
    /// as there are less than `limit` rows.
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

    /// Its content, to be taken out in this order.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}
