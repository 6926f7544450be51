//! Options and counts of a queue.

use std::time::Duration;

use crate::words::words;

/// Capacity of a queue, and its policy when it is full.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Maximum of pending updates; at least 1. Sync events and updates already handed out do not count. Default:
    /// 65,536.
    pub capacity: usize,
    /// Policy beyond the capacity. Default: [`Overflow::Coalesce`].
    pub overflow: Overflow,
    /// How long more urgent updates may overtake an update, from when the receiver took it in. Default: 1 s.
    pub max_overtake: Duration,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            capacity: 65_536,
            overflow: Overflow::default(),
            max_overtake: Duration::from_secs(1),
        }
    }
}

/// Policy of a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// From half of the capacity on, an update replaces the last pending one of its row, whatever their actions, and
    /// inherits its urgency. If that is not enough, the policy is [`Overflow::DropAndSync`]. Never blocks. The default.
    ///
    /// While the receiver handles an event, additional updates, up to the capacity again, may wait until the receiver
    /// can find out whether they replace any.
    #[default]
    Coalesce,
    /// The sender waits for space.
    Block,
    /// Updates are dropped, and one [`SyncReason::Overflow`](crate::SyncReason::Overflow) states their number. Never
    /// blocks.
    DropAndSync,
}

words!(Overflow of "overflow": Coalesce "coalesce", Block "block", DropAndSync "drop-and-sync");

/// Counts of a queue since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueStats {
    /// Updates pending now.
    pub depth: usize,
    /// Maximum of pending updates.
    pub capacity: usize,
    /// Updates replaced by a newer one of their row.
    pub coalesced: u64,
    /// Updates dropped for lack of room.
    pub dropped: u64,
    /// Waiting updates that were dropped because a callback for [`SyncReason::Overflow`](crate::SyncReason::Overflow)
    /// was about to read the store, which contained them.
    pub covered: u64,
    /// Sync events handed out.
    pub syncs: u64,
}
