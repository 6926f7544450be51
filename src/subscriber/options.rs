//! Options and counts of a subscriber.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Resubscribe;
use crate::error::ErrorHook;

/// Limits and times of a [`Subscriber`](super::Subscriber).
#[derive(Clone)]
pub struct SubscriberOptions {
    /// A larger payload is counted as malformed and skipped, unless it is an array of updates of up to 64 KiB. Default:
    /// 16 MiB.
    pub max_message_bytes: usize,
    /// A longer topic cannot be registered. Default: 65,536 bytes.
    pub max_topic_bytes: usize,
    /// Time within which a connected publisher has to answer; after that it is taken for one that sends no hellos.
    /// Default: 2 s.
    pub live_timeout: Duration,
    /// The first wait before a failed operation is tried again; it doubles up to `retry_max`. Default: 100 ms.
    pub retry_interval: Duration,
    /// The longest wait between two tries. Default: 2 s.
    pub retry_max: Duration,
    /// Approximate interval at which a live publisher is probed. A publisher that does not answer is reported lost
    /// within three intervals. Best equal to the publishers' `hello_interval_ms`. Default: 1 s.
    pub hello_interval: Duration,
    /// Search for losses. If false, the subscriber reports no gap, restart or silence. Default: true.
    pub continuity: bool,
    /// While an address is in the state [`NoHello`](super::AddressState::NoHello), or once an update without a number
    /// has arrived on a registered topic, the program gets a sync event for all topics at least once per this time (100
    /// ms or more): [`SyncReason::NoHellos`](crate::SyncReason::NoHellos), unless another one came first. Default:
    /// zero, which means never.
    pub resync_without_hellos: Duration,
    /// Policy for the topics when the connection to a live address is lost. Default: [`Resubscribe::Automatic`].
    pub resubscribe: Resubscribe,
    /// Called for every failure in the background. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for SubscriberOptions {
    fn default() -> SubscriberOptions {
        SubscriberOptions {
            max_message_bytes: 16 << 20,
            max_topic_bytes: 65_536,
            live_timeout: Duration::from_secs(2),
            retry_interval: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            hello_interval: Duration::from_secs(1),
            continuity: true,
            resync_without_hellos: Duration::ZERO,
            resubscribe: Resubscribe::Automatic,
            hook: None,
        }
    }
}

impl fmt::Debug for SubscriberOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberOptions")
            .field("max_message_bytes", &self.max_message_bytes)
            .field("max_topic_bytes", &self.max_topic_bytes)
            .field("live_timeout", &self.live_timeout)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Subscriber`](super::Subscriber) since it was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStats {
    /// Frames received.
    pub received: u64,
    /// Frames of topics that are not registered: ZeroMQ matches topics by prefix.
    pub filtered: u64,
    /// Updates that went into the queue.
    pub decoded: u64,
    /// Frames that were not a valid message.
    pub malformed: u64,
    /// Sync events that this subscriber emitted.
    pub syncs: u64,
    /// Failures in the background.
    pub errors: u64,
    /// Updates dropped because they had already been delivered, or had been declared missing.
    pub duplicates: u64,
    /// Number of times that numbers were found to be missing.
    pub gaps: u64,
    /// Number of missing numbers.
    pub lost: u64,
    /// Updates without numbers, whose losses cannot be noticed.
    pub unnumbered: u64,
    /// Number of times that two publishers were found to use the same id.
    pub clashes: u64,
    /// Hellos and goodbyes received.
    pub hellos: u64,
}

/// The counts, written by one thread and read by others.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; 12]);

impl Counts {
    pub(super) fn set(&self, stats: &SubscriberStats) {
        for (count, value) in self.0.iter().zip(stats.to_array()) {
            count.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> SubscriberStats {
        SubscriberStats::from_array(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

macro_rules! array {
    ($($field:ident),*) => {
        impl SubscriberStats {
            fn to_array(self) -> [u64; 12] {
                [$(self.$field),*]
            }

            fn from_array([$($field),*]: [u64; 12]) -> SubscriberStats {
                SubscriberStats { $($field),* }
            }
        }
    };
}

array!(
    received, filtered, decoded, malformed, syncs, errors, duplicates, gaps, lost, unnumbered, clashes, hellos
);
