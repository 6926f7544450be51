//! The subscriber's thread: moves what happens into the session, and does what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::clock;
use crate::error::{Error, report};
use crate::queue::QueueSender;
use crate::transport::{Inbound, Received};

use super::SubscriberOptions;
use super::session::{Action, Session};
use super::shared::{Message, Shared};

pub(super) struct Worker {
    pub(super) inbound: Box<dyn Inbound>,
    pub(super) messages: Receiver<Message>,
    /// Disconnected when the subscriber is to stop.
    pub(super) stop: Receiver<()>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: QueueSender,
    pub(super) options: SubscriberOptions,
    pub(super) session: Session,
}

/// After so many frames what they brought goes into the queue, even if more are there.
const BATCH: usize = 64;

/// So many failures in a row are reported without a pause; after each of the following it is longer by this.
const FREE: u32 = 8;
const PAUSE: Duration = Duration::from_millis(2);

impl Worker {
    /// Receives until told to stop.
    pub(super) fn run(mut self) {
        let (mut frames, mut failures, mut now) = (0, 0, clock::now());
        self.handle_messages();
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
                    session.handle_frame(address, topic, payload, now, clock::now);
                    if frames < BATCH && !session.is_urgent() {
                        continue;
                    }
                }
                Ok(Received::Malformed) => session.handle_malformed(),
                Ok(Received::Connected { address }) => session.handle_connected(address, clock::now()),
                Ok(Received::Disconnected { address }) => session.handle_disconnected(address, clock::now()),
                Ok(Received::Answer { address, probe, hello }) => {
                    session.handle_answer(address, probe, hello, clock::now());
                }
                Ok(Received::Idle) => session.handle_drained(clock::now()),
                Ok(Received::Woken) => {
                    if self.stop.try_recv() == Err(TryRecvError::Disconnected) {
                        return self.act();
                    }
                    self.handle_messages();
                }
                Err(e) => {
                    failures += 1;
                    self.report(&e);
                    // One may be news of an address; what fails again and again is tried after a while. Stop ends it.
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
                let now = clock::now();
                if deadline <= now {
                    self.session.tick(now);
                }
            }
            self.act();
        }
    }

    fn handle_messages(&mut self) {
        let now = clock::now();
        let mut is_asked = false;
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Command(command) => self.session.handle_command(command, now),
                Message::Report => is_asked = true,
            }
        }
        self.session.handled_commands(now);
        if is_asked {
            let topics = self.session.topics(now);
            self.shared.state.lock().report(topics);
            self.shared.changed.notify_all();
        }
    }

    /// Does what is to be done.
    fn act(&mut self) {
        while let Some(action) = self.session.poll() {
            if matches!(action, Action::Deliver | Action::Tell(_)) {
                // Before a callback can look at them.
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
                Action::Connect(address) => inbound.connect(&address).inspect_err(|_| {
                    self.session.handle_not_connecting(&address, now());
                }),
                Action::Disconnect(address) => inbound.disconnect(&address),
                // If that fails nothing will answer, so that it is asked again.
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
        // After everything that it follows from was told.
        if self.session.take_changed() {
            self.shared.state.lock().see(self.session.addresses());
            self.shared.changed.notify_all();
        }
    }

    /// Hands on what was decoded.
    fn deliver(&mut self) {
        let updates = self.session.updates();
        self.shared.own.take(updates);
        // It fails only if the subscriber or the dispatcher is stopping.
        if self.queue.push(updates, &self.stop).is_err() {
            updates.clear();
        }
        let decoder = self.session.decoder();
        if decoder.spares() < BATCH
            && let Some(values) = self.queue.spare_values()
        {
            decoder.reuse(values);
        }
    }

    fn report(&mut self, error: &Error) {
        self.session.handle_failed();
        self.shared.counts.set(&self.session.stats());
        report(error, self.options.hook.as_ref());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.counts.set(&self.session.stats());
        let memory = self.session.memory();
        self.shared.state.lock().end(memory);
        self.shared.changed.notify_all();
    }
}
