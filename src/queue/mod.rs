//! The bounded priority queue between subscribers and the dispatcher.
//!
//! Updates are handed out by priority, then by timestamp, then in the order in which they arrived, with two limits. An
//! update never overtakes an earlier one of the same row (table and key): a more urgent update lifts the earlier ones
//! of its row with it. And what has waited longer than [`QueueOptions::max_overtake`] goes before anything younger.
//!
//! Senders put batches into a channel; the receiver drains it into a heap of its own. What must not wait behind the
//! channel's content, or does not fit, goes into two places beside it: the pending sync events, and the backlog that
//! keeps only the newest update of each row.

mod backlog;
mod heap;
mod lane;
mod options;
mod ranking;

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender};

use self::backlog::{Alerts, Aside, Backlog, Put};
use self::heap::Heap;
pub use self::options::{Overflow, QueueOptions, QueueStats};
use crate::error::{Error, ErrorKind, Result};
use crate::update::{DbUpdate, Event, Name, SyncReason};

/// A new queue.
pub fn bounded(options: QueueOptions) -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let heap = Heap::new(options.max_overtake);
    let shared = Arc::new(Shared {
        capacity: options.capacity.max(1),
        overflow: options.overflow,
        depth: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        backlog: Aside::default(),
        alerts: Aside::default(),
        waiting: AtomicUsize::new(0),
        space: crossbeam_channel::bounded(1),
        spares: crossbeam_channel::bounded(SPARES),
        values: crossbeam_channel::bounded(SPARES),
        coalesced: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        syncs: AtomicU64::new(0),
    });
    let queue_receiver = QueueReceiver {
        shared: Arc::clone(&shared),
        channel: receiver,
        accepted: VecDeque::new(),
        heap,
        values: Vec::new(),
    };
    (
        QueueSender {
            shared,
            channel: sender,
        },
        queue_receiver,
    )
}

/// The sending end; clones send to the same queue. What one of them sends of one row is handed out in that order.
#[derive(Clone)]
pub struct QueueSender {
    shared: Arc<Shared>,
    channel: Sender<Delivery>,
}

impl QueueSender {
    /// Takes all updates out of `updates` and puts them into the queue, or does with them what [`Overflow`] says.
    ///
    /// Only [`Overflow::Block`] ever waits; a message in `stop`, which is left there, or its disconnection ends the
    /// wait. Pass [`crossbeam_channel::never`] to wait for space alone.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] if `stop` ended the wait (`updates` holds what was not sent), or if the receiver is gone.
    pub fn push(&self, updates: &mut Vec<DbUpdate>, stop: &Receiver<()>) -> Result<()> {
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(receiver_gone());
        }
        let limit = match self.shared.overflow {
            // The other half is the backlog's, which needs room to be of use.
            Overflow::Coalesce => self.shared.capacity / 2,
            Overflow::Block | Overflow::DropAndSync => self.shared.capacity,
        };
        let wanted = updates.len();
        // What is in the backlog is to be overtaken by nothing: while it is filled, everything goes through it.
        if !self.shared.backlog.is_filled() && self.shared.reserve(wanted, wanted, limit) == wanted {
            return match wanted {
                0 => Ok(()),
                _ => self.send(mem::replace(updates, self.shared.empty_batch(wanted))),
            };
        }
        match self.shared.overflow {
            Overflow::Coalesce => self.push_coalescing(updates),
            Overflow::Block => self.push_waiting(updates, stop),
            Overflow::DropAndSync => self.push_what_fits(updates),
        }
    }

    /// Puts a sync event before all pending updates. Never blocks and is never lost. One that is pending already is
    /// told once; the numbers of [`SyncReason::Overflow`] are added up.
    pub fn sync(&self, reason: SyncReason) {
        let ((), first) = self.shared.alerts.edit(|alerts| (alerts.put(reason), true));
        self.wake_if(first);
    }

    /// What happened since the queue was made.
    pub fn stats(&self) -> QueueStats {
        self.shared.stats()
    }

    /// Values whose memory may be used again.
    pub(crate) fn spare_values(&self) -> Option<Vec<String>> {
        self.shared.values.1.try_recv().ok()
    }

    fn push_coalescing(&self, updates: &mut Vec<DbUpdate>) -> Result<()> {
        let (mut coalesced, mut dropped) = (0, 0);
        let ((), first) = self.shared.backlog.edit(|backlog| {
            for update in updates.drain(..) {
                match backlog.put(update, || self.shared.reserve(1, 1, self.shared.capacity) == 1) {
                    Put::Added => {}
                    Put::Replaced => coalesced += 1,
                    Put::Refused => dropped += 1,
                }
            }
            ((), !backlog.is_empty())
        });
        self.wake_if(first);
        self.shared.coalesced.fetch_add(coalesced, Ordering::Relaxed);
        self.tell_dropped(dropped);
        Ok(())
    }

    fn push_waiting(&self, updates: &mut Vec<DbUpdate>, stop: &Receiver<()>) -> Result<()> {
        let mut rest = mem::take(updates).into_iter();
        while rest.len() > 0 {
            let sent = self.shared.reserve_waiting(rest.len(), stop);
            if let Err(e) = sent.and_then(|room| self.send(rest.by_ref().take(room).collect())) {
                updates.extend(rest);
                return Err(e);
            }
        }
        Ok(())
    }

    fn push_what_fits(&self, updates: &mut Vec<DbUpdate>) -> Result<()> {
        let room = self.shared.reserve(1, updates.len(), self.shared.capacity);
        let dropped = updates.len() - room;
        updates.truncate(room);
        if room > 0 {
            self.send(mem::take(updates))?;
        }
        self.tell_dropped(dropped as u64);
        Ok(())
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
            self.sync(SyncReason::Overflow { dropped });
        }
    }

    /// Sends what there is room for already.
    fn send(&self, batch: Vec<DbUpdate>) -> Result<()> {
        self.channel.send(Delivery(batch)).map_err(|_| receiver_gone())
    }

    /// Wakes the receiver after something was put beside the channel where nothing was before; it takes all at once.
    fn wake_if(&self, first: bool) {
        if first {
            // Without a receiver there is nobody to wake.
            let _ = self.send(Vec::new());
        }
    }
}

impl fmt::Debug for QueueSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueSender").field(&self.stats()).finish()
    }
}

fn receiver_gone() -> Error {
    Error::new(ErrorKind::Stopped, "the queue's receiver is gone")
}

/// Something for [`QueueReceiver::accept`]; an empty one only wakes.
#[derive(Debug)]
pub struct Delivery(Vec<DbUpdate>);

/// How many emptied batches are kept, and for how many updates at most each.
const SPARES: usize = 16;
const MAX_SPARE: usize = 1024;

/// How many values go back together, and how long the longest may be, in bytes.
const VALUES: usize = 64;
const MAX_VALUE: usize = 512;

/// The receiving end. Dropping it drops what is pending.
pub struct QueueReceiver {
    shared: Arc<Shared>,
    channel: Receiver<Delivery>,
    /// Given to [`QueueReceiver::accept`], not yet in the heap.
    accepted: VecDeque<Delivery>,
    heap: Heap,
    /// On their way back to the senders.
    values: Vec<String>,
}

impl QueueReceiver {
    /// What to wait on after [`QueueReceiver::pop`] had nothing. What comes goes to [`QueueReceiver::accept`].
    pub fn channel(&self) -> &Receiver<Delivery> {
        &self.channel
    }

    /// Takes in what was received from [`QueueReceiver::channel`].
    pub fn accept(&mut self, delivery: Delivery) {
        self.accepted.push_back(delivery);
    }

    /// The next event: sync events first, then the most urgent update. `None`: nothing is there.
    ///
    /// `now` must not go back; ageing is measured by it.
    pub fn pop(&mut self, now: Instant) -> Option<Event> {
        self.next(|| now, false)
    }

    /// As [`QueueReceiver::pop`], but holds an update's row: none of it is handed out until
    /// [`QueueReceiver::release`]. `None`: nothing is there but updates of held rows.
    pub fn pop_held(&mut self, now: Instant) -> Option<Event> {
        self.next(|| now, true)
    }

    /// The next sync event, if there is one: for when no update is wanted.
    pub fn pop_sync(&mut self) -> Option<SyncReason> {
        if !self.shared.alerts.is_filled() {
            return None;
        }
        let (reason, _) = self.shared.alerts.edit(|alerts| (alerts.pop(), !alerts.is_empty()));
        let reason = reason?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Some(reason)
    }

    /// Ends holding a row.
    pub fn release(&mut self, table: &Name, key: &Name) {
        self.heap.release(table, key);
    }

    /// Takes back what was handed out, when it was handled.
    pub(crate) fn recycle(&mut self, update: DbUpdate) {
        let value = update.value.filter(|value| (1..=MAX_VALUE).contains(&value.capacity()));
        self.values.extend(value);
        if self.values.len() == VALUES {
            let values = mem::replace(&mut self.values, Vec::with_capacity(VALUES));
            // If there are enough spares, these are not needed.
            let _ = self.shared.values.0.try_send(values);
        }
    }

    /// True if nothing is pending, also not of held rows.
    pub fn is_empty(&self) -> bool {
        self.shared.depth.load(Ordering::SeqCst) == 0 && !self.shared.alerts.is_filled()
    }

    /// The next event, as of now by `clock`, which is read only if it matters.
    pub(crate) fn next(&mut self, clock: impl Fn() -> Instant, hold: bool) -> Option<Event> {
        self.take_in(&clock);
        if let Some(reason) = self.pop_sync() {
            return Some(Event::Sync(reason));
        }
        let update = self.heap.pop(clock, hold)?;
        self.shared.give_back(1);
        Some(Event::Update(update))
    }

    fn take_in(&mut self, clock: impl Fn() -> Instant) {
        if !self.accepted.is_empty() || !self.channel.is_empty() {
            let now = clock();
            while let Some(delivery) = self.accepted.pop_front() {
                self.unpack(delivery, now);
            }
            self.drain_channel(now);
        }
        if self.shared.backlog.is_filled() {
            self.take_backlog(clock());
        }
    }

    fn take_backlog(&mut self, now: Instant) {
        let shared = Arc::clone(&self.shared);
        shared.backlog.edit(|backlog| {
            // What a sender sent before it turned to the backlog is in the channel by now, and goes first.
            self.drain_channel(now);
            let mut coalesced = 0;
            for (urgency, update) in mem::take(backlog).into_updates() {
                coalesced += self.heap.coalesce(urgency, update, now);
            }
            shared.coalesced.fetch_add(coalesced as u64, Ordering::Relaxed);
            // Before a sender can look again: it would drop for want of room that is there.
            shared.give_back(coalesced);
            ((), false)
        });
    }

    fn drain_channel(&mut self, now: Instant) {
        while let Ok(delivery) = self.channel.try_recv() {
            self.unpack(delivery, now);
        }
    }

    fn unpack(&mut self, mut delivery: Delivery, now: Instant) {
        delivery.0.drain(..).for_each(|update| self.heap.push(update, now));
        if (1..=MAX_SPARE).contains(&delivery.0.capacity()) {
            // If there are enough spares, this one is not needed.
            let _ = self.shared.spares.0.try_send(delivery.0);
        }
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.signal_space();
        self.shared.backlog.edit(|backlog| (mem::take(backlog), false));
    }
}

impl fmt::Debug for QueueReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueReceiver").field(&self.shared.stats()).finish()
    }
}

/// What both ends share.
struct Shared {
    capacity: usize,
    overflow: Overflow,
    /// Updates in the channel, the backlog and the heap. A sender reserves before it sends.
    depth: AtomicUsize,
    closed: AtomicBool,
    backlog: Aside<Backlog>,
    alerts: Aside<Alerts>,
    /// Senders that wait for space.
    waiting: AtomicUsize,
    /// Carries at most one token: there may be space. Whoever takes it passes it on if there is still more.
    space: (Sender<()>, Receiver<()>),
    /// Emptied batches on their way back to the senders, so that a batch is not allocated each time.
    spares: (Sender<Vec<DbUpdate>>, Receiver<Vec<DbUpdate>>),
    /// Values of updates that were handled, on the same way.
    values: (Sender<Vec<String>>, Receiver<Vec<String>>),
    coalesced: AtomicU64,
    dropped: AtomicU64,
    syncs: AtomicU64,
}

impl Shared {
    /// A batch for about so many updates.
    fn empty_batch(&self, updates: usize) -> Vec<DbUpdate> {
        let spare = self.spares.1.try_recv();
        spare.unwrap_or_else(|_| Vec::with_capacity(updates))
    }

    /// Reserves room for at most `most` updates within `limit`: how many, or 0 if there is not room for `least`.
    fn reserve(&self, least: usize, most: usize, limit: usize) -> usize {
        let room = |depth: usize| most.min(limit.saturating_sub(depth));
        let reserved = self.depth.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |depth| {
            let room = room(depth);
            (room >= least).then_some(depth + room)
        });
        reserved.map_or(0, room)
    }

    /// Waits until there is room for some of `wanted` updates: how many.
    fn reserve_waiting(&self, wanted: usize, stop: &Receiver<()>) -> Result<usize> {
        // Counted before the first look, so that whoever makes room after it sees that somebody waits.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            if self.closed.load(Ordering::SeqCst) {
                break Err(receiver_gone());
            }
            let room = self.reserve(1, wanted, self.capacity);
            if room > 0 {
                break Ok(room);
            }
            let mut select = Select::new();
            select.recv(&self.space.1);
            let stopped = select.recv(stop);
            if select.ready() == stopped {
                break Err(Error::new(
                    ErrorKind::Stopped,
                    "stopped while waiting for space in the queue",
                ));
            }
            let _ = self.space.1.try_recv();
        };
        let others = self.waiting.fetch_sub(1, Ordering::SeqCst) > 1;
        if others && (self.closed.load(Ordering::SeqCst) || self.depth.load(Ordering::SeqCst) < self.capacity) {
            self.signal_space();
        }
        result
    }

    /// Ends the reservation of updates that left the queue.
    fn give_back(&self, count: usize) {
        let depth = self.depth.fetch_sub(count, Ordering::SeqCst) - count;
        // Not for every single place: a sender that waits should be worth waking.
        if depth < self.capacity - self.capacity / 8 && self.waiting.load(Ordering::SeqCst) > 0 {
            self.signal_space();
        }
    }

    fn signal_space(&self) {
        // Full means that the token is there already.
        let _ = self.space.0.try_send(());
    }

    fn stats(&self) -> QueueStats {
        QueueStats {
            depth: self.depth.load(Ordering::Relaxed),
            capacity: self.capacity,
            coalesced: self.coalesced.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
        }
    }
}
