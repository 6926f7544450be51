//! The thread beside a sending end. It sends hellos, to subscribers that ask and from time to time to all, and sends
//! the gathered updates of a burst that no caller sends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Result, contain, report};
use crate::thread::{self, Failures, jittered};
use crate::transport::Waiter;

use super::burst::AGE;
use super::sending_end::SendingEnd;

/// How often the keeper checks a socket that is in use.
const TICK: Duration = Duration::from_millis(10);

/// A burst is over when this many checks in a row found nothing gathered.
const IDLE: u32 = 8;

/// How soon a message that the transport did not take is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// A driver's panic is an error of its own.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    contain(|| "the keeper of a publisher".into(), work).flatten()
}

impl SendingEnd {
    /// Sends the first hello. A transport that takes nothing is reported.
    pub(super) fn begin(&self) {
        let introduced = contained(|| self.introduce(&mut self.lock(), self.send_timeout));
        if let Err(e) = introduced
            && !self.stopping.load(Ordering::Acquire)
        {
            let error = e.context("the network takes no messages yet");
            report!(&error, self.hook.as_ref());
        }
    }

    /// Runs until it is stopped, whatever fails.
    pub(super) fn run(&self, waiter: &mut dyn Waiter) {
        let mut hello_at = Instant::now() + jittered(self.interval);
        let mut failures = Failures::default();
        while !self.stopping.load(Ordering::Acquire) {
            match contained(|| self.keep(waiter, &mut hello_at)) {
                Ok(()) => failures.end(),
                Err(e) => self.apart(|| failures.add(&e, self.hook.as_ref())),
            }
        }
        self.give_up();
    }

    /// Tries the gathered updates that are left a last time: the end of the publisher may not have waited for them.
    fn give_up(&self) {
        let given_up = contained(|| {
            let mut sender = self.lock();
            sender.flush(Duration::ZERO, true)?;
            Ok(sender.trouble())
        });
        if let Some(e) = given_up.unwrap_or_else(Some) {
            report!(&e, self.hook.as_ref());
        }
    }

    /// Does what may take long, as a hook does. No update of a burst waits for that.
    fn apart(&self, work: impl FnOnce()) {
        let flushed = contained(|| {
            let mut sender = self.lock();
            sender.is_unwatched = true;
            self.flush(&mut sender, Duration::ZERO, false)
        });
        if let Err(e) = flushed {
            // What is left is tried again, by callers too.
            log::debug!("updates of a burst wait: {e}");
        }
        work();
        self.lock().is_unwatched = false;
    }

    /// Waits for work and does it, even if the waiting fails.
    fn keep(&self, waiter: &mut dyn Waiter, hello_at: &mut Instant) -> Result<()> {
        if self.gathering.load(Ordering::Acquire) {
            self.tend(Instant::now() + TICK);
        }
        let active = self.is_asked && self.active.load(Ordering::Acquire);
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
            if let Err(e) = self.say(sender, Duration::ZERO, None) {
                // The transport takes nothing; senders get that error themselves.
                log::debug!("no hello: {e}");
            }
        } else {
            drop(sender);
        }
        let Some(subscribers) = answered.transpose()? else {
            return waited;
        };
        self.crowd.set(subscribers);
        waited
    }

    /// Sends gathered updates when they are due, until there were none for a while, or until `until`.
    fn tend(&self, until: Instant) {
        let mut idle = 0;
        while !self.stopping.load(Ordering::Acquire) && Instant::now() < until {
            let age = self.gathered.age(clock::now());
            let patience = self.gathered.patience();
            thread::pause(age.map_or(AGE, |age| patience.saturating_sub(age)));
            let age = self.gathered.age(clock::now());
            idle = if age.is_none() { idle + 1 } else { 0 };
            if idle < IDLE && age.is_none_or(|age| age < patience) {
                continue;
            }
            let mut sender = self.lock();
            let age = sender
                .burst
                .since()
                .map(|since| clock::now().saturating_duration_since(since));
            let gives_up = age >= Some(patience.saturating_add(self.send_timeout));
            let is_due = age.is_some_and(|age| age >= patience);
            let is_kept = is_due && self.flush(&mut sender, Duration::ZERO, gives_up).is_err();
            let trouble = sender.trouble();
            let is_over = idle >= IDLE && sender.burst.since().is_none();
            if is_over {
                self.gathering.store(false, Ordering::Release);
            }
            drop(sender);
            if let Some(e) = trouble {
                self.apart(|| report!(&e, self.hook.as_ref()));
            }
            if is_over {
                return;
            }
            if is_kept {
                thread::pause(RETRY);
            }
        }
    }
}
