//! The publisher service: one process a host that binds the port and passes on what the others send it.

mod losses;
mod progress;
mod waiting;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::codec::{self, Codec, Encoder, MIN_HELLO};
use crate::counter::Counter;
use crate::error::{ErrorHook, ErrorKind, Result, contain, report};
use crate::identity::{new_epoch, unique_id};
use crate::publisher::{Crowd, Link, LinkOptions};
use crate::thread::{self, Failures, Thread};
use crate::transport::{Driver, Inbound, Received, Wake};
use crate::update::Topic;
use losses::{Loss, Losses};
use progress::Progress;
use waiting::Waiting;

/// Limits and times of a [`Service`].
#[derive(Clone)]
pub struct ServiceOptions {
    /// Time limit for the network driver to accept a frame before it is dropped. Default: 1 s.
    pub send_timeout: Duration,
    /// A larger payload is dropped and counted; hellos of up to 1 KiB pass, and joined updates of up to 64 KiB. Default:
    /// 16 MiB.
    pub max_message_bytes: usize,
    /// The format of the service's own answers to subscribers. Default: MessagePack.
    pub codec: Codec,
    /// Period of the service's hellos: subscribers notice within three of these that it is gone. Default: 1 s.
    pub hello_interval: Duration,
    /// Called with every failure in the background; for messages that are not passed on at most every 10 s, with their
    /// numbers. Default: none; failures are logged in any case.
    pub hook: Option<ErrorHook>,
}

impl Default for ServiceOptions {
    fn default() -> ServiceOptions {
        ServiceOptions {
            send_timeout: Duration::from_secs(1),
            max_message_bytes: 16 << 20,
            codec: Codec::default(),
            hello_interval: Duration::from_secs(1),
            hook: None,
        }
    }
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions")
            .field("send_timeout", &self.send_timeout)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish_non_exhaustive()
    }
}

/// Counts of a [`Service`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Frames passed on to the network.
    pub forwarded: u64,
    /// Frames dropped because they had not two parts, or were too large.
    pub malformed: u64,
    /// Frames that the network driver refused, or that were left when the service stopped.
    pub failed: u64,
    /// Failures to receive from the local processes; the service tries again.
    pub errors: u64,
    /// The service's own hellos: answers to subscribers that asked, and those of the option `hello_interval`.
    pub hellos: u64,
    /// Subscribers, as [`Publisher::wait_subscribers`](crate::Publisher::wait_subscribers) counts them; `None` if the
    /// network driver does not know.
    pub subscribers: Option<usize>,
}

/// Passes on frames from the processes of this host to the network, without looking into them.
///
/// It runs on a thread of its own from the moment it is made; dropping it stops it.
pub struct Service {
    relay: Arc<Relay>,
    address: Option<String>,
    wake: Arc<dyn Wake>,
    /// Ends the waits for the network.
    interrupt: Option<Arc<dyn Wake>>,
    thread: Mutex<Option<Thread>>,
}

/// Passes on frames on the service's thread; the handle reads its counters.
struct Relay {
    options: ServiceOptions,
    /// End of the time for what has come before the service is stopped; set when it stops.
    last_chance: OnceLock<Instant>,
    /// The thread was woken since this was last looked at.
    responded: AtomicBool,
    progress: Progress,
    forwarded: Counter,
    malformed: Counter,
    failed: Counter,
    errors: Counter,
    hellos: Arc<Counter>,
    crowd: Arc<Crowd>,
}

/// The longest time that a stopping service goes on passing on what has come in.
const DRAIN: Duration = Duration::from_millis(200);

/// The longest time that it then counts what it has not passed on.
const COUNT: Duration = Duration::from_millis(50);

impl Service {
    /// Takes both ends, and begins to pass on: when this returns, processes and subscribers can connect.
    ///
    /// # Errors
    /// [`ErrorKind::AddressInUse`] if another service is there, and the errors of the drivers.
    pub fn start(
        multiproc: &dyn Driver,
        socket: &str,
        network: &dyn Driver,
        options: ServiceOptions,
    ) -> Result<Service> {
        let (mut inbound, wake) = multiproc.inbound()?;
        // The local end first: where another service runs, this is what finds out.
        inbound.connect(socket)?;
        let encoder = Encoder::new(options.codec, unique_id(), new_epoch());
        let link_options = LinkOptions {
            hello_interval: options.hello_interval,
            max_message_bytes: options.max_message_bytes,
            send_timeout: options.send_timeout,
            begins: true,
            hook: options.hook.clone(),
        };
        let mut outbound = network.outbound()?;
        // Asked before the link uses it, which may take long.
        let (interrupt, address) = (outbound.interrupt()?, outbound.address());
        let link = Link::new(outbound, encoder, link_options)?;
        let relay = Arc::new(Relay {
            options,
            last_chance: OnceLock::new(),
            responded: AtomicBool::new(true),
            progress: Progress::default(),
            forwarded: Counter::new(),
            malformed: Counter::new(),
            failed: Counter::new(),
            errors: Counter::new(),
            hellos: link.hellos(),
            crowd: link.crowd(),
        });
        let run = Arc::clone(&relay);
        // The thread owns both ends, and closes them when it ends.
        let hook = run.options.hook.clone();
        let body = move || run.run(&mut *inbound, &link);
        let thread = thread::spawn_fallible("tc-service", hook, body)?;
        Ok(Service {
            relay,
            address,
            wake,
            interrupt,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The address that subscribers connect to; a port of 0 is resolved.
    pub fn address(&self) -> Option<String> {
        self.address.clone()
    }

    /// Stops passing on, and returns when both ends are closed. What the processes have sent until then is still passed
    /// on, for at most 200 ms; the rest is counted and reported. A send that waits for the network is given up then, or
    /// after its time limit with a driver that has no [`interrupt`](crate::transport::Outbound::interrupt).
    pub fn stop(&self) {
        let end = *self.relay.last_chance.get_or_init(|| Instant::now() + DRAIN);
        self.wake.wake();
        let thread = self.thread.lock().take();
        if let (Some(thread), Some(interrupt)) = (&thread, &self.interrupt)
            && !thread.is_current()
            && !thread.ends_by(end)
        {
            interrupt.wake();
        }
        drop(thread);
    }

    /// True until the service is stopped. If it is false before that, the service can no longer forward anything: the
    /// driver between the processes has returned [`ErrorKind::Stopped`], and the hook was called.
    pub fn is_running(&self) -> bool {
        self.thread.lock().as_ref().is_some_and(|thread| !thread.has_ended())
    }

    /// True if the service's thread has responded to the previous call, which woke it, or has been waiting for the
    /// network for no longer than `send_timeout` plus a second. For a watchdog.
    pub fn is_responsive(&self) -> bool {
        let responded = self.relay.responded.swap(false, Ordering::Relaxed);
        self.wake.wake();
        let limit = self.relay.options.send_timeout;
        self.relay.progress.is_sending(limit, Instant::now()) || responded
    }

    /// Counts since the start.
    pub fn stats(&self) -> ServiceStats {
        ServiceStats {
            forwarded: self.relay.forwarded.get(),
            malformed: self.relay.malformed.get(),
            failed: self.relay.failed.get(),
            errors: self.relay.errors.get(),
            hellos: self.relay.hellos.get(),
            subscribers: self.relay.crowd.count(),
        }
    }
}

/// A run of the service's thread, whatever fails meanwhile.
#[derive(Default)]
struct Run {
    failures: Failures,
    losses: Losses,
    waiting: Waiting,
}

impl Relay {
    /// Passes on until it is stopped, whatever fails; an error means that there can be nothing more to pass on.
    fn run(&self, inbound: &mut dyn Inbound, link: &Link) -> Result<()> {
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

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
