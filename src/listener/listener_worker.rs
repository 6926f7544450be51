//! The listener's thread for the store: takes steps of claims, keeps a run registered, and sweeps old claims.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::{Condvar, Mutex};

use super::claims::Claims;
use super::event_table::Turn;
use super::listener_shared::{FirstFailure, ListenerShared};
use super::messages;
use super::run::{Base, Run};
use super::sweep::Sweep;
use super::tables::LISTENERS;
use crate::error::{Result, contain, report};
use crate::registry::{Member, Watch};
use crate::thread::{Thread, pause};

pub(super) struct ListenerWorker {
    pub(super) base: Base,
    pub(super) shared: Arc<ListenerShared>,
    pub(super) claims: Claims,
    pub(super) current: Arc<Current>,
    /// Receives a message when a listener is gone.
    pub(super) gone: Receiver<()>,
    /// Disconnected to stop the thread.
    pub(super) stop: Receiver<()>,
    pub(super) sweep: Sweep,
    pub(super) looked: Instant,
    pub(super) swept: Instant,
    /// Turns were waiting at the last look.
    pub(super) is_stuck: bool,
    /// The number of updates that the queue had dropped by then.
    pub(super) dropped: u64,
    pub(super) wait: Duration,
    pub(super) failure: FirstFailure,
    /// The thread that answers, which ends with this one.
    pub(super) _answering: Thread,
    pub(super) _watch: Watch,
}

/// The current run.
pub(super) struct Current {
    pub(super) run: Mutex<Arc<Run>>,
    /// Signalled when another run begins.
    pub(super) changed: Condvar,
}

/// How long a stopping listener that has finished waits for confirmations; other listeners remove the remaining claims.
const DRAIN: Duration = Duration::from_millis(400);

/// The first and the longest pause after failed steps; each is twice the one before.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_secs(1);

impl ListenerWorker {
    pub(super) fn run(mut self) {
        let tick = self.base.options.registry().look();
        loop {
            self.await_work(self.looked + tick);
            let run = Arc::clone(&self.current.run.lock());
            if self.shared.events.lock().is_stopping() {
                return self.leave(&run);
            }
            if run.is_lost() {
                self.begin_anew(&run);
                continue;
            }
            self.step(run.is_held());
            if self.looked.elapsed() >= tick {
                let looked = contain(|| "the periodic work of a listener".into(), || self.look(&run));
                self.report(looked);
            }
        }
    }

    /// Waits until there is a step to take, or until `until`.
    fn await_work(&self, until: Instant) {
        let mut events = self.shared.events.lock();
        while !events.has_step(Instant::now()) && !events.is_stopping() {
            let until = events.step_due().map_or(until, |due| due.min(until));
            self.shared.changed.wait_until(&mut events, until);
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Takes a step, if there is one to take.
    fn step(&mut self, is_held: bool) {
        let mut events = self.shared.events.lock();
        let run = events.run().clone();
        let step = events.step(is_held, Instant::now());
        drop(events);
        let outcome = match step.is_empty() {
            true => Ok(Default::default()),
            // A panic in a program's own store is a failure like others.
            false => contain(|| "a step of the store".into(), || self.claims.take(&step, &run)).flatten(),
        };
        let is_failed = outcome.is_err();
        let (turns, mut errors) = self.shared.events.lock().end_step(outcome, Instant::now());
        self.shared.inbox.wake();
        let first = errors.drain(..).next();
        let what = "status updates wait, or go to other listeners";
        let hook = self.base.options.hook.as_ref();
        self.failure.take(first.map_or(Ok(()), Err), what, hook);
        self.hand_out(&turns);
        if is_failed {
            if self.stop.recv_timeout(self.wait) == Err(RecvTimeoutError::Disconnected) {
                pause(self.wait);
            }
            self.wait = (self.wait * 2).min(LAST_WAIT);
        } else {
            self.wait = FIRST_WAIT;
        }
    }

    /// Queues the turns of events at the dispatcher.
    fn hand_out(&self, turns: &[Turn]) {
        let topic = &self.current.run.lock().topic.clone();
        let turn = |turn: &Turn| messages::turn(&turn.id, topic, turn.priority, turn.timestamp);
        let mut updates: Vec<_> = turns.iter().map(turn).collect();
        // Fails only if this thread or the dispatcher is stopping.
        if !updates.is_empty() && self.base.dispatcher.queue().push(&mut updates, &self.stop).is_err() {
            log::debug!("turns of {} status updates were not handed out", updates.len());
        }
    }

    /// Does the periodic work.
    fn look(&mut self, run: &Run) {
        self.looked = Instant::now();
        // A full queue drops turns, so those that stay behind when it is empty, or has been full, are queued again.
        let queue = self.base.dispatcher.stats().queue;
        let was_full = std::mem::replace(&mut self.dropped, queue.dropped) < queue.dropped;
        let mut turns = match was_full || queue.depth == 0 {
            true => self.shared.events.lock().turns(),
            false => Vec::new(),
        };
        if was_full {
            // Some of them may still be there, and more would fill it again.
            turns.sort_by_key(|turn| turn.timestamp);
            turns.truncate((queue.capacity / 8).max(1));
        }
        if std::mem::replace(&mut self.is_stuck, !turns.is_empty()) || was_full {
            self.hand_out(&turns);
        }
        let retention = self.base.options.retention;
        if self.gone.try_recv().is_ok() || self.swept.elapsed() > retention / 4 {
            self.swept = Instant::now();
            self.shared.events.lock().expire(retention, self.swept);
            self.shared.inbox.wake();
            let events = &self.shared.events;
            let is_stray = |owner: &str, event: &str| owner == run.topic.as_str() && !events.lock().knows(event);
            let swept = self.sweep.sweep(&self.claims, is_stray, retention, self.swept);
            self.report(swept);
        }
    }

    fn report(&self, done: Result<()>) {
        if let Err(e) = done {
            let error = e.context("the claims of a listener");
            report!(&error, self.base.options.hook.as_ref());
        }
    }

    /// Ends a run that other listeners have declared dead, and begins the next.
    fn begin_anew(&mut self, run: &Run) {
        run.end();
        let begun = contain(|| "a new run of a listener".into(), || self.next_run()).flatten();
        if let Err(e) = begun {
            report!(&e, self.base.options.hook.as_ref());
            let _ = self.stop.recv_timeout(LAST_WAIT);
        }
    }

    fn next_run(&self) -> Result<()> {
        // Another listener may have taken its id.
        let (id, epoch) = {
            let run = self.current.run.lock();
            (&self.base.id, run.member.epoch)
        };
        let id = match self.base.store.get(LISTENERS, id, None) {
            // A row of an earlier run is back if the store went back.
            Ok(row) if Member::from_row(&row).is_ok_and(|owner| owner.epoch < epoch) => id.clone(),
            Ok(_) => format!("{id} {epoch}"),
            Err(_) => id.clone(),
        };
        let run = Arc::new(Run::new(&id)?);
        self.shared.events.lock().begin_run(run.topic.clone());
        *self.current.run.lock() = Arc::clone(&run);
        run.begin(&self.base, &self.shared)?;
        self.current.changed.notify_all();
        log::info!("listener {id:?} was declared dead, and begins a new run");
        Ok(())
    }

    /// Finishes the begun events, and waits a little for confirmations under way.
    fn leave(mut self, run: &Run) {
        let (mut handled, mut idle) = (Instant::now(), Instant::now());
        // Announces that it is leaving.
        run.registration().inspect(|registration| registration.renew());
        loop {
            let (is_busy, is_handling, is_settled) = {
                let events = self.shared.events.lock();
                (events.is_busy(), events.is_handling_any(), events.is_settled())
            };
            if is_busy {
                idle = Instant::now();
            }
            if is_handling {
                handled = Instant::now();
            }
            // What cannot be marked is given up, but no event from which others are to be kept.
            let is_given_up = handled.elapsed() > self.base.options.retention;
            if is_given_up || !is_busy && (is_settled || idle.elapsed() >= DRAIN) {
                break;
            }
            self.await_step();
            self.step(run.is_held());
        }
        run.end();
    }

    /// Waits for a step while stopping.
    fn await_step(&self) {
        let mut events = self.shared.events.lock();
        if !events.has_step(Instant::now()) {
            let until = Instant::now() + FIRST_WAIT;
            let _ = self.shared.changed.wait_until(&mut events, until);
        }
    }
}

impl Drop for ListenerWorker {
    fn drop(&mut self) {
        self.shared.inbox.end();
        if std::thread::panicking() {
            // Others take over what it has claimed.
            let run = Arc::clone(&self.current.run.lock());
            run.end();
        }
    }
}
