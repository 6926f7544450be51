//! The subscriber's thread: moves inputs into the session and carries out its actions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::clock;
use crate::error::{Error, report};
use crate::queue::QueueSender;
use crate::transport::{Inbound, Received};
use crate::update::Name;

use super::SubscriberOptions;
use super::session::{Action, Session};
use super::shared::{Message, Shared, State};

pub(super) struct Worker {
    pub(super) inbound: Box<dyn Inbound>,
    pub(super) messages: Receiver<Message>,
    /// Disconnected to stop the subscriber.
    pub(super) stop: Receiver<()>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: QueueSender,
    pub(super) options: SubscriberOptions,
    pub(super) session: Session,
    /// Why addresses cannot be connected; each reason is reported once.
    pub(super) refused: HashMap<Name, String>,
    pub(super) has_ended: bool,
}

/// Number of frames or updates after which the decoded updates go into the queue, even if more are waiting.
const BATCH: usize = 64;
const LARGE_BATCH: usize = 512;

/// Number of consecutive failures reported without a pause; each further one lengthens the pause by `PAUSE`.
const FREE: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);

impl Worker {
    /// Receives until it is stopped.
    pub(super) fn run(mut self) {
        self.receive();
        self.finish();
    }

    /// Handles the commands given before the end, and reports their consequences.
    fn finish(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            handle_messages(&self.messages, &mut self.session, &self.shared);
            self.act();
            // The handle sends under this lock; to the next thread if this one has ended.
            let mut state = shared.state.lock();
            if self.messages.is_empty() {
                return self.end(&mut state);
            }
        }
    }

    fn end(&mut self, state: &mut State) {
        self.has_ended = true;
        self.shared.counts.set(&self.session.stats());
        state.end(self.session.memory());
        self.shared.changed.notify_all();
    }

    fn receive(&mut self) {
        let (mut frames, mut failures, mut now) = (0, 0, clock::now());
        handle_messages(&self.messages, &mut self.session, &self.shared);
        self.act();
        loop {
            let timeout = match frames {
                0 => self
                    .session
                    .deadline()
                    .map(|at| at.saturating_duration_since(clock::now())),
                _ => Some(Duration::ZERO),
            };
            let session = &mut self.session;
            let mut idle_at = None;
            let received = self.inbound.recv(timeout);
            let is_failed = received.is_err();
            match received {
                Ok(Received::Frame {
                    address,
                    topic,
                    payload,
                }) => {
                    if frames == 0 {
                        now = clock::now();
                    }
                    frames += 1;
                    // Commands given before the message was sent go first: nothing is delivered on an unregistered
                    // topic, nor from an unregistered address.
                    let mut is_known = true;
                    if !self.messages.is_empty() {
                        handle_messages(&self.messages, session, &self.shared);
                        is_known = session.listens_to(address);
                    }
                    if is_known {
                        session.handle_frame(address, topic, payload, now, clock::now);
                        if frames < BATCH && session.updates().len() < LARGE_BATCH && !session.is_urgent() {
                            continue;
                        }
                    }
                }
                Ok(Received::Malformed) => session.handle_malformed(),
                Ok(Received::Connected { address }) => session.handle_connected(address, clock::now()),
                Ok(Received::Disconnected { address }) => session.handle_disconnected(address, clock::now()),
                Ok(Received::Answer { address, probe, hello }) => {
                    session.handle_answer(address, probe, hello, clock::now());
                }
                Ok(Received::Idle) => session.handle_drained(*idle_at.insert(clock::now())),
                Ok(Received::Woken) => {
                    if self.stop.try_recv() == Err(TryRecvError::Disconnected) {
                        return;
                    }
                    handle_messages(&self.messages, &mut self.session, &self.shared);
                }
                Err(e) => {
                    failures += 1;
                    self.report(&e);
                    // The first failures may carry news of an address; repeated ones wait longer. A stop ends the wait.
                    let wait = PAUSE
                        .saturating_mul(u32::saturating_sub(failures, FREE))
                        .min(self.options.retry_interval);
                    if self.stop.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                }
            }
            if !is_failed {
                failures = 0;
            }
            frames = 0;
            self.session.settle_hearing();
            if let Some(deadline) = self.session.deadline() {
                let now = idle_at.unwrap_or_else(clock::now);
                if deadline <= now {
                    self.session.tick(now);
                }
            }
            self.act();
        }
    }

    /// Carries out the session's actions.
    fn act(&mut self) {
        while let Some(action) = self.session.poll() {
            if matches!(action, Action::Deliver | Action::Tell(_)) {
                // Before a callback can read them.
                self.shared.counts.set(&self.session.stats());
            }
            let (inbound, now) = (&mut *self.inbound, clock::now);
            let done = match action {
                Action::Deliver => {
                    self.deliver();
                    Ok(())
                }
                Action::Tell(reason) => {
                    log::info!("sync: {reason}");
                    self.queue.sync(reason);
                    Ok(())
                }
                Action::Report(e) => Err(e),
                Action::Subscribe(topic) => inbound.subscribe(&topic).inspect_err(|_| {
                    self.session.handle_refused(topic, now());
                }),
                Action::Unsubscribe(topic) => inbound.unsubscribe(&topic),
                Action::Connect(address) => match inbound.connect(&address) {
                    Ok(()) => {
                        self.refused.remove(&address);
                        Ok(())
                    }
                    Err(e) => {
                        self.session.handle_not_connecting(&address, now());
                        let text = e.to_string();
                        let before = self.refused.insert(address, text.clone());
                        if before.is_some_and(|before| before == text) {
                            Ok(())
                        } else {
                            Err(e)
                        }
                    }
                },
                Action::Disconnect(address) => {
                    self.refused.remove(&address);
                    inbound.disconnect(&address)
                }
                // If this fails no answer comes, and the address is probed again.
                Action::Probe(address, probe) => inbound.probe(&address, &probe),
                Action::Weigh(address) => {
                    let received = inbound.received_bytes(&address);
                    self.session.handle_weight(&address, received, now());
                    Ok(())
                }
                Action::Clear(topics) => {
                    let shared = &self.shared;
                    shared.state.lock().clear_topics(&topics, &shared.own);
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.report(&e);
            }
        }
        self.shared.counts.set(&self.session.stats());
        // After the reports of everything that it follows from.
        if self.session.take_changed() {
            self.shared.state.lock().see(self.session.addresses());
            self.shared.changed.notify_all();
        }
    }

    /// Puts decoded updates into the queue.
    fn deliver(&mut self) {
        let updates = self.session.updates();
        let count = updates.len();
        self.shared.own.take(updates);
        // Fails only if the subscriber or the dispatcher is stopping.
        if self.queue.push(updates, &self.stop).is_err() {
            updates.clear();
        }
        let decoder = self.session.decoder();
        // The next batch is likely to need as many.
        while decoder.spares() < count.max(BATCH)
            && let Some(values) = self.queue.spare_values()
        {
            decoder.reuse(values);
        }
    }

    fn report(&mut self, error: &Error) {
        self.session.handle_failed();
        self.shared.counts.set(&self.session.stats());
        report!(error, self.options.hook.as_ref());
    }
}

fn handle_messages(messages: &Receiver<Message>, session: &mut Session, shared: &Shared) {
    let now = clock::now();
    let mut asked = None;
    while let Ok(message) = messages.try_recv() {
        match message {
            Message::Command(command) => session.handle_command(command, now),
            Message::Report(number) => asked = Some(number),
        }
    }
    session.handled_commands(now);
    if let Some(asked) = asked {
        let topics = session.topics(now);
        shared.state.lock().report(asked, topics);
        shared.changed.notify_all();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_ended {
            let shared = Arc::clone(&self.shared);
            self.end(&mut shared.state.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Resubscribe;
    use crate::drivers::memory::MemoryDriver;
    use crate::event::SyncReason;
    use crate::subscriber::Subscriber;
    use crate::transport::Driver;
    use crate::update::Topic;
    use crate::{Dispatcher, DispatcherOptions};

    const ADDRESS: &str = "memory://here";

    /// A subscriber with this address, and the receiver of its sync events.
    fn subscriber(resubscribe: Resubscribe) -> (Dispatcher, Subscriber, Receiver<SyncReason>) {
        let dispatcher = Dispatcher::new(DispatcherOptions::default()).unwrap();
        let (sender, syncs) = crossbeam_channel::unbounded();
        dispatcher.on_sync(sender).detach();
        let options = SubscriberOptions {
            resubscribe,
            ..SubscriberOptions::default()
        };
        let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(ADDRESS).unwrap());
        let subscriber = Subscriber::new(driver, dispatcher.queue(), options);
        subscriber.follow_listen_address(ADDRESS).unwrap();
        (dispatcher, subscriber, syncs)
    }

    impl Worker {
        /// Works until `done` has been true once.
        fn work_until(&mut self, done: fn(&Received<'_>) -> bool) {
            handle_messages(&self.messages, &mut self.session, &self.shared);
            self.act();
            loop {
                let received = self.inbound.recv(Some(Duration::from_secs(20))).unwrap();
                let is_done = done(&received);
                match received {
                    Received::Connected { address } => self.session.handle_connected(address, clock::now()),
                    Received::Answer { address, probe, hello } => {
                        self.session.handle_answer(address, probe, hello, clock::now());
                    }
                    Received::Idle => panic!("nothing comes"),
                    _ => {}
                }
                self.act();
                if is_done {
                    return;
                }
            }
        }
    }

    #[test]
    fn an_address_that_is_given_up_while_the_thread_ends_is_told() {
        let (_dispatcher, subscriber, syncs) = subscriber(Resubscribe::Automatic);
        let mut worker = subscriber.start().unwrap();
        worker.work_until(|received| matches!(received, Received::Connected { .. }));
        // After its last look.
        subscriber.give_up_listen_address(ADDRESS);
        worker.finish();
        assert!(!subscriber.is_running());
        let told = syncs.recv_timeout(Duration::from_secs(20)).unwrap();
        let address = ADDRESS.into();
        assert_eq!(told, SyncReason::AddressLost { address });
    }

    #[test]
    fn a_cleared_topic_that_is_unregistered_while_the_thread_ends_is_forgotten() {
        let (_dispatcher, subscriber, syncs) = subscriber(Resubscribe::Manual);
        let topics = ["a", "b"].map(|name| Topic::new(name).unwrap());
        for topic in &topics {
            subscriber.register_topic(topic).unwrap();
        }
        let is_answer = |received: &Received<'_>| matches!(received, Received::Answer { .. });
        let mut worker = subscriber.start().unwrap();
        worker.work_until(is_answer);
        worker.session.handle_disconnected(ADDRESS, clock::now());
        worker.act();
        subscriber.unregister_topic(&topics[0]);
        worker.finish();
        let mut worker = subscriber.start().unwrap();
        worker.work_until(is_answer);
        // The address is reported live again only after a while.
        worker.session.tick(clock::now() + Duration::from_secs(1));
        worker.act();
        subscriber.stop();
        worker.finish();
        let told = std::iter::from_fn(|| syncs.recv_timeout(Duration::from_secs(5)).ok());
        let cleared = told.into_iter().find_map(|reason| match reason {
            SyncReason::Cleared { topics, .. } => Some(topics),
            _ => None,
        });
        assert_eq!(cleared.unwrap(), topics[1..]);
    }
}
