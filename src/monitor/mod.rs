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
//! - **Cost.** If the store has [`Store::table_version`], a table without writes is not read.
//!
//! A [`Database`](crate::Database) publishes the rows that it writes, so a monitor of its table publishes them a second
//! time, with the same version: monitors are for tables with other writers.
//!
//! **A store that went back** to an earlier state, by `FLUSHALL`, an older file, or a failover that lost the last
//! writes, is the truth: the next poll publishes its present state. Versions then begin anew, so the monitor also skips
//! a number on each topic on which it has published; programs that rely on versions then read the store. Rows are
//! compared by version, topic, and a 32-bit sum of the value. If a store loses its last writes and receives just as
//! many others between two polls, this shows only with the next write of the table.

mod told;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::counter::Counter;
use crate::error::{Error, ErrorHook, Result, report};
use crate::publisher::Publisher;
use crate::store::Store;
use crate::thread::Background;
use crate::update::Action;

use worker::Worker;

/// The times of a [`Monitor`].
#[derive(Clone)]
pub struct MonitorOptions {
    /// The pause between two polls, at least a millisecond. Default: 1 s.
    pub interval: Duration,
    /// The pause before the first poll, so that subscribers can connect. Default: none.
    pub delay: Duration,
    /// Called with every failure. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for MonitorOptions {
    fn default() -> MonitorOptions {
        MonitorOptions {
            interval: Duration::from_secs(1),
            delay: Duration::ZERO,
            hook: None,
        }
    }
}

impl fmt::Debug for MonitorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorOptions")
            .field("interval", &self.interval)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// The counters of a [`Monitor`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MonitorStats {
    /// Polls, successful or not.
    pub polls: u64,
    /// Those of [`MonitorStats::polls`] that read no row, since the table had not changed.
    pub skipped: u64,
    /// Rows read from the table.
    pub rows_read: u64,
    /// Published creates.
    pub created: u64,
    /// Published sets.
    pub set: u64,
    /// Published deletes.
    pub deleted: u64,
    /// Times the store went back to an earlier state.
    pub went_back: u64,
    /// Failed polls, and rows that cannot be published since they break a limit of the publisher.
    pub failures: u64,
}

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
    shared: Arc<Shared>,
    thread: Background,
}

/// The state that the handle and the thread share.
struct Shared {
    options: MonitorOptions,
    polls: Counter,
    skipped: Counter,
    rows_read: Counter,
    created: Counter,
    set: Counter,
    deleted: Counter,
    went_back: Counter,
    failures: Counter,
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
        let shared = Arc::new(Shared::new(options));
        let begin = {
            let (table, id) = (table.to_owned(), id.to_owned());
            let shared = Arc::clone(&shared);
            move |stop| Worker::new(store, publisher, (table, id), shared, stop).run()
        };
        let (what, hook) = (format!("the monitor of table {table:?}"), shared.options.hook.clone());
        let thread = Background::spawn("tc-monitor", what, hook, begin)?;
        Ok(Monitor {
            table: table.to_owned(),
            shared,
            thread,
        })
    }

    /// The monitored table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The counters since the start.
    pub fn stats(&self) -> MonitorStats {
        self.shared.stats()
    }

    /// Returns the counters while the monitor is there.
    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> impl Fn() -> Option<MonitorStats> + Send + Sync + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || Some(shared.upgrade()?.stats())
    }

    /// Stops, and stores the monitor's memory. Waits for at most 300 ms; if the store takes longer to answer, the
    /// thread ends with its answer.
    pub fn stop(&self) {
        self.thread.stop();
    }

    /// As [`Monitor::stop`] for each, but in the time of one.
    pub(crate) fn stop_all(monitors: &[Monitor]) {
        monitors.iter().for_each(|monitor| monitor.thread.tell());
        monitors.iter().for_each(|monitor| monitor.thread.stop());
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

impl Shared {
    fn new(options: MonitorOptions) -> Shared {
        Shared {
            options,
            polls: Counter::new(),
            skipped: Counter::new(),
            rows_read: Counter::new(),
            created: Counter::new(),
            set: Counter::new(),
            deleted: Counter::new(),
            went_back: Counter::new(),
            failures: Counter::new(),
        }
    }

    fn stats(&self) -> MonitorStats {
        MonitorStats {
            polls: self.polls.get(),
            skipped: self.skipped.get(),
            rows_read: self.rows_read.get(),
            created: self.created.get(),
            set: self.set.get(),
            deleted: self.deleted.get(),
            went_back: self.went_back.get(),
            failures: self.failures.get(),
        }
    }

    /// The counter for updates of this action.
    fn counter(&self, action: &Action) -> &Counter {
        match action {
            Action::Create => &self.created,
            Action::Delete => &self.deleted,
            _ => &self.set,
        }
    }

    fn fail(&self, error: &Error) {
        self.failures.add(1);
        report!(error, self.options.hook.as_ref());
    }
}
