//! The dispatcher thread, and what it shares with handles and workers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use parking_lot::Mutex;

#[cfg(feature = "metrics")]
use super::lag::Lag;
use super::registry::{Callback, Command, Job, Registry};
use super::stats::Counters;
use super::workers::Workers;
use crate::error::{self, Error, ErrorHook, ErrorKind};
use crate::queue::{QueueReceiver, QueueSender};
use crate::thread::Thread;
use crate::update::{Event, SyncReason};

/// How long [`Shared::stop`] waits for running callbacks.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// State of the handles, the dispatcher thread and the workers.
///
/// The threads own it too, so it outlives them, and dropping it never waits for a callback.
pub(super) struct Shared {
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

impl Shared {
    pub(super) fn new(
        commands: Sender<Command>,
        queue: QueueSender,
        hook: Option<ErrorHook>,
        is_alone: bool,
    ) -> Shared {
        Shared {
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

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Calls every callback for this event.
    pub(super) fn deliver(&self, registry: &Registry, event: &Event) {
        match event {
            Event::Update(update) => {
                let _number = self.counters.updates.add_one();
                #[cfg(feature = "metrics")]
                if let Some(lag) = self.lag.get() {
                    lag.take(_number, update);
                }
                let what = || format!("a callback, called with table {} key {}", update.table, update.key);
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
                    self.counters.unhandled.add_one();
                }
            }
            Event::Sync(reason) => {
                self.counters.syncs.add_one();
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
    fn rest(&self) {
        if let Some(lag) = self.lag.get()
            && self.queue.stats().depth == 0
        {
            lag.rest(self.counters.updates.get());
        }
    }

    pub(super) fn call<E>(&self, callback: &Callback<E>, event: &E, what: impl FnOnce() -> String) {
        if !callback.is_live() || self.is_stopped() {
            return;
        }
        self.counters.calls.add_one();
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
        counter.add_one();
        error::report(error, self.hook.as_ref());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// State of the dispatcher thread.
pub(super) struct Run {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    queue: QueueReceiver,
    registry: Arc<Registry>,
    workers: Option<Workers>,
    /// Waiting jobs, oldest first.
    jobs: VecDeque<Job>,
    /// The last work was a job, so an event is next.
    was_job: bool,
}

/// The work to do next.
#[expect(clippy::large_enum_variant, reason = "it is moved once, at once")]
enum Next {
    Event(Event),
    Job(Job),
}

impl Run {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        queue: QueueReceiver,
        workers: Option<Workers>,
    ) -> Run {
        Run {
            shared,
            commands,
            queue,
            registry: Arc::default(),
            workers,
            jobs: VecDeque::new(),
            was_job: false,
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.is_stopped() {
            match self.next() {
                Some(Next::Job(job)) => match &mut self.workers {
                    None => self.shared.work(job),
                    Some(workers) => workers.hand_out_job(job),
                },
                Some(Next::Event(event)) => {
                    // After the event is taken and before it is delivered, so that a callback registered before a push
                    // gets the update.
                    self.apply_waiting();
                    self.deliver(event);
                }
                None => self.wait(),
            }
        }
        let shared = Arc::clone(&self.shared);
        shared.edit(|| drop(self));
    }

    /// The next work, jobs and events in turns.
    fn next(&mut self) -> Option<Next> {
        if self.jobs.is_empty() {
            return self.next_event().map(Next::Event);
        }
        let event = if self.was_job { self.next_event() } else { None };
        self.was_job = event.is_none();
        if event.is_none() && self.workers.as_ref().is_none_or(Workers::take_updates) {
            return self.jobs.pop_front().map(Next::Job);
        }
        event.or_else(|| self.next_event()).map(Next::Event)
    }

    /// The next event that can be delivered now.
    fn next_event(&mut self) -> Option<Event> {
        let Some(workers) = &mut self.workers else {
            return self.queue.next(Instant::now, false);
        };
        while let Ok(finished) = workers.finished().try_recv() {
            workers.finish(finished, &mut self.queue);
        }
        if workers.take_syncs()
            && let Some(reason) = self.queue.next_sync(Instant::now)
        {
            return Some(Event::Sync(reason));
        }
        if !workers.take_updates() {
            return None;
        }
        self.queue.next_update(Instant::now).map(Event::Update)
    }

    fn deliver(&mut self, mut event: Event) {
        if let Event::Sync(SyncReason::Overflow { dropped }) = &mut event
            && self.registry.hears_syncs()
        {
            *dropped = dropped.saturating_add(self.queue.cover(Instant::now));
        }
        match &mut self.workers {
            None => {
                self.shared.deliver(&self.registry, &event);
                if let Event::Update(update) = event {
                    self.queue.recycle(update);
                }
            }
            Some(workers) => workers.hand_out(event, &self.registry),
        }
    }

    /// Waits for work, and handles whatever is not an event.
    fn wait(&mut self) {
        #[cfg(feature = "metrics")]
        self.shared.rest();
        let never = crossbeam_channel::never();
        let finished = self.workers.as_ref().map_or(&never, Workers::finished);
        let takes_syncs = self.workers.as_ref().is_some_and(Workers::take_syncs);
        let due = self.queue.sync_due().filter(|_| takes_syncs);
        let due = due.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
        select! {
            recv(self.commands) -> command => if let Ok(command) = command {
                self.apply(command);
            },
            recv(self.queue.channel()) -> delivery => if let Ok(delivery) = delivery {
                self.queue.accept(delivery);
            },
            recv(finished) -> done => if let (Ok(done), Some(workers)) = (done, &mut self.workers) {
                workers.finish(done, &mut self.queue);
            },
            recv(due) -> _ => {}
        }
    }

    fn apply_waiting(&mut self) {
        // Checking first is much cheaper than trying to receive.
        while !self.commands.is_empty()
            && let Ok(command) = self.commands.try_recv()
        {
            self.apply(command);
        }
    }

    fn apply(&mut self, command: Command) {
        let command = match command {
            Command::Job(job) => return self.jobs.push_back(job),
            command => command,
        };
        let registry = &mut self.registry;
        self.shared.edit(|| Arc::make_mut(registry).apply(command));
    }
}
