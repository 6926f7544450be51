//! The sending end as many threads share it, and the thread that tells subscribers that it is there: those who ask, and
//! from time to time all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock;
use crate::codec::{Encoder, GOODBYE, HELLO, Hello, MAX_PERIOD, MAX_TOPICS, MIN_HELLO};
use crate::error::{Error, ErrorHook, ErrorKind, Result, contain};
use crate::thread::{self, Failures, Thread, jittered};
use crate::transport::{Outbound, Waiter, Wake};
use crate::update::Topic;

use super::numbers::{Numbers, Part};
use super::parked::parked;

/// A driver's sending end with its keeper: the thread that says hello, also while nobody sends.
pub(crate) struct Link {
    shared: Arc<Shared>,
    wake: Arc<dyn Wake>,
    // Joined when the link is dropped, after `wake` told it to end.
    keeper: Option<Thread>,
}

struct Shared {
    sender: Mutex<Sender>,
    /// Set by every send: the keeper looks after the socket from time to time while it is, since a send may have
    /// used up the signal that it waits for.
    active: AtomicBool,
    /// The keeper waits for the lock, which those who send all the time would never leave to it.
    waiting: AtomicBool,
    stopping: AtomicBool,
    /// Topics of which numbers are to be used up, `None` for all, and for what happened when: by those who cannot wait
    /// for the sender. The flag says that there are some.
    skipped: Mutex<HashMap<Option<Topic>, Instant>>,
    has_skipped: AtomicBool,
    subscribers: Mutex<usize>,
    subscribers_changed: Condvar,
    hellos: Arc<AtomicU64>,
    encoder: Encoder,
    /// The most that passes between two hellos.
    interval: Duration,
    /// A larger hello is divided.
    max_hello: usize,
    /// Whether there are probes to look for.
    is_asked: bool,
    hook: Option<ErrorHook>,
}

/// What a send works with, under the link's lock.
pub(crate) struct Sender {
    pub(crate) outbound: Box<dyn Outbound>,
    pub(crate) numbers: Numbers,
    /// A hello was said.
    introduced: bool,
}

/// How often the keeper looks after a socket that is being used.
const TICK: Duration = Duration::from_millis(10);

/// The least and the most that passes between two hellos. A longer time is one that no subscriber takes for a period.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), MAX_PERIOD);

/// How long the keeper may wait for a hello to be taken; a lost one is asked for again.
const HELLO_TIMEOUT: Duration = Duration::from_millis(100);

impl Link {
    /// Shares `outbound`; hellos are written by `encoder`, at least once every `interval`, in messages within
    /// `max_message_bytes`.
    pub(crate) fn new(
        mut outbound: Box<dyn Outbound>,
        encoder: Encoder,
        interval: Duration,
        max_message_bytes: usize,
        hook: Option<ErrorHook>,
    ) -> Result<Link> {
        let waiter = outbound.waiter()?;
        let shared = Arc::new(Shared {
            sender: Mutex::new(Sender {
                outbound,
                numbers: Numbers::default(),
                // Who listens to this end itself asks.
                introduced: waiter.is_some(),
            }),
            active: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            skipped: Mutex::default(),
            has_skipped: AtomicBool::new(false),
            subscribers: Mutex::new(0),
            subscribers_changed: Condvar::new(),
            hellos: Arc::default(),
            encoder,
            interval: interval.clamp(INTERVALS.0, INTERVALS.1),
            max_hello: max_message_bytes.max(MIN_HELLO),
            is_asked: waiter.is_some(),
            hook,
        });
        let (mut waiter, wake) = waiter.unwrap_or_else(parked);
        let keep = Arc::clone(&shared);
        let hook = keep.hook.clone();
        let body = move || {
            keep.run(&mut *waiter);
            Ok(())
        };
        let keeper = Some(thread::spawn_fallible("tablecast-keeper", hook, body)?);
        Ok(Link { shared, wake, keeper })
    }

    /// Calls `send` with the sending end and the time it may take, which is what `timeout` has left after waiting
    /// for other threads.
    pub(crate) fn send<T>(
        &self,
        timeout: Duration,
        send: impl FnOnce(&mut Sender, Duration) -> Result<T>,
    ) -> Result<T> {
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
        self.shared.use_up(&mut sender);
        let sent = match self.shared.introduce(&mut sender, left) {
            Ok(()) => send(&mut sender, left),
            Err(e) => Err(e),
        };
        match self.shared.waiting.load(Ordering::Relaxed) {
            true => MutexGuard::unlock_fair(sender),
            false => drop(sender),
        }
        if self.shared.is_asked
            && !self.shared.active.load(Ordering::Relaxed)
            && !self.shared.active.swap(true, Ordering::AcqRel)
        {
            self.wake.wake();
        }
        sent
    }

    /// Uses up a number of this topic, or of all that were used, for what has happened until now and could not be told.
    /// Waits for nothing.
    pub(crate) fn skip(&self, topic: Option<&Topic>) {
        let mut skipped = self.shared.skipped.lock();
        skipped.insert(topic.cloned(), clock::now());
        self.shared.has_skipped.store(true, Ordering::Release);
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

    /// Whether somebody has subscribed to this topic, where the driver can tell.
    pub(crate) fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        self.shared.sender.lock().outbound.is_subscribed(topic)
    }

    /// Waits until somebody has subscribed to this topic.
    pub(crate) fn wait_subscribed(&self, topic: &Topic, timeout: Duration) -> Result<()> {
        let deadline = thread::deadline(timeout);
        // Held from the look to the wait, so that no change is missed in between.
        let mut changes = self.shared.subscribers.lock();
        loop {
            match self.is_subscribed(topic) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    let context = "this driver cannot tell what is subscribed to";
                    return Err(Error::new(ErrorKind::Unsupported, context));
                }
            }
            if self
                .shared
                .subscribers_changed
                .wait_until(&mut changes, deadline)
                .timed_out()
            {
                let context = format!("no subscriber of topic {topic} came within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
    }

    /// Tells that this is the end, with the last numbers. Waits for a short while only: who does not hear it notices the
    /// silence.
    pub(crate) fn say_goodbye(&self) {
        let mut sender = self.shared.lock();
        // A word to nobody would only linger.
        if self.shared.answer(&mut sender).is_ok() && sender.outbound.subscribers() == Some(0) {
            return;
        }
        if let Err(e) = self.shared.say(sender, GOODBYE, HELLO_TIMEOUT) {
            log::debug!("no goodbye: {e}");
        }
    }

    /// Counts the hellos that are sent.
    pub(crate) fn hellos(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.hellos)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.wake.wake();
        drop(self.keeper.take());
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Shared {
    /// Keeps on until it is told to stop, whatever fails.
    fn run(&self, waiter: &mut dyn Waiter) {
        let mut hello_at = Instant::now() + jittered(self.interval);
        let mut failures = Failures::default();
        while !self.stopping.load(Ordering::Acquire) {
            let kept = contain(
                || "the keeper of a publisher".into(),
                || self.keep(waiter, &mut hello_at),
            );
            match kept.flatten() {
                Ok(()) => failures.end(),
                Err(e) => failures.add(&e, self.hook.as_ref()),
            }
        }
    }

    /// Waits for what is to be done, and does it, also if the waiting fails.
    fn keep(&self, waiter: &mut dyn Waiter, hello_at: &mut Instant) -> Result<()> {
        let active = self.is_asked && self.active.load(Ordering::Acquire);
        let timeout = hello_at.saturating_duration_since(Instant::now());
        let timeout = if active { timeout.min(TICK) } else { timeout };
        let waited = waiter.wait(Some(timeout));
        if active {
            // Before the look at the socket, so that a send after it wakes again.
            self.active.store(false, Ordering::Release);
        }
        let is_due = Instant::now() >= *hello_at;
        if !is_due && !self.is_asked {
            return waited;
        }
        let mut sender = self.lock();
        let answered = self.is_asked.then(|| self.answer(&mut sender));
        if is_due {
            *hello_at = Instant::now() + jittered(self.interval);
            // Under the lock of the answers: a hello that passes a question by says that the question was not heard.
            if let Err(e) = self.say(sender, HELLO, Duration::ZERO) {
                // Nobody takes anything: those who send are told so themselves.
                log::debug!("no hello: {e}");
            }
        } else {
            drop(sender);
        }
        let Some(subscribers) = answered.transpose()? else {
            return waited;
        };
        *self.subscribers.lock() = subscribers;
        // Also if there are as many as before: one of them may have subscribed to more.
        self.subscribers_changed.notify_all();
        waited
    }

    /// The sender, as soon as it is free.
    fn lock(&self) -> MutexGuard<'_, Sender> {
        self.waiting.store(true, Ordering::Relaxed);
        let sender = self.sender.lock();
        self.waiting.store(false, Ordering::Relaxed);
        sender
    }

    /// Uses up the numbers that are to be.
    fn use_up(&self, sender: &mut Sender) {
        if self.has_skipped.load(Ordering::Acquire) {
            let mut skipped = self.skipped.lock();
            self.has_skipped.store(false, Ordering::Release);
            for (topic, at) in skipped.drain() {
                sender.numbers.skip(topic.as_ref(), at);
            }
        }
    }

    /// Says hello before the first update, so that a publisher which dies soon after it is missed.
    fn introduce(&self, sender: &mut Sender, timeout: Duration) -> Result<()> {
        if sender.introduced {
            return Ok(());
        }
        let (topic, mut message) = (Topic::hello(), Vec::new());
        let hello = Hello::of(self.interval).to_text();
        self.encoder.control(HELLO, Some(&hello), &topic, &mut message);
        sender.outbound.send(topic.as_str().as_bytes(), &message, timeout)?;
        self.hellos.fetch_add(1, Ordering::Relaxed);
        sender.introduced = true;
        Ok(())
    }

    /// Tells of the recent topics, in as many messages as it takes, the last of which is `action`. A publisher that
    /// connects on its first send says nothing before that, unless it has used up numbers.
    fn say<'a>(&'a self, mut sender: MutexGuard<'a, Sender>, action: &str, timeout: Duration) -> Result<()> {
        let topic = Topic::hello();
        let mut message = Vec::new();
        let mut part = Some(Part::default());
        while let Some(this) = part {
            // Numbers and message go out under one lock: a hello never tells of what is sent after it.
            self.use_up(&mut sender);
            if !sender.introduced && !sender.numbers.is_used() {
                return Ok(());
            }
            let mut most = MAX_TOPICS;
            loop {
                let (mut hello, next) = sender.numbers.hello(this, most, self.interval, clock::now());
                let crowd = sender.outbound.subscribers().unwrap_or(0);
                hello.crowd = u32::try_from(crowd).unwrap_or(u32::MAX);
                let action = if next.is_none() { action } else { HELLO };
                message.clear();
                self.encoder
                    .control(action, Some(&hello.to_text()), &topic, &mut message);
                part = next;
                if message.len() <= self.max_hello || hello.topics.is_empty() {
                    break;
                }
                most = hello.topics.len() / 2;
            }
            let sent = sender.outbound.send(topic.as_str().as_bytes(), &message, timeout);
            sender.introduced |= sent.is_ok();
            // Of a round that was not ended some may have been heard: its number is used up.
            let may_be_heard = |e: &Error| this != Part::default() || e.kind() == ErrorKind::Unconfirmed;
            if sent.as_ref().map_or_else(may_be_heard, |()| part.is_none()) {
                sender.numbers.told();
            }
            sent?;
            self.hellos.fetch_add(1, Ordering::Relaxed);
            if part.is_some() {
                // Others send in between.
                drop(sender);
                sender = self.lock();
            }
        }
        Ok(())
    }

    /// Answers every probe that came, and counts the subscribers.
    fn answer(&self, sender: &mut Sender) -> Result<usize> {
        let (mut hello, mut text) = (Vec::new(), None);
        for probe in sender.outbound.probes()? {
            hello.clear();
            let text = text.get_or_insert_with(|| Hello::of(self.interval).to_text());
            self.encoder.control(HELLO, Some(text), &probe, &mut hello);
            sender.outbound.send(probe.as_str().as_bytes(), &hello, HELLO_TIMEOUT)?;
            self.hellos.fetch_add(1, Ordering::Relaxed);
        }
        Ok(sender.outbound.subscribers().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
