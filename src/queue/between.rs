//! The queue between its two ends: its room, its counts, and what waits beside the channel.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};

use super::alerts::Alerts;
use super::backlog::{Aside, Backlog};
use super::line::Line;
use super::{Overflow, QueueStats};
use crate::counter::Counter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::SyncReason;
use crate::update::DbUpdate;

/// A message for [`QueueReceiver::accept`](super::QueueReceiver::accept); an empty one only wakes the receiver.
#[derive(Debug)]
pub struct Batch(pub(super) Vec<DbUpdate>);

/// How many emptied batches, and how many batches of values, are kept. A receiver that serves many senders in turns
/// hands back many values before they come to take them.
const SPARES: usize = 16;
const VALUES: usize = 256;

/// The queue, as both ends share it; the updates themselves are in the channel and in the receiver's heap.
pub(super) struct Queue {
    pub(super) capacity: usize,
    pub(super) overflow: Overflow,
    /// Updates in the channel, the backlog and the heap. A sender reserves before it sends.
    pub(super) depth: AtomicUsize,
    pub(super) closed: AtomicBool,
    pub(super) backlog: Aside<Backlog>,
    pub(super) alerts: Aside<Alerts>,
    /// Senders that wait for room.
    pub(super) line: Aside<Line>,
    /// Emptied batches on their way back to the senders, which saves allocations.
    pub(super) spares: (Sender<Vec<DbUpdate>>, Receiver<Vec<DbUpdate>>),
    /// Values of handled updates, also on their way back.
    pub(super) values: (Sender<Vec<String>>, Receiver<Vec<String>>),
    pub(super) coalesced: Counter,
    dropped: Counter,
    pub(super) covered: Counter,
    pub(super) syncs: Counter,
}

impl Queue {
    pub(super) fn new(capacity: usize, overflow: Overflow) -> Queue {
        Queue {
            capacity: capacity.max(1),
            overflow,
            depth: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            backlog: Aside::default(),
            alerts: Aside::default(),
            line: Aside::default(),
            spares: crossbeam_channel::bounded(SPARES),
            values: crossbeam_channel::bounded(VALUES),
            coalesced: Counter::new(),
            dropped: Counter::new(),
            covered: Counter::new(),
            syncs: Counter::new(),
        }
    }

    /// An empty batch for about this many updates.
    pub(super) fn empty_batch(&self, updates: usize) -> Vec<DbUpdate> {
        let spare = self.spares.1.try_recv();
        spare.unwrap_or_else(|_| Vec::with_capacity(updates))
    }

    /// Reserves room for at most `most` updates within `limit`. Returns how many, or 0 if there is no room for `least`.
    pub(super) fn reserve(&self, least: usize, most: usize, limit: usize) -> usize {
        let room = |depth: usize| most.min(limit.saturating_sub(depth));
        let reserved = self.depth.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |depth| {
            let room = room(depth);
            (room >= least).then_some(depth + room)
        });
        reserved.map_or(0, room)
    }

    /// Reserves room for one update. Returns false if there is none.
    pub(super) fn reserve_one(&self) -> bool {
        self.reserve(1, 1, self.capacity) == 1
    }

    /// Waits until there is room for some of `wanted` updates. Returns how many.
    pub(super) fn reserve_waiting(&self, wanted: usize, stop: &Receiver<()>) -> Result<usize> {
        let ((number, granted), _) = self.line.edit(|line| (line.join(wanted), true));
        if self.closed.load(Ordering::SeqCst) {
            return Err(receiver_gone());
        }
        // The receiver may have made room just before it could see that someone waits.
        self.serve();
        let mut select = Select::new();
        select.recv(&granted);
        let stopped = select.recv(stop);
        let mut is_stopped = false;
        loop {
            match granted.try_recv() {
                Ok(room) => return Ok(room),
                Err(TryRecvError::Disconnected) => return Err(receiver_gone()),
                Err(TryRecvError::Empty) if !is_stopped => {}
                Err(TryRecvError::Empty) => {
                    let context = "stopped while waiting for space in the queue";
                    return Err(Error::new(ErrorKind::Stopped, context));
                }
            }
            is_stopped = select.ready() == stopped;
            if is_stopped {
                self.line.edit(|line| {
                    line.leave(number);
                    ((), !line.is_empty())
                });
            }
        }
    }

    /// Gives room to the senders that wait for it.
    fn serve(&self) {
        let reserve = |wanted: usize| self.reserve(wanted.min(self.worth()), wanted, self.capacity);
        self.line.edit(|line| {
            line.serve(reserve);
            ((), !line.is_empty())
        });
    }

    /// The room that is worth waking a sender for, though it wants more.
    fn worth(&self) -> usize {
        (self.capacity / 8).max(1)
    }

    /// Ends the reservation of updates that left the queue.
    pub(super) fn give_back(&self, count: usize) {
        let depth = self.depth.fetch_sub(count, Ordering::SeqCst) - count;
        if depth + self.worth() <= self.capacity && self.line.is_filled() {
            self.serve();
        }
    }

    /// Adds a sync event. Returns true if the receiver may be asleep and must be woken.
    pub(super) fn tell(&self, reason: SyncReason) -> bool {
        let put = |alerts: &mut Alerts| {
            let before = alerts.waiting();
            alerts.put(reason);
            // Beside a pending overflow, which waits, this may be the first event that does not wait.
            (before == 0 && alerts.waiting() > 0, true)
        };
        let (first_at_once, first) = self.alerts.edit(put);
        first_at_once || first
    }

    /// Counts and reports this many dropped updates; returns as [`Queue::tell`].
    pub(super) fn tell_dropped(&self, dropped: u64) -> bool {
        if dropped == 0 {
            return false;
        }
        self.dropped.add(dropped);
        self.tell(SyncReason::Overflow { dropped })
    }

    pub(super) fn stats(&self) -> QueueStats {
        QueueStats {
            depth: self.depth.load(Ordering::Relaxed),
            capacity: self.capacity,
            coalesced: self.coalesced.get(),
            dropped: self.dropped.get(),
            covered: self.covered.get(),
            syncs: self.syncs.get(),
        }
    }
}

pub(super) fn receiver_gone() -> Error {
    Error::new(ErrorKind::Stopped, "the queue's receiver is gone")
}
