//! Monitors: they poll a table and publish the changes of writers that do not publish.
//!
//! - **Published changes.** A new row is published as a create, a row with another version as a set, a missing row as a
//!   delete; each on the row's topic. Changes between two polls are published as one; a row that was created and
//!   deleted in between is not published. A row that was deleted and created again is published as a set, or, with
//!   another topic, as a delete on the old topic and a create on the new one.
//! - **Versions.** Creates and sets have the row's version. A delete has a version above all published versions of the
//!   row, and below all later ones; the store's own may differ.
//! - **Memory.** Keys, versions and topics of the published rows are in the store itself, in the monitor's own table;
//!   so a restarted monitor also publishes the changes made while none ran. A change is published before it is
//!   remembered: after a crash it may be published twice, with the same version.
//! - **First start.** Without memory, every row is published as a create. Receivers that have the row recognize its
//!   version.
//! - **Outages** of the store or of the transport are failures: unpublished changes are published at a later poll.
//!   Deletes are published only after a complete listing.
//! - **Limits.** A change that breaks a limit of the publisher is a failure, and not repeated. It leaves a gap, so that
//!   programs read the row.
//! - **Cost.** If the store has [`Store::table_version`], a table without writes is not read.
//!
//! A [`Database`](crate::Database) publishes the rows that it writes, so a monitor of its table publishes them a second
//! time, with the same version: monitors are for tables with other writers.
//!
//! **A store that went back** to an earlier state, by `FLUSHALL`, an older file, or a failover that lost the last
//! writes, is the truth: the next poll publishes its present state. Versions then begin anew, so the monitor also skips
//! a number on each topic on which it has published; programs that rely on versions then read the store. Rows are
//! compared by version, topic, and a 32-bit sum of the value. If a store without
//! [`TableVersion::tip`](crate::store::TableVersion::tip) loses its last writes and receives just as many others
//! between two polls, this shows only with the next write of the table.

mod options;
mod told;
mod worker;

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::publisher::Publisher;
use crate::store::Store;
use crate::thread::Background;

use options::Counters;
pub use options::{MonitorOptions, MonitorStats};
use worker::Worker;

/// Polls one table of a store and publishes its changes.
///
/// It runs on its own thread from its creation; dropping it stops it.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tablecast::drivers::memory::MemoryDriver;
/// use tablecast::monitor::{Monitor, MonitorOptions};
/// use tablecast::stores::memory::MemoryStore;
/// use tablecast::{Publisher, PublisherOptions, Store, Topic};
///
/// # fn main() -> tablecast::Result<()> {
/// let store = Arc::new(MemoryStore::new());
/// let publisher = Publisher::new(&MemoryDriver::new("memory://network")?, PublisherOptions::default())?;
/// let options = MonitorOptions { interval: Duration::from_millis(10), ..MonitorOptions::default() };
/// let monitor = Monitor::new(store.clone(), Arc::new(publisher), "lport", "host1", options)?;
/// store.create("lport", "port-1", "{}", &Topic::ALL)?; // publishes nothing
/// # let (_never, wait) = crossbeam_channel::bounded::<()>(0);
/// while monitor.stats().created == 0 {
///     // The monitor has not looked yet.
/// #   let _ = wait.recv_timeout(Duration::from_millis(1));
/// }
/// monitor.stop();
/// # Ok(())
/// # }
/// ```
pub struct Monitor {
    table: String,
    counters: Arc<Counters>,
    thread: Background,
}

impl Monitor {
    /// Begins to monitor this table. The monitor's memory is in `store` under `id`, which must be the same for every
    /// run of one publisher service, and different for each service with this store.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a thread cannot be started. Errors of the store are failures of
    /// polls.
    pub fn new(
        store: Arc<dyn Store>,
        publisher: Arc<Publisher>,
        table: &str,
        id: &str,
        options: MonitorOptions,
    ) -> Result<Monitor> {
        let counters = Arc::<Counters>::default();
        let (what, hook) = (format!("the monitor of table {table:?}"), options.hook.clone());
        let begin = {
            let (table, id) = (table.to_owned(), id.to_owned());
            let counters = Arc::clone(&counters);
            move |stop| Worker::new(store, publisher, (table, id), options, counters, stop).run()
        };
        let thread = Background::spawn("tc-monitor", what, hook, begin)?;
        Ok(Monitor {
            table: table.to_owned(),
            counters,
            thread,
        })
    }

    /// The monitored table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The counters since the start.
    pub fn stats(&self) -> MonitorStats {
        self.counters.stats()
    }

    /// Returns the counters while the monitor is there.
    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> impl Fn() -> Option<MonitorStats> + Send + Sync + use<> {
        let counters = Arc::downgrade(&self.counters);
        move || Some(counters.upgrade()?.stats())
    }

    /// Stops, and stores the monitor's memory. Waits for at most 300 ms; if the store takes longer to answer, the
    /// thread ends with its answer.
    pub fn stop(&self) {
        self.thread.stop();
    }

    /// Tells the thread to stop, and does not wait.
    pub(crate) fn tell(&self) {
        self.thread.tell();
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("table", &self.table)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
