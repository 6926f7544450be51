//! The handle to a sending end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::codec::{Encoder, MAX_PERIOD, MIN_HELLO};
use crate::counter::Counter;
use crate::error::{Error, ErrorHook, ErrorKind, Result, report};
use crate::thread::{self, Thread};
use crate::transport::Outbound;
use crate::update::Topic;

use super::burst::Burst;
use super::crowd::Crowd;
use super::numbers::Numbers;
use super::parked::parked;
use super::sender::{Gathered, Sender};
use super::sending_end::{HELLO_TIMEOUT, HOLD, SendingEnd};
use super::turn::Turn;

/// A driver's sending end with its keeper, the thread that sends hellos, also between sends.
pub(crate) struct Link {
    sending: Arc<SendingEnd>,
    // Ended by `wake` when the link is dropped.
    keeper: Option<Thread>,
}

/// The shortest and the longest time allowed between two hellos. Subscribers take no longer time for a period.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), MAX_PERIOD);

/// Times and limits of a [`Link`].
pub(crate) struct LinkOptions {
    /// The longest time between two hellos.
    pub(crate) hello_interval: Duration,
    /// A longer hello is divided.
    pub(crate) max_message_bytes: usize,
    /// How long gathered updates may wait for the transport.
    pub(crate) send_timeout: Duration,
    /// The keeper sends the first hello at once, and reports a transport that takes nothing.
    pub(crate) begins: bool,
    pub(crate) hook: Option<ErrorHook>,
}

/// How long gathered updates, and the goodbye behind them, may wait for the transport when the publisher stops.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// How long a goodbye waits for its turn, and the end of a link for its keeper, where a message may take long since it
/// is confirmed.
const PATIENCE: Duration = Duration::from_millis(400);

impl Link {
    /// Shares `outbound`; `encoder` writes the hellos.
    pub(crate) fn new(mut outbound: Box<dyn Outbound>, encoder: Encoder, options: LinkOptions) -> Result<Link> {
        let waiter = outbound.waiter()?;
        let (is_asked, confirms) = (waiter.is_some(), outbound.confirms());
        let (mut waiter, wake) = waiter.unwrap_or_else(parked);
        let crowd = Arc::new(Crowd::new(outbound.subscribers().is_some()));
        let gathered = Arc::<Gathered>::default();
        let sending = Arc::new(SendingEnd {
            sender: Mutex::new(Sender {
                outbound,
                numbers: Numbers::default(),
                burst: Burst::new(encoder.codec(), options.max_message_bytes),
                gathered: Arc::clone(&gathered),
                trouble: None,
                // A subscriber that connects to this end asks for a hello itself.
                introduced: is_asked,
                in_round: false,
                said_goodbye: false,
                is_unwatched: false,
                refuses: false,
            }),
            gathered,
            gathering: AtomicBool::new(false),
            active: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            skipped: Mutex::default(),
            has_skipped: AtomicBool::new(false),
            crowd,
            hellos: Arc::default(),
            encoder,
            interval: options.hello_interval.clamp(INTERVALS.0, INTERVALS.1),
            max_hello: options.max_message_bytes.max(MIN_HELLO),
            send_timeout: options.send_timeout,
            is_asked,
            confirms,
            wake,
            hook: options.hook,
        });
        let keep = Arc::clone(&sending);
        let hook = keep.hook.clone();
        let body = move || {
            if options.begins {
                keep.begin();
            }
            keep.run(&mut *waiter);
            Ok(())
        };
        let keeper = Some(thread::spawn_fallible("tc-keeper", hook, body)?);
        Ok(Link { sending, keeper })
    }

    /// Waits until other threads leave the lock, and returns a turn with the rest of the time.
    pub(crate) fn turn(&self, timeout: Duration) -> Result<Turn<'_>> {
        let sending = &*self.sending;
        let mut left = timeout;
        let mut sender = match sending.sender.try_lock() {
            Some(sender) => sender,
            None => {
                let start = Instant::now();
                let locked = sending.sender.try_lock_for(timeout.max(HOLD));
                left = timeout.saturating_sub(start.elapsed());
                let late = || {
                    let context = format!("no turn to send within {timeout:?}: other threads kept sending; try again");
                    Error::new(ErrorKind::Timeout, context)
                };
                locked.ok_or_else(late)?
            }
        };
        if sending.is_asked && !sending.active.load(Ordering::Relaxed) && !sending.active.swap(true, Ordering::AcqRel) {
            self.sending.wake.wake();
        }
        sending.use_up(&mut sender);
        if !sender.introduced {
            let start = Instant::now();
            sending.introduce(&mut sender, left)?;
            left = left.saturating_sub(start.elapsed());
        }
        Ok(Turn::new(sending, sender, left))
    }

    /// As [`Link::turn`], for numbers of this topic.
    pub(super) fn turn_on(&self, topic: &Topic, timeout: Duration) -> Result<Turn<'_>> {
        let mut turn = self.turn(timeout)?;
        turn.wait_closed(topic, timeout)?;
        Ok(turn)
    }

    /// True if updates may be joined. False while another thread sends, too.
    pub(crate) fn takes_joined(&self) -> bool {
        let sender = self.sending.sender.try_lock();
        sender.is_some_and(|sender| sender.outbound.takes_joined())
    }

    /// Uses up a number of this topic for a past event that could not be published. Never waits.
    pub(crate) fn skip(&self, topic: &Topic) {
        let mut skipped = self.sending.skipped.lock();
        skipped.insert(topic.clone(), clock::now());
        self.sending.has_skipped.store(true, Ordering::Release);
    }

    /// The address that subscribers connect to.
    pub(crate) fn address(&self) -> Option<String> {
        self.sending.sender.lock().outbound.address()
    }

    /// Waits for `count` subscribers. Fails if they do not come in time.
    pub(crate) fn wait_subscribers(&self, count: usize, timeout: Duration) -> Result<()> {
        let crowd = &self.sending.crowd;
        if crowd.count().is_none() {
            let context = "this driver does not know its subscribers";
            return Err(Error::new(ErrorKind::Unsupported, context));
        }
        let deadline = thread::deadline(timeout);
        let mut subscribers = crowd.lock();
        while *subscribers < count {
            if !crowd.wait(&mut subscribers, deadline) && *subscribers < count {
                let context = format!("only {} of {count} subscribers connected in {timeout:?}", *subscribers);
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
        Ok(())
    }

    /// True if there is a subscription to this topic; `None` if the driver does not know.
    pub(crate) fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        // Without questions the driver does not know, and it may be held up in a send, which has the lock.
        if !self.sending.is_asked {
            return None;
        }
        self.sending.sender.lock().outbound.is_subscribed(topic)
    }

    /// Waits for a subscription to this topic.
    pub(crate) fn wait_subscribed(&self, topic: &Topic, timeout: Duration) -> Result<()> {
        let deadline = thread::deadline(timeout);
        // Held from the check to the wait, so that no change is missed in between.
        let mut changes = self.sending.crowd.lock();
        loop {
            match self.is_subscribed(topic) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    let context = "this driver does not know the subscriptions";
                    return Err(Error::new(ErrorKind::Unsupported, context));
                }
            }
            if !self.sending.crowd.wait(&mut changes, deadline) {
                let context = format!("there was no subscription to topic {topic} within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
    }

    /// Sends the gathered updates, and a goodbye with the last numbers. Waits only for a short while: a subscriber that
    /// does not receive it notices the silence.
    pub(crate) fn say_goodbye(&self) {
        let Some(mut sender) = self.sending.lock_within(PATIENCE) else {
            return log::debug!("no goodbye: the last updates are not confirmed");
        };
        let end = thread::deadline(LAST_CHANCE);
        // Gives up what it cannot send.
        let _ = sender.flush(LAST_CHANCE, true);
        let trouble = sender.trouble();
        // A goodbye without a receiver would only delay the end.
        let is_alone = self.sending.answer(&mut sender).is_ok()
            && sender.outbound.subscribers() == Some(0)
            // One whose subscriptions are still coming may have received a hello.
            && sender.outbound.is_subscribed(&Topic::hello()) != Some(true);
        if is_alone {
            drop(sender);
        } else if let Err(e) = self
            .sending
            .say(sender, HELLO_TIMEOUT, Some(end.max(thread::deadline(HELLO_TIMEOUT))))
        {
            log::debug!("no goodbye: {e}");
        }
        if let Some(e) = trouble {
            report!(&e, self.sending.hook.as_ref());
        }
    }

    /// Number of updates that were accepted and could not be sent.
    pub(crate) fn lost(&self) -> u64 {
        self.sending.gathered.lost()
    }

    /// The number of subscribers.
    pub(crate) fn crowd(&self) -> Arc<Crowd> {
        Arc::clone(&self.sending.crowd)
    }

    /// The counter of sent hellos.
    pub(crate) fn hellos(&self) -> Arc<Counter> {
        Arc::clone(&self.sending.hellos)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.sending.stopping.store(true, Ordering::Release);
        self.sending.wake.wake();
        let keeper = self.keeper.take();
        if let Some(keeper) = keeper
            && self.sending.confirms
            && !keeper.is_current()
        {
            // One that still sends ends by itself.
            keeper.join_by(Instant::now() + PATIENCE);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
