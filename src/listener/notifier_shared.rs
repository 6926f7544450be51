//! The state of a notifier that its handle and its worker share.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::choice::Choice;
use super::latency::Latency;
use super::options::{NotifierOptions, NotifierStats};
use crate::error::{Error, ErrorKind};
use crate::publisher::Publisher;
use crate::registry::Member;

pub(super) struct NotifierShared {
    pub(super) publisher: Arc<Publisher>,
    pub(super) options: NotifierOptions,
    pub(super) state: Arc<Mutex<State>>,
    /// Signalled when fewer updates are pending, other listeners are alive, or the notifier was stopped.
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) stats: NotifierStats,
    pub(super) latency: Latency,
    pub(super) listeners: Vec<Member>,
    /// The choice for [`Delivery::AtMostOnce`].
    pub(super) choice: Choice,
    pub(super) stopped: bool,
}

impl NotifierShared {
    pub(super) fn new(publisher: &Arc<Publisher>, options: NotifierOptions) -> Arc<NotifierShared> {
        Arc::new(NotifierShared {
            publisher: Arc::clone(publisher),
            options,
            state: Arc::default(),
            changed: Condvar::new(),
        })
    }

    /// Counts a send, just before or after it.
    pub(super) fn sent(&self, again: bool) {
        let mut state = self.state.lock();
        state.stats.sent += 1;
        state.stats.retried += u64::from(again);
    }

    pub(super) fn processed(&self, failed: bool, took: Duration) {
        let mut state = self.state.lock();
        state.stats.pending -= 1;
        state.stats.acknowledged += 1;
        state.stats.failed += u64::from(failed);
        state
            .latency
            .record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        drop(state);
        self.changed.notify_all();
    }
}

pub(super) fn no_listener() -> Error {
    Error::new(ErrorKind::Unavailable, "no listener is alive to take status updates")
}
