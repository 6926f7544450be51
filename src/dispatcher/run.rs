//! The dispatcher thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, select};

use super::dispatch::Dispatch;
use super::registry::{Command, Job, Registry};
use super::workers::Workers;
use crate::event::{Event, SyncReason};
use crate::queue::QueueReceiver;
use crate::update::DbUpdate;

/// State of the dispatcher thread.
pub(super) struct Run {
    dispatch: Arc<Dispatch>,
    commands: Receiver<Command>,
    queue: QueueReceiver,
    registry: Arc<Registry>,
    workers: Option<Workers>,
    /// Waiting jobs, oldest first.
    jobs: VecDeque<Job>,
    /// The last work was a job, so an event is next.
    was_job: bool,
    /// The number of coming updates that callbacks have looked at.
    ahead: usize,
}

/// The updates that callbacks look at together.
const AHEAD: usize = 64;

/// The work to do next.
#[expect(clippy::large_enum_variant, reason = "it is moved once, at once")]
enum Next {
    Event(Event),
    Job(Job),
}

impl Run {
    pub(super) fn new(
        dispatch: Arc<Dispatch>,
        commands: Receiver<Command>,
        queue: QueueReceiver,
        workers: Option<Workers>,
    ) -> Run {
        Run {
            dispatch,
            commands,
            queue,
            registry: Arc::default(),
            workers,
            jobs: VecDeque::new(),
            was_job: false,
            ahead: 0,
        }
    }

    pub(super) fn run(mut self) {
        while !self.dispatch.is_stopped() {
            match self.next() {
                Some(Next::Job(job)) => match &mut self.workers {
                    None => self.dispatch.work(job),
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
        let dispatch = Arc::clone(&self.dispatch);
        dispatch.edit(|| drop(self));
    }

    /// The next work, jobs and events in turns.
    fn next(&mut self) -> Option<Next> {
        // Only here: a thread that became idle in the middle could be given nothing, and end no wait.
        if let Some(workers) = &mut self.workers {
            while let Ok(finished) = workers.finished().try_recv() {
                workers.finish(finished, &mut self.queue);
            }
        }
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
                if let Event::Update(update) = &event
                    && self.registry.looks_ahead()
                {
                    self.look_ahead(update);
                }
                self.dispatch.deliver(&self.registry, &event);
                if let Event::Update(update) = event {
                    self.queue.recycle(update);
                }
            }
            Some(workers) => workers.hand_out(event, &self.registry),
        }
    }

    /// Has callbacks look at this update, and at those behind it, unless they have.
    fn look_ahead(&mut self, update: &DbUpdate) {
        if let Some(left) = self.ahead.checked_sub(1) {
            self.ahead = left;
            return;
        }
        let mut updates = [update; AHEAD];
        for (place, next) in updates.iter_mut().skip(1).zip(self.queue.coming()) {
            *place = next;
            self.ahead += 1;
        }
        self.registry.look_ahead(&mut updates[..=self.ahead]);
    }

    /// Waits for work, and handles whatever is not an event.
    fn wait(&mut self) {
        #[cfg(feature = "metrics")]
        self.dispatch.rest();
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
        self.dispatch.edit(|| Arc::make_mut(registry).apply(command));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::never;

    use super::*;
    use crate::dispatcher::DispatcherHandle;
    use crate::queue::{self, QueueOptions};
    use crate::update::Action;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Callbacks of a table look at the updates to come once, before the first of them is called.
    #[test]
    fn callbacks_look_ahead() {
        let (sender, mut queue) = queue::bounded(QueueOptions::default());
        let (edits, commands) = crossbeam_channel::unbounded();
        let dispatch = Arc::new(Dispatch::new(edits, sender.clone(), None, true));
        let (log, logged) = crossbeam_channel::unbounded();
        let looked = log.clone();
        let guard = DispatcherHandle(Arc::clone(&dispatch)).on_table_ahead(
            "t".into(),
            move |update| log.send(format!("call {}", update.key)).unwrap(),
            move |updates| {
                let keys: Vec<&str> = updates.iter().map(|update| &*update.key).collect();
                looked.send(format!("look at {}", keys.join(" "))).unwrap();
            },
        );
        let update = |(timestamp, (table, key))| DbUpdate {
            timestamp,
            ..DbUpdate::new(table, key, Action::Set)
        };
        let rows = [("t", "a"), ("t", "b"), ("other", "c"), ("t", "d")];
        sender
            .push(&mut (0..).zip(rows).map(update).collect(), &never())
            .unwrap();
        queue.accept(queue.channel().recv_timeout(LIMIT).unwrap());
        let mut run = Run::new(dispatch, commands, queue, None);
        while let Some(Next::Event(event)) = run.next() {
            run.apply_waiting();
            run.deliver(event);
        }
        let logged: Vec<String> = logged.try_iter().collect();
        assert_eq!(logged, ["look at a b d", "call a", "call b", "call d"]);
        drop(guard);
    }

    /// A worker that finishes while the dispatcher looks for work wakes it, or gets the work.
    #[test]
    fn a_job_does_not_wait_beside_an_idle_worker() {
        let (sender, mut queue) = queue::bounded(QueueOptions::default());
        let (edits, commands) = crossbeam_channel::unbounded();
        let dispatch = Arc::new(Dispatch::new(edits, sender.clone(), None, false));
        let mut threads = Vec::new();
        let workers = Workers::start(1, &dispatch, &mut threads).unwrap();
        let update = DbUpdate::new("t", "k", Action::Set);
        sender.push(&mut vec![update], &never()).unwrap();
        queue.accept(queue.channel().recv_timeout(LIMIT).unwrap());
        let mut run = Run::new(dispatch, commands, queue, Some(workers));
        run.jobs.push_back(Box::new(|| ()));
        // It was an event's turn: the worker has it, and is done before the next look.
        run.was_job = true;
        let Some(Next::Event(event)) = run.next() else {
            panic!("no event");
        };
        run.deliver(event);
        let end = Instant::now() + LIMIT;
        while run.workers.as_ref().unwrap().finished().is_empty() {
            assert!(Instant::now() < end);
            crate::thread::pause(Duration::from_millis(1));
        }
        assert!(matches!(run.next(), Some(Next::Job(_))));
        // Ends the worker.
        drop(run);
    }
}
