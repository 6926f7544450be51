//! All parts that the options describe, opened on request and stopped together.
//!
//! ```
//! use std::time::Duration;
//! use tablecast::store::Write;
//! use tablecast::{Config, DbUpdate, Node, Topic};
//!
//! # fn main() -> tablecast::Result<()> {
//! // In a program: Config::load(None)?
//! let node = Node::open(&Config::in_memory("example"))?;
//! let (updates, received) = crossbeam_channel::unbounded::<DbUpdate>();
//! node.dispatcher()?.on_table("lport", updates).detach();
//! node.subscriber()?.register_topic(&Topic::ALL)?;
//! node.subscriber()?.wait_live(Duration::from_secs(5))?;
//!
//! let database = node.database()?;
//! database.write(&Write::create("lport", "port-1", r#"{"chassis":"host1"}"#), DbUpdate::DEFAULT_PRIORITY)?;
//! assert_eq!(received.recv_timeout(Duration::from_secs(5)).unwrap().key, "port-1");
//! # Ok(())
//! # }
//! ```

mod builder;
mod member;
mod options;
mod parts;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

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
use crate::update::DbUpdate;
use parts::Parts;

pub use builder::NodeBuilder;

/// The parts of a program that takes part in the network, as one [`Config`] describes them.
///
/// Each part is made when it is first asked for, and shared from then on. Dropping the node stops them all, in the right
/// order: the subscriber first, then callbacks, and the publisher last, which says goodbye. A publisher, database or store that
/// the program still holds goes on until it is dropped.
pub struct Node {
    config: Config,
    drivers: Drivers,
    stores: Stores,
    hook: Option<ErrorHook>,
    parts: Mutex<Parts>,
}

impl Node {
    /// A node as the options say. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an option that is wrong.
    pub fn open(config: &Config) -> Result<Node> {
        Node::builder(config).open()
    }

    /// A node with an error hook, or drivers and stores of the program's own.
    pub fn builder(config: &Config) -> NodeBuilder {
        NodeBuilder::new(config.clone())
    }

    /// The options.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store of the option `nb_db_class`.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.parts.lock().store(self)
    }

    /// The publisher, through the publisher service of this host, or, without `pub_sub_use_multiproc`, bound to the network. With
    /// `discover` a bound one is registered in the store.
    ///
    /// # Errors
    /// As [`Publisher::new`], and those of the store with `discover`.
    pub fn publisher(&self) -> Result<Arc<Publisher>> {
        self.parts.lock().publisher(self)
    }

    /// A store whose changes are published: [`Node::store`] and [`Node::publisher`] together.
    ///
    /// # Errors
    /// As those.
    pub fn database(&self) -> Result<Arc<Database>> {
        self.parts.lock().database(self)
    }

    /// The dispatcher, whose callbacks get the updates of the subscriber. Register them before the first call of
    /// [`Node::subscriber`]: it runs from then on.
    ///
    /// # Errors
    /// As [`Dispatcher::new`](crate::Dispatcher::new).
    pub fn dispatcher(&self) -> Result<DispatcherHandle> {
        self.parts.lock().dispatcher(self)
    }

    /// The subscriber, which is running, with the topics and listen addresses of the options. With `discover` it follows the
    /// publishers that are registered in the store.
    ///
    /// # Errors
    /// As [`Subscriber::daemonize`] and [`Subscriber::register_listen_address`], and those of the store with `discover`.
    pub fn subscriber(&self) -> Result<Arc<Subscriber>> {
        self.parts.lock().subscriber(self)
    }

    /// A replica: a copy in memory of the tables that are added to it, of the topics of the options. It ends when it is dropped.
    ///
    /// The subscriber runs from then on, and need not be live.
    ///
    /// # Errors
    /// As [`Replica::new`] and [`Node::subscriber`].
    pub fn replica(&self) -> Result<Replica> {
        self.replica_with(ReplicaOptions {
            topics: self.config.topics.clone(),
            registry: self.registry(),
            ..ReplicaOptions::default()
        })
    }

    /// As [`Node::replica`], with these options; without a hook it gets that of the node.
    ///
    /// # Errors
    /// As [`Node::replica`].
    pub fn replica_with(&self, mut options: ReplicaOptions) -> Result<Replica> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let mut parts = self.parts.lock();
        let (store, dispatcher) = (parts.store(self)?, parts.dispatcher(self)?);
        Replica::new(&parts.subscriber(self)?, &dispatcher, store, options)
    }

    /// A listener, which processes status updates: each by one of all that are there. It stops when it is dropped.
    ///
    /// # Errors
    /// As [`Listener::new`] and [`Node::subscriber`].
    pub fn listener(&self, handler: impl Fn(&DbUpdate) + Send + Sync + 'static) -> Result<Listener> {
        self.listener_with((&self.config).into(), handler)
    }

    /// As [`Node::listener`], with these options; without a hook it gets that of the node.
    ///
    /// # Errors
    /// As [`Node::listener`].
    pub fn listener_with(
        &self,
        mut options: ListenerOptions,
        handler: impl Fn(&DbUpdate) + Send + Sync + 'static,
    ) -> Result<Listener> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let mut parts = self.parts.lock();
        let (store, subscriber) = (parts.store(self)?, parts.subscriber(self)?);
        let (dispatcher, publisher) = (parts.dispatcher(self)?, parts.publisher(self)?);
        Listener::new(store, &subscriber, &dispatcher, &publisher, options, handler)
    }

    /// A notifier, which sends status updates to the listeners. It stops when it is dropped.
    ///
    /// # Errors
    /// As [`Notifier::new`] and [`Node::subscriber`].
    pub fn notifier(&self) -> Result<Notifier> {
        self.notifier_with((&self.config).into())
    }

    /// As [`Node::notifier`], with these options; without a hook it gets that of the node.
    ///
    /// # Errors
    /// As [`Node::notifier`].
    pub fn notifier_with(&self, mut options: NotifierOptions) -> Result<Notifier> {
        options.hook = options.hook.or_else(|| self.hook.clone());
        let mut parts = self.parts.lock();
        let (store, subscriber) = (parts.store(self)?, parts.subscriber(self)?);
        let (dispatcher, publisher) = (parts.dispatcher(self)?, parts.publisher(self)?);
        Notifier::new(store, &subscriber, &dispatcher, &publisher, options)
    }

    /// The publisher service of this host, which binds the port; one process has it, for all others. The folder of its socket is made
    /// if it is missing. Beside it run the monitors of the option `monitor_tables`. With `discover` it is registered in the store.
    ///
    /// # Errors
    /// As [`Service::start`] and [`Monitor::new`](crate::Monitor::new), and those of the store with `discover` or `monitor_tables`.
    pub fn service(&self) -> Result<Arc<Service>> {
        self.parts.lock().service(self)
    }

    /// The registration of the publisher, or of the publisher service, if there is one: with `discover`, once either was asked for.
    pub fn registration(&self) -> Option<Arc<Registration>> {
        self.parts.lock().registration.clone()
    }

    fn registry(&self) -> RegistryOptions {
        RegistryOptions {
            hook: self.hook.clone(),
            ..(&self.config).into()
        }
    }

    /// Stops all parts, as dropping the node does; they are made anew if they are asked for again.
    pub fn stop(&self) {
        let parts = std::mem::take(&mut *self.parts.lock());
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
