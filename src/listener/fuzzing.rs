//! A target of the fuzzer: the messages about status updates.

use super::envelope::{self, EventId, TABLE, What};
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
    if let Ok(heard) = envelope::heard(&update) {
        let (notifier, low) = (heard.notifier.clone(), heard.low);
        let said = match &heard.what {
            What::Event(number, attempt, update) => {
                let number = *number;
                envelope::event(&EventId { notifier, number }, *attempt, low, update)
            }
            What::Asked(about) => envelope::questions(&notifier, low, about),
            What::Confirmed(numbers) => envelope::confirmation(&notifier, low, numbers),
        };
        assert_eq!(envelope::heard(&said.expect("it was heard")).ok(), Some(heard));
    }
    if let Ok(answers) = envelope::answered(&update) {
        let said = envelope::answers(&answers, 1).expect("it was heard");
        assert_eq!(envelope::answered(&said).ok(), Some(answers));
    }
}
