//! The thread that carries out the actions of notifiers: one for all notifiers of a publisher, which sends one message
//! at a time anyway.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};
use parking_lot::Mutex;

use super::courier::{Command, Courier};
use super::docket::bytes_of;
use super::envelope::{self, Answers};
use crate::error::{ErrorHook, Result};
use crate::publisher::Publisher;
use crate::thread::{self, Thread};
use crate::update::DbUpdate;

/// A notifier's access to the thread.
#[derive(Clone)]
pub(super) struct Post {
    office: Arc<Office>,
    notifier: u64,
}

struct Office {
    /// The publisher's address in memory, valid since the notifiers that hold the office also hold the publisher.
    publisher: usize,
    /// `None` before the thread is joined, which ends it.
    letters: Option<Sender<(u64, Letter)>>,
    /// The bytes of unread answers.
    unread: Arc<AtomicUsize>,
    notifiers: AtomicU64,
    thread: Thread,
}

enum Letter {
    Begin(Box<Courier>),
    Command(Command),
    /// Answers, with their bytes.
    Answers(Answers, usize),
}

/// The most letters read before their work is done.
const LETTERS: usize = 4096;

/// The most bytes of unread answers, each with what a letter takes itself.
const MAX_UNREAD: usize = 64 << 20;
const LETTER: usize = 256;

impl Post {
    /// The access of a new notifier, which holds the publisher as long as this.
    pub(super) fn new(publisher: &Arc<Publisher>, hook: Option<ErrorHook>) -> Result<Post> {
        static OFFICES: Mutex<Vec<Weak<Office>>> = Mutex::new(Vec::new());
        let address = Arc::as_ptr(publisher) as usize;
        // Dropped after the lock, since the last owner of an office waits for its thread.
        let open: Vec<Arc<Office>>;
        let mut offices = OFFICES.lock();
        offices.retain(|office| office.strong_count() > 0);
        open = offices.iter().filter_map(Weak::upgrade).collect();
        let office = match open.iter().find(|office| office.publisher == address) {
            Some(office) => Arc::clone(office),
            None => {
                let ((letters, received), unread) = (unbounded(), Arc::default());
                let runner = Runner::new(received, &unread);
                let office = Arc::new(Office {
                    publisher: address,
                    letters: Some(letters),
                    unread,
                    notifiers: AtomicU64::new(0),
                    thread: thread::spawn("tc-notifier", hook, move || runner.run())?,
                });
                offices.push(Arc::downgrade(&office));
                office
            }
        };
        let notifier = office.notifiers.fetch_add(1, Ordering::Relaxed);
        Ok(Post { office, notifier })
    }

    /// Begins a notifier's work, until [`Command::Stop`].
    pub(super) fn begin(&self, courier: Courier) {
        self.put(Letter::Begin(Box::new(courier)));
    }

    /// True on the thread itself, where the program's hook may be called.
    pub(super) fn is_here(&self) -> bool {
        self.office.thread.is_current()
    }

    /// Returns false if the thread has ended unexpectedly.
    pub(super) fn send(&self, command: Command) -> bool {
        self.put(Letter::Command(command))
    }

    /// Takes a message of a listener, unless too many are unread: what it answers is asked again.
    pub(super) fn receive(&self, message: &DbUpdate) -> Result<()> {
        let bytes = bytes_of(message) + LETTER;
        let unread = &self.office.unread;
        if unread.load(Ordering::Relaxed) + bytes <= MAX_UNREAD {
            let answers = envelope::answered(message)?;
            unread.fetch_add(bytes, Ordering::Relaxed);
            self.put(Letter::Answers(answers, bytes));
        }
        Ok(())
    }

    fn put(&self, letter: Letter) -> bool {
        let letters = self.office.letters.as_ref();
        letters.is_some_and(|letters| letters.send((self.notifier, letter)).is_ok())
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.letters = None;
    }
}

/// The state of the thread, which runs the couriers.
struct Runner {
    letters: Receiver<(u64, Letter)>,
    unread: Arc<AtomicUsize>,
    notifiers: HashMap<u64, Place>,
    due: BTreeSet<(Instant, u64)>,
    /// The notifiers that may have work.
    todo: VecDeque<u64>,
}

/// A notifier's courier, and when it has work.
struct Place {
    courier: Box<Courier>,
    due: Option<Instant>,
    is_todo: bool,
}

impl Runner {
    fn new(letters: Receiver<(u64, Letter)>, unread: &Arc<AtomicUsize>) -> Runner {
        Runner {
            letters,
            unread: Arc::clone(unread),
            notifiers: HashMap::new(),
            due: BTreeSet::new(),
            todo: VecDeque::new(),
        }
    }

    fn run(mut self) {
        while let Ok(first) = self.wait() {
            let letters = self.letters.clone();
            for (notifier, letter) in first.into_iter().chain(letters.try_iter().take(LETTERS)) {
                self.read(notifier, letter);
            }
            let now = Instant::now();
            while let Some(&(due, notifier)) = self.due.first()
                && due <= now
            {
                self.set_due(notifier, None);
                self.mark(notifier);
            }
            self.act();
        }
    }

    /// The next letter; waits for one only if there is no work.
    fn wait(&self) -> Result<Option<(u64, Letter)>, RecvTimeoutError> {
        let letter = match self.due.first() {
            _ if !self.todo.is_empty() => self.letters.try_recv().map_err(|e| match e {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
            Some((due, _)) => self.letters.recv_deadline(*due),
            None => self.letters.recv().map_err(RecvTimeoutError::from),
        };
        match letter {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            letter => letter.map(Some),
        }
    }

    fn read(&mut self, notifier: u64, letter: Letter) {
        match letter {
            Letter::Begin(courier) => {
                let place = Place {
                    courier,
                    due: None,
                    is_todo: false,
                };
                self.notifiers.insert(notifier, place);
            }
            Letter::Command(Command::Stop(pending)) => {
                self.set_due(notifier, None);
                if let Some(place) = self.notifiers.remove(&notifier) {
                    place.courier.stop(&pending);
                }
            }
            Letter::Command(command) => self.take(notifier, command),
            Letter::Answers(answers, bytes) => {
                self.unread.fetch_sub(bytes, Ordering::Relaxed);
                self.take(notifier, Command::Answers(answers));
            }
        }
    }

    fn take(&mut self, notifier: u64, command: Command) {
        if let Some(place) = self.notifiers.get_mut(&notifier) {
            place.courier.take(command, Instant::now());
            self.mark(notifier);
        }
    }

    fn mark(&mut self, notifier: u64) {
        if let Some(place) = self.notifiers.get_mut(&notifier)
            && !std::mem::replace(&mut place.is_todo, true)
        {
            self.todo.push_back(notifier);
        }
    }

    /// Does all work, up to the first send that blocks and fails: a notifier may be about to stop.
    fn act(&mut self) {
        let mut is_stuck = false;
        while !is_stuck && let Some(notifier) = self.todo.pop_front() {
            let Some(place) = self.notifiers.get_mut(&notifier) else {
                continue;
            };
            place.is_todo = false;
            is_stuck = place.courier.act(Instant::now());
            let due = place.courier.due();
            self.set_due(notifier, due);
        }
    }

    fn set_due(&mut self, notifier: u64, due: Option<Instant>) {
        if let Some(place) = self.notifiers.get_mut(&notifier) {
            if let Some(before) = std::mem::replace(&mut place.due, due) {
                self.due.remove(&(before, notifier));
            }
            self.due.extend(due.map(|due| (due, notifier)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::memory::MemoryDriver;
    use crate::publisher::PublisherOptions;
    use crate::update::Action;

    #[test]
    fn unread_answers_are_bounded() {
        let ((letters, received), unread) = (unbounded(), Arc::default());
        let mut runner = Runner::new(received.clone(), &unread);
        let office = Arc::new(Office {
            publisher: 0,
            letters: Some(letters),
            unread,
            notifiers: AtomicU64::new(0),
            thread: thread::spawn("tc-test", None, || ()).unwrap(),
        });
        let post = Post { office, notifier: 0 };
        let owner = "x".repeat(1 << 20);
        let value = format!(r#"{{"listener":"l","waiting":0,"leaving":false,"about":[[1,1,"taken","{owner}"]]}}"#);
        let message = DbUpdate::new(envelope::TABLE, "l/1", Action::Set).value(value);
        (0..200).for_each(|_| post.receive(&message).unwrap());
        assert_eq!(received.len(), 63);
        for (notifier, letter) in received.try_iter() {
            runner.read(notifier, letter);
        }
        post.receive(&message).unwrap();
        assert_eq!(received.len(), 1);
    }

    #[test]
    fn notifiers_of_one_publisher_share_a_thread_until_the_last_is_gone() {
        let publisher = |address| {
            let driver = MemoryDriver::new(address).unwrap();
            Arc::new(Publisher::new(&driver, PublisherOptions::default()).unwrap())
        };
        let (one, other) = (publisher("memory://office-1"), publisher("memory://office-2"));
        let post = |publisher| Post::new(publisher, None).unwrap();
        let posts = [post(&one), post(&one)];
        assert!(Arc::ptr_eq(&posts[0].office, &posts[1].office));
        assert_ne!(posts[0].notifier, posts[1].notifier);
        assert!(!Arc::ptr_eq(&posts[0].office, &post(&other).office));
        let office = Arc::downgrade(&posts[0].office);
        drop(posts);
        // Its thread was joined.
        assert!(office.upgrade().is_none());
        assert_eq!(post(&one).notifier, 0);
    }
}
