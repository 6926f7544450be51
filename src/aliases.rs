//! Factories of drivers and stores, by alias.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

type Factory<T> = Arc<dyn Fn(&Config) -> Result<Arc<T>> + Send + Sync>;

/// Factories by alias.
pub(crate) struct Aliases<T: ?Sized> {
    /// The kind of thing that they make, for errors.
    what: &'static str,
    factories: BTreeMap<String, Factory<T>>,
}

impl<T: ?Sized> Aliases<T> {
    pub(crate) fn new(what: &'static str) -> Aliases<T> {
        Aliases {
            what,
            factories: BTreeMap::new(),
        }
    }

    /// With a factory that the library has.
    pub(crate) fn with(
        mut self,
        alias: &str,
        factory: impl Fn(&Config) -> Result<Arc<T>> + Send + Sync + 'static,
    ) -> Aliases<T> {
        self.factories.insert(alias.to_owned(), Arc::new(factory));
        self
    }

    /// Adds a factory of the program's; fails if the alias is empty or taken.
    pub(crate) fn register(
        &mut self,
        alias: String,
        factory: impl Fn(&Config) -> Result<Arc<T>> + Send + Sync + 'static,
    ) -> Result<()> {
        if alias.is_empty() || self.factories.contains_key(&alias) {
            let context = format!(
                "{} alias {alias:?}: expected one that is not empty and not taken",
                self.what
            );
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        self.factories.insert(alias, Arc::new(factory));
        Ok(())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// Makes what this option names.
    pub(crate) fn open(&self, option: &str, alias: &str, config: &Config) -> Result<Arc<T>> {
        let Some(factory) = self.factories.get(alias) else {
            let known: Vec<_> = self.names().collect();
            let (what, known) = (self.what, known.join(", "));
            let context = format!("option {option}: there is no {what} {alias:?}, expected one of {known}");
            return Err(Error::new(ErrorKind::Config, context));
        };
        factory(config)
    }
}

impl<T: ?Sized> Clone for Aliases<T> {
    fn clone(&self) -> Aliases<T> {
        Aliases {
            what: self.what,
            factories: self.factories.clone(),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Aliases<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
