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
const MAX_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Action;

    #[test]
    fn the_bytes_of_unread_messages_are_bounded() {
        let (inbox, received) = Inbox::new();
        let message = |bytes: usize| DbUpdate::new("t", "k", Action::Set).value("x".repeat(bytes));
        let put = |bytes| {
            inbox.put(message(bytes));
            received.len()
        };
        // One is taken, however large.
        assert_eq!((put(2 * MAX_BYTES), put(1)), (1, 1));
        let Ok(Input::Message(large)) = received.recv() else {
            panic!("no message");
        };
        inbox.taken(&large);
        let rest = MAX_BYTES / 2 - bytes_of(&message(0)) * 2;
        assert_eq!((put(MAX_BYTES / 2), put(rest)), (1, 2));
        assert_eq!(put(1), 2);
    }
}
