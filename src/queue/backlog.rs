//! What waits beside the channel: sync events, and under pressure the newest state of each row.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::lane::Urgency;
use crate::update::{DbUpdate, Name, SyncReason};

/// A value behind a lock, with a flag that tells without the lock that there is nothing in it.
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
    updates: Vec<(Urgency, DbUpdate)>,
}

/// What became of an update in the [`Backlog`].
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
    /// otherwise `room` says whether there is room for one more.
    pub(super) fn put(&mut self, update: DbUpdate, room: impl FnOnce() -> bool) -> Put {
        let urgency = Urgency::of(&update);
        let row = (update.table.clone(), update.key.clone());
        if let Some(&place) = self.places.get(&row) {
            let earlier = &mut self.updates[place];
            *earlier = (earlier.0.min(urgency), update);
            return Put::Replaced;
        }
        if !room() {
            return Put::Refused;
        }
        self.places.insert(row, self.updates.len());
        self.updates.push((urgency, update));
        Put::Added
    }

    pub(super) fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Its content, to be taken out in this order.
    pub(super) fn into_updates(self) -> Vec<(Urgency, DbUpdate)> {
        self.updates
    }
}

/// The sync events to come: each once.
#[derive(Debug, Default)]
pub(super) struct Alerts(VecDeque<SyncReason>);

impl Alerts {
    /// Puts a reason last, also if it is pending already, so that the last word on an address stays the last; drops
    /// are added to those not told yet.
    pub(super) fn put(&mut self, mut reason: SyncReason) {
        self.0.retain(|pending| match (pending, &mut reason) {
            (SyncReason::Overflow { dropped: before }, SyncReason::Overflow { dropped }) => {
                *dropped += before;
                false
            }
            (pending, reason) => *pending != *reason,
        });
        self.0.push_back(reason);
    }

    pub(super) fn pop(&mut self) -> Option<SyncReason> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
