//! The notifier's thread: does what the bookkeeping says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::envelope::{self, Answer, EventId};
use super::in_flight::{InFlight, Step};
use super::notifier::{Shared, nobody};
use crate::error::{Error, ErrorKind, Result, report};
use crate::update::{DbUpdate, Name, Topic};

/// What the thread is told.
pub(super) enum Command {
    Notify(u64, DbUpdate),
    Answer(u64, Answer),
    Listeners(BTreeMap<Name, bool>),
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

impl Courier {
    pub(super) fn new(shared: &Arc<Shared>, topic: &Topic, commands: Receiver<Command>) -> Courier {
        Courier {
            in_flight: InFlight::new(shared.options.ack_timeout, shared.options.window),
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
                    Command::Answer(number, answer) => self.in_flight.answered(number, answer, now),
                    Command::Listeners(listeners) => self.in_flight.listeners(listeners, now),
                    Command::Stop(pending) => {
                        self.in_flight.confirm();
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
        // What cannot be sent now is sent again when its answer does not come.
        let mut may_send = true;
        for step in self.in_flight.steps() {
            let (message, listener) = match step {
                Step::Processed { failed, took } => {
                    self.shared.processed(failed, took);
                    continue;
                }
                Step::Nobody => {
                    report(&nobody(), self.shared.options.hook.as_ref());
                    continue;
                }
                Step::Send {
                    number,
                    attempt,
                    listener,
                } => {
                    let Some(update) = self.in_flight.update(number) else {
                        continue;
                    };
                    self.shared.sent(attempt);
                    (envelope::event(&self.id(number), attempt, update), listener)
                }
                Step::Ask {
                    number,
                    attempt,
                    listener,
                } => (envelope::question(&self.id(number), attempt), listener),
                Step::Confirm { numbers, listener } => (envelope::confirmation(&self.topic, &numbers), listener),
            };
            if may_send {
                may_send = self.send(message, &listener);
            }
        }
    }

    fn id(&self, number: u64) -> EventId {
        EventId {
            notifier: self.topic.clone(),
            number,
        }
    }

    /// False if the transport does not take anything.
    fn send(&mut self, message: Result<DbUpdate>, listener: &Name) -> bool {
        let sent = message.and_then(|message| {
            let topic = Topic::new(listener)?;
            self.shared.publisher.send_event_to(&topic, &message)
        });
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        let Err(e) = sent else { return true };
        let goes_on = matches!(e.kind(), ErrorKind::TooLarge | ErrorKind::InvalidInput);
        if !was_failing {
            let error = Error::new(e.kind(), "a status update could not be sent, and is tried again").with_source(e);
            report(&error, self.shared.options.hook.as_ref());
        }
        goes_on
    }
}
