//! The parts of a node, as they are there and stop.

use std::sync::Arc;

use crate::database::Database;
use crate::dispatcher::Dispatcher;
use crate::monitor::Monitor;
use crate::publisher::Publisher;
use crate::registry::{Discovery, Registration};
use crate::service::Service;
use crate::store::Store;
use crate::subscriber::Subscriber;
use crate::transport::Driver;

/// The fields drop in order.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) discovery: Option<Discovery>,
    pub(super) dispatcher: Option<Arc<Dispatcher>>,
    pub(super) database: Option<Arc<Database>>,
    pub(super) publisher: Option<Arc<Publisher>>,
    pub(super) monitors: Vec<Monitor>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) subscriber: Option<Arc<Subscriber>>,
    /// Stopped after the publisher and the service, so that subscribers that follow the row have the goodbye by then.
    pub(super) registrations: Vec<Arc<Registration>>,
    pub(super) network: Option<Arc<dyn Driver>>,
    pub(super) store: Option<Arc<dyn Store>>,
}

impl Parts {
    /// Stops the running parts; the rest end as they are dropped.
    ///
    /// Threads that wait for the same silent store are told together: it costs the time of one.
    pub(super) fn stop(self) {
        self.discovery.iter().for_each(Discovery::tell);
        self.monitors.iter().for_each(Monitor::tell);
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.stop();
        }
        if let Some(discovery) = &self.discovery {
            discovery.stop();
        }
        // The service still passes on the last updates of the monitors and the publisher, and its goodbye.
        for monitor in &self.monitors {
            monitor.stop();
            log::info!("stopped: {monitor:?}");
        }
        drop((self.monitors, self.database, self.publisher));
        if let Some(service) = &self.service {
            service.stop();
        }
        // Until here it takes what the node's own publisher sends: libzmq waits for a peer that goes just before the end.
        if let Some(subscriber) = &self.subscriber {
            subscriber.stop();
        }
        // The program may still hold them.
        self.registrations.iter().for_each(|registration| registration.tell());
        self.registrations.iter().for_each(|registration| registration.stop());
    }
}
