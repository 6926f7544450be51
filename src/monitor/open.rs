//! The monitors that the options ask for.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use super::{Monitor, MonitorOptions};
use crate::config::Config;
use crate::drivers::Drivers;
use crate::error::{ErrorHook, Result};
use crate::publisher::{Publisher, PublisherOptions, host_name};
use crate::stores::Stores;
use crate::thread::Background;

/// The monitors of the option `monitor_tables`: one for each table, with a publisher that they share. They belong into
/// the publisher service of the host, so that there is one of each.
///
/// Their memory is stored under the option `publisher_id`, or, if it is empty, the host's name and the socket of its
/// publisher service.
#[derive(Debug, Default)]
pub struct Monitors(Vec<Monitor>);

impl Monitors {
    /// Begins to monitor, if the options ask for it; publishes through the publisher service of this host, which must
    /// be running. `hook` is called with every failure.
    ///
    /// # Errors
    /// As [`Stores::open`], [`Drivers::multiproc`] and [`Publisher::new`].
    pub fn open(config: &Config, stores: &Stores, drivers: &Drivers, hook: Option<ErrorHook>) -> Result<Monitors> {
        if config.monitor_tables.is_empty() {
            return Ok(Monitors::default());
        }
        let store = stores.open(config)?;
        let id = match config.publisher_id.as_str() {
            "" => format!("{} {}", host_name(), config.multiproc_address()),
            id => id.to_owned(),
        };
        let options = PublisherOptions {
            // Other processes may have the same options.
            id: (!config.publisher_id.is_empty()).then(|| format!("{id}/monitor").into()),
            hook: hook.clone(),
            ..config.into()
        };
        let publisher = Arc::new(Publisher::new(&*drivers.multiproc(config)?, options)?);
        let options = MonitorOptions { hook, ..config.into() };
        let tables: BTreeSet<_> = config.monitor_tables.iter().collect();
        let monitors = tables.into_iter().map(|table| {
            let (store, publisher) = (Arc::clone(&store), Arc::clone(&publisher));
            Monitor::new(store, publisher, table, &id, options.clone())
        });
        Ok(Monitors(monitors.collect::<Result<_>>()?))
    }

    /// Stops all of them, as [`Monitor::stop`], and takes no longer than for one.
    pub fn stop(&self) {
        Background::stop_all(self.0.iter().map(|monitor| &monitor.thread));
    }
}

impl Deref for Monitors {
    type Target = [Monitor];
    fn deref(&self) -> &[Monitor] {
        &self.0
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.stop();
    }
}
