//! The thread that reads messages of notifiers and answers them.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::inbox::Input;
use super::listener_shared::{FirstFailure, ListenerShared};
use super::messages::{self, Answer, Answers, MAX_ANSWERED};
use crate::error::{ErrorKind, report};
use crate::publisher::Publisher;
use crate::update::Topic;

/// See the [module](self).
pub(super) struct Answering {
    pub(super) shared: Arc<ListenerShared>,
    pub(super) inputs: Receiver<Input>,
    pub(super) publisher: Arc<Publisher>,
    /// The number of messages sent.
    pub(super) sent: u64,
    pub(super) failure: FirstFailure,
}

/// The most messages read before they are answered.
const MESSAGES: usize = 1024;

impl Answering {
    pub(super) fn run(mut self) {
        loop {
            let due = self.shared.events.lock().answers_due();
            let first = match due {
                Some(due) => self.inputs.recv_deadline(due),
                None => self.inputs.recv().map_err(RecvTimeoutError::from),
            };
            let first = match first {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut received = Vec::new();
            let mut is_end = false;
            for input in first.into_iter().chain(self.inputs.try_iter().take(MESSAGES)) {
                match input {
                    Input::Message(message) => {
                        self.shared.inbox.taken(&message);
                        match messages::parse_message(&message) {
                            Ok(message) => received.push(message),
                            Err(e) => report!(&e, self.shared.hook.as_ref()),
                        }
                    }
                    Input::Answers => {}
                    Input::End => is_end = true,
                }
            }
            let mut events = self.shared.events.lock();
            let now = Instant::now();
            let is_news = !received.is_empty();
            received.into_iter().for_each(|message| events.receive(message, now));
            let answers = events.answers(now);
            let head = Answers {
                listener: events.run().as_str().into(),
                waiting: events.load() as u64,
                leaving: events.is_stopping(),
                about: Vec::new(),
            };
            drop(events);
            if is_news {
                self.shared.changed.notify_all();
            }
            self.send_all(answers, &head);
            if is_end {
                return;
            }
        }
    }

    /// Sends the answers, up to the first that would wait: messages go on coming in.
    fn send_all(&mut self, answers: Vec<(Topic, Vec<Answer>)>, head: &Answers) {
        for (notifier, about) in answers {
            for about in about.chunks(MAX_ANSWERED) {
                let about = about.to_vec();
                if !self.send(&notifier, &Answers { about, ..head.clone() }) {
                    return;
                }
            }
        }
    }

    /// Sends answers; returns false if they were not taken in time.
    fn send(&mut self, notifier: &Topic, answers: &Answers) -> bool {
        self.sent += 1;
        let message = messages::answers(answers, self.sent);
        let sent = message.and_then(|message| self.publisher.send_own(notifier, &message));
        let is_late = sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout);
        let what = "answers about status updates could not be sent; the notifiers will ask for them";
        self.failure.take(sent, what, self.shared.hook.as_ref());
        !is_late
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drivers::memory::MemoryDriver;
    use crate::listener::inbox::Inbox;
    use crate::listener::messages::EventState;
    use crate::publisher::PublisherOptions;
    use crate::transport::Driver;

    const ADDRESS: &str = "memory://answering";

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    #[test]
    fn an_answer_that_is_not_taken_in_time_ends_the_round() {
        let driver = MemoryDriver::new(ADDRESS).unwrap().capacity(1);
        let (mut stuck, _wake) = driver.inbound().unwrap();
        stuck.connect(ADDRESS).unwrap();
        stuck.subscribe(&topic("n")).unwrap();
        let (inbox, inputs) = Inbox::new();
        let options = PublisherOptions {
            send_timeout: Duration::from_millis(20),
            ..PublisherOptions::default()
        };
        let mut answering = Answering {
            shared: Arc::new(ListenerShared::new(topic("a"), inbox, Box::new(|_| ()), None)),
            inputs,
            publisher: Arc::new(Publisher::new(&driver, options).unwrap()),
            sent: 0,
            failure: FirstFailure::default(),
        };
        let mut send = |notifiers: &[&str]| {
            let about = Answer {
                number: 1,
                attempt: 1,
                state: EventState::Held,
                owner: None,
            };
            let head = Answers {
                listener: "a".into(),
                waiting: 0,
                leaving: false,
                about: Vec::new(),
            };
            let before = answering.sent;
            let answers = notifiers.iter().map(|name| (topic(name), vec![about.clone()]));
            answering.send_all(answers.collect(), &head);
            answering.sent - before
        };
        // The second one finds no room.
        assert_eq!(send(&["n", "n", "o", "p"]), 2);
        // A notifier whose topic is refused holds up nobody.
        let long = "l".repeat(Topic::MAX_OWN + 1);
        assert_eq!(send(&[&long, "o", "p"]), 3);
    }
}
