//! The work of a service's thread: receiving, joining and passing on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::losses::{Loss, Losses};
use super::options::ServiceOptions;
use super::progress::Progress;
use super::waiting::Waiting;
use crate::clock;
use crate::codec::{self, MIN_HELLO};
use crate::counter::Counter;
use crate::error::{ErrorKind, Result, contain, report};
use crate::publisher::{Crowd, Link};
use crate::thread::Failures;
use crate::transport::{Inbound, Received};
use crate::update::Topic;

/// Passes on frames on the service's thread; the handle reads its counters.
pub(super) struct Relay {
    pub(super) options: ServiceOptions,
    /// End of the time for what has come before the service is stopped; set when it stops.
    pub(super) last_chance: OnceLock<Instant>,
    /// The thread was woken since this was last looked at.
    pub(super) responded: AtomicBool,
    pub(super) progress: Progress,
    pub(super) forwarded: Counter,
    pub(super) malformed: Counter,
    pub(super) failed: Counter,
    pub(super) errors: Counter,
    pub(super) hellos: Arc<Counter>,
    pub(super) crowd: Arc<Crowd>,
}

/// The longest time that it then counts what it has not passed on.
const COUNT: Duration = Duration::from_millis(50);

/// A run of the service's thread, whatever fails meanwhile.
#[derive(Default)]
struct Run {
    failures: Failures,
    losses: Losses,
    waiting: Waiting,
}

impl Relay {
    /// Passes on until it is stopped, whatever fails; an error means that there can be nothing more to pass on.
    pub(super) fn run(&self, inbound: &mut dyn Inbound, link: &Link) -> Result<()> {
        let mut run = Run::default();
        loop {
            let what = || "the publisher service".into();
            let done = contain(what, || self.pass_on(inbound, link, &mut run));
            match done.flatten() {
                Err(e) if e.kind() != ErrorKind::Stopped => {
                    self.errors.add(1);
                    run.failures.add(&e, self.options.hook.as_ref());
                }
                ended => {
                    if let Some(at) = run.losses.deadline() {
                        self.report(&mut run.losses, at);
                    }
                    return ended;
                }
            }
        }
    }

    /// Counts what has come in and is not passed on any more.
    fn leave(&self, inbound: &mut dyn Inbound, losses: &mut Losses) {
        let end = Instant::now() + COUNT;
        while Instant::now() < end {
            match inbound.recv(Some(Duration::ZERO)) {
                Ok(Received::Frame { .. }) => {
                    self.failed.add(1);
                    losses.add(Loss::Left, clock::now());
                }
                Ok(Received::Idle) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Passes on until it is stopped, or receiving fails.
    fn pass_on(&self, inbound: &mut dyn Inbound, link: &Link, run: &mut Run) -> Result<()> {
        self.flush(link, run);
        // A frame has come in since the last wait: the next ones are joined.
        let mut is_behind = false;
        loop {
            // Messages that have already come in are still passed on when the service stops.
            let last_chance = self.last_chance.get().copied();
            if last_chance.is_some_and(|end| Instant::now() >= end) {
                self.flush(link, run);
                self.leave(inbound, &mut run.losses);
                return Ok(());
            }
            let mut timeout = (is_behind || last_chance.is_some()).then_some(Duration::ZERO);
            if run.losses.deadline().is_some() {
                let now = clock::now();
                self.report(&mut run.losses, now);
                let left = run.losses.deadline().map(|at| at.saturating_duration_since(now));
                timeout = timeout.or(left);
            }
            let received = inbound.recv(timeout).inspect_err(|_| self.flush(link, run))?;
            run.failures.end();
            let was_behind = is_behind;
            is_behind = matches!(received, Received::Frame { .. });
            match received {
                Received::Frame { topic, payload, .. } => self.forward(link, topic, payload, was_behind, run),
                Received::Malformed => {
                    self.malformed.add(1);
                    run.losses.add(Loss::Malformed, clock::now());
                }
                Received::Woken => self.responded.store(true, Ordering::Relaxed),
                Received::Idle if last_chance.is_some() => {
                    self.flush(link, run);
                    return Ok(());
                }
                // Nothing ends the wait for the next frame but the stop: a driver may return early.
                _ => {}
            }
            if !is_behind {
                self.flush(link, run);
            }
        }
    }

    /// Reports what was not passed on, if that is due.
    fn report(&self, losses: &mut Losses, now: Instant) {
        if let Some(error) = losses.report(now) {
            report!(&error, self.options.hook.as_ref());
        }
    }

    /// Passes on a frame, or joins it to those that have come in before it.
    fn forward(&self, link: &Link, topic: &[u8], payload: &[u8], is_behind: bool, run: &mut Run) {
        let limit = self.options.max_message_bytes;
        // A writer's hello is larger than its limit if that is less than a hello needs.
        if codec::is_too_large(payload, limit) && !(payload.len() <= MIN_HELLO && Topic::is_own(topic)) {
            self.malformed.add(1);
            return run.losses.add(Loss::TooLarge, clock::now());
        }
        let joins = is_behind && link.takes_joined();
        if joins && run.waiting.join(topic, payload) {
            return;
        }
        self.flush(link, run);
        if !joins || !run.waiting.join(topic, payload) {
            let sent = self.send(link, topic, payload);
            self.count(1, sent, &mut run.losses);
        }
    }

    /// Passes on the joined frames.
    fn flush(&self, link: &Link, run: &mut Run) {
        if let Some((topic, joined)) = run.waiting.take() {
            let sent = self.send(link, topic.as_str().as_bytes(), joined.payload());
            self.count(joined.count() as u64, sent, &mut run.losses);
        }
    }

    fn count(&self, frames: u64, sent: Result<()>, losses: &mut Losses) {
        match sent {
            Ok(()) => self.forwarded.add(frames),
            Err(e) => {
                losses.refused(e, frames, clock::now());
                self.failed.add(frames)
            }
        };
    }

    fn send(&self, link: &Link, topic: &[u8], payload: &[u8]) -> Result<()> {
        let left = self.last_chance.get();
        let left = left.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(self.options.send_timeout, |left| left.min(self.options.send_timeout));
        let sending = self.progress.begin();
        let mut turn = link.turn(timeout)?;
        let parts = if turn.takes(payload) {
            None
        } else {
            codec::parts(payload)
        };
        let (first, rest) = match parts.as_deref().and_then(<[_]>::split_first) {
            Some((first, rest)) => (*first, rest),
            None => (payload, &[][..]),
        };
        turn.pass_on(topic, first)?;
        turn.end(clock::now());
        // Not nested: its count is odd during a send.
        drop(sending);
        // Each update has a turn of its own, so that hellos go in between.
        rest.iter().try_for_each(|part| self.send(link, topic, part))
    }
}
