//! All parts that the options describe, opened on request and stopped together.
//!
//! ```
//! use std::time::Duration;
//! use tablecast::store::Write;
//! use tablecast::{Config, DbUpdate, Node};
//!
//! # fn main() -> tablecast::Result<()> {
//! // In a program: Config::load(None)?
//! let node = Node::open(&Config::in_memory("example"))?;
//! let (updates, received) = crossbeam_channel::unbounded::<DbUpdate>();
//! node.dispatcher()?.on_table("lport", updates).detach();
//! node.subscriber()?.wait_live(Duration::from_secs(5))?;
//!
//! let database = node.database()?;
//! database.write(&Write::create("lport", "port-1", r#"{"chassis":"host1"}"#), DbUpdate::DEFAULT_PRIORITY)?;
//! assert_eq!(received.recv_timeout(Duration::from_secs(5)).unwrap().key, "port-1");
//! # Ok(())
//! # }
//! ```

mod builder;
#[cfg(feature = "metrics")]
mod kept;
mod making;
mod member;
mod options;
mod parts;
#[cfg(feature = "metrics")]
mod running;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, ReentrantMutex};

use crate::config::Config;
use crate::database::Database;
use crate::dispatcher::DispatcherHandle;
use crate::drivers::Drivers;
use crate::error::{ErrorHook, Result};
use crate::listener::{Listener, ListenerOptions, Notifier, NotifierOptions};
use crate::publisher::Publisher;
use crate::registry::{Registration, RegistryOptions};
use crate::replica::{Replica, ReplicaOptions};
use crate::service::Service;
use crate::store::Store;
use crate::stores::Stores;
use crate::subscriber::Subscriber;
use crate::transport::Driver;
use crate::update::DbUpdate;
use parts::Parts;

pub use builder::NodeBuilder;
#[cfg(feature = "metrics")]
pub(crate) use running::Running;

/// The parts that connect a program to the network, as one [`Config`] describes them; [the module](self) has an
/// example.
///
/// Each part is created on first use and shared from then on, except replicas, listeners and notifiers: each call makes
/// another one, which is the caller's. Dropping the node stops its parts in the right order: first the callbacks, then
/// the publisher, which sends a goodbye, or the service, and the subscriber last. A publisher, database or store that
/// the program still holds stays open until it is dropped. Drop replicas, listeners and notifiers before the node:
/// without its subscriber and dispatcher they receive nothing more.
///
/// Parts are made by one thread at a time. A factory that is called then may ask the node, on its own thread, for parts
/// that do not need what it makes.
pub struct Node {
    config: Config,
    drivers: Drivers,
    stores: Stores,
    hook: Option<ErrorHook>,
    /// The program's own, instead of those of the options.
    given_network: Option<Arc<dyn Driver>>,
    given_store: Option<Arc<dyn Store>>,
    parts: Mutex<Parts>,
    /// Held by the thread that makes parts, or gathers some, which must be of one time between two stops.
    making: ReentrantMutex<()>,
    #[cfg(feature = "metrics")]
    running: Arc<Mutex<Running>>,
}

impl Node {
    /// Returns the options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the store of the option `nb_db_class`.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.kept(|parts| &mut parts.store, || self.make_store())
    }

    /// Returns the publisher. It sends through the publisher service of this host, or, without `pub_sub_use_multiproc`,
    /// binds to the network itself. With `discover` a bound publisher is registered in the store.
    ///
    /// # Errors
    /// As [`Publisher::new`], and those of the store with `discover`.
    pub fn publisher(&self) -> Result<Arc<Publisher>> {
        self.kept(|parts| &mut parts.publisher, || self.make_publisher())
    }

    /// Returns a store whose changes are published: [`Node::store`] and [`Node::publisher`] together.
    ///
    /// # Errors
    /// As [`Node::store`] and [`Node::publisher`].
    pub fn database(&self) -> Result<Arc<Database>> {
        self.kept(|parts| &mut parts.database, || self.make_database())
    }

    /// Returns the dispatcher, whose callbacks get the subscriber's updates. Register them before the first call of
    /// [`Node::subscriber`], which starts the subscriber.
    ///
    /// # Errors
    /// As [`Dispatcher::new`](crate::Dispatcher::new).
    pub fn dispatcher(&self) -> Result<DispatcherHandle> {
        let dispatcher = self.kept(|parts| &mut parts.dispatcher, || self.make_dispatcher())?;
        Ok(dispatcher.handle())
    }

    /// Returns the running subscriber, with the topics and listen addresses of the options. With `discover` it follows
    /// the publishers that are registered in the store.
    ///
    /// # Errors
    /// As [`Subscriber::daemonize`] and [`Subscriber::register_listen_address`], and those of the store with
    /// `discover`.
    pub fn subscriber(&self) -> Result<Arc<Subscriber>> {
        self.kept(|parts| &mut parts.subscriber, || self.make_subscriber())
    }

    /// Creates a replica: a copy in memory of the tables added to it, for the topics of the options. It ends when it is
    /// dropped.
    ///
    /// Starts the subscriber if it is not running; the subscriber need not be live.
    ///
    /// # Errors
    /// As [`Replica::new`] and [`Node::subscriber`].
    pub fn replica(&self) -> Result<Replica> {
        self.replica_with((&self.config).into())
    }

    /// As [`Node::replica`], with these options. Without a hook of their own the replica and its registration have the
    /// node's.
    ///
    /// ```
    /// # use tablecast::{Config, Node, ReplicaOptions};
    /// # let node = Node::open(&Config::in_memory("front"))?;
    /// let replica = node.replica_with(ReplicaOptions {
    ///     id: Some("agent-1".into()),
    ///     ..node.config().into() // its topics, among others
    /// })?;
    /// # Ok::<(), tablecast::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Node::replica`].
    pub fn replica_with(&self, mut options: ReplicaOptions) -> Result<Replica> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let making = self.making.lock();
        let (store, dispatcher, subscriber) = (self.store()?, self.dispatcher()?, self.subscriber()?);
        drop(making);
        let replica = Replica::new(&subscriber, &dispatcher, store, options)?;
        #[cfg(feature = "metrics")]
        self.running.lock().add_replica(&replica);
        Ok(replica)
    }

    /// Creates a listener for status updates; each update is processed by one of all listeners. It stops when it is
    /// dropped.
    ///
    /// # Errors
    /// As [`Listener::new`] and [`Node::subscriber`].
    pub fn listener(&self, handler: impl Fn(&DbUpdate) + Send + Sync + 'static) -> Result<Listener> {
        self.listener_with((&self.config).into(), handler)
    }

    /// As [`Node::listener`], with these options. If `options.hook` is `None`, the node's hook is used.
    ///
    /// # Errors
    /// As [`Node::listener`].
    pub fn listener_with(
        &self,
        mut options: ListenerOptions,
        handler: impl Fn(&DbUpdate) + Send + Sync + 'static,
    ) -> Result<Listener> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let making = self.making.lock();
        let (store, subscriber) = (self.store()?, self.subscriber()?);
        let (dispatcher, publisher) = (self.dispatcher()?, self.publisher()?);
        drop(making);
        let listener = Listener::new(store, &subscriber, &dispatcher, &publisher, options, handler)?;
        #[cfg(feature = "metrics")]
        self.running.lock().add_listener(&listener);
        Ok(listener)
    }

    /// Creates a notifier, which sends status updates to the listeners. It stops when it is dropped.
    ///
    /// # Errors
    /// As [`Notifier::new`] and [`Node::subscriber`].
    pub fn notifier(&self) -> Result<Notifier> {
        self.notifier_with((&self.config).into())
    }

    /// As [`Node::notifier`], with these options. If `options.hook` is `None`, the node's hook is used.
    ///
    /// # Errors
    /// As [`Node::notifier`].
    pub fn notifier_with(&self, mut options: NotifierOptions) -> Result<Notifier> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let making = self.making.lock();
        let (store, subscriber) = (self.store()?, self.subscriber()?);
        let (dispatcher, publisher) = (self.dispatcher()?, self.publisher()?);
        drop(making);
        let notifier = Notifier::new(store, &subscriber, &dispatcher, &publisher, options)?;
        #[cfg(feature = "metrics")]
        self.running.lock().add_notifier(&notifier);
        Ok(notifier)
    }

    /// Returns the running publisher service of this host, which binds the port. Only one process of a host runs it, on
    /// behalf of all others. Creates the folder of its socket if it is missing, and runs the monitors of the option
    /// `monitor_tables`. With `discover` the service is registered in the store.
    ///
    /// # Errors
    /// As [`Service::start`] and [`Monitor::new`](crate::Monitor::new), and those of the store with `discover` or
    /// `monitor_tables`.
    pub fn service(&self) -> Result<Arc<Service>> {
        self.kept(|parts| &mut parts.service, || self.make_service())
    }

    /// Returns the registration of the bound publisher, or of the publisher service, whichever was created last. `None`
    /// without `discover`, with the driver `redis`, and until either is created. It ends as the node stops, also if the
    /// program holds it.
    pub fn registration(&self) -> Option<Arc<Registration>> {
        self.parts.lock().registrations.last().cloned()
    }

    fn registry(&self) -> RegistryOptions {
        RegistryOptions {
            hook: self.hook.clone(),
            ..(&self.config).into()
        }
    }

    /// The running parts, which metrics look at.
    #[cfg(feature = "metrics")]
    pub(crate) fn running(&self) -> &Arc<Mutex<Running>> {
        &self.running
    }

    /// Stops all parts, as dropping the node does. A part that is asked for again is made anew; a driver or store that
    /// the node was built with stays.
    pub fn stop(&self) {
        let making = self.making.lock();
        let parts = std::mem::take(&mut *self.parts.lock());
        #[cfg(feature = "metrics")]
        let released = self.running.lock().end();
        drop(making);
        #[cfg(feature = "metrics")]
        drop(released);
        parts.stop();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::thread::{pause, spawn};

    const LIMIT: Duration = Duration::from_secs(20);

    /// The parts of a replica are all from before a stop beside it, or all from after it.
    #[test]
    fn a_replica_beside_a_stop_has_parts_that_belong_together() {
        let node = Arc::new(Node::open(&Config::in_memory("beside")).unwrap());
        node.store().unwrap();
        node.dispatcher().unwrap();
        let making = node.making.lock();
        let (made, replica) = crossbeam_channel::bounded(1);
        let user = Arc::clone(&node);
        let _user = spawn("user", None, move || made.send(user.replica()).unwrap()).unwrap();
        // It comes to the parts that are still to be made.
        pause(Duration::from_millis(50));
        node.stop();
        drop(making);
        let replica = replica.recv_timeout(LIMIT).unwrap().unwrap();
        replica.raw_table("t").unwrap();
        replica.wait_synced(LIMIT).unwrap();
    }
}
