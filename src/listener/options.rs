//! The options and counters of listeners and notifiers.

use std::fmt;
use std::time::Duration;

use crate::error::ErrorHook;
use crate::registry::RegistryOptions;
use crate::update::Name;

/// The promise for a status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// Exactly one listener processes it, as long as there is one. The default.
    #[default]
    ExactlyOnce,
    /// It is published to one listener, without an answer or a claim. It is lost if that listener has just died, or if
    /// the network loses it.
    AtMostOnce,
}

/// The identity and times of a [`Listener`](super::Listener).
#[derive(Clone)]
pub struct ListenerOptions {
    /// The listener's id, unique among the running ones. A listener that begins under the id of another takes its place
    /// at once; it takes over the other's claims when that has stopped, or has not renewed its row for the timeout.
    /// Default: made from the host's name, the process id and a random number.
    pub id: Option<Name>,
    /// The time without a renewal after which a listener counts as gone; at least 10 ms. The same for all listeners and
    /// notifiers of a store. Default: 10 s.
    pub timeout: Duration,
    /// The interval at which the registered members are read; a quarter of the timeout if that is shorter, and at
    /// least 1 ms. Default: 1 s.
    pub interval: Duration,
    /// How long an unconfirmed claim is kept: the longest time for which a notifier may be cut off in the middle of a
    /// delivery. Updates that have waited for half of it go to other listeners. Default: 10 min.
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

/// The counters of a [`Listener`](super::Listener).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Calls of the handler, also for [`Delivery::AtMostOnce`].
    pub handled: u64,
    /// Those of [`ListenerStats::handled`] that panicked.
    pub failed: u64,
    /// Events taken over from listeners that are gone, except those whose claims had already been removed.
    pub taken_over: u64,
    /// Events left to another listener, which had claimed them.
    pub left: u64,
    /// Events received again, or asked about, after they were processed; they were only answered.
    pub repeated: u64,
    /// Events given back because the listener was stopping.
    pub moved: u64,
    /// Events given back because the store failed, because the listener was no longer registered, or because they had
    /// waited for half of [`ListenerOptions::retention`].
    pub dropped: u64,
    /// Events known here and not confirmed yet, and claims still to be removed.
    pub claims: u64,
}

/// The promise, limits and times of a [`Notifier`](super::Notifier).
#[derive(Clone)]
pub struct NotifierOptions {
    /// The notifier's id. Default: made from the host's name, the process id and a random number.
    pub id: Option<Name>,
    /// The promise. Default: [`Delivery::ExactlyOnce`].
    pub delivery: Delivery,
    /// How long to wait for a listener's answer before asking it, at least 10 ms. The time doubles with each question,
    /// up to 16 times as long. After three unanswered questions another listener is chosen. Default: 1 s.
    pub ack_timeout: Duration,
    /// The most updates under way at a time; others wait. A listener where updates wait long, or many of them, gets
    /// fewer. Default: 256.
    pub window: usize,
    /// The most updates that wait or are under way. Default: 65,536.
    pub capacity: usize,
    /// How long [`Notifier::notify`](super::Notifier::notify) waits at this capacity. Default: 1 s.
    pub notify_timeout: Duration,
    /// The time without a renewal after which a listener counts as gone; at least 10 ms. The same for all listeners and
    /// notifiers of a store. Default: 10 s.
    pub timeout: Duration,
    /// The interval at which the registered members are read; a quarter of the timeout if that is shorter, and at
    /// least 1 ms. Default: 1 s.
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

/// The counters of a [`Notifier`](super::Notifier).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifierStats {
    /// Updates passed to [`Notifier::notify`](super::Notifier::notify).
    pub notified: u64,
    /// Published messages with updates; an update may need several.
    pub sent: u64,
    /// Messages that repeated an update.
    pub retried: u64,
    /// Updates that a listener has processed, as its answer says.
    pub acknowledged: u64,
    /// Those of [`NotifierStats::acknowledged`] for which the listener's handler panicked.
    pub failed: u64,
    /// Updates that are not yet acknowledged.
    pub pending: u64,
}
