//! The stores, and their registry by alias.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "metrics")]
pub(crate) mod timed;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// Makes a store from the options.
type Factory = Arc<dyn Fn(&Config) -> Result<Arc<dyn Store>> + Send + Sync>;

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
#[derive(Clone)]
pub struct Stores(BTreeMap<String, Factory>);

impl Stores {
    /// The stores of this build: `memory`, and with the features of these names also `redis` and `sqlite`.
    pub fn new() -> Stores {
        let mut factories = BTreeMap::<String, Factory>::new();
        factories.insert("memory".into(), Arc::new(memory_store));
        #[cfg(feature = "redis")]
        factories.insert("redis".into(), Arc::new(redis_store));
        #[cfg(feature = "sqlite")]
        factories.insert("sqlite".into(), Arc::new(sqlite_store));
        Stores(factories)
    }

    /// Adds a store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the alias is empty or taken.
    pub fn register(
        &mut self,
        alias: impl Into<String>,
        factory: impl Fn(&Config) -> Result<Arc<dyn Store>> + Send + Sync + 'static,
    ) -> Result<()> {
        let alias = alias.into();
        if alias.is_empty() || self.0.contains_key(&alias) {
            let context = format!("store alias {alias:?}: expected one that is not empty and not taken");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        self.0.insert(alias, Arc::new(factory));
        Ok(())
    }

    /// The known aliases.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The store of the option `nb_db_class`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no store of that alias, and the store's errors.
    pub fn open(&self, config: &Config) -> Result<Arc<dyn Store>> {
        let alias = &config.nb_db_class;
        let Some(factory) = self.0.get(alias) else {
            let known: Vec<_> = self.aliases().collect();
            let known = known.join(", ");
            let context = format!("option nb_db_class: there is no store {alias:?}, expected one of {known}");
            return Err(Error::new(ErrorKind::Config, context));
        };
        factory(config)
    }
}

impl Default for Stores {
    fn default() -> Stores {
        Stores::new()
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.aliases()).finish()
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
