//! The stores, and their registry by alias.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "metrics")]
pub(crate) mod timed;

use std::sync::Arc;

use crate::aliases::Aliases;
use crate::config::Config;
use crate::error::Result;
use crate::store::{Store, StoreOptions};

/// The stores by alias; a program may add its own.
///
/// ```
/// use std::sync::Arc;
/// use tablecast::stores::{Stores, memory::MemoryStore};
/// use tablecast::{Config, Topic};
///
/// let mut stores = Stores::new();
/// stores.register("private", |_: &Config| Ok(Arc::new(MemoryStore::new())))?;
///
/// let mut config = Config::default();
/// config.nb_db_class = "private".into();
/// let store = stores.open(&config)?;
/// store.create("lport", "port-1", "{}", &Topic::ALL)?;
/// # Ok::<(), tablecast::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stores(Aliases<dyn Store>);

impl Stores {
    /// The stores of this build: `memory`, and with the features of these names also `redis` and `sqlite`.
    pub fn new() -> Stores {
        let stores = Aliases::new("store").with("memory", memory_store);
        #[cfg(feature = "redis")]
        let stores = stores.with("redis", redis_store);
        #[cfg(feature = "sqlite")]
        let stores = stores.with("sqlite", sqlite_store);
        Stores(stores)
    }

    /// Adds a store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the alias is empty or taken.
    pub fn register(
        &mut self,
        alias: impl Into<String>,
        factory: impl Fn(&Config) -> Result<Arc<dyn Store>> + Send + Sync + 'static,
    ) -> Result<()> {
        self.0.register(alias.into(), factory)
    }

    /// The known aliases.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    /// The store of the option `nb_db_class`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no store of that alias, and the store's errors.
    pub fn open(&self, config: &Config) -> Result<Arc<dyn Store>> {
        self.0.open("nb_db_class", &config.nb_db_class, config)
    }
}

impl Default for Stores {
    fn default() -> Stores {
        Stores::new()
    }
}

impl From<&Config> for StoreOptions {
    fn from(config: &Config) -> StoreOptions {
        StoreOptions {
            batch_amount: config.batch_amount,
            timeout: config.store_timeout_ms,
            deletes_remembered: config.deletes_remembered.into(),
        }
    }
}

fn memory_store(config: &Config) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(memory::MemoryStore::shared().with_options(config.into())))
}

#[cfg(feature = "redis")]
fn redis_store(config: &Config) -> Result<Arc<dyn Store>> {
    let store = redis::RedisStore::new(&config.redis_address(), config.into(), &config.into())?;
    Ok(Arc::new(store))
}

#[cfg(feature = "sqlite")]
fn sqlite_store(config: &Config) -> Result<Arc<dyn Store>> {
    let path = &config.sqlite_path;
    let store = sqlite::SqliteStore::open(path, config.into());
    let named = store.map_err(|e| e.context("option sqlite_path"));
    Ok(Arc::new(named?))
}
