//! The parts of a node, each made when it is first asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Node;
use super::member::{advertised, of_publisher};
use crate::database::Database;
use crate::dispatcher::{Dispatcher, DispatcherHandle, DispatcherOptions};
use crate::error::Result;
use crate::monitor::{Monitor, MonitorOptions};
use crate::publisher::{Publisher, PublisherOptions, host_name};
use crate::registry::{Discovery, Member, PUBLISHERS, Registration};
use crate::service::{Service, ServiceOptions};
use crate::store::Store;
use crate::subscriber::{Subscriber, SubscriberOptions};
use crate::transport::Driver;

/// The fields drop in order.
#[derive(Default)]
pub(super) struct Parts {
    discovery: Option<Discovery>,
    subscriber: Option<Arc<Subscriber>>,
    dispatcher: Option<Dispatcher>,
    database: Option<Arc<Database>>,
    publisher: Option<Arc<Publisher>>,
    monitors: Vec<Monitor>,
    service: Option<Arc<Service>>,
    /// Dropped after the publisher and the service, so that subscribers that follow the row have the goodbye by then.
    pub(super) registration: Option<Arc<Registration>>,
    pub(super) network: Option<Arc<dyn Driver>>,
    pub(super) store: Option<Arc<dyn Store>>,
    /// The program's own store, instead of the one of the options.
    pub(super) given_store: Option<Arc<dyn Store>>,
}

impl Parts {
    /// Stops the running parts; the rest end as they are dropped.
    pub(super) fn stop(self) {
        if let Some(discovery) = &self.discovery {
            discovery.stop();
        }
        if let Some(subscriber) = &self.subscriber {
            subscriber.stop();
        }
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.stop();
        }
        // The service still passes on the last updates of the monitors and the publisher, and its goodbye.
        Monitor::stop_all(&self.monitors);
        self.monitors
            .iter()
            .for_each(|monitor| log::info!("stopped: {monitor:?}"));
        drop((self.monitors, self.database, self.publisher));
        if let Some(service) = &self.service {
            service.stop();
        }
    }

    fn network(&mut self, node: &Node) -> Result<Arc<dyn Driver>> {
        kept(&mut self.network, || node.drivers.network(&node.config))
    }

    pub(super) fn store(&mut self, node: &Node) -> Result<Arc<dyn Store>> {
        kept(&mut self.store, || {
            let store = match &self.given_store {
                Some(store) => Arc::clone(store),
                None => node.stores.open(&node.config)?,
            };
            #[cfg(feature = "metrics")]
            let store = node.running.lock().timed(store);
            Ok(store)
        })
    }

    pub(super) fn publisher(&mut self, node: &Node) -> Result<Arc<Publisher>> {
        if let Some(publisher) = &self.publisher {
            return Ok(Arc::clone(publisher));
        }
        let config = &node.config;
        let options = PublisherOptions {
            hook: node.hook.clone(),
            ..config.into()
        };
        let publisher = match config.pub_sub_use_multiproc {
            true => Publisher::new(&*node.drivers.multiproc(config)?, options)?,
            false => Publisher::new(&*self.network(node)?, options).map_err(|e| e.context(config.where_bound()))?,
        };
        self.register(node, publisher.address())?;
        let publisher = self.publisher.insert(Arc::new(publisher));
        #[cfg(feature = "metrics")]
        node.running.lock().publisher.replace(Arc::clone(publisher));
        Ok(Arc::clone(publisher))
    }

    pub(super) fn database(&mut self, node: &Node) -> Result<Arc<Database>> {
        let (store, publisher) = (self.store(node)?, self.publisher(node)?);
        let options = (&node.config).into();
        kept(&mut self.database, || {
            Ok(Arc::new(Database::new(store, publisher, options)))
        })
    }

    pub(super) fn dispatcher(&mut self, node: &Node) -> Result<DispatcherHandle> {
        if let Some(dispatcher) = &self.dispatcher {
            return Ok(dispatcher.handle());
        }
        let dispatcher = Dispatcher::new(DispatcherOptions {
            hook: node.hook.clone(),
            ..(&node.config).into()
        })?;
        #[cfg(feature = "metrics")]
        node.running.lock().add_dispatcher(dispatcher.handle());
        Ok(self.dispatcher.insert(dispatcher).handle())
    }

    pub(super) fn subscriber(&mut self, node: &Node) -> Result<Arc<Subscriber>> {
        if let Some(subscriber) = &self.subscriber {
            return Ok(Arc::clone(subscriber));
        }
        let config = &node.config;
        let options = SubscriberOptions {
            hook: node.hook.clone(),
            ..config.into()
        };
        let queue = self.dispatcher(node)?.queue();
        let subscriber = Arc::new(Subscriber::new(self.network(node)?, queue, options));
        for topic in &config.topics {
            subscriber.register_topic(topic)?;
        }
        for address in config.listen_addresses()? {
            let registered = subscriber.register_listen_address(&address);
            registered.map_err(|e| e.context("option publishers"))?;
        }
        subscriber.daemonize()?;
        if config.discover {
            let (store, follower) = (self.store(node)?, Arc::clone(&subscriber));
            let discovery = Discovery::new(store, follower, &config.discover_roles, node.registry())?;
            self.discovery = Some(discovery);
        }
        #[cfg(feature = "metrics")]
        node.running.lock().subscriber.replace(Arc::clone(&subscriber));
        Ok(Arc::clone(self.subscriber.insert(subscriber)))
    }

    /// With `discover`, registers the publisher bound at this address.
    fn register(&mut self, node: &Node, address: Option<String>) -> Result<()> {
        if let Some(address) = address.filter(|_| node.config.discover) {
            let (store, member) = (self.store(node)?, of_publisher(&node.config, &address));
            let advertise = node.config.publisher_advertise.clone();
            let renewal = move |member: &mut Member| member.address = advertised(&advertise, &address);
            let registration = Registration::with_renewal(store, PUBLISHERS, member, node.registry(), true, renewal)?;
            self.registration = Some(Arc::new(registration));
        }
        Ok(())
    }

    pub(super) fn service(&mut self, node: &Node) -> Result<Arc<Service>> {
        if let Some(service) = &self.service {
            return Ok(Arc::clone(service));
        }
        let config = &node.config;
        let (multiproc, network) = (node.drivers.multiproc(config)?, self.network(node)?);
        config.check_socket_folder(true)?;
        let options = ServiceOptions {
            hook: node.hook.clone(),
            ..config.into()
        };
        let service = Service::start(&*multiproc, &config.multiproc_address(), &*network, options).map_err(|e| {
            let socket = &config.publisher_multiproc_socket;
            let context = format!("{}, publisher_multiproc_socket {socket:?}", config.where_bound());
            e.context(context)
        })?;
        self.begin_monitors(node, &*multiproc)?;
        self.register(node, service.address())?;
        let service = self.service.insert(Arc::new(service));
        #[cfg(feature = "metrics")]
        node.running.lock().service.replace(Arc::clone(service));
        Ok(Arc::clone(service))
    }

    /// Starts a monitor for each table of `monitor_tables`, all with one publisher. Their memory is stored under
    /// `publisher_id`, or, if that is empty, the socket of the publisher service, and in a store that hosts share also the
    /// host's name.
    fn begin_monitors(&mut self, node: &Node, multiproc: &dyn Driver) -> Result<()> {
        let config = &node.config;
        if config.monitor_tables.is_empty() {
            return Ok(());
        }
        let store = self.store(node)?;
        let id = match config.publisher_id.as_str() {
            // The file is this host's, which may be a container with another name each time.
            "" if config.nb_db_class == "sqlite" && self.given_store.is_none() => config.multiproc_address(),
            "" => format!("{} {}", host_name(), config.multiproc_address()),
            id => id.to_owned(),
        };
        let options = PublisherOptions {
            // Other processes may have the same options.
            id: (!config.publisher_id.is_empty()).then(|| format!("{id}/monitor").into()),
            hook: node.hook.clone(),
            ..config.into()
        };
        let publisher = Arc::new(Publisher::new(multiproc, options)?);
        let options = MonitorOptions {
            hook: node.hook.clone(),
            ..config.into()
        };
        let tables: BTreeSet<_> = config.monitor_tables.iter().collect();
        let monitors = tables.into_iter().map(|table| {
            let (store, publisher) = (Arc::clone(&store), Arc::clone(&publisher));
            Monitor::new(store, publisher, table, &id, options.clone())
        });
        self.monitors = monitors.collect::<Result<_>>()?;
        #[cfg(feature = "metrics")]
        node.running.lock().set_monitors(&self.monitors);
        Ok(())
    }
}

/// Returns the part, made now if there is none.
fn kept<T: ?Sized>(part: &mut Option<Arc<T>>, make: impl FnOnce() -> Result<Arc<T>>) -> Result<Arc<T>> {
    if let Some(part) = part {
        return Ok(Arc::clone(part));
    }
    Ok(Arc::clone(part.insert(make()?)))
}
