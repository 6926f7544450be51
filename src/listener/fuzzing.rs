//! A target of the fuzzer: the messages about status updates.

use super::messages::{self, Body, EventId, TABLE};
use crate::update::{Action, DbUpdate};

/// A message: its action and its key, with a blank between, and its value in the next lines.
pub(crate) fn message(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let (head, value) = text.split_once('\n').unwrap_or((text, ""));
    let (action, key) = head.split_once(' ').unwrap_or((head, ""));
    let update = DbUpdate::new(TABLE, key, Action::from(action)).value(value);
    if let Ok(id) = EventId::parse(key) {
        assert_eq!(EventId::parse(&id.to_string()).ok(), Some(id));
    }
    if let Ok(read) = messages::parse_message(&update) {
        let (notifier, low) = (read.notifier.clone(), read.low);
        let written = match &read.body {
            Body::Event(number, attempt, update) => {
                let number = *number;
                messages::event(&EventId { notifier, number }, *attempt, low, update)
            }
            Body::Questions(about) => messages::questions(&notifier, low, about),
            Body::Confirmations(numbers) => messages::confirmation(&notifier, low, numbers),
        };
        assert_eq!(messages::parse_message(&written.expect("it was read")).ok(), Some(read));
    }
    if let Ok(answers) = messages::parse_answers(&update) {
        let written = messages::answers(&answers, 1).expect("it was read");
        assert_eq!(messages::parse_answers(&written).ok(), Some(answers));
    }
}
