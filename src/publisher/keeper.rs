//! The thread beside a sending end. It sends hellos, to subscribers that ask and from time to time to all, and sends
//! the gathered updates of a burst that no caller sends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::clock;
use crate::codec::{HELLO, Hello, MAX_TOPICS};
use crate::error::{Error, ErrorKind, Result, contain, report};
use crate::thread::{self, Failures, jittered};
use crate::transport::Waiter;
use crate::update::Topic;

use super::burst::AGE;
use super::link::{Sender, Shared};
use super::numbers::Part;

/// How often the keeper checks a socket that is in use.
const TICK: Duration = Duration::from_millis(10);

/// How long the keeper waits for the transport to take a hello; a lost one is asked for again.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_millis(100);

/// A burst is over when this many checks in a row found nothing gathered.
const IDLE: u32 = 8;

/// How soon a message that the transport did not take is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// State of the gathered updates, known without their lock.
#[derive(Debug)]
pub(super) struct Gathered {
    base: Instant,
    /// Since when an update waits, in microseconds after `base`; 0 if none does.
    since: AtomicU64,
    /// Number of updates that were accepted and could not be sent.
    lost: AtomicU64,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered {
            base: clock::now(),
            since: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }
}

impl Gathered {
    /// Notes that updates wait from now on.
    pub(super) fn begin(&self, now: Instant) {
        self.since.store(self.micros(now).max(1), Ordering::Release);
    }

    /// Notes that no update waits.
    pub(super) fn is_sent(&self) {
        self.since.store(0, Ordering::Release);
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Acquire);
        (since > 0).then(|| Duration::from_micros(self.micros(now).saturating_sub(since)))
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

impl Shared {
    /// Runs until it is stopped, whatever fails.
    pub(super) fn run(&self, waiter: &mut dyn Waiter) {
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

    /// Waits for work and does it, even if the waiting fails.
    fn keep(&self, waiter: &mut dyn Waiter, hello_at: &mut Instant) -> Result<()> {
        let active = self.is_asked && self.active.load(Ordering::Acquire);
        if self.gathering.load(Ordering::Acquire) {
            self.tend(Instant::now() + TICK);
        }
        let timeout = hello_at.saturating_duration_since(Instant::now());
        let timeout = match self.gathering.load(Ordering::Acquire) {
            true => Duration::ZERO,
            false if active => timeout.min(TICK),
            false => timeout,
        };
        let waited = waiter.wait(Some(timeout));
        if active {
            // Before the socket is checked, so that a later send wakes the keeper again.
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
            // Under the same lock as the answers: a hello that overtakes a question says that the question was not
            // received.
            if let Err(e) = self.say(sender, HELLO, Duration::ZERO) {
                // The transport takes nothing; senders get that error themselves.
                log::debug!("no hello: {e}");
            }
        } else {
            drop(sender);
        }
        let Some(subscribers) = answered.transpose()? else {
            return waited;
        };
        *self.subscribers.lock() = subscribers;
        // Even if the number is the same: a subscriber may have subscribed to more.
        self.subscribers_changed.notify_all();
        waited
    }

    /// Sends gathered updates when they are due, until there were none for a while, or until `until`.
    fn tend(&self, until: Instant) {
        let mut idle = 0;
        while !self.stopping.load(Ordering::Acquire) && Instant::now() < until {
            let age = self.gathered.age(clock::now());
            thread::pause(age.map_or(AGE, |age| AGE.saturating_sub(age)));
            let age = self.gathered.age(clock::now());
            idle = if age.is_none() { idle + 1 } else { 0 };
            if idle < IDLE && age.is_none_or(|age| age < AGE) {
                continue;
            }
            let mut sender = self.lock();
            let age = sender
                .burst
                .since()
                .map(|since| clock::now().saturating_duration_since(since));
            let is_kept = age.is_some_and(|age| age >= AGE)
                && sender.flush(Duration::ZERO, age >= Some(self.send_timeout)).is_err();
            let trouble = sender.trouble();
            let is_over = idle >= IDLE && sender.burst.since().is_none();
            if is_over {
                self.gathering.store(false, Ordering::Release);
            }
            drop(sender);
            if let Some(e) = trouble {
                report(&e, self.hook.as_ref());
            }
            if is_over {
                return;
            }
            if is_kept {
                thread::pause(RETRY);
            }
        }
    }

    /// Locks the sender. The flag asks busy senders to leave the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Sender> {
        self.waiting.store(true, Ordering::Relaxed);
        let sender = self.sender.lock();
        self.waiting.store(false, Ordering::Relaxed);
        sender
    }

    /// Uses up the numbers of skipped events.
    pub(super) fn use_up(&self, sender: &mut Sender) {
        if self.has_skipped.load(Ordering::Acquire) {
            let mut skipped = self.skipped.lock();
            self.has_skipped.store(false, Ordering::Release);
            for (topic, at) in skipped.drain() {
                sender.numbers.skip(topic.as_ref(), at);
            }
        }
    }

    /// Sends a hello before the first update, so that subscribers notice if the publisher dies soon after it.
    pub(super) fn introduce(&self, sender: &mut Sender, timeout: Duration) -> Result<()> {
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

    /// Sends the numbers of the recent topics in as many messages as needed, the last with `action`. A publisher that
    /// connects on its first send sends nothing before that, unless it has used up numbers.
    pub(super) fn say<'a>(&'a self, mut sender: MutexGuard<'a, Sender>, action: &str, timeout: Duration) -> Result<()> {
        sender.flush(timeout, false)?;
        let topic = Topic::hello();
        let mut message = Vec::new();
        let mut part = Some(Part::default());
        while let Some(this) = part {
            // Numbers and message go out under one lock, so that a hello never names a number that is sent after it.
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
            // Parts of an unfinished round may have been received, so its number is used up.
            let may_be_heard = |e: &Error| this != Part::default() || e.kind() == ErrorKind::Unconfirmed;
            if sent.as_ref().map_or_else(may_be_heard, |()| part.is_none()) {
                sender.numbers.told();
            }
            sent?;
            self.hellos.fetch_add(1, Ordering::Relaxed);
            if part.is_some() {
                // Lets others send in between.
                drop(sender);
                sender = self.lock();
                sender.flush(timeout, false)?;
            }
        }
        Ok(())
    }

    /// Answers every probe that has come, and counts the subscribers.
    pub(super) fn answer(&self, sender: &mut Sender) -> Result<usize> {
        let (mut hello, mut text) = (Vec::new(), None);
        for probe in sender.outbound.probes()? {
            // An answer says that everything sent before it has arrived.
            sender.flush(HELLO_TIMEOUT, false)?;
            hello.clear();
            let text = text.get_or_insert_with(|| {
                // Zero would mean that there is no clock.
                let at = sender.numbers.at(clock::now()).max(1);
                let hello = Hello::of(self.interval);
                Hello { at, ..hello }.to_text()
            });
            self.encoder.control(HELLO, Some(text), &probe, &mut hello);
            sender.outbound.send(probe.as_str().as_bytes(), &hello, HELLO_TIMEOUT)?;
            self.hellos.fetch_add(1, Ordering::Relaxed);
        }
        Ok(sender.outbound.subscribers().unwrap_or(0))
    }
}
