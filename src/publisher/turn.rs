//! A thread's turn at the link: messages sent within it are numbered and handed to the transport without interruption.
//! A message that takes a round trip is sent between two turns.

use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::clock;
use crate::codec::{Encoder, MAX_JOINED, is_joined};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Outbound;
use crate::update::{DbUpdate, Topic};

use super::burst::Frame;
use super::numbers::{Opened, Slot};
use super::sender::Sender;
use super::sending_end::{HOLD, SendingEnd};

/// See the [module](self). A turn that ends in an error is dropped; otherwise it [ends](Turn::end).
pub(crate) struct Turn<'a> {
    sending: &'a SendingEnd,
    sender: MutexGuard<'a, Sender>,
    now: Instant,
    /// The rest of the send's time limit.
    left: Duration,
}

impl<'a> Turn<'a> {
    pub(super) fn new(sending: &'a SendingEnd, sender: MutexGuard<'a, Sender>, left: Duration) -> Turn<'a> {
        let now = clock::now();
        Turn {
            sending,
            sender,
            now,
            left,
        }
    }

    /// True if this update, of this size without its number, is to be [gathered](Turn::gather). Otherwise the updates
    /// gathered before have been sent, and the update goes out alone.
    ///
    /// # Errors
    /// As [`Turn::flush`].
    pub(super) fn gathers(&mut self, topic: &Topic, update: &DbUpdate, length: usize) -> Result<bool> {
        let Sender {
            outbound,
            burst,
            numbers,
            gathered,
            is_unwatched,
            ..
        } = &mut *self.sender;
        let may_gather = burst.follows(self.now) && burst.is_small(length) && burst.joins() && !*is_unwatched;
        let gathers = may_gather && outbound.takes_joined();
        let is_of_another = |frame: &Frame| frame.topic != *topic;
        if !gathers
            || burst.is_due(length, gathered.patience(), self.now)
            // Each frame would take a round trip.
            || outbound.confirms() && burst.first().is_some_and(is_of_another)
            || burst.overtakes(numbers.frame(topic), update)
        {
            return Ok(self.flush()? && gathers);
        }
        Ok(true)
    }

    /// Sends the gathered updates. Returns false if some of them could not be sent.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if some stay, since a caller with less time than a send has does not give up the updates
    /// of others. No later update may go before them.
    pub(super) fn flush(&mut self) -> Result<bool> {
        let Some(since) = self.sender.burst.since() else {
            return Ok(true);
        };
        let (begun, lost) = (Instant::now(), self.sender.gathered.lost());
        let limit = self.sending.send_timeout;
        let age = self.now.saturating_duration_since(since);
        let gives_up = self.left >= limit || age >= self.sender.gathered.patience().saturating_add(limit);
        let timeout = self.sending.patience(&self.sender, self.left);
        let sent = self.sender.flush(timeout, gives_up);
        self.left = self.left.saturating_sub(begun.elapsed());
        self.now = clock::now();
        sent?;
        Ok(self.sender.gathered.lost() == lost)
    }

    /// Accepts an update, of which [`Encoder::begin`] has written `body`, to be sent with others of its topic.
    pub(super) fn gather(mut self, topic: &Topic, update: &DbUpdate, encoder: &Encoder, body: &[u8]) {
        let now = self.now;
        let Sender { numbers, burst, .. } = &mut *self.sender;
        let mut slot = numbers.slot(topic, now);
        let (seq, idle, timestamp) = (slot.seq, slot.idle, slot.stamp(update.timestamp));
        let is_first = burst.push((topic, update), &mut slot, now, |bytes| {
            let start = bytes.len();
            bytes.extend_from_slice(body);
            encoder.finish(start, timestamp, seq, idle, bytes);
        });
        slot.take(1, now);
        if is_first {
            self.sending.gathers(now);
        }
        self.end(now);
    }

    /// Ends the turn; sends a hello if the transport has not taken the last one.
    pub(super) fn prove(self) -> Result<()> {
        match self.sender.refuses {
            true => self.sending.say(self.sender, self.left, None),
            false => Ok(()),
        }
    }

    /// The next number of a topic, the sending end, and the time that sending may take.
    pub(super) fn slot(&mut self, topic: &Topic) -> (Slot<'_>, &mut dyn Outbound, Duration) {
        let Sender { outbound, numbers, .. } = &mut *self.sender;
        (numbers.slot(topic, self.now), &mut **outbound, self.left)
    }

    /// True if this message is to be [passed on](Turn::pass_on) whole, even to be taken apart by the sending end: where
    /// each message is confirmed, that needs one round trip rather than one for each part. A large batch would hardly
    /// have the time.
    pub(crate) fn takes(&self, payload: &[u8]) -> bool {
        let outbound = &self.sender.outbound;
        !is_joined(payload) || outbound.takes_joined() || outbound.confirms() && payload.len() <= MAX_JOINED
    }

    /// Sends a message that another publisher has numbered.
    pub(crate) fn pass_on(&mut self, topic: &[u8], payload: &[u8]) -> Result<()> {
        self.sender.outbound.send_joined(topic, payload, self.left)
    }

    /// Waits until the topic has a next number, while others have their turns; as long as a send within `timeout`
    /// would.
    pub(super) fn wait_closed(&mut self, topic: &Topic, timeout: Duration) -> Result<()> {
        let Some(closed) = self.sender.numbers.closed(topic) else {
            return Ok(());
        };
        let begun = Instant::now();
        let until = clock::after(begun, self.left.max(HOLD));
        while self.sender.numbers.is_open(topic) {
            let is_late = closed.wait_until(&mut self.sender, until).timed_out();
            if is_late && self.sender.numbers.is_open(topic) {
                let context = format!(
                    "no turn to send within {timeout:?}: another thread is writing on topic {topic}; try again"
                );
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
        // One at a time: the next one may find it open again.
        closed.notify_one();
        self.left = self.left.saturating_sub(begun.elapsed());
        self.sending.use_up(&mut self.sender);
        self.now = clock::now();
        Ok(())
    }

    /// Ends the turn and sets the topic's next number aside, for an update with this timestamp of its own.
    pub(super) fn open(mut self, topic: &'a Topic, own: i64) -> Open<'a> {
        Open {
            sending: self.sending,
            topic,
            number: self.sender.numbers.open(topic, own, self.now),
            is_used: true,
        }
    }

    /// Ends the turn, whose last send ended at this time.
    pub(crate) fn end(mut self, at: Instant) {
        self.sender.burst.ended(at);
        match self.sending.is_awaited() {
            true => MutexGuard::unlock_fair(self.sender),
            false => drop(self.sender),
        }
    }
}

/// A number that is being sent, while others have their turns on other topics.
pub(super) struct Open<'a> {
    sending: &'a SendingEnd,
    topic: &'a Topic,
    pub(super) number: Opened,
    /// Unless it is known that it was not sent.
    is_used: bool,
}

impl Open<'_> {
    /// Says whether the number was sent, or may have been.
    pub(super) fn settle(mut self, is_used: bool) {
        self.is_used = is_used;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // Only when sending ended was the update sent for sure.
        let used = self.is_used.then(clock::now);
        self.sending.sender.lock().numbers.close(self.topic, used);
    }
}
