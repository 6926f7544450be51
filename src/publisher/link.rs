//! The sending end as many threads share it, and the thread that answers those who ask whether it is there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::codec::Encoder;
use crate::error::{Error, ErrorHook, ErrorKind, Result, report};
use crate::thread::{self, Thread};
use crate::transport::{Outbound, Waiter, Wake};
use crate::update::Topic;

/// A driver's sending end with its keeper: the thread that answers probes with hellos, also while nobody sends.
pub(crate) struct Link {
    shared: Arc<Shared>,
    wake: Option<Arc<dyn Wake>>,
    // Joined when the link is dropped, after `wake` told it to end.
    keeper: Option<Thread>,
}

struct Shared {
    sender: Mutex<Sender>,
    /// Set by every send: the keeper looks after the socket from time to time while it is, since a send may have
    /// used up the signal that it waits for.
    active: AtomicBool,
    stopping: AtomicBool,
    subscribers: Mutex<usize>,
    subscribers_changed: Condvar,
    hellos: Arc<AtomicU64>,
    encoder: Encoder,
    hook: Option<ErrorHook>,
}

/// What a send works with, under the link's lock.
pub(crate) struct Sender {
    pub(crate) outbound: Box<dyn Outbound>,
    /// The last number used on each topic.
    pub(crate) numbers: HashMap<Topic, u64>,
}

/// How often the keeper looks after a socket that is being used.
const TICK: Duration = Duration::from_millis(10);

/// How long the keeper may wait for a hello to be taken; a lost one is asked for again.
const HELLO_TIMEOUT: Duration = Duration::from_millis(100);

impl Link {
    /// Shares `outbound`; hellos are written by `encoder`.
    pub(crate) fn new(mut outbound: Box<dyn Outbound>, encoder: Encoder, hook: Option<ErrorHook>) -> Result<Link> {
        let waiter = outbound.waiter()?;
        let shared = Arc::new(Shared {
            sender: Mutex::new(Sender {
                outbound,
                numbers: HashMap::new(),
            }),
            active: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            subscribers: Mutex::new(0),
            subscribers_changed: Condvar::new(),
            hellos: Arc::default(),
            encoder,
            hook,
        });
        let Some((waiter, wake)) = waiter else {
            let (wake, keeper) = (None, None);
            return Ok(Link { shared, wake, keeper });
        };
        let keep = Arc::clone(&shared);
        let keeper = thread::spawn("tablecast-keeper", move || keep.run(waiter))?;
        Ok(Link {
            shared,
            wake: Some(wake),
            keeper: Some(keeper),
        })
    }

    /// Calls `send` with the sending end and the time it may take, which is what `timeout` has left after waiting
    /// for other threads.
    pub(crate) fn send(&self, timeout: Duration, send: impl FnOnce(&mut Sender, Duration) -> Result<()>) -> Result<()> {
        let mut left = timeout;
        let mut sender = match self.shared.sender.try_lock() {
            Some(sender) => sender,
            None => {
                let start = Instant::now();
                let locked = self.shared.sender.try_lock_for(timeout);
                left = timeout.saturating_sub(start.elapsed());
                let late = || Error::new(ErrorKind::Timeout, "other threads were sending all the time");
                locked.ok_or_else(late)?
            }
        };
        let sent = send(&mut sender, left);
        drop(sender);
        if let Some(wake) = &self.wake
            && !self.shared.active.load(Ordering::Relaxed)
            && !self.shared.active.swap(true, Ordering::AcqRel)
        {
            wake.wake();
        }
        sent
    }

    /// The address that subscribers connect to.
    pub(crate) fn address(&self) -> Option<String> {
        self.shared.sender.lock().outbound.address()
    }

    /// Waits for `count` subscribers, and returns whether they came in time.
    pub(crate) fn wait_subscribers(&self, count: usize, timeout: Duration) -> Result<()> {
        if self.shared.sender.lock().outbound.subscribers().is_none() {
            let context = "this driver cannot tell how many subscribers there are";
            return Err(Error::new(ErrorKind::Unsupported, context));
        }
        let deadline = thread::deadline(timeout);
        let mut subscribers = self.shared.subscribers.lock();
        while *subscribers < count {
            let waited = self.shared.subscribers_changed.wait_until(&mut subscribers, deadline);
            if waited.timed_out() && *subscribers < count {
                let context = format!("{} of {count} subscribers came within {timeout:?}", *subscribers);
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
        Ok(())
    }

    /// Counts the hellos that are sent.
    pub(crate) fn hellos(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.hellos)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(wake) = &self.wake {
            wake.wake();
        }
        drop(self.keeper.take());
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self, mut waiter: Box<dyn Waiter>) {
        while !self.stopping.load(Ordering::Acquire) {
            let active = self.active.load(Ordering::Acquire);
            if let Err(e) = waiter.wait(active.then_some(TICK)) {
                return report(&e, self.hook.as_ref());
            }
            if active {
                // Before the look at the socket, so that a send after it wakes again.
                self.active.store(false, Ordering::Release);
            }
            if let Err(e) = self.answer() {
                report(&e, self.hook.as_ref());
            }
        }
    }

    /// Answers every probe that came, and counts the subscribers.
    fn answer(&self) -> Result<()> {
        let mut sender = self.sender.lock();
        let mut hello = Vec::new();
        for probe in sender.outbound.probes()? {
            hello.clear();
            self.encoder.control("hello", None, &probe, &mut hello);
            sender.outbound.send(probe.as_str().as_bytes(), &hello, HELLO_TIMEOUT)?;
            self.hellos.fetch_add(1, Ordering::Relaxed);
        }
        let now = sender.outbound.subscribers().unwrap_or(0);
        drop(sender);
        let mut subscribers = self.subscribers.lock();
        if *subscribers != now {
            *subscribers = now;
            self.subscribers_changed.notify_all();
        }
        Ok(())
    }
}
