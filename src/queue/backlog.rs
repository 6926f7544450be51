//! What waits beside the channel: sync events, and under pressure the newest state of each row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::lane::Urgency;
use crate::update::{DbUpdate, Name, SyncReason, Topic};

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
pub(super) struct Alerts {
    /// In the order in which they are handed out.
    pending: BTreeMap<u64, SyncReason>,
    places: HashMap<What, u64>,
    next: u64,
}

/// What is told once.
#[derive(Debug, PartialEq, Eq, Hash)]
enum What {
    Overflow,
    Gap(Name, Topic),
    Other(SyncReason),
}

impl What {
    fn of(reason: &SyncReason) -> What {
        match reason {
            SyncReason::Overflow { .. } => What::Overflow,
            SyncReason::Gap { publisher, topic, .. } => What::Gap(publisher.clone(), topic.clone()),
            other => What::Other(other.clone()),
        }
    }
}

impl Alerts {
    /// Puts a reason last, also if it is pending already, so that the last word on an address stays the last. Drops
    /// are added to those not told yet, and gaps of one publisher and topic are joined.
    pub(super) fn put(&mut self, mut reason: SyncReason) {
        self.next += 1;
        let before = self.places.insert(What::of(&reason), self.next);
        match (before.and_then(|place| self.pending.remove(&place)), &mut reason) {
            (Some(SyncReason::Overflow { dropped: before }), SyncReason::Overflow { dropped }) => *dropped += before,
            (
                Some(SyncReason::Gap {
                    from: first, to: last, ..
                }),
                SyncReason::Gap { from, to, .. },
            ) => (*from, *to) = (first.min(*from), last.max(*to)),
            _ => {}
        }
        self.pending.insert(self.next, reason);
    }

    pub(super) fn pop(&mut self) -> Option<SyncReason> {
        let (_, reason) = self.pending.pop_first()?;
        self.places.remove(&What::of(&reason));
        Some(reason)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}
