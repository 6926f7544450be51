//! The shared state of a listener's threads, and the calls of its handler on the dispatcher's threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::{Condvar, Mutex};

use super::docket::{Docket, bytes_of};
use super::envelope::{self, Answer, Answers, EventId, TABLE};
use super::options::ListenerStats;
use crate::error::{ErrorHook, ErrorKind, Result, contain, report};
use crate::publisher::Publisher;
use crate::update::{DbUpdate, Topic};

pub(super) type Handler = Box<dyn Fn(&DbUpdate) + Send + Sync>;

pub(super) struct Desk {
    pub(super) docket: Arc<Mutex<Docket>>,
    /// Signalled when there may be a step to take.
    pub(super) changed: Condvar,
    mail: Sender<Mail>,
    /// The bytes of the messages in `mail`.
    mail_bytes: AtomicUsize,
    handler: Handler,
    pub(super) hook: Option<ErrorHook>,
}

/// The input of the thread that answers.
pub(super) enum Mail {
    Message(Box<DbUpdate>),
    /// Answers are due.
    Answers,
    End,
}

/// The most messages kept, and their most bytes; notifiers notice lost ones.
const MAX_MAIL: usize = 1 << 18;
const MAX_MAIL_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

impl Desk {
    pub(super) fn new(run: Topic, mail: Sender<Mail>, handler: Handler, hook: Option<ErrorHook>) -> Desk {
        Desk {
            docket: Arc::new(Mutex::new(Docket::new(run))),
            changed: Condvar::new(),
            mail,
            mail_bytes: AtomicUsize::new(0),
            handler,
            hook,
        }
    }

    pub(super) fn stats(&self) -> ListenerStats {
        self.docket.lock().stats()
    }

    /// Takes a message, on the subscriber's thread.
    pub(super) fn receive(&self, message: DbUpdate) {
        let bytes = bytes_of(&message);
        let waiting = self.mail_bytes.load(Ordering::Relaxed);
        let has_room = waiting == 0 || waiting.saturating_add(bytes) <= MAX_MAIL_BYTES;
        if has_room && self.mail.len() < MAX_MAIL {
            self.mail_bytes.fetch_add(bytes, Ordering::Relaxed);
            let _ = self.mail.send(Mail::Message(Box::new(message)));
        }
    }

    /// Wakes the thread that answers.
    pub(super) fn speak(&self) {
        let _ = self.mail.send(Mail::Answers);
    }

    /// Ends the thread that answers.
    pub(super) fn fall_silent(&self) {
        let _ = self.mail.send(Mail::End);
    }

    pub(super) fn begin_to_stop(&self) {
        self.docket.lock().stop(Instant::now());
        self.changed.notify_all();
        self.speak();
    }

    /// Handles an update on the listener's topic, on the dispatcher's thread: an event's turn, or an update sent at
    /// most once.
    pub(super) fn handle(&self, update: &DbUpdate, is_held: impl FnOnce() -> bool) {
        if update.table != TABLE {
            let failed = self.call(update);
            return self.docket.lock().handled(failed);
        }
        let Ok(id) = EventId::parse(&update.key) else {
            return;
        };
        // Looked up at the last moment.
        let is_held = is_held();
        let begun = self.docket.lock().begin(&id, is_held, Instant::now());
        let Some(event) = begun else {
            return self.speak();
        };
        let failed = self.call(&event);
        let mut docket = self.docket.lock();
        let now = Instant::now();
        let is_news = docket.ended(id, failed, now) || docket.has_step(now);
        drop(docket);
        if is_news {
            self.changed.notify_all();
        }
    }

    /// Calls the program's handler; returns true if it panicked.
    fn call(&self, update: &DbUpdate) -> bool {
        let what = || {
            let (table, key) = (&update.table, &update.key);
            format!("the listener's handler, called with table {table} key {key}")
        };
        let handled = contain(what, || (self.handler)(update));
        handled.inspect_err(|e| report!(e, self.hook.as_ref())).is_err()
    }
}

/// Reports only the first of successive failures, and logs the others.
#[derive(Debug, Default)]
pub(super) struct Note(AtomicBool);

impl Note {
    pub(super) fn take(&self, done: Result<()>, what: &str, hook: Option<&ErrorHook>) {
        match done {
            Ok(()) => self.0.store(false, Ordering::Relaxed),
            Err(e) if self.0.swap(true, Ordering::Relaxed) => log::debug!("{what}: {e}"),
            Err(e) => report!(&e.context(what), hook),
        }
    }
}

/// The thread that reads messages of notifiers and answers them.
pub(super) struct Ear {
    pub(super) desk: Arc<Desk>,
    pub(super) mail: Receiver<Mail>,
    pub(super) publisher: Arc<Publisher>,
    /// The number of messages sent.
    pub(super) said: u64,
    pub(super) note: Note,
}

/// The most messages read before they are answered.
const MAIL: usize = 1024;

/// The most answers in one message.
const BUNDLE: usize = 256;

impl Ear {
    pub(super) fn run(mut self) {
        loop {
            let due = self.desk.docket.lock().answers_due();
            let first = match due {
                Some(due) => self.mail.recv_deadline(due),
                None => self.mail.recv().map_err(RecvTimeoutError::from),
            };
            let first = match first {
                Ok(mail) => Some(mail),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut heard = Vec::new();
            let mut is_end = false;
            for mail in first.into_iter().chain(self.mail.try_iter().take(MAIL)) {
                match mail {
                    Mail::Message(message) => {
                        self.desk.mail_bytes.fetch_sub(bytes_of(&message), Ordering::Relaxed);
                        match envelope::heard(&message) {
                            Ok(message) => heard.push(message),
                            Err(e) => report!(&e, self.desk.hook.as_ref()),
                        }
                    }
                    Mail::Answers => {}
                    Mail::End => is_end = true,
                }
            }
            let mut docket = self.desk.docket.lock();
            let now = Instant::now();
            let is_news = !heard.is_empty();
            heard.into_iter().for_each(|message| docket.hear(message, now));
            let answers = docket.answers(now);
            let head = Answers {
                listener: docket.run().as_str().into(),
                waiting: docket.load() as u64,
                leaving: docket.is_stopping(),
                about: Vec::new(),
            };
            drop(docket);
            if is_news {
                self.desk.changed.notify_all();
            }
            self.say_all(answers, &head);
            if is_end {
                return;
            }
        }
    }

    /// Sends the answers, up to the first that would wait: messages go on coming in.
    fn say_all(&mut self, answers: Vec<(Topic, Vec<Answer>)>, head: &Answers) {
        for (notifier, about) in answers {
            for about in about.chunks(BUNDLE) {
                let about = about.to_vec();
                if !self.say(&notifier, &Answers { about, ..head.clone() }) {
                    return;
                }
            }
        }
    }

    /// Sends answers; returns false if they were not taken in time.
    fn say(&mut self, notifier: &Topic, answers: &Answers) -> bool {
        self.said += 1;
        let message = envelope::answers(answers, self.said);
        let sent = message.and_then(|message| self.publisher.send_event_to(notifier, &message));
        let is_late = sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout);
        let what = "answers about status updates could not be sent; the notifiers will ask for them";
        self.note.take(sent, what, self.desk.hook.as_ref());
        !is_late
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::drivers::memory::MemoryDriver;
    use crate::listener::envelope::EventState;
    use crate::publisher::PublisherOptions;
    use crate::transport::Driver;
    use crate::update::Action;

    const ADDRESS: &str = "memory://desk";

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn ear(driver: &MemoryDriver) -> Ear {
        let (mail, received) = unbounded();
        let options = PublisherOptions {
            send_timeout: Duration::from_millis(20),
            max_topic_bytes: 1,
            ..PublisherOptions::default()
        };
        Ear {
            desk: Arc::new(Desk::new(topic("a"), mail, Box::new(|_| ()), None)),
            mail: received,
            publisher: Arc::new(Publisher::new(driver, options).unwrap()),
            said: 0,
            note: Note::default(),
        }
    }

    #[test]
    fn the_bytes_of_unread_messages_are_bounded() {
        let ear = ear(&MemoryDriver::new(ADDRESS).unwrap());
        let (desk, mail) = (Arc::clone(&ear.desk), ear.mail.clone());
        let receive = |bytes: usize| {
            desk.receive(DbUpdate::new("t", "k", Action::Set).value("x".repeat(bytes)));
            mail.len()
        };
        // One is taken, however large.
        assert_eq!((receive(2 * MAX_MAIL_BYTES), receive(1)), (1, 1));
        desk.fall_silent();
        ear.run();
        assert_eq!((receive(MAX_MAIL_BYTES / 2), receive(MAX_MAIL_BYTES / 2 - 4)), (1, 2));
        assert_eq!(receive(0), 2);
    }

    #[test]
    fn an_answer_that_is_not_taken_in_time_ends_the_round() {
        let driver = MemoryDriver::new(ADDRESS).unwrap().capacity(1);
        let (mut stuck, _wake) = driver.inbound().unwrap();
        stuck.connect(ADDRESS).unwrap();
        stuck.subscribe(&topic("n")).unwrap();
        let mut ear = ear(&driver);
        let mut say = |notifiers: &[&str]| {
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
            let before = ear.said;
            let answers = notifiers.iter().map(|name| (topic(name), vec![about.clone()]));
            ear.say_all(answers.collect(), &head);
            ear.said - before
        };
        // The second one finds no room.
        assert_eq!(say(&["n", "n", "o", "p"]), 2);
        // A notifier whose topic is refused holds up nobody.
        assert_eq!(say(&["long", "o", "p"]), 3);
    }
}
