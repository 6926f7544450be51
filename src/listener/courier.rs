//! The notifier's thread: does what the bookkeeping says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::envelope::{self, Answers, EventId};
use super::in_flight::{InFlight, Step};
use super::notifier::{Shared, nobody};
use super::peers::Standing;
use crate::error::{Error, ErrorKind, Result, report};
use crate::update::{DbUpdate, Name, Topic};

/// What the thread is told.
pub(super) enum Command {
    Notify(u64, DbUpdate),
    Answers(Answers),
    Listeners(BTreeMap<Name, Standing>),
    /// Ends the thread, which says what was never acknowledged.
    Stop(Sender<Vec<DbUpdate>>),
}

pub(super) struct Courier {
    in_flight: InFlight,
    shared: Arc<Shared>,
    topic: Topic,
    commands: Receiver<Command>,
    /// The last send has failed.
    is_failing: bool,
}

/// How many commands are taken in before what follows from them is done.
const COMMANDS: usize = 256;

/// How many updates make one message, at most, and how many numbers make one of those.
const BUNDLE: usize = 64;
const NUMBERS: usize = 512;

impl Courier {
    pub(super) fn new(shared: &Arc<Shared>, topic: &Topic, commands: Receiver<Command>) -> Courier {
        let options = &shared.options;
        Courier {
            in_flight: InFlight::new(options.ack_timeout, options.window, options.timeout),
            shared: Arc::clone(shared),
            topic: topic.clone(),
            commands,
            is_failing: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let command = match self.in_flight.due() {
                Some(due) => self.commands.recv_deadline(due),
                None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match command {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let commands = self.commands.clone();
            for command in first.into_iter().chain(commands.try_iter().take(COMMANDS)) {
                let now = Instant::now();
                match command {
                    Command::Notify(number, update) => self.in_flight.add(number, update, now),
                    Command::Answers(answers) => self.in_flight.answered(answers, now),
                    Command::Listeners(listeners) => self.in_flight.listeners(listeners, now),
                    Command::Stop(pending) => {
                        self.in_flight.confirm(now);
                        self.act();
                        let _ = pending.send(self.in_flight.into_pending());
                        return;
                    }
                }
            }
            self.in_flight.tick(Instant::now());
            self.act();
        }
    }

    fn act(&mut self) {
        let mut outbox: BTreeMap<Name, Vec<DbUpdate>> = BTreeMap::new();
        let low = self.in_flight.low();
        for step in self.in_flight.steps() {
            match step {
                Step::Processed { failed, took } => self.shared.processed(failed, took),
                Step::Nobody => report(&nobody(), self.shared.options.hook.as_ref()),
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
                    let message = envelope::event(&self.id(number), attempt, low, update);
                    self.put(&mut outbox, listener, message);
                }
                Step::Ask { about, listener } => {
                    for about in about.chunks(NUMBERS) {
                        let message = envelope::questions(&self.topic, low, about);
                        self.put(&mut outbox, listener.clone(), message);
                    }
                }
                Step::Confirm { numbers, listener } => {
                    for numbers in numbers.chunks(NUMBERS) {
                        let message = envelope::confirmation(&self.topic, low, numbers);
                        self.put(&mut outbox, listener.clone(), message);
                    }
                }
            }
        }
        for (listener, messages) in outbox {
            for bundle in messages.chunks(BUNDLE) {
                let sent = self.send(&listener, bundle);
                let is_stuck = sent.as_ref().is_err_and(|e| !is_refused(e));
                self.note(sent);
                if is_stuck {
                    // What cannot be sent now is asked for when its answer does not come.
                    return;
                }
            }
        }
    }

    fn put(&mut self, outbox: &mut BTreeMap<Name, Vec<DbUpdate>>, listener: Name, message: Result<DbUpdate>) {
        match message {
            Ok(message) => outbox.entry(listener).or_default().push(message),
            Err(e) => self.note(Err(e)),
        }
    }

    fn id(&self, number: u64) -> EventId {
        EventId {
            notifier: self.topic.clone(),
            number,
        }
    }

    /// Sends messages as one, or if they are too large for that, one by one.
    fn send(&self, listener: &Name, messages: &[DbUpdate]) -> Result<()> {
        let topic = Topic::new(listener)?;
        match self.shared.publisher.send_batch(&topic, messages) {
            Err(e) if is_refused(&e) && messages.len() > 1 => {
                let mut singly = messages.chunks(1);
                singly.try_for_each(|message| self.shared.publisher.send_batch(&topic, message))
            }
            sent => sent,
        }
    }

    /// Of sends that fail one after the other only the first failure is passed on.
    fn note(&mut self, sent: Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        let Err(e) = sent else { return };
        if !was_failing {
            let error = Error::new(e.kind(), "a status update could not be sent, and is tried again").with_source(e);
            report(&error, self.shared.options.hook.as_ref());
        }
    }
}

/// The transport could take others.
fn is_refused(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::TooLarge | ErrorKind::InvalidInput)
}
