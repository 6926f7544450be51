//! The receiving end.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::alerts::Alerts;
use super::between::{Batch, Queue};
use super::heap::Heap;
use super::turns::Turns;
use crate::event::{Event, SyncReason};
use crate::update::{DbUpdate, Name};

/// Maximum capacity, in updates, of an emptied batch that is kept.
const MAX_SPARE: usize = 1024;

/// How many values are returned together, and the maximum capacity of each in bytes.
const VALUES: usize = 64;
const MAX_VALUE: usize = 512;

/// The receiving end. Dropping it drops the pending updates.
pub struct QueueReceiver {
    queue: Arc<Queue>,
    channel: Receiver<Batch>,
    /// Batches given to [`QueueReceiver::accept`] that are not yet in the heap.
    accepted: VecDeque<Batch>,
    heap: Heap,
    turns: Turns,
    /// Values to return to the senders.
    values: Vec<String>,
}

impl QueueReceiver {
    pub(super) fn new(queue: Arc<Queue>, channel: Receiver<Batch>, max_overtake: Duration) -> QueueReceiver {
        QueueReceiver {
            queue,
            channel,
            accepted: VecDeque::new(),
            heap: Heap::new(max_overtake),
            turns: Turns::default(),
            values: Vec::new(),
        }
    }

    /// Returns the channel to wait on after [`QueueReceiver::pop`] returned `None`. Its messages go to
    /// [`QueueReceiver::accept`].
    pub fn channel(&self) -> &Receiver<Batch> {
        &self.channel
    }

    /// Takes a message received from [`QueueReceiver::channel`].
    pub fn accept(&mut self, batch: Batch) {
        self.accepted.push_back(batch);
    }

    /// Returns the next event: a sync event or the most urgent update, in the turns that the [module](super) describes,
    /// or `None` if nothing is pending.
    ///
    /// `now` must not go back; ageing and turns are measured by it.
    pub fn pop(&mut self, now: Instant) -> Option<Event> {
        self.next(|| now, false)
    }

    /// As [`QueueReceiver::pop`], but holds the row of an update: no other update of it is handed out until
    /// [`QueueReceiver::release`]. Returns `None` if only updates of held rows are pending.
    pub fn pop_held(&mut self, now: Instant) -> Option<Event> {
        self.next(|| now, true)
    }

    /// Releases a row.
    pub fn release(&mut self, table: &Name, key: &Name) {
        self.heap.release(table, key);
    }

    /// Takes back an update that was handled.
    pub(crate) fn recycle(&mut self, update: DbUpdate) {
        let value = update.value.filter(|value| (1..=MAX_VALUE).contains(&value.capacity()));
        self.values.extend(value);
        if self.values.len() == VALUES {
            let values = mem::replace(&mut self.values, Vec::with_capacity(VALUES));
            // If there are enough spares, these are dropped.
            let _ = self.queue.values.0.try_send(values);
        }
    }

    /// Returns true if nothing is pending, held rows included.
    pub fn is_empty(&self) -> bool {
        self.queue.depth.load(Ordering::SeqCst) == 0 && !self.queue.alerts.is_filled()
    }

    /// The next event. `clock` is read only if it matters.
    pub(crate) fn next(&mut self, clock: impl Fn() -> Instant, hold: bool) -> Option<Event> {
        self.take_in(&clock);
        if (self.turns.is_of_syncs() || self.queue.alerts.is_filled())
            && let Some(reason) = self.tell(|turns, alerts| turns.before_updates(alerts, clock()))
        {
            return Some(Event::Sync(reason));
        }
        if let Some(update) = self.heap.pop(clock, hold) {
            self.queue.give_back(1);
            return Some(Event::Update(update));
        }
        self.turns.end();
        if !self.queue.alerts.is_filled() {
            return None;
        }
        self.tell(Turns::without_updates).map(Event::Sync)
    }

    /// The next sync event, beside the updates.
    pub(crate) fn next_sync(&mut self, clock: impl Fn() -> Instant) -> Option<SyncReason> {
        if !self.queue.alerts.is_filled() {
            return None;
        }
        let drained = self.queue.depth.load(Ordering::SeqCst) == 0 && !self.queue.backlog.is_filled();
        self.tell(|turns, alerts| match alerts.pop() {
            None if drained => turns.overflow(alerts),
            None => turns.due_overflow(alerts, clock()),
            reason => reason,
        })
    }

    /// The next update, beside the sync events; holds its row.
    pub(crate) fn next_update(&mut self, clock: impl Fn() -> Instant) -> Option<DbUpdate> {
        self.take_in(&clock);
        let update = self.heap.pop(clock, true)?;
        self.queue.give_back(1);
        Some(update)
    }

    /// The updates that are handed out next, in order, unless others come before them; none if the order is not known.
    pub(crate) fn coming(&self) -> impl Iterator<Item = &DbUpdate> {
        self.heap.coming()
    }

    /// The time by which [`QueueReceiver::next_sync`] hands out a pending overflow.
    pub(crate) fn sync_due(&self) -> Option<Instant> {
        self.turns.overflow_due().filter(|_| self.queue.alerts.is_filled())
    }

    /// Drops the pending updates that are in the store, since the program is about to read it. Returns their number
    /// plus the number of updates dropped meanwhile for lack of room.
    ///
    /// An update without a version may be in no store, and stays.
    pub(crate) fn cover(&mut self, clock: impl Fn() -> Instant) -> u64 {
        self.take_in(&clock);
        let covered = self.heap.remove(|update| update.version.is_some());
        self.queue.give_back(covered);
        self.queue.covered.add(covered as u64);
        let edit = |alerts: &mut Alerts| (alerts.pop_overflow().unwrap_or(0), !alerts.is_empty());
        let (dropped, _) = self.queue.alerts.edit(edit);
        dropped.saturating_add(covered as u64)
    }

    /// Takes out a sync event and counts it.
    fn tell(&mut self, take: impl FnOnce(&mut Turns, &mut Alerts) -> Option<SyncReason>) -> Option<SyncReason> {
        let turns = &mut self.turns;
        let edit = |alerts: &mut Alerts| (take(turns, alerts), !alerts.is_empty());
        let (reason, _) = self.queue.alerts.edit(edit);
        if reason.is_some() {
            self.queue.syncs.add(1);
        }
        reason
    }

    fn take_in(&mut self, clock: impl Fn() -> Instant) {
        if !self.accepted.is_empty() || !self.channel.is_empty() {
            let now = clock();
            while let Some(batch) = self.accepted.pop_front() {
                self.unpack(batch, now);
            }
            self.drain_channel(now);
        }
        if self.queue.backlog.is_filled() {
            self.take_backlog(clock());
        }
    }

    fn take_backlog(&mut self, now: Instant) {
        let queue = Arc::clone(&self.queue);
        let (dropped, _) = queue.backlog.edit(|backlog| {
            // Updates sent before a sender turned to the backlog are in the channel by now, and go first.
            self.drain_channel(now);
            let (mut coalesced, mut back) = (0, 0);
            let mut homeless = Vec::new();
            for entry in mem::take(backlog).into_entries() {
                if !entry.reserved && !self.heap.is_pending(&entry.update) {
                    homeless.push(entry);
                    continue;
                }
                let replaced = self.heap.coalesce(entry.urgency, entry.update, now);
                coalesced += replaced;
                back += replaced - usize::from(!entry.reserved);
            }
            queue.coalesced.add(coalesced as u64);
            // Before a sender looks again, since it would drop updates although there is room.
            queue.give_back(back);
            let room = queue.reserve(0, homeless.len(), queue.capacity);
            let dropped = homeless.len() - room;
            for entry in homeless.into_iter().take(room) {
                self.heap.coalesce(entry.urgency, entry.update, now);
            }
            (dropped, false)
        });
        queue.tell_dropped(dropped as u64);
    }

    fn drain_channel(&mut self, now: Instant) {
        while let Ok(batch) = self.channel.try_recv() {
            self.unpack(batch, now);
        }
    }

    fn unpack(&mut self, mut batch: Batch, now: Instant) {
        batch.0.drain(..).for_each(|update| self.heap.push(update, now));
        if (1..=MAX_SPARE).contains(&batch.0.capacity()) {
            // If there are enough spares, this one is dropped.
            let _ = self.queue.spares.0.try_send(batch.0);
        }
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::SeqCst);
        self.queue.line.edit(|line| (mem::take(line), false));
        self.queue.backlog.edit(|backlog| (mem::take(backlog), false));
    }
}

impl fmt::Debug for QueueReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueReceiver").field(&self.queue.stats()).finish()
    }
}
