//! Optional workers: callbacks of different rows run at the same time, those of one row never do.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::dispatch::Dispatch;
use super::registry::{self, Registry};
use crate::error::Result;
use crate::event::Event;
use crate::queue::QueueReceiver;
use crate::thread::{self, Thread};
use crate::update::Name;

/// The dispatcher thread's handle to the workers. Dropping it ends them.
///
/// Sync events have a thread of their own, so that they stay in order, and a callback that reads the whole store holds
/// up no update, nor the other way round. Both kinds wait in the queue until a thread is free.
pub(super) struct Workers {
    updates: Sender<Job>,
    syncs: Sender<Job>,
    finished: Receiver<Finished>,
    idle: usize,
    syncs_idle: bool,
}

/// Work that a thread has finished.
pub(super) enum Finished {
    /// An update of this row.
    Row(Name, Name),
    Sync,
    Job,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are events")]
enum Job {
    Event(Event, Arc<Registry>),
    Other(registry::Job),
}

impl Workers {
    /// Starts the workers and adds their threads to `threads`.
    pub(super) fn start(count: usize, dispatch: &Arc<Dispatch>, threads: &mut Vec<Thread>) -> Result<Workers> {
        let (updates, update_jobs) = crossbeam_channel::bounded(count);
        let (syncs, sync_jobs) = crossbeam_channel::bounded(1);
        let (finish, finished) = crossbeam_channel::unbounded();
        for number in 1..=count {
            let (jobs, finish, dispatch) = (update_jobs.clone(), finish.clone(), Arc::clone(dispatch));
            let (name, hook) = (format!("tc-worker-{number}"), dispatch.hook());
            let body = move || work(&dispatch, &jobs, &finish);
            threads.push(thread::spawn(&name, hook, body)?);
        }
        let (dispatch, hook) = (Arc::clone(dispatch), dispatch.hook());
        let body = move || work(&dispatch, &sync_jobs, &finish);
        threads.push(thread::spawn("tc-syncs", hook, body)?);
        Ok(Workers {
            updates,
            syncs,
            finished,
            idle: count,
            syncs_idle: true,
        })
    }

    /// True if an update can be handed out.
    pub(super) fn take_updates(&self) -> bool {
        self.idle > 0
    }

    /// True if a sync event can be handed out.
    pub(super) fn take_syncs(&self) -> bool {
        self.syncs_idle
    }

    /// Receives finished work; pass it to [`Workers::finish`].
    pub(super) fn finished(&self) -> &Receiver<Finished> {
        &self.finished
    }

    /// Counts a thread as idle, and releases the row that it has handled.
    pub(super) fn finish(&mut self, finished: Finished, queue: &mut QueueReceiver) {
        match finished {
            Finished::Row(table, key) => {
                queue.release(&table, &key);
                self.idle += 1;
            }
            Finished::Sync => self.syncs_idle = true,
            Finished::Job => self.idle += 1,
        }
    }

    /// Hands out an event; a thread must be idle.
    pub(super) fn hand_out(&mut self, event: Event, registry: &Arc<Registry>) {
        let jobs = match event {
            Event::Update(_) => {
                self.idle -= 1;
                &self.updates
            }
            Event::Sync(_) => {
                self.syncs_idle = false;
                &self.syncs
            }
        };
        // Never full: there is room for as many jobs as there are threads.
        let _ = jobs.try_send(Job::Event(event, Arc::clone(registry)));
    }

    /// Hands out a job; a thread must be idle.
    pub(super) fn hand_out_job(&mut self, job: registry::Job) {
        self.idle -= 1;
        let _ = self.updates.try_send(Job::Other(job));
    }
}

/// Runs a worker until its channel is disconnected.
fn work(dispatch: &Dispatch, jobs: &Receiver<Job>, finish: &Sender<Finished>) {
    for job in jobs {
        let finished = match job {
            Job::Event(event, registry) => {
                dispatch.deliver(&registry, &event);
                dispatch.edit(|| drop(registry));
                match event {
                    Event::Update(update) => Finished::Row(update.table, update.key),
                    Event::Sync(_) => Finished::Sync,
                }
            }
            Job::Other(job) => {
                dispatch.work(job);
                Finished::Job
            }
        };
        let _ = finish.send(finished);
    }
}
