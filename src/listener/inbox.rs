//! The messages received for a listener, until the thread that answers takes them.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::event_table::bytes_of;
use crate::update::DbUpdate;

pub(super) struct Inbox {
    inputs: Sender<Input>,
    /// The bytes of the messages in `inputs`.
    bytes: AtomicUsize,
}

/// The input of the thread that answers.
pub(super) enum Input {
    Message(Box<DbUpdate>),
    /// Answers are due.
    Answers,
    End,
}

/// The most messages kept, and their most bytes; notifiers notice lost ones.
const MAX_MESSAGES: usize = 1 << 18;
const MAX_BYTES: usize = 256 << 20;

impl Inbox {
    pub(super) fn new() -> (Inbox, Receiver<Input>) {
        let (inputs, received) = unbounded();
        let bytes = AtomicUsize::new(0);
        (Inbox { inputs, bytes }, received)
    }

    /// Puts a message in, if there is room.
    pub(super) fn put(&self, message: DbUpdate) {
        let bytes = bytes_of(&message);
        let waiting = self.bytes.load(Ordering::Relaxed);
        let has_room = waiting == 0 || waiting.saturating_add(bytes) <= MAX_BYTES;
        if has_room && self.inputs.len() < MAX_MESSAGES {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            let _ = self.inputs.send(Input::Message(Box::new(message)));
        }
    }

    /// Notes that a message was taken.
    pub(super) fn taken(&self, message: &DbUpdate) {
        self.bytes.fetch_sub(bytes_of(message), Ordering::Relaxed);
    }

    /// Wakes the thread that answers.
    pub(super) fn wake(&self) {
        let _ = self.inputs.send(Input::Answers);
    }

    /// Ends the thread that answers.
    pub(super) fn end(&self) {
        let _ = self.inputs.send(Input::End);
    }
}
