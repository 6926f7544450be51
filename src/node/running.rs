//! The parts of a node that run, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dispatcher::{DispatcherHandle, Guard};
use crate::event::SyncReason;
use crate::listener::{Latency, Listener, ListenerStats, Notifier, NotifierStats};
use crate::monitor::{Monitor, MonitorStats};
use crate::publisher::Publisher;
use crate::replica::{Outline, Replica};
use crate::service::Service;
use crate::store::Store;
use crate::stores::timed::{TimedStore, Times};
use crate::subscriber::Subscriber;

/// Returns counters while their part is there.
type Counters<T> = Box<dyn Fn() -> Option<T> + Send + Sync>;

/// The running parts. What is shared with the node is released as the node stops.
///
/// The program's code may be dropped with a replica, so replicas are looked at without the lock of this.
#[derive(Default)]
pub(crate) struct Running {
    /// What is counted for metrics alone; `None` until they are asked for.
    measured: Option<Measured>,
    pub(crate) subscriber: Option<Arc<Subscriber>>,
    pub(crate) dispatcher: Option<DispatcherHandle>,
    pub(crate) publisher: Option<Arc<Publisher>>,
    pub(crate) service: Option<Arc<Service>>,
    monitors: Vec<(String, Counters<MonitorStats>)>,
    replicas: Vec<Outline>,
    listeners: Vec<Counters<ListenerStats>>,
    notifiers: Vec<Counters<(NotifierStats, Latency)>>,
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
        self.replicas.retain(Outline::is_there);
        self.replicas.push(replica.outline());
    }

    pub(super) fn add_listener(&mut self, listener: &Listener) {
        self.listeners.retain(|listener| listener().is_some());
        self.listeners.push(Box::new(listener.outline()));
    }

    pub(super) fn add_notifier(&mut self, notifier: &Notifier) {
        self.notifiers.retain(|notifier| notifier().is_some());
        self.notifiers.push(Box::new(notifier.outline()));
    }

    /// Releases the parts of a node that stops. Counts of sync events and of the store's calls go on.
    pub(super) fn end(&mut self) {
        let measured = self.measured.take().map(|measured| Measured {
            hears: None,
            ..measured
        });
        *self = Running {
            measured,
            ..Running::default()
        };
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

    pub(crate) fn replicas(&self) -> Vec<Outline> {
        let there = self.replicas.iter().filter(|replica| replica.is_there());
        there.cloned().collect()
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = ListenerStats> {
        self.listeners.iter().filter_map(|listener| listener())
    }

    pub(crate) fn notifiers(&self) -> impl Iterator<Item = (NotifierStats, Latency)> {
        self.notifiers.iter().filter_map(|notifier| notifier())
    }
}
