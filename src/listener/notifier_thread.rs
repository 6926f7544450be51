//! The thread that carries out the actions of notifiers: one for all notifiers of a publisher, which sends one message
//! at a time anyway.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};
use parking_lot::Mutex;

use super::event_table::bytes_of;
use super::messages::{self, Answers};
use super::notifier_worker::{Command, NotifierWorker};
use crate::error::{ErrorHook, Result};
use crate::publisher::Publisher;
use crate::thread::{self, Thread};
use crate::update::DbUpdate;

/// A notifier's access to the thread.
#[derive(Clone)]
pub(super) struct NotifierThread {
    shared: Arc<SharedThread>,
    notifier: u64,
}

struct SharedThread {
    /// The publisher's address in memory, valid since the notifiers that hold this also hold the publisher.
    publisher: usize,
    /// `None` before the thread is joined, which ends it.
    requests: Option<Sender<(u64, Request)>>,
    /// The bytes of unread answers.
    unread: Arc<AtomicUsize>,
    notifiers: AtomicU64,
    thread: Thread,
}

enum Request {
    Begin(Box<NotifierWorker>),
    Command(Command),
    /// Answers, with their bytes.
    Answers(Answers, usize),
}

/// The most requests read before their work is done.
const REQUESTS: usize = 4096;

/// The most bytes of unread answers, each with what a request takes itself.
const MAX_UNREAD: usize = 64 << 20;
const REQUEST: usize = 256;

impl NotifierThread {
    /// The access of a new notifier, which holds the publisher as long as this.
    pub(super) fn new(publisher: &Arc<Publisher>, hook: Option<ErrorHook>) -> Result<NotifierThread> {
        static THREADS: Mutex<Vec<Weak<SharedThread>>> = Mutex::new(Vec::new());
        let address = Arc::as_ptr(publisher) as usize;
        // Dropped after the lock, since the last owner of one waits for its thread.
        let open: Vec<Arc<SharedThread>>;
        let mut threads = THREADS.lock();
        threads.retain(|shared| shared.strong_count() > 0);
        open = threads.iter().filter_map(Weak::upgrade).collect();
        let shared = match open.iter().find(|shared| shared.publisher == address) {
            Some(shared) => Arc::clone(shared),
            None => {
                let ((requests, received), unread) = (unbounded(), Arc::default());
                let runner = Runner::new(received, &unread);
                let shared = Arc::new(SharedThread {
                    publisher: address,
                    requests: Some(requests),
                    unread,
                    notifiers: AtomicU64::new(0),
                    thread: thread::spawn("tc-notifier", hook, move || runner.run())?,
                });
                threads.push(Arc::downgrade(&shared));
                shared
            }
        };
        let notifier = shared.notifiers.fetch_add(1, Ordering::Relaxed);
        Ok(NotifierThread { shared, notifier })
    }

    /// Begins a notifier's work, until [`Command::Stop`].
    pub(super) fn begin(&self, worker: NotifierWorker) {
        self.put(Request::Begin(Box::new(worker)));
    }

    /// True on the thread itself, where the program's hook may be called.
    pub(super) fn is_here(&self) -> bool {
        self.shared.thread.is_current()
    }

    /// Returns false if the thread has ended unexpectedly.
    pub(super) fn send(&self, command: Command) -> bool {
        self.put(Request::Command(command))
    }

    /// Takes a message of a listener, unless too many are unread: what it answers is asked again.
    pub(super) fn receive(&self, message: &DbUpdate) -> Result<()> {
        let bytes = bytes_of(message) + REQUEST;
        let unread = &self.shared.unread;
        if unread.load(Ordering::Relaxed) + bytes <= MAX_UNREAD {
            let answers = messages::parse_answers(message)?;
            unread.fetch_add(bytes, Ordering::Relaxed);
            self.put(Request::Answers(answers, bytes));
        }
        Ok(())
    }

    fn put(&self, request: Request) -> bool {
        let requests = self.shared.requests.as_ref();
        requests.is_some_and(|requests| requests.send((self.notifier, request)).is_ok())
    }
}

impl Drop for SharedThread {
    fn drop(&mut self) {
        self.requests = None;
    }
}

/// The state of the thread, which runs the workers.
struct Runner {
    requests: Receiver<(u64, Request)>,
    unread: Arc<AtomicUsize>,
    notifiers: HashMap<u64, Entry>,
    due: BTreeSet<(Instant, u64)>,
    /// The notifiers that may have work.
    todo: VecDeque<u64>,
}

/// A notifier's worker, and when it has work.
struct Entry {
    worker: Box<NotifierWorker>,
    due: Option<Instant>,
    is_todo: bool,
}

impl Runner {
    fn new(requests: Receiver<(u64, Request)>, unread: &Arc<AtomicUsize>) -> Runner {
        Runner {
            requests,
            unread: Arc::clone(unread),
            notifiers: HashMap::new(),
            due: BTreeSet::new(),
            todo: VecDeque::new(),
        }
    }

    fn run(mut self) {
        while let Ok(first) = self.wait() {
            let requests = self.requests.clone();
            for (notifier, request) in first.into_iter().chain(requests.try_iter().take(REQUESTS)) {
                self.read(notifier, request);
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

    /// The next request; waits for one only if there is no work.
    fn wait(&self) -> Result<Option<(u64, Request)>, RecvTimeoutError> {
        let request = match self.due.first() {
            _ if !self.todo.is_empty() => self.requests.try_recv().map_err(|e| match e {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
            Some((due, _)) => self.requests.recv_deadline(*due),
            None => self.requests.recv().map_err(RecvTimeoutError::from),
        };
        match request {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            request => request.map(Some),
        }
    }

    fn read(&mut self, notifier: u64, request: Request) {
        match request {
            Request::Begin(worker) => {
                let entry = Entry {
                    worker,
                    due: None,
                    is_todo: false,
                };
                self.notifiers.insert(notifier, entry);
            }
            Request::Command(Command::Stop(pending)) => {
                self.set_due(notifier, None);
                if let Some(entry) = self.notifiers.remove(&notifier) {
                    entry.worker.stop(&pending);
                }
            }
            Request::Command(command) => self.take(notifier, command),
            Request::Answers(answers, bytes) => {
                self.unread.fetch_sub(bytes, Ordering::Relaxed);
                self.take(notifier, Command::Answers(answers));
            }
        }
    }

    fn take(&mut self, notifier: u64, command: Command) {
        if let Some(entry) = self.notifiers.get_mut(&notifier) {
            entry.worker.take(command, Instant::now());
            self.mark(notifier);
        }
    }

    fn mark(&mut self, notifier: u64) {
        if let Some(entry) = self.notifiers.get_mut(&notifier)
            && !std::mem::replace(&mut entry.is_todo, true)
        {
            self.todo.push_back(notifier);
        }
    }

    /// Does all work, up to the first send that blocks and fails: a notifier may be about to stop.
    fn act(&mut self) {
        let mut is_stuck = false;
        while !is_stuck && let Some(notifier) = self.todo.pop_front() {
            let Some(entry) = self.notifiers.get_mut(&notifier) else {
                continue;
            };
            entry.is_todo = false;
            is_stuck = entry.worker.act(Instant::now());
            let due = entry.worker.due();
            self.set_due(notifier, due);
        }
    }

    fn set_due(&mut self, notifier: u64, due: Option<Instant>) {
        if let Some(entry) = self.notifiers.get_mut(&notifier) {
            if let Some(before) = std::mem::replace(&mut entry.due, due) {
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
        let ((requests, received), unread) = (unbounded(), Arc::default());
        let mut runner = Runner::new(received.clone(), &unread);
        let shared = Arc::new(SharedThread {
            publisher: 0,
            requests: Some(requests),
            unread,
            notifiers: AtomicU64::new(0),
            thread: thread::spawn("tc-test", None, || ()).unwrap(),
        });
        let access = NotifierThread { shared, notifier: 0 };
        let owner = "x".repeat(1 << 20);
        let value = format!(r#"{{"listener":"l","waiting":0,"leaving":false,"about":[[1,1,"taken","{owner}"]]}}"#);
        let message = DbUpdate::new(messages::TABLE, "l/1", Action::Set).value(value);
        (0..200).for_each(|_| access.receive(&message).unwrap());
        assert_eq!(received.len(), 63);
        for (notifier, request) in received.try_iter() {
            runner.read(notifier, request);
        }
        access.receive(&message).unwrap();
        assert_eq!(received.len(), 1);
    }

    #[test]
    fn notifiers_of_one_publisher_share_a_thread_until_the_last_is_gone() {
        let publisher = |address| {
            let driver = MemoryDriver::new(address).unwrap();
            Arc::new(Publisher::new(&driver, PublisherOptions::default()).unwrap())
        };
        let (one, other) = (publisher("memory://notifiers-1"), publisher("memory://notifiers-2"));
        let access = |publisher| NotifierThread::new(publisher, None).unwrap();
        let all = [access(&one), access(&one)];
        assert!(Arc::ptr_eq(&all[0].shared, &all[1].shared));
        assert_ne!(all[0].notifier, all[1].notifier);
        assert!(!Arc::ptr_eq(&all[0].shared, &access(&other).shared));
        let shared = Arc::downgrade(&all[0].shared);
        drop(all);
        // Its thread was joined.
        assert!(shared.upgrade().is_none());
        assert_eq!(access(&one).notifier, 0);
    }
}
