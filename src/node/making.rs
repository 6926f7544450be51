//! The making of a node's parts, each when it is first asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Node;
use super::member::{advertised, of_publisher};
use super::parts::Parts;
use crate::config::split_key;
use crate::database::Database;
use crate::dispatcher::{Dispatcher, DispatcherOptions};
use crate::error::Result;
use crate::identity::host_name;
use crate::monitor::{Monitor, MonitorOptions};
use crate::publisher::{Publisher, PublisherOptions};
use crate::registry::{Discovery, Keep, Member, PUBLISHERS, Registration};
use crate::service::{Service, ServiceOptions};
use crate::store::Store;
use crate::subscriber::{Subscriber, SubscriberOptions};
use crate::transport::Driver;

impl Node {
    /// Returns a part, made now if there is none.
    ///
    /// One thread makes parts at a time, so that none is made twice. It holds no lock of the parts that are there: a
    /// factory of the program may ask the node for others.
    pub(super) fn kept<T: Clone>(
        &self,
        place: impl Fn(&mut Parts) -> &mut Option<T>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let there = || place(&mut self.parts.lock()).clone();
        if let Some(part) = there() {
            return Ok(part);
        }
        let _making = self.making.lock();
        if let Some(part) = there() {
            return Ok(part);
        }
        let made = make()?;
        // A factory may have asked for the same one, which stays. The other is dropped without the lock.
        let kept = place(&mut self.parts.lock())
            .get_or_insert_with(|| made.clone())
            .clone();
        Ok(kept)
    }

    fn network(&self) -> Result<Arc<dyn Driver>> {
        match &self.given_network {
            Some(network) => Ok(Arc::clone(network)),
            None => self.kept(|parts| &mut parts.network, || self.drivers.network(&self.config)),
        }
    }

    pub(super) fn make_store(&self) -> Result<Arc<dyn Store>> {
        let store = match &self.given_store {
            Some(store) => Arc::clone(store),
            None => self.stores.open(&self.config)?,
        };
        #[cfg(feature = "metrics")]
        let store = self.running.lock().timed(store);
        Ok(store)
    }

    pub(super) fn make_publisher(&self) -> Result<Arc<Publisher>> {
        let config = &self.config;
        let options = PublisherOptions {
            hook: self.hook.clone(),
            ..config.into()
        };
        let publisher = match config.pub_sub_use_multiproc {
            true => Publisher::new(&*self.drivers.multiproc(config)?, options)?,
            false => Publisher::new(&*self.network()?, options).map_err(|e| e.context(config.where_bound()))?,
        };
        self.register(publisher.address())?;
        let publisher = Arc::new(publisher);
        #[cfg(feature = "metrics")]
        let _before = self.running.lock().publisher.replace(Arc::clone(&publisher));
        Ok(publisher)
    }

    pub(super) fn make_database(&self) -> Result<Arc<Database>> {
        let (store, publisher) = (self.store()?, self.publisher()?);
        let options = (&self.config).into();
        Ok(Arc::new(Database::new(store, publisher, options)))
    }

    pub(super) fn make_dispatcher(&self) -> Result<Arc<Dispatcher>> {
        let dispatcher = Dispatcher::new(DispatcherOptions {
            hook: self.hook.clone(),
            ..(&self.config).into()
        })?;
        #[cfg(feature = "metrics")]
        self.running.lock().add_dispatcher(dispatcher.handle());
        Ok(Arc::new(dispatcher))
    }

    pub(super) fn make_subscriber(&self) -> Result<Arc<Subscriber>> {
        let config = &self.config;
        let options = SubscriberOptions {
            hook: self.hook.clone(),
            ..config.into()
        };
        let queue = self.dispatcher()?.queue();
        let subscriber = Arc::new(Subscriber::new(self.network()?, queue, options));
        for topic in &config.topics {
            subscriber.register_topic(topic)?;
        }
        for address in config.listen_addresses()? {
            let registered = subscriber.register_listen_address(&address);
            registered.map_err(|e| e.context("option publishers"))?;
        }
        // First, since a subscriber that runs may be in the program's hook when it is dropped.
        let store = config.discover.then(|| self.store()).transpose()?;
        subscriber.daemonize()?;
        if let Some(store) = store {
            let follower = Arc::clone(&subscriber);
            let discovery = Discovery::new(store, follower, &config.discover_roles, self.registry())?;
            let _before = self.parts.lock().discovery.replace(discovery);
        }
        #[cfg(feature = "metrics")]
        let _before = self.running.lock().subscriber.replace(Arc::clone(&subscriber));
        Ok(subscriber)
    }

    /// With `discover`, registers the publisher bound at this address.
    fn register(&self, address: Option<String>) -> Result<()> {
        // All publishers share the servers, which subscribers know.
        let is_shared = self.given_network.is_none() && self.config.pub_sub_driver == "redis";
        if let Some(address) = address.filter(|_| self.config.discover && !is_shared) {
            let (store, mut member) = (self.store()?, of_publisher(&self.config, &address));
            let registrations = self.parts.lock().registrations.clone();
            if registrations.iter().any(|other| other.member().id == member.id) {
                // A publisher and a service of one `publisher_id`.
                member.id = format!("{} {}", member.id, split_key(&address).0);
            }
            let advertise = self.config.publisher_advertise.clone();
            let renewal = move |member: &mut Member| member.address = advertised(&advertise, &address);
            let registration =
                Registration::with_renewal(store, PUBLISHERS, member, self.registry(), Keep::Followed, renewal)?;
            self.parts.lock().registrations.push(Arc::new(registration));
        }
        Ok(())
    }

    pub(super) fn make_service(&self) -> Result<Arc<Service>> {
        let config = &self.config;
        let (multiproc, network) = (self.drivers.multiproc(config)?, self.network()?);
        config.check_socket_folder(true)?;
        let options = ServiceOptions {
            hook: self.hook.clone(),
            ..config.into()
        };
        let local = Service::bind_local(&*multiproc, &config.multiproc_address());
        let local = local.map_err(|e| e.context("option publisher_multiproc_socket"))?;
        let service = Service::begin(local, &*network, options).map_err(|e| e.context(config.where_bound()))?;
        self.begin_monitors(&*multiproc)?;
        self.register(service.address())?;
        let service = Arc::new(service);
        #[cfg(feature = "metrics")]
        let _before = self.running.lock().service.replace(Arc::clone(&service));
        Ok(service)
    }

    /// Starts a monitor for each table of `monitor_tables`, all with one publisher. Their memory is stored under
    /// `publisher_id`, or, if that is empty, the socket of the publisher service, and in a store that hosts share also
    /// the host's name.
    fn begin_monitors(&self, multiproc: &dyn Driver) -> Result<()> {
        let config = &self.config;
        if config.monitor_tables.is_empty() {
            return Ok(());
        }
        let store = self.store()?;
        let id = match config.publisher_id.as_str() {
            // The file is this host's, which may be a container with another name each time.
            "" if config.nb_db_class == "sqlite" && self.given_store.is_none() => config.multiproc_address(),
            "" => format!("{} {}", host_name(), config.multiproc_address()),
            id => id.to_owned(),
        };
        let options = PublisherOptions {
            // Other processes may have the same options.
            id: (!config.publisher_id.is_empty()).then(|| format!("{id}/monitor").into()),
            hook: self.hook.clone(),
            ..config.into()
        };
        let publisher = Arc::new(Publisher::new(multiproc, options)?);
        let options = MonitorOptions {
            hook: self.hook.clone(),
            ..config.into()
        };
        let tables: BTreeSet<_> = config.monitor_tables.iter().collect();
        let monitors = tables.into_iter().map(|table| {
            let (store, publisher) = (Arc::clone(&store), Arc::clone(&publisher));
            Monitor::new(store, publisher, table, &id, options.clone())
        });
        let monitors: Vec<_> = monitors.collect::<Result<_>>()?;
        #[cfg(feature = "metrics")]
        self.running.lock().set_monitors(&monitors);
        let _before = std::mem::replace(&mut self.parts.lock().monitors, monitors);
        Ok(())
    }
}
