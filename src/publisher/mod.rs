//! The sending end, written once for all drivers.

mod burst;
mod crowd;
mod keeper;
mod link;
mod numbers;
mod options;
mod parked;
mod sender;
mod sending_end;
mod turn;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::clock;
use crate::codec::{Batch, Encoder, MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_UPDATES};
use crate::counter::Counter;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{new_epoch, unique_id};
use crate::store::{Announcement, Written};
use crate::thread;
use crate::transport::{Driver, partly_sent};
use crate::update::{DbUpdate, Name, Topic};

pub(crate) use crowd::Crowd;
pub(crate) use link::{Link, LinkOptions};
use numbers::Opened;
pub use options::{PublisherOptions, PublisherStats};

/// Sends updates. May be shared between threads; numbers every update per topic.
///
/// Dropping it says goodbye to the subscribers, so that its end is no loss, and closes the sending end. Queued messages
/// are still sent while the driver lingers. [`Subscriber`](crate::Subscriber) has an example with both ends.
#[derive(Debug)]
pub struct Publisher {
    link: Link,
    encoder: Encoder,
    id: Name,
    epoch: u64,
    options: PublisherOptions,
    sent: Counter,
    failed: Counter,
}

thread_local! {
    /// Buffer of a message before it is sent, so that sending allocates nothing.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that has grown beyond this is freed.
const MAX_SCRATCH: usize = 64 << 10;

impl Publisher {
    /// Creates a publisher with a new sending end of `driver`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an id that is too long, and the errors of the driver, for example
    /// [`ErrorKind::AddressInUse`].
    pub fn new(driver: &dyn Driver, options: PublisherOptions) -> Result<Publisher> {
        let id = options.id.clone().unwrap_or_else(unique_id);
        check_id(&id)?;
        let epoch = new_epoch();
        let encoder = Encoder::new(options.codec, id.clone(), epoch);
        let link = Link::new(driver.outbound()?, encoder.clone(), options.link())?;
        Ok(Publisher {
            link,
            encoder,
            id,
            epoch,
            options,
            sent: Counter::new(),
            failed: Counter::new(),
        })
    }

    /// Sends an update on its own topic.
    ///
    /// The timestamp sent is later than all that this publisher has sent on any topic: if the update's own timestamp is
    /// not, the next later value is sent. So subscribers get updates of one topic and priority in the order of sending.
    ///
    /// A burst begins after eight calls in a row, each within 20 microseconds of the end of the one before. In a burst
    /// the call returns as soon as the update is accepted, and the update is sent with others of its topic. If the
    /// transport takes it, that is at most 250 microseconds later, or 5 microseconds for each subscriber, up to 5
    /// milliseconds: about as long as a message to all takes. If it fails, its number stays used, so that subscribers
    /// find it missing; it is counted as [`lost`](PublisherStats::lost), and the hook is called. The value `never` of
    /// the option `join_frames` turns bursts off.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the transport did not take the update within the option `send_timeout`,
    /// [`ErrorKind::TooLarge`] or [`ErrorKind::InvalidInput`] if it exceeds a limit. After an error nothing was sent,
    /// unless it is [`ErrorKind::Unconfirmed`].
    pub fn send_event(&self, update: &DbUpdate) -> Result<()> {
        self.send_event_to(&update.topic, update)
    }

    /// Sends an update on this topic instead of its own.
    ///
    /// # Errors
    /// As [`Publisher::send_event`].
    pub fn send_event_to(&self, topic: &Topic, update: &DbUpdate) -> Result<()> {
        match self.check_lengths(topic, update) {
            Ok(()) => self.send_own(topic, update),
            Err(e) => self.count(1, Err(e)),
        }
    }

    /// Sends a message of a part of the library, to whose topics and keys the limits of the options do not apply.
    pub(crate) fn send_own(&self, topic: &Topic, update: &DbUpdate) -> Result<()> {
        let timeout = self.options.send_timeout;
        let sent = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut buf) => self.send_one(topic, update, timeout, &mut buf),
            Err(_) => self.send_one(topic, update, timeout, &mut Vec::new()),
        });
        self.count(1, sent)
    }

    fn send_one(&self, topic: &Topic, update: &DbUpdate, timeout: Duration, buf: &mut Vec<u8>) -> Result<()> {
        topic.check_own_length(self.options.max_topic_bytes)?;
        buf.clear();
        buf.shrink_to(MAX_SCRATCH);
        self.encoder.begin(update, topic, buf);
        let mut turn = self.link.turn_on(topic, timeout)?;
        if turn.gathers(topic, update, buf.len())? {
            turn.gather(topic, update, &self.encoder, buf);
            return Ok(());
        }
        let (mut slot, outbound, left) = turn.slot(topic);
        let timestamp = slot.stamp(update.timestamp);
        self.encoder.finish(0, timestamp, slot.seq, slot.idle, buf);
        self.check_size(buf.len())?;
        let sent = outbound.send(topic.as_str().as_bytes(), buf, left);
        let now = clock::now();
        slot.settle(1, now, sent)?;
        turn.end(now);
        Ok(())
    }

    /// Sends an update without which subscribers that have read the store would be wrong. If it cannot be sent, a
    /// number is used up, so that they find a gap and read again.
    pub(crate) fn send_or_skip(&self, update: &DbUpdate, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or(self.options.send_timeout);
        let topic = &update.topic;
        let checked = self.check_lengths(topic, update);
        match checked.and_then(|()| self.send_one(topic, update, timeout, &mut Vec::new())) {
            Ok(()) => _ = self.sent.add(1),
            // Its number is already used up.
            Err(e) if e.kind() == ErrorKind::Unconfirmed => {}
            Err(_) => self.skip(topic),
        }
    }

    /// Makes sure that the transport takes messages, as far as is known without an update to send.
    pub(crate) fn prove(&self, topic: &Topic) -> Result<()> {
        let mut turn = self.link.turn_on(topic, self.options.send_timeout)?;
        turn.flush()?;
        turn.prove()
    }

    /// Uses up a number of this topic for an event that could not be published.
    pub(crate) fn skip(&self, topic: &Topic) {
        self.link.skip(topic);
    }

    /// Sends updates in order as one message on this topic instead of their own: one system call, all or nothing.
    ///
    /// Where a receiver may understand only one update in a message they go in messages of their own, and a part may be
    /// sent, which is [`ErrorKind::Unconfirmed`]: with the codec `dragonflow-1`, and as the option `join_frames` says.
    ///
    /// # Errors
    /// As [`Publisher::send_event`]; the limits hold for the whole batch. Also [`ErrorKind::TooLarge`] for more than
    /// [`MAX_UPDATES`] updates.
    pub fn send_batch(&self, topic: &Topic, updates: &[DbUpdate]) -> Result<()> {
        updates.iter().try_for_each(|update| self.check_update(update))?;
        match topic.check_length(self.options.max_topic_bytes) {
            Err(e) if !updates.is_empty() => self.count(updates.len() as u64, Err(e)),
            _ => self.send_own_batch(topic, updates),
        }
    }

    /// As [`Publisher::send_own`], for a batch.
    pub(crate) fn send_own_batch(&self, topic: &Topic, updates: &[DbUpdate]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        if updates.len() > MAX_UPDATES {
            let context = format!("a batch of {} updates; a message takes {MAX_UPDATES}", updates.len());
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        if !self.encoder.codec().is_plain() {
            // Its readers take one update a message.
            if let Err(e) = updates.iter().try_for_each(|update| self.check_fits(topic, update)) {
                return self.count(updates.len() as u64, Err(e));
            }
            return self.send_singly(topic, updates);
        }
        let mut batch = Batch::new();
        for update in updates {
            self.encoder.push(update, topic, &mut batch);
        }
        let count = updates.len() as u64;
        self.count(count, self.send_all(topic, &batch))
    }

    /// Sends updates one by one, within one limit of time.
    fn send_singly(&self, topic: &Topic, updates: &[DbUpdate]) -> Result<()> {
        let deadline = thread::deadline(self.options.send_timeout);
        for (place, update) in updates.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.send_one(topic, update, left, &mut Vec::new()) {
                Ok(()) => _ = self.sent.add(1),
                Err(e) => {
                    self.failed.add((updates.len() - place) as u64);
                    if place == 0 {
                        return Err(e);
                    }
                    // Subscribers find the rest missing.
                    self.skip(topic);
                    return Err(partly_sent(e));
                }
            }
        }
        Ok(())
    }

    fn send_all(&self, topic: &Topic, batch: &Batch) -> Result<()> {
        topic.check_own_length(self.options.max_topic_bytes)?;
        let mut turn = self.link.turn_on(topic, self.options.send_timeout)?;
        turn.flush()?;
        let (mut slot, outbound, left) = turn.slot(topic);
        let (seq, idle, mut buf) = (slot.seq, slot.idle, Vec::new());
        self.encoder
            .finish_batch(seq, idle, |own| slot.stamp(own), batch, &mut buf);
        self.check_size(buf.len())?;
        let sent = outbound.send_joined(topic.as_str().as_bytes(), &buf, left);
        let now = clock::now();
        slot.settle(batch.len() as u64, now, sent)?;
        turn.end(now);
        Ok(())
    }

    /// Checks that an update sent on this topic, maybe of the library itself, is not too large.
    pub(crate) fn check_fits(&self, topic: &Topic, update: &DbUpdate) -> Result<()> {
        topic.check_own_length(self.options.max_topic_bytes)?;
        let mut buf = Vec::new();
        self.encoder.begin(update, topic, &mut buf);
        // Upper bound of the timestamp, the number and the idle time.
        self.check_size(buf.len() + 96)
    }

    fn check_lengths(&self, topic: &Topic, update: &DbUpdate) -> Result<()> {
        self.check_update(update)?;
        topic.check_length(self.options.max_topic_bytes)
    }

    /// Checks that the parts of an update are within the limits.
    pub(crate) fn check_update(&self, update: &DbUpdate) -> Result<()> {
        let (length, limit) = (update.key.len(), self.options.max_key_bytes);
        if length > limit {
            let context = format!("a key of {length} bytes; max_key_bytes is {limit}");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        let length = update.action.as_str().len();
        if length > MAX_ACTION_BYTES {
            let context = format!("an action of {length} bytes; the longest has {MAX_ACTION_BYTES}");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        Ok(())
    }

    /// True if a store can complete a message by its version, for [`Publisher::send_stored`].
    pub(crate) fn takes_versions(&self) -> bool {
        self.encoder.codec().is_plain()
    }

    /// Lets a store write a row and publish the update in one step: `write` gets the whole message except the version.
    /// If the store answers that nothing changed, nothing was sent.
    pub(crate) fn send_stored(
        &self,
        topic: &Topic,
        update: &DbUpdate,
        write: impl FnOnce(&Announcement<'_>) -> Result<Written>,
    ) -> Result<Written> {
        self.check_lengths(topic, update)?;
        let mut buf = Vec::new();
        let hole = self.encoder.begin_without_version(update, topic, &mut buf);
        let written = self.store(topic, update.timestamp, buf, hole, write);
        let counter = match &written {
            Ok(written) => written.changed.then_some(&self.sent),
            // The store refused the write; the update is not to blame.
            Err(e) if e.is_overtaken() => None,
            Err(_) => Some(&self.failed),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
        written
    }

    /// Lets `write` send `buf`, in which the version is missing at `hole`.
    fn store(
        &self,
        topic: &Topic,
        timestamp: i64,
        mut buf: Vec<u8>,
        hole: usize,
        write: impl FnOnce(&Announcement<'_>) -> Result<Written>,
    ) -> Result<Written> {
        let mut turn = self.link.turn_on(topic, self.options.send_timeout)?;
        turn.flush()?;
        let open = turn.open(topic, timestamp);
        let Opened { seq, idle, timestamp } = open.number;
        self.encoder.finish(0, timestamp, seq, idle, &mut buf);
        let (head, tail) = buf.split_at(hole);
        let announcement = Announcement {
            topic,
            head,
            tail,
            codec: self.options.codec,
        };
        let size = self.check_size(announcement.max_payload_len());
        let written = size.and_then(|()| write(&announcement));
        open.settle(match &written {
            Ok(written) => written.changed,
            Err(e) => e.kind() == ErrorKind::Unconfirmed,
        });
        written
    }

    fn check_size(&self, length: usize) -> Result<()> {
        let limit = self.options.max_message_bytes;
        if length > limit {
            let context = format!("a message of {length} bytes; max_message_bytes is {limit}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        Ok(())
    }

    fn count(&self, updates: u64, sent: Result<()>) -> Result<()> {
        let counter = if sent.is_ok() { &self.sent } else { &self.failed };
        counter.add(updates);
        sent
    }

    /// Waits until at least `count` subscribers are connected and have subscribed to all their topics. A foreign one
    /// counts from its first topic on.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if they do not come in time, [`ErrorKind::Unsupported`] if the driver does not know.
    pub fn wait_subscribers(&self, count: usize, timeout: Duration) -> Result<()> {
        self.link.wait_subscribers(count, timeout)
    }

    /// Waits for a subscription to this topic, so that an update on it has a receiver.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if none comes in time, [`ErrorKind::Unsupported`] if the driver does not know.
    pub fn wait_subscribed(&self, topic: &Topic, timeout: Duration) -> Result<()> {
        self.link.wait_subscribed(topic, timeout)
    }

    /// True if there is a subscription to this topic; `None` if the driver does not know.
    pub(crate) fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        self.link.is_subscribed(topic)
    }

    /// Returns the listen address of this publisher, if it has its own; a port of 0 is resolved.
    pub fn address(&self) -> Option<String> {
        self.link.address()
    }

    /// Returns the publisher's id, as subscribers see it.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// Returns the number of this run of the publisher: microseconds since the Unix epoch at its start.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> PublisherStats {
        PublisherStats {
            sent: self.sent.get(),
            failed: self.failed.get(),
            lost: self.link.lost(),
            hellos: self.link.hellos().get(),
            subscribers: self.link.crowd().count(),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.link.say_goodbye();
    }
}

/// Refuses an id that receivers would reject.
fn check_id(id: &str) -> Result<()> {
    let length = id.len();
    if length <= MAX_ID_BYTES {
        return Ok(());
    }
    let begin: String = id.chars().take(40).collect();
    let context = format!("option publisher_id: expected at most {MAX_ID_BYTES} bytes, got {length}: {begin:?}...");
    Err(Error::new(ErrorKind::Config, context))
}
