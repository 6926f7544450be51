//! Builder of a node.

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, ReentrantMutex};

use super::Node;
use crate::config::Config;
use crate::drivers::Drivers;
use crate::error::{Error, ErrorHook, Result};
use crate::store::Store;
use crate::stores::Stores;
use crate::transport::Driver;

/// Builds a [`Node`] with settings that are not options.
#[must_use]
pub struct NodeBuilder {
    config: Config,
    drivers: Drivers,
    stores: Stores,
    hook: Option<ErrorHook>,
    network: Option<Arc<dyn Driver>>,
    store: Option<Arc<dyn Store>>,
}

impl Node {
    /// Creates a node from the options. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a wrong option.
    pub fn open(config: &Config) -> Result<Node> {
        Node::builder(config).open()
    }

    /// Returns a builder, for a node with an error hook, or with its own drivers and stores.
    pub fn builder(config: &Config) -> NodeBuilder {
        NodeBuilder {
            config: config.clone(),
            drivers: Drivers::new(),
            stores: Stores::new(),
            hook: None,
            network: None,
            store: None,
        }
    }
}

impl NodeBuilder {
    /// Sets a function that is called for every failure in the background, of all parts. Default: none; failures are
    /// logged in any case.
    pub fn hook(mut self, hook: impl Fn(&Error) + Send + Sync + 'static) -> NodeBuilder {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Sets the drivers by alias. Default: those of this build.
    pub fn drivers(mut self, drivers: Drivers) -> NodeBuilder {
        self.drivers = drivers;
        self
    }

    /// Sets the stores by alias. Default: those of this build.
    pub fn stores(mut self, stores: Stores) -> NodeBuilder {
        self.stores = stores;
        self
    }

    /// Sets the network driver, instead of the option `pub_sub_driver`.
    pub fn network(mut self, network: Arc<dyn Driver>) -> NodeBuilder {
        self.network = Some(network);
        self
    }

    /// Sets the store, instead of the option `nb_db_class`.
    pub fn store(mut self, store: Arc<dyn Store>) -> NodeBuilder {
        self.store = Some(store);
        self
    }

    /// Checks the options and returns the node. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a wrong option.
    pub fn open(self) -> Result<Node> {
        self.config.validate()?;
        Ok(Node {
            config: self.config,
            drivers: self.drivers,
            stores: self.stores,
            hook: self.hook,
            given_network: self.network,
            given_store: self.store,
            parts: Mutex::default(),
            making: ReentrantMutex::new(()),
            #[cfg(feature = "metrics")]
            running: Arc::default(),
        })
    }
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
