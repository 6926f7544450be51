//! The answers to be sent, by notifier and time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::listener::messages::Answer;
use crate::update::Topic;

#[derive(Debug, Default)]
pub(super) struct PendingAnswers {
    notifiers: BTreeMap<Topic, Message>,
    due: BTreeSet<(Instant, Topic)>,
}

/// The answers to one notifier, which make one message.
#[derive(Debug)]
struct Message {
    /// When the first of them must be sent.
    due: Instant,
    about: BTreeMap<u64, Answer>,
}

impl PendingAnswers {
    /// Adds an answer, in place of any other about the event; it is sent at `due`, or earlier with another one.
    pub(super) fn put(&mut self, notifier: Topic, answer: Answer, due: Instant) {
        let message = self.notifiers.entry(notifier.clone()).or_insert_with(|| Message {
            due,
            about: BTreeMap::new(),
        });
        if message.about.is_empty() {
            self.due.insert((due, notifier));
        } else if due < message.due {
            let old = std::mem::replace(&mut message.due, due);
            self.due.remove(&(old, notifier.clone()));
            self.due.insert((due, notifier));
        }
        message.about.insert(answer.number, answer);
    }

    /// Takes the answers that must be sent now.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Topic, Vec<Answer>)> {
        let mut taken = Vec::new();
        while self.next_due().is_some_and(|due| due <= now)
            && let Some((_, notifier)) = self.due.pop_first()
        {
            let message = self.notifiers.remove(&notifier);
            let about = message.into_iter().flat_map(|message| message.about.into_values());
            taken.push((notifier, about.collect()));
        }
        taken
    }

    /// When the next answer must be sent.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}
