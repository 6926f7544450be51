//! The counters of listeners and notifiers, for metrics.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::desk::Desk;
use super::docket::Docket;
use super::latency::Latency;
use super::options::{ListenerStats, NotifierStats};
use super::tally::{State, Tally};

/// Looks at a listener.
pub(crate) struct ListenerOutline(Weak<Desk>, Arc<Mutex<Docket>>);

impl ListenerOutline {
    pub(super) fn of(desk: &Arc<Desk>) -> ListenerOutline {
        ListenerOutline(Arc::downgrade(desk), Arc::clone(&desk.docket))
    }

    /// False once the listener is gone, and counts nothing more.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        self.1.lock().stats()
    }
}

/// Looks at a notifier.
pub(crate) struct NotifierOutline(Weak<Tally>, Arc<Mutex<State>>);

impl NotifierOutline {
    pub(super) fn of(tally: &Arc<Tally>) -> NotifierOutline {
        NotifierOutline(Arc::downgrade(tally), Arc::clone(&tally.state))
    }

    /// False once the notifier is gone, and counts nothing more.
    pub(crate) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The counters, and the times to acknowledgements.
    pub(crate) fn stats(&self) -> (NotifierStats, Latency) {
        let state = self.1.lock();
        (state.stats, state.latency.clone())
    }
}
