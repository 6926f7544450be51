//! The parts of a node that run, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dispatcher::{DispatcherHandle, Guard};
use crate::event::SyncReason;
use crate::listener::{Latency, Listener, ListenerOutline, ListenerStats, Notifier, NotifierOutline, NotifierStats};
use crate::monitor::{Monitor, MonitorStats};
use crate::publisher::Publisher;
use crate::replica::{Outline, Replica, ReplicaStats};
use crate::service::Service;
use crate::store::Store;
use crate::stores::timed::{TimedStore, Times};
use crate::subscriber::Subscriber;

use super::kept::Kept;

/// Returns counters while their part is there.
type Counters<T> = Box<dyn Fn() -> Option<T> + Send + Sync>;

/// The running parts. What is shared with the node is released as the node stops.
///
/// The program's code may be dropped with a replica, so replicas are looked at without the lock of this.
#[derive(Default)]
pub(crate) struct Running {
    /// The counts for metrics alone; `None` until they are asked for.
    measured: Option<Measured>,
    pub(crate) subscriber: Option<Arc<Subscriber>>,
    pub(crate) dispatcher: Option<DispatcherHandle>,
    pub(crate) publisher: Option<Arc<Publisher>>,
    pub(crate) service: Option<Arc<Service>>,
    monitors: Vec<(String, Counters<MonitorStats>)>,
    replicas: Kept<Outline>,
    listeners: Kept<ListenerOutline>,
    notifiers: Kept<NotifierOutline>,
}

#[derive(Default)]
struct Measured {
    syncs: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    /// Counts into `syncs`.
    hears: Option<Guard>,
    store: Arc<Times>,
}

impl Running {
    /// Begins to count what is counted for metrics alone.
    pub(crate) fn measure(&mut self) {
        self.measured.get_or_insert_default();
        self.measure_dispatcher();
    }

    fn measure_dispatcher(&mut self) {
        let (Some(measured), Some(dispatcher)) = (&mut self.measured, &self.dispatcher) else {
            return;
        };
        if measured.hears.is_some() {
            return;
        }
        dispatcher.measure_lag();
        let syncs = Arc::clone(&measured.syncs);
        let count = move |reason: &SyncReason| *syncs.lock().entry(reason.as_str()).or_default() += 1;
        measured.hears = Some(dispatcher.on_own_sync(count));
    }

    /// The store, whose calls are timed if metrics were asked for.
    pub(super) fn timed(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match &self.measured {
            Some(measured) => Arc::new(TimedStore::new(store, Arc::clone(&measured.store))),
            None => store,
        }
    }

    pub(super) fn add_dispatcher(&mut self, dispatcher: DispatcherHandle) {
        self.dispatcher = Some(dispatcher);
        self.measure_dispatcher();
    }

    pub(super) fn set_monitors(&mut self, monitors: &[Monitor]) {
        let outline = |monitor: &Monitor| (monitor.table().to_owned(), Box::new(monitor.outline()) as _);
        self.monitors = monitors.iter().map(outline).collect();
    }

    pub(super) fn add_replica(&mut self, replica: &Replica) {
        self.replicas.push(replica.outline());
    }

    pub(super) fn add_listener(&mut self, listener: &Listener) {
        self.listeners.push(listener.outline());
    }

    pub(super) fn add_notifier(&mut self, notifier: &Notifier) {
        self.notifiers.push(notifier.outline());
    }

    /// Returns the parts of a node that stops, to be dropped without the lock. Counts of sync events and of the store's
    /// calls go on.
    pub(super) fn end(&mut self) -> (Running, Option<Guard>) {
        let mut before = std::mem::take(self);
        self.measured = before.measured.take();
        let hears = self.measured.as_mut().and_then(|measured| measured.hears.take());
        (before, hears)
    }

    /// The sync events by reason, those that there were.
    pub(crate) fn syncs(&self) -> Option<BTreeMap<&'static str, u64>> {
        self.measured.as_ref().map(|measured| measured.syncs.lock().clone())
    }

    /// The times of the store's calls.
    pub(crate) fn store(&self) -> Option<&Times> {
        self.measured.as_ref().map(|measured| &*measured.store)
    }

    /// The monitors by table.
    pub(crate) fn monitors(&self) -> impl Iterator<Item = (&str, MonitorStats)> {
        let there = self.monitors.iter();
        there.filter_map(|(table, monitor)| Some((table.as_str(), monitor()?)))
    }

    /// The replicas, and the counters of those that are gone.
    pub(crate) fn replicas(&mut self) -> (Vec<Outline>, Option<ReplicaStats>) {
        let (there, gone) = self.replicas.parts();
        (there.to_vec(), gone)
    }

    /// The counters of the listeners, with those that are gone.
    pub(crate) fn listeners(&mut self) -> Vec<ListenerStats> {
        let (there, gone) = self.listeners.parts();
        there.iter().map(ListenerOutline::stats).chain(gone).collect()
    }

    /// The counters of the notifiers, with those that are gone.
    pub(crate) fn notifiers(&mut self) -> Vec<(NotifierStats, Latency)> {
        let (there, gone) = self.notifiers.parts();
        there.iter().map(NotifierOutline::stats).chain(gone).collect()
    }
}
