//! The calls of callbacks, and the state that the handles, the dispatcher thread and the workers share.

use std::fmt;
#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

#[cfg(feature = "metrics")]
use super::lag::Lag;
use super::registry::{Callback, Command, Job, Registry};
use super::stats::Counters;
use crate::error::{self, Error, ErrorHook, ErrorKind};
use crate::event::Event;
use crate::queue::QueueSender;
use crate::thread::Thread;

/// How long [`Dispatch::stop`] waits for running callbacks.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// Calls the callbacks; shared by the handles, the dispatcher thread and the workers.
///
/// The threads own it too, so it outlives them, and dropping it never waits for a callback.
pub(super) struct Dispatch {
    pub(super) commands: Sender<Command>,
    pub(super) queue: QueueSender,
    pub(super) counters: Counters,
    pub(super) threads: Mutex<Vec<Thread>>,
    /// There are no workers.
    pub(super) is_alone: bool,
    hook: Option<ErrorHook>,
    stopped: AtomicBool,
    /// The times from send to callback, once they are asked for.
    #[cfg(feature = "metrics")]
    pub(super) lag: OnceLock<Lag>,
}

impl Dispatch {
    pub(super) fn new(
        commands: Sender<Command>,
        queue: QueueSender,
        hook: Option<ErrorHook>,
        is_alone: bool,
    ) -> Dispatch {
        Dispatch {
            commands,
            queue,
            counters: Counters::default(),
            threads: Mutex::default(),
            is_alone,
            hook,
            stopped: AtomicBool::new(false),
            #[cfg(feature = "metrics")]
            lag: OnceLock::new(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.commands.send(Command::Wake);
        let threads = {
            let mut threads = self.threads.lock();
            if threads.iter().any(Thread::is_current) {
                return;
            }
            std::mem::take(&mut *threads)
        };
        let deadline = Instant::now() + STOP_PATIENCE;
        let ended = threads.into_iter().map(|thread| thread.join_by(deadline));
        let running = ended.filter(|ended| !ended).count();
        if running > 0 {
            log::warn!("dispatcher: stopped, but {running} of its threads are still inside a callback: left alone");
        }
    }

    pub(super) fn hook(&self) -> Option<ErrorHook> {
        self.hook.clone()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Calls every callback for this event.
    pub(super) fn deliver(&self, registry: &Registry, event: &Event) {
        match event {
            Event::Update(update) => {
                let _number = self.counters.updates.add(1);
                #[cfg(feature = "metrics")]
                if let Some(lag) = self.lag.get() {
                    lag.take(_number, update);
                }
                let what = || format!("a callback, called with table {:?} key {:?}", update.table, update.key);
                let mut handled = false;
                for callback in registry.for_event() {
                    handled = true;
                    self.call(callback, event, what);
                }
                for callback in registry.for_update(update) {
                    handled = true;
                    self.call(callback, update, what);
                }
                if !handled {
                    self.counters.unhandled.add(1);
                }
            }
            Event::Sync(reason) => {
                self.counters.syncs.add(1);
                let what = || format!("a callback, called with sync {reason}");
                for callback in registry.own_syncs() {
                    self.call(callback, reason, what);
                }
                for callback in registry.for_event() {
                    self.call(callback, event, what);
                }
                for callback in registry.for_sync() {
                    self.call(callback, reason, what);
                }
            }
        }
    }

    /// Tells the measured times that the dispatcher waits, if it is for an update.
    #[cfg(feature = "metrics")]
    pub(super) fn rest(&self) {
        if let Some(lag) = self.lag.get()
            && self.queue.stats().depth == 0
        {
            lag.rest(self.counters.updates.get());
        }
    }

    pub(super) fn call<E>(&self, callback: &Callback<E>, event: &E, what: impl FnOnce() -> String) {
        if !self.is_stopped() {
            self.call_always(callback, event, what);
        }
    }

    /// Calls a callback also if the dispatcher has stopped.
    pub(super) fn call_always<E>(&self, callback: &Callback<E>, event: &E, what: impl FnOnce() -> String) {
        if !callback.is_live() {
            return;
        }
        self.counters.calls.add(1);
        let done = error::contain(what, || (callback.call)(event)).flatten();
        if let Err(error) = done {
            self.report(&error);
        }
    }

    /// Runs a job of the library.
    pub(super) fn work(&self, job: Job) {
        if let Err(error) = error::contain(|| "a job of the dispatcher".into(), job) {
            self.report(&error);
        }
    }

    /// Runs an edit that may drop callbacks, whose captured values may panic when dropped.
    pub(super) fn edit(&self, edit: impl FnOnce()) {
        if let Err(error) = error::contain(|| "dropping a callback".into(), edit) {
            self.report(&error);
        }
    }

    fn report(&self, error: &Error) {
        let counter = match error.kind() {
            ErrorKind::Panicked => &self.counters.panics,
            ErrorKind::Malformed => &self.counters.mismatches,
            _ => &self.counters.refused,
        };
        counter.add(1);
        error::report!(error, self.hook.as_ref());
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch")
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
