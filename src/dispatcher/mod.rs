//! The dispatcher: the thread or, with workers, the threads that call callbacks.
//!
//! ```
//! use crossbeam_channel::{never, unbounded};
//! use serde::Deserialize;
//! use tablecast::{Action, DbUpdate, Dispatcher, DispatcherOptions, Table};
//!
//! #[derive(Deserialize)]
//! struct LogicalPort { chassis: String }
//! const LPORT: Table<LogicalPort> = Table::new("lport");
//!
//! let dispatcher = Dispatcher::new(DispatcherOptions::default())?;
//! let (seen, chassis) = unbounded();
//! let _ports = dispatcher.on_row(LPORT, move |_update, port| {
//!     let _ = seen.send(port.map(|port| port.chassis));
//! });
//! let (all, updates) = unbounded();
//! dispatcher.on_update(all).detach();
//!
//! // A subscriber does this.
//! let update = DbUpdate::new("lport", "port-1", Action::Create).value(r#"{"chassis":"host1"}"#);
//! dispatcher.queue().push(&mut vec![update.clone()], &never())?;
//!
//! assert_eq!(updates.recv(), Ok(update));
//! assert_eq!(chassis.recv(), Ok(Some("host1".into())));
//! # Ok::<(), tablecast::Error>(())
//! ```
//!
//! No lock of the library is held while a callback runs, so a callback may do anything: publish, register, unregister,
//! stop or drop the dispatcher. It should be quick: without workers, updates wait in the queue meanwhile.

mod dispatch;
mod handler;
#[cfg(feature = "metrics")]
mod lag;
mod registry;
mod run;
mod stats;
mod workers;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use handler::Handler;
pub use registry::Guard;
pub(crate) use registry::{Callback, Job};
pub use stats::DispatcherStats;

use crate::error::{Error, ErrorHook, ErrorKind, Result};
use crate::event::{Event, SyncReason};
#[cfg(feature = "metrics")]
use crate::histogram::Histogram;
use crate::queue::{self, QueueOptions, QueueSender};
use crate::table::Table;
use crate::thread;
use crate::update::{DbUpdate, Name, Topic};
use dispatch::Dispatch;
#[cfg(feature = "metrics")]
use lag::Lag;
use registry::{Command, Scope};
use run::Run;
use workers::Workers;

/// Options of a dispatcher.
#[derive(Clone, Default)]
pub struct DispatcherOptions {
    /// The queue in front of the dispatcher. Default: that of [`QueueOptions`].
    pub queue: QueueOptions,
    /// Number of threads that call the callbacks for updates.
    ///
    /// With workers, updates of different rows are handled at the same time, so that a slow callback holds up only its
    /// own row. Updates of one row (table and key) are never handled at the same time, and stay in order. Sync events
    /// have one more thread of their own, where they stay in order and run beside the updates. If their callback is
    /// slow they wait in the queue, where they are joined.
    ///
    /// Default: 0, all callbacks run on the dispatcher thread, one after the other. At most 256.
    pub workers: usize,
    /// Called for every panic, every value that does not decode as its table's row type, and every event that a channel
    /// did not take. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl fmt::Debug for DispatcherOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatcherOptions")
            .field("queue", &self.queue)
            .field("workers", &self.workers)
            .field("hook", &self.hook.as_ref().map(|_| ".."))
            .finish()
    }
}

/// A larger number of threads is a mistake.
const MAX_WORKERS: usize = 256;

/// A running dispatcher; [the module](self) has an example. Dropping it [stops](DispatcherHandle::stop) it.
///
/// Its methods are those of [`DispatcherHandle`]. A callback that needs the dispatcher captures a handle, which does
/// not keep it running.
#[derive(Debug)]
pub struct Dispatcher(DispatcherHandle);

impl Dispatcher {
    /// Starts a dispatcher.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for too many workers, and [`ErrorKind::Io`] if a thread cannot be started.
    pub fn new(options: DispatcherOptions) -> Result<Dispatcher> {
        let workers = options.workers;
        if workers > MAX_WORKERS {
            let context = format!("option dispatcher_workers: expected at most {MAX_WORKERS} threads, got {workers}");
            return Err(Error::new(ErrorKind::Config, context));
        }
        let (sender, queue) = queue::bounded(options.queue);
        let (edits, commands) = crossbeam_channel::unbounded();
        let dispatch = Arc::new(Dispatch::new(edits, sender, options.hook, workers == 0));
        let mut threads = Vec::new();
        let workers = match workers {
            0 => None,
            count => Some(Workers::start(count, &dispatch, &mut threads)?),
        };
        let run = Run::new(Arc::clone(&dispatch), commands, queue, workers);
        threads.push(thread::spawn("tc-dispatcher", dispatch.hook(), move || run.run())?);
        *dispatch.threads.lock() = threads;
        Ok(Dispatcher(DispatcherHandle(dispatch)))
    }

    /// Returns a handle to this dispatcher.
    pub fn handle(&self) -> DispatcherHandle {
        self.0.clone()
    }
}

impl Deref for Dispatcher {
    type Target = DispatcherHandle;
    fn deref(&self) -> &DispatcherHandle {
        &self.0
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Registers callbacks, stops, and counts, from any thread and from inside callbacks; cheap to clone.
///
/// A callback is called for every update pushed after the registering call has returned; it may also get updates that
/// were already waiting. For one update, the callbacks for all events come first, then those for all updates, then
/// those for its table, then those for its topic, each in the order of registration. After the dispatcher has stopped,
/// registering has no effect.
#[derive(Debug, Clone)]
pub struct DispatcherHandle(Arc<Dispatch>);

impl DispatcherHandle {
    /// Returns the sending end of the queue, for subscribers.
    pub fn queue(&self) -> QueueSender {
        self.0.queue.clone()
    }

    /// Calls `handler` for every update.
    pub fn on_update(&self, handler: impl Handler<DbUpdate>) -> Guard {
        self.register(Scope::All, move |update| handler.handle(update))
    }

    /// Calls `handler` for every update of this table.
    pub fn on_table(&self, table: impl Into<Name>, handler: impl Handler<DbUpdate>) -> Guard {
        self.register(Scope::Table(table.into()), move |update| handler.handle(update))
    }

    /// As [`DispatcherHandle::on_table`], with a look at the updates to come: without workers, `ahead` is called with
    /// updates that `call` is called with next, most likely.
    pub(crate) fn on_table_ahead(
        &self,
        table: Name,
        call: impl Fn(&DbUpdate) + Send + Sync + 'static,
        ahead: impl Fn(&[&DbUpdate]) + Send + Sync + 'static,
    ) -> Guard {
        let call = move |update: &DbUpdate| {
            call(update);
            Ok(())
        };
        self.add(Scope::Table(table), Callback::new(call).ahead(ahead))
    }

    /// Calls `callback` for every update of this table, with the row that the update carries: `None` for a delete.
    ///
    /// If the value is not a `T`, the mismatch is counted and reported, and the callback is not called.
    pub fn on_row<T: DeserializeOwned + 'static>(
        &self,
        table: Table<T>,
        callback: impl Fn(&DbUpdate, Option<T>) + Send + Sync + 'static,
    ) -> Guard {
        self.register(Scope::Table(table.name()), move |update| {
            callback(update, table.decode(update)?);
            Ok(())
        })
    }

    /// Calls `handler` for every update of this topic.
    pub fn on_topic(&self, topic: Topic, handler: impl Handler<DbUpdate>) -> Guard {
        self.register(Scope::Topic(topic), move |update| handler.handle(update))
    }

    /// Calls `handler` for every sync event: the program may have missed changes and must read the store again.
    ///
    /// Before a call with [`SyncReason::Overflow`], the stored updates that still wait are dropped for every callback
    /// of this dispatcher, since the program is about to read them from the store. Without a handler for sync events
    /// they are kept.
    pub fn on_sync(&self, handler: impl Handler<SyncReason>) -> Guard {
        let call = move |reason: &SyncReason| handler.handle(reason);
        self.guard(Callback::new(call), Command::AddSync, Command::SweepSync)
    }

    /// Calls `handler` for every update and every sync event, so that one channel receives both in the order in which
    /// they are delivered. With [workers](DispatcherOptions::workers) the two kinds are handled at the same time, and
    /// each is in order only by itself. On an overflow, waiting updates are dropped as for
    /// [`DispatcherHandle::on_sync`].
    pub fn on_event(&self, handler: impl Handler<Event>) -> Guard {
        let call = move |event: &Event| handler.handle(event);
        self.guard(Callback::new(call), Command::AddEvent, Command::SweepEvent)
    }

    /// As [`DispatcherHandle::on_sync`], for a part of the library: called before the program's handlers, and without
    /// dropping pending updates.
    pub(crate) fn on_own_sync(&self, call: impl Fn(&SyncReason) + Send + Sync + 'static) -> Guard {
        let call = move |reason: &SyncReason| {
            call(reason);
            Ok(())
        };
        self.guard(Callback::new(call), Command::AddOwnSync, Command::SweepSync)
    }

    /// Runs a job on one of the threads that call callbacks, in turns with events. Has no effect after the dispatcher
    /// has stopped.
    pub(crate) fn run(&self, job: Job) {
        let _ = self.0.commands.send(Command::Job(job));
    }

    /// Calls a callback on one of the dispatcher's threads, unless it or the dispatcher has ended. Its result is
    /// counted and reported.
    pub(crate) fn call<E>(&self, callback: &Callback<E>, event: &E, what: impl FnOnce() -> String) {
        self.0.call(callback, event, what);
    }

    /// As [`DispatcherHandle::call`], on any thread, and also if the dispatcher has stopped.
    pub(crate) fn call_always<E>(&self, callback: &Callback<E>, event: &E, what: impl FnOnce() -> String) {
        self.0.call_always(callback, event, what);
    }

    /// From now on the time from send to callback of each update is counted.
    #[cfg(feature = "metrics")]
    pub(crate) fn measure_lag(&self) {
        self.0.lag.get_or_init(|| Lag::new(self.0.counters.updates.get()));
    }

    /// The times from send to callback, if they are counted.
    #[cfg(feature = "metrics")]
    pub(crate) fn lag(&self) -> Option<&Histogram> {
        self.0.lag.get().map(|lag| &lag.times)
    }

    /// True if a single thread calls all callbacks.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.is_alone
    }

    /// Stops the dispatcher: no further callback is called, and waiting updates are dropped.
    ///
    /// Waits for running callbacks, but for no longer than 500 ms; the thread of a longer one ends with that callback.
    /// Called from inside a callback it does not wait. Stopping again has no effect.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> DispatcherStats {
        self.0.counters.stats(self.0.queue.stats())
    }

    fn register(&self, scope: Scope, call: impl Fn(&DbUpdate) -> Result<()> + Send + Sync + 'static) -> Guard {
        self.add(scope, Callback::new(call))
    }

    fn add(&self, scope: Scope, callback: Callback<DbUpdate>) -> Guard {
        let removal = Command::SweepUpdate(scope.clone());
        let add = move |callback| Command::AddUpdate(scope, callback);
        self.guard(callback, add, removal)
    }

    fn guard<E>(
        &self,
        callback: Callback<E>,
        add: impl FnOnce(Arc<Callback<E>>) -> Command,
        removal: Command,
    ) -> Guard {
        Guard::new(self.0.commands.clone(), callback, add, removal)
    }
}
