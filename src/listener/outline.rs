//! The counters of listeners and notifiers, for metrics.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::event_table::EventTable;
use super::latency::Latency;
use super::listener_shared::ListenerShared;
use super::notifier_shared::{NotifierShared, State};
use super::options::{ListenerStats, NotifierStats};

/// Looks at a listener.
pub(crate) struct ListenerOutline(Weak<ListenerShared>, Arc<Mutex<EventTable>>);

impl ListenerOutline {
    pub(super) fn of(shared: &Arc<ListenerShared>) -> ListenerOutline {
        ListenerOutline(Arc::downgrade(shared), Arc::clone(&shared.events))
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
pub(crate) struct NotifierOutline(Weak<NotifierShared>, Arc<Mutex<State>>);

impl NotifierOutline {
    pub(super) fn of(shared: &Arc<NotifierShared>) -> NotifierOutline {
        NotifierOutline(Arc::downgrade(shared), Arc::clone(&shared.state))
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
