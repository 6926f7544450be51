//! Optional workers: callbacks of different rows run at the same time, those of one row never.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::registry::Registry;
use super::run::Shared;
use crate::error::Result;
use crate::queue::QueueReceiver;
use crate::thread::{self, Thread};
use crate::update::{Event, Name};

/// How many sync events wait for the callbacks of earlier ones.
const SYNC_BACKLOG: usize = 1024;

/// The workers, as the dispatcher thread sees them. Dropping this ends them.
///
/// Sync events have a thread of their own: they stay in order, and a program that reads the whole store in such a
/// callback holds up no update, nor the other way round.
pub(super) struct Workers {
    updates: Sender<Job>,
    syncs: Sender<Job>,
    finished: Receiver<(Name, Name)>,
    idle: usize,
}

struct Job {
    event: Event,
    registry: Arc<Registry>,
}

impl Workers {
    /// Starts the workers; adds their threads to `threads`.
    pub(super) fn start(count: usize, shared: &Arc<Shared>, threads: &mut Vec<Thread>) -> Result<Workers> {
        let (updates, update_jobs) = crossbeam_channel::bounded(count);
        let (syncs, sync_jobs) = crossbeam_channel::bounded(SYNC_BACKLOG);
        let (finish, finished) = crossbeam_channel::unbounded();
        for number in 1..=count {
            let (jobs, finish, shared) = (update_jobs.clone(), finish.clone(), Arc::clone(shared));
            let body = move || work(&shared, &jobs, &finish);
            threads.push(thread::spawn(&format!("tc-worker-{number}"), body)?);
        }
        let shared = Arc::clone(shared);
        threads.push(thread::spawn("tc-syncs", move || work(&shared, &sync_jobs, &finish))?);
        Ok(Workers {
            updates,
            syncs,
            finished,
            idle: count,
        })
    }

    pub(super) fn has_idle(&self) -> bool {
        self.idle > 0
    }

    /// What has something when a worker has finished an update: give it to [`Workers::finish`].
    pub(super) fn finished(&self) -> &Receiver<(Name, Name)> {
        &self.finished
    }

    /// Releases the row and counts its worker as idle.
    pub(super) fn finish(&mut self, (table, key): (Name, Name), queue: &mut QueueReceiver) {
        queue.release(&table, &key);
        self.idle += 1;
    }

    /// Hands out an event; an update only while [`Workers::has_idle`] is true.
    pub(super) fn hand_out(&mut self, event: Event, registry: &Arc<Registry>) {
        let jobs = match event {
            Event::Update(_) => {
                self.idle -= 1;
                &self.updates
            }
            Event::Sync(_) => &self.syncs,
        };
        // Never full for updates. A sync event that finds it full is covered by those that wait: they come later.
        let registry = Arc::clone(registry);
        let _ = jobs.try_send(Job { event, registry });
    }
}

/// What a worker does until it is told, by a disconnect, to end.
fn work(shared: &Shared, jobs: &Receiver<Job>, finish: &Sender<(Name, Name)>) {
    for Job { event, registry } in jobs {
        shared.deliver(&registry, &event);
        shared.edit(|| drop(registry));
        if let Event::Update(update) = event {
            let _ = finish.send((update.table, update.key));
        }
    }
}
