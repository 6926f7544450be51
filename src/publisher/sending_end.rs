//! The sending end as threads share it: its lock, and the hellos that are sent under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use crate::clock;
use crate::codec::{Encoder, GOODBYE, HELLO, Hello, MAX_TOPICS};
use crate::counter::Counter;
use crate::error::{Error, ErrorHook, ErrorKind, Result};
use crate::transport::Wake;
use crate::update::Topic;

use super::crowd::Crowd;
use super::numbers::Part;
use super::sender::{Gathered, Sender};

/// How long the keeper waits for the transport to take a hello; a lost one is asked for again.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_millis(100);

/// Others hold the lock, or a topic, for moments: an update is not refused for that, whatever its time limit.
pub(super) const HOLD: Duration = Duration::from_millis(20);

/// A link's sending end, shared by the threads that send and its keeper.
pub(super) struct SendingEnd {
    pub(super) sender: Mutex<Sender>,
    /// Wakes the keeper.
    pub(super) wake: Arc<dyn Wake>,
    pub(super) gathered: Arc<Gathered>,
    /// The keeper watches the gathered updates.
    pub(super) gathering: AtomicBool,
    /// Set by every send, also the keeper's own. While it is set the keeper checks the socket from time to time, since
    /// a send may have consumed the signal that it waits for.
    pub(super) active: AtomicBool,
    /// The keeper waits for the lock, which busy senders would otherwise never leave.
    pub(super) waiting: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// Topics on which to use up a number, with the time of the event, for callers that cannot wait for the sender. The
    /// flag says whether there are any.
    pub(super) skipped: Mutex<HashMap<Topic, Instant>>,
    pub(super) has_skipped: AtomicBool,
    pub(super) crowd: Arc<Crowd>,
    pub(super) hellos: Arc<Counter>,
    pub(super) encoder: Encoder,
    /// The longest time between two hellos.
    pub(super) interval: Duration,
    /// A longer hello is divided.
    pub(super) max_hello: usize,
    pub(super) send_timeout: Duration,
    /// True if the transport has probes to answer.
    pub(super) is_asked: bool,
    /// Each message is confirmed, so that sending one may take long.
    pub(super) confirms: bool,
    pub(super) hook: Option<ErrorHook>,
}

impl SendingEnd {
    /// Locks the sender. The flag asks busy senders to leave the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Sender> {
        self.waiting.store(true, Ordering::Relaxed);
        let sender = self.sender.lock();
        self.waiting.store(false, Ordering::Relaxed);
        sender
    }

    /// As [`SendingEnd::lock`]; `None` if a message that others send is not confirmed within this time.
    pub(super) fn lock_within(&self, patience: Duration) -> Option<MutexGuard<'_, Sender>> {
        if !self.confirms {
            return Some(self.lock());
        }
        self.waiting.store(true, Ordering::Relaxed);
        let sender = self.sender.try_lock_for(patience);
        self.waiting.store(false, Ordering::Relaxed);
        sender
    }

    /// Uses up the numbers of skipped events, but those on open topics.
    pub(super) fn use_up(&self, sender: &mut Sender) {
        if self.has_skipped.load(Ordering::Acquire) {
            let mut skipped = self.skipped.lock();
            self.has_skipped.store(false, Ordering::Release);
            skipped.retain(|topic, at| {
                let is_open = sender.numbers.is_open(topic);
                if !is_open {
                    sender.numbers.skip(topic, *at);
                }
                is_open
            });
            self.has_skipped.fetch_or(!skipped.is_empty(), Ordering::Release);
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
        let sent = sender.outbound.send(topic.as_str().as_bytes(), &message, timeout);
        sent.map_err(|e| match e.kind() {
            // That is true of the hello: what comes after it was not sent.
            ErrorKind::Unconfirmed => {
                Error::new(ErrorKind::Timeout, "the first hello was not confirmed").with_source(e)
            }
            _ => e,
        })?;
        self.hellos.add(1);
        sender.introduced = true;
        Ok(())
    }

    /// Sends gathered updates, as [`Sender::flush`] does, for the keeper.
    pub(super) fn flush(&self, sender: &mut Sender, timeout: Duration, gives_up: bool) -> Result<()> {
        if sender.burst.since().is_none() {
            return Ok(());
        }
        let flushed = sender.flush(self.patience(sender, timeout), gives_up);
        self.active.store(true, Ordering::Release);
        flushed
    }

    /// The time limit for gathered updates, where there is this much left. A message that has gone out and is not
    /// confirmed in time is lost, as far as is known.
    pub(super) fn patience(&self, sender: &Sender, left: Duration) -> Duration {
        match sender.outbound.confirms() {
            true => left.max(self.send_timeout),
            false => left,
        }
    }

    /// Sends a hello.
    fn send(&self, sender: &mut Sender, topic: &Topic, hello: &[u8], timeout: Duration) -> Result<()> {
        let sent = sender.outbound.send(topic.as_str().as_bytes(), hello, timeout);
        self.active.store(true, Ordering::Release);
        sent?;
        self.hellos.add(1);
        Ok(())
    }

    /// Sends a round of hellos: the numbers of the recent topics in as many messages as needed, each within the timeout.
    /// With `end` the last one is a goodbye; the round is given up then. A publisher that connects on its first send
    /// sends nothing before that, unless it has used up numbers.
    pub(super) fn say<'a>(
        &'a self,
        mut sender: MutexGuard<'a, Sender>,
        timeout: Duration,
        end: Option<Instant>,
    ) -> Result<()> {
        let is_ending = |sender: &Sender| sender.said_goodbye || self.stopping.load(Ordering::Acquire);
        if end.is_none() && is_ending(&sender) {
            return Ok(());
        }
        // The goodbye breaks off the keeper's round.
        sender.end_round();
        sender.said_goodbye |= end.is_some();
        let left = || end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
        self.flush(&mut sender, left().min(HELLO_TIMEOUT), false)?;
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
                if sender.outbound.has_unread() {
                    // Without its time it does not say that it has overtaken a question.
                    hello.at = 0;
                }
                let is_goodbye = end.is_some() && next.is_none();
                let action = if is_goodbye { GOODBYE } else { HELLO };
                message.clear();
                self.encoder
                    .control(action, Some(&hello.to_text()), &topic, &mut message);
                part = next;
                if message.len() <= self.max_hello || hello.topics.is_empty() {
                    break;
                }
                most = hello.topics.len() / 2;
            }
            let sent = self.send(&mut sender, &topic, &message, left().min(HELLO_TIMEOUT));
            sender.introduced |= sent.is_ok();
            sender.refuses = sent.is_err();
            sender.in_round |= sent.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::Unconfirmed);
            if part.is_none() || sent.is_err() {
                sender.end_round();
            }
            sent?;
            if part.is_some() {
                // Lets others send in between, and say goodbye.
                MutexGuard::unlock_fair(sender);
                sender = self.lock();
                if end.is_none() && is_ending(&sender) {
                    return Ok(());
                }
                if end.is_some() && left().is_zero() {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        "there was no time for all of its topics",
                    ));
                }
                if let Err(e) = self.flush(&mut sender, left().min(HELLO_TIMEOUT), false) {
                    sender.end_round();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Answers every probe that has come, and counts the subscribers.
    pub(super) fn answer(&self, sender: &mut Sender) -> Result<usize> {
        let (mut hello, mut text) = (Vec::new(), None);
        for probe in sender.outbound.probes()? {
            // An answer says that everything sent before it has arrived.
            self.flush(sender, HELLO_TIMEOUT, false)?;
            hello.clear();
            let text = text.get_or_insert_with(|| {
                // Zero would mean that there is no clock.
                let at = sender.numbers.at(clock::now()).max(1);
                let hello = Hello::of(self.interval);
                Hello { at, ..hello }.to_text()
            });
            self.encoder.control(HELLO, Some(text), &probe, &mut hello);
            self.send(sender, &probe, &hello, HELLO_TIMEOUT)?;
        }
        let subscribers = sender.outbound.subscribers().unwrap_or(0);
        sender.gathered.reaches(subscribers);
        Ok(subscribers)
    }

    /// True if the keeper waits for the end of a turn.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Called when the first update was gathered: the keeper sends it if no caller does.
    pub(super) fn gathers(&self, now: Instant) {
        self.gathered.begin(now);
        if !self.gathering.load(Ordering::Relaxed) && !self.gathering.swap(true, Ordering::AcqRel) {
            self.wake.wake();
        }
    }
}
