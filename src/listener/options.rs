//! Options and counts of listeners and notifiers.

use std::fmt;
use std::time::Duration;

use crate::error::ErrorHook;
use crate::registry::RegistryOptions;
use crate::update::Name;

/// Promise for a status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// It is processed by exactly one listener, as long as one is there. The default.
    #[default]
    ExactlyOnce,
    /// It is published to one listener, and nothing more is done: no answer is waited for, nothing is claimed. It is lost
    /// if that listener has just died, or the network loses it.
    AtMostOnce,
}

/// Identity and times of a [`Listener`](super::Listener).
#[derive(Clone)]
pub struct ListenerOptions {
    /// The listener's id, unique among those that run at a time. One that begins under the id of another takes its
    /// place at once; what that one has claimed is taken over when it has stopped, or has not renewed its row for the timeout. Default: made from the host's name, the process id and a random number.
    pub id: Option<Name>,
    /// Time after which a listener that has not renewed its registration is gone; at least 10 ms. The same for all
    /// listeners and notifiers of a store. Default: 10 s.
    pub timeout: Duration,
    /// Interval at which the registered members are read, but at least four times within the timeout, and at most every
    /// millisecond. Default: 1 s.
    pub interval: Duration,
    /// Time that an unconfirmed claim is kept because the notifier is gone or cut off: the longest time for which a
    /// notifier may be cut off in the middle of a delivery. Default: 10 min.
    pub retention: Duration,
    /// Called with every failure in the background, and every panic of the handler. Default: none; they are logged in
    /// any case.
    pub hook: Option<ErrorHook>,
}

impl Default for ListenerOptions {
    fn default() -> ListenerOptions {
        ListenerOptions {
            id: None,
            timeout: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            retention: Duration::from_secs(600),
            hook: None,
        }
    }
}

impl ListenerOptions {
    pub(super) fn registry(&self) -> RegistryOptions {
        RegistryOptions {
            timeout: self.timeout,
            interval: self.interval,
            hook: self.hook.clone(),
        }
    }
}

impl fmt::Debug for ListenerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerOptions")
            .field("id", &self.id)
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Listener`](super::Listener).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Updates that the handler was called with, also those of [`Delivery::AtMostOnce`].
    pub handled: u64,
    /// Those of [`ListenerStats::handled`] with which it panicked.
    pub failed: u64,
    /// Events that were taken over from listeners that are gone, not counting those whose claims had been removed already.
    pub taken_over: u64,
    /// Events that were left to another listener, which had claimed them.
    pub left: u64,
    /// Events that came again, or were asked about, after they were processed, and were only answered.
    pub repeated: u64,
    /// Events that were sent back, because the listener was stopping.
    pub moved: u64,
    /// Events that were sent back, for another listener to take: the store did not answer, or the listener was not registered any more.
    pub dropped: u64,
    /// Events that were claimed and not confirmed yet.
    pub claims: u64,
}

/// Promise, limits and times of a [`Notifier`](super::Notifier).
#[derive(Clone)]
pub struct NotifierOptions {
    /// The notifier's id. Default: made from the host's name, the process id and a random number.
    pub id: Option<Name>,
    /// The promise. Default: [`Delivery::ExactlyOnce`].
    pub delivery: Delivery,
    /// Time to wait for a listener's answer before it is asked, at least 10 ms. It doubles with each question, up to 16
    /// times as long. After three that are not answered another listener is chosen. Default: 1 s.
    pub ack_timeout: Duration,
    /// Maximum of updates that are on their way at a time; others wait for their answers. To a listener that is slow,
    /// or has much waiting, there are fewer. Default: 256.
    pub window: usize,
    /// Maximum of updates that wait or are on their way. Default: 65,536.
    pub capacity: usize,
    /// Time that [`Notifier::notify`](super::Notifier::notify) waits at this capacity. Default: 1 s.
    pub notify_timeout: Duration,
    /// Time after which a listener that has not renewed its registration is gone; at least 10 ms. The same for all
    /// listeners and notifiers of a store. Default: 10 s.
    pub timeout: Duration,
    /// Interval at which the registered members are read, but at least four times within the timeout, and at most every
    /// millisecond. Default: 1 s.
    pub interval: Duration,
    /// Called with every failure in the background. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for NotifierOptions {
    fn default() -> NotifierOptions {
        NotifierOptions {
            id: None,
            delivery: Delivery::default(),
            ack_timeout: Duration::from_secs(1),
            window: 256,
            capacity: 65_536,
            notify_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            hook: None,
        }
    }
}

impl NotifierOptions {
    pub(super) fn registry(&self) -> RegistryOptions {
        RegistryOptions {
            timeout: self.timeout,
            interval: self.interval,
            hook: self.hook.clone(),
        }
    }
}

impl fmt::Debug for NotifierOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifierOptions")
            .field("id", &self.id)
            .field("delivery", &self.delivery)
            .field("ack_timeout", &self.ack_timeout)
            .field("window", &self.window)
            .field("capacity", &self.capacity)
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Notifier`](super::Notifier).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifierStats {
    /// Updates that were given to it.
    pub notified: u64,
    /// Messages with updates that it has published; an update may need several.
    pub sent: u64,
    /// Messages that followed another one with the same update.
    pub retried: u64,
    /// Updates of which a listener has answered that they are processed.
    pub acknowledged: u64,
    /// Those of [`NotifierStats::acknowledged`] with which the listener's handler panicked.
    pub failed: u64,
    /// Updates that are not yet acknowledged.
    pub pending: u64,
}
