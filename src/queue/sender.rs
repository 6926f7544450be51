//! The sending end.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::backlog::Put;
use super::between::{Batch, Queue, receiver_gone};
use super::{Overflow, QueueStats};
use crate::error::Result;
use crate::event::SyncReason;
use crate::update::DbUpdate;

/// The sending end; clones send to the same queue. Updates of one row sent through one of them are handed out in that
/// order.
#[derive(Clone)]
pub struct QueueSender {
    queue: Arc<Queue>,
    channel: Sender<Batch>,
}

impl QueueSender {
    pub(super) fn new(queue: Arc<Queue>, channel: Sender<Batch>) -> QueueSender {
        QueueSender { queue, channel }
    }

    /// Takes all updates out of `updates` and puts them into the queue, or handles them as [`Overflow`] says.
    ///
    /// Only [`Overflow::Block`] ever waits. The wait ends when there is room, when a message is in `stop` (it is left
    /// there), or when `stop` is disconnected. Pass [`crossbeam_channel::never`] to wait for room alone.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) if `stop` ended the wait (`updates` then holds what was not
    /// sent), or if the receiver is gone.
    pub fn push(&self, updates: &mut Vec<DbUpdate>, stop: &Receiver<()>) -> Result<()> {
        if self.queue.closed.load(Ordering::SeqCst) {
            return Err(receiver_gone());
        }
        let limit = match self.queue.overflow {
            // The other half belongs to the backlog, which needs room to be of use.
            Overflow::Coalesce => self.queue.capacity / 2,
            Overflow::Block | Overflow::DropAndSync => self.queue.capacity,
        };
        let wanted = updates.len();
        // Nothing may overtake the backlog: while it is filled, everything goes through it.
        if !self.queue.backlog.is_filled() && self.queue.reserve(wanted, wanted, limit) == wanted {
            return match wanted {
                0 => Ok(()),
                _ => self.send(mem::replace(updates, self.queue.empty_batch(wanted))),
            };
        }
        match self.queue.overflow {
            Overflow::Coalesce => self.push_coalescing(updates),
            Overflow::Block => self.push_waiting(updates, stop),
            Overflow::DropAndSync => self.push_what_fits(updates),
        }
    }

    /// Puts a sync event before the pending updates. Never blocks, and never loses an event: an event that is already
    /// pending is handed out once, with numbers added up, and many events are joined by kind.
    ///
    /// Each kind is bounded on its own: 64 gaps and 64 restarts with 64 KiB of names; 1,024 events about addresses with
    /// 1 MiB of names; the silence of 1,024 publishers with 64 KiB of names. Gaps and restarts beyond that become one
    /// [`SyncReason::Joined`], with at most 131,072 topics and 8 MiB of their names, or for every topic; the same holds
    /// for [`SyncReason::Unproven`]. [`SyncReason::Cleared`] and [`SyncReason::Resubscribed`] name what the program
    /// itself has registered, and are kept as they are.
    pub fn sync(&self, reason: SyncReason) {
        let first = self.queue.tell(reason);
        self.wake_if(first);
    }

    /// Returns the counts since the queue was created.
    pub fn stats(&self) -> QueueStats {
        self.queue.stats()
    }

    /// Values whose memory can be reused.
    pub(crate) fn spare_values(&self) -> Option<Vec<String>> {
        self.queue.values.1.try_recv().ok()
    }

    fn push_coalescing(&self, updates: &mut Vec<DbUpdate>) -> Result<()> {
        let (mut coalesced, mut dropped) = (0, 0);
        let ((), first) = self.queue.backlog.edit(|backlog| {
            for update in updates.drain(..) {
                match backlog.put(update, self.queue.capacity, || self.queue.reserve_one()) {
                    Put::Added => {}
                    Put::Replaced => coalesced += 1,
                    Put::Refused => dropped += 1,
                }
            }
            ((), !backlog.is_empty())
        });
        self.wake_if(first);
        self.queue.coalesced.add(coalesced);
        self.wake_if(self.queue.tell_dropped(dropped));
        Ok(())
    }

    fn push_waiting(&self, updates: &mut Vec<DbUpdate>, stop: &Receiver<()>) -> Result<()> {
        while !updates.is_empty() {
            let room = self.queue.reserve_waiting(updates.len(), stop)?;
            let mut rest = self.queue.empty_batch(updates.len());
            rest.extend(updates.drain(room..));
            self.send(mem::replace(updates, rest))?;
        }
        Ok(())
    }

    fn push_what_fits(&self, updates: &mut Vec<DbUpdate>) -> Result<()> {
        let room = self.queue.reserve(1, updates.len(), self.queue.capacity);
        let dropped = updates.len() - room;
        updates.truncate(room);
        if room > 0 {
            self.send(mem::take(updates))?;
        }
        self.wake_if(self.queue.tell_dropped(dropped as u64));
        Ok(())
    }

    /// Sends a batch for which room is reserved.
    fn send(&self, batch: Vec<DbUpdate>) -> Result<()> {
        self.channel.send(Batch(batch)).map_err(|_| receiver_gone())
    }

    /// Wakes the receiver after the first item was put beside the channel; it takes all of them at once.
    fn wake_if(&self, first: bool) {
        if first {
            // Without a receiver there is no thread to wake.
            let _ = self.send(Vec::new());
        }
    }
}

impl fmt::Debug for QueueSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueSender").field(&self.stats()).finish()
    }
}
