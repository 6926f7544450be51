//! Carries out the actions of a notifier's bookkeeping.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::in_flight::{InFlight, Step};
use super::messages::{self, Answers, EventId, MAX_ASKED};
use super::notifier_shared::{NotifierShared, no_listener};
use super::peers::Standing;
use crate::error::{Error, ErrorKind, Result, report};
use crate::update::{DbUpdate, Name, Topic};

/// Commands to a notifier's worker.
pub(super) enum Command {
    Notify(u64, DbUpdate),
    Answers(Answers),
    Listeners(BTreeMap<Name, Standing>),
    /// Ends the worker, and returns the updates that were never acknowledged.
    Stop(Sender<Vec<DbUpdate>>),
}

pub(super) struct NotifierWorker {
    in_flight: InFlight,
    shared: Arc<NotifierShared>,
    topic: Topic,
    /// The last send failed.
    is_failing: bool,
}

/// The most updates in one bundle.
const BUNDLE: usize = 64;

impl NotifierWorker {
    pub(super) fn new(shared: &Arc<NotifierShared>, topic: &Topic) -> NotifierWorker {
        let options = &shared.options;
        NotifierWorker {
            in_flight: InFlight::new(options.ack_timeout, options.window, options.timeout),
            shared: Arc::clone(shared),
            topic: topic.clone(),
            is_failing: false,
        }
    }

    pub(super) fn take(&mut self, command: Command, now: Instant) {
        match command {
            Command::Notify(number, update) => self.in_flight.add(number, update, now),
            Command::Answers(answers) => self.in_flight.answered(answers, now),
            Command::Listeners(listeners) => self.in_flight.listeners(listeners, now),
            // The thread ends workers, by `stop`.
            Command::Stop(_) => {}
        }
    }

    /// Sends the last confirmations, unless the last send failed, and returns the pending updates.
    pub(super) fn stop(mut self, pending: &Sender<Vec<DbUpdate>>) {
        if !self.is_failing {
            self.in_flight.confirm(Instant::now());
            self.send_due();
        }
        if let Err(unread) = pending.send(self.in_flight.into_pending())
            && !unread.0.is_empty()
        {
            let context = format!("{} status updates were never acknowledged", unread.0.len());
            let error = Error::new(ErrorKind::Unconfirmed, context);
            report!(&error, self.shared.options.hook.as_ref());
        }
    }

    /// Does all due work; returns true if a send blocked and failed.
    pub(super) fn act(&mut self, now: Instant) -> bool {
        self.in_flight.tick(now);
        self.send_due()
    }

    /// The time of the next work, without further input.
    pub(super) fn due(&self) -> Option<Instant> {
        self.in_flight.due()
    }

    /// Carries out the actions; returns true if a send blocked and failed.
    fn send_due(&mut self) -> bool {
        let mut by_listener: BTreeMap<Name, Vec<DbUpdate>> = BTreeMap::new();
        let low = self.in_flight.low();
        for step in self.in_flight.steps() {
            match step {
                Step::Processed { failed, took } => self.shared.processed(failed, took),
                Step::NoListener => report!(&no_listener(), self.shared.options.hook.as_ref()),
                Step::Send {
                    number,
                    attempt,
                    listener,
                    again,
                } => {
                    let Some(update) = self.in_flight.update(number) else {
                        continue;
                    };
                    self.shared.sent(again);
                    let message = messages::event(&self.id(number), attempt, low, update);
                    self.put(&mut by_listener, listener, message);
                }
                Step::Ask { about, listener } => {
                    for about in about.chunks(MAX_ASKED) {
                        let message = messages::questions(&self.topic, low, about);
                        self.put(&mut by_listener, listener.clone(), message);
                    }
                }
                Step::Confirm { numbers, listener } => {
                    for numbers in numbers.chunks(MAX_ASKED) {
                        let message = messages::confirmation(&self.topic, low, numbers);
                        self.put(&mut by_listener, listener.clone(), message);
                    }
                }
            }
        }
        for (listener, messages) in by_listener {
            for bundle in messages.chunks(BUNDLE) {
                let sent = self.send(&listener, bundle);
                let is_stuck = sent.as_ref().is_err_and(|e| !is_refused(e));
                self.note(sent);
                if is_stuck {
                    // An event that was not sent is asked about when its answer does not come.
                    return true;
                }
            }
        }
        false
    }

    fn put(&mut self, by_listener: &mut BTreeMap<Name, Vec<DbUpdate>>, listener: Name, message: Result<DbUpdate>) {
        match message {
            Ok(message) => by_listener.entry(listener).or_default().push(message),
            Err(e) => self.note(Err(e)),
        }
    }

    fn id(&self, number: u64) -> EventId {
        EventId {
            notifier: self.topic.clone(),
            number,
        }
    }

    /// Sends messages as one, or one by one if they are too large together.
    fn send(&self, listener: &Name, messages: &[DbUpdate]) -> Result<()> {
        let topic = Topic::new(listener)?;
        match self.shared.publisher.send_own_batch(&topic, messages) {
            Err(e) if is_refused(&e) && messages.len() > 1 => {
                let mut singly = messages.chunks(1);
                singly.try_for_each(|message| self.shared.publisher.send_own_batch(&topic, message))
            }
            sent => sent,
        }
    }

    /// Reports only the first of successive failures.
    fn note(&mut self, sent: Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        let Err(e) = sent else { return };
        if !was_failing {
            let error = e.context("a status update could not be sent; it will be sent again");
            report!(&error, self.shared.options.hook.as_ref());
        }
    }
}

/// True if only this message is refused, not others.
fn is_refused(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::TooLarge | ErrorKind::InvalidInput)
}
