//! The sending end under its lock: numbers, and the gathered updates of a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::counter::Counter;
use crate::error::{Error, ErrorKind, Result};
use crate::thread;
use crate::transport::Outbound;

use super::burst::{AGE, Burst, patience};
use super::numbers::Numbers;

/// How long updates are tried after their time limit, together.
const MOMENT: Duration = Duration::from_millis(100);

/// State of a send, under the link's lock.
pub(super) struct Sender {
    pub(super) outbound: Box<dyn Outbound>,
    pub(super) numbers: Numbers,
    pub(super) burst: Burst,
    pub(super) gathered: Arc<Gathered>,
    /// Why an accepted update could not be sent.
    pub(super) trouble: Option<Error>,
    /// A hello was sent.
    pub(super) introduced: bool,
    /// Parts of the present round of hellos may have been sent.
    pub(super) in_round: bool,
    /// The last round has begun.
    pub(super) said_goodbye: bool,
    /// The keeper is busy: nothing is gathered, since it sends the rest of a burst.
    pub(super) is_unwatched: bool,
    /// The last hello to all could not be sent.
    pub(super) refuses: bool,
}

impl Sender {
    /// Sends the gathered updates. Updates that cannot be sent in time stay, unless `gives_up`: then their numbers stay
    /// used, and subscribers find them missing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if updates stay.
    pub(super) fn flush(&mut self, timeout: Duration, gives_up: bool) -> Result<()> {
        if self.burst.since().is_none() {
            return Ok(());
        }
        let deadline = thread::deadline(timeout);
        // Each try may take a moment beyond the time limit; all together take one such moment.
        let end = clock::after(deadline, MOMENT);
        let mut has_failed = false;
        while let Some(frame) = self.burst.first() {
            let now = Instant::now();
            let (topic, payload) = (frame.topic.as_str().as_bytes(), frame.updates.payload());
            let sent = match has_failed && now >= end {
                false => {
                    let left = deadline.saturating_duration_since(now);
                    self.outbound.send_joined(topic, payload, left)
                }
                true => Err(Error::new(ErrorKind::Timeout, "the transport takes nothing")),
            };
            if let Err(e) = &sent
                && e.kind() == ErrorKind::Timeout
                && !gives_up
            {
                return sent;
            }
            let count = self.burst.remove_first() as u64;
            if let Err(e) = sent {
                has_failed = true;
                self.burst.end();
                self.gathered.add_lost(count);
                // The first one has the cause.
                self.trouble.get_or_insert(e);
            }
        }
        self.gathered.is_sent();
        Ok(())
    }

    /// Ends the present round of hellos. The number of an unfinished one is used up too, since parts of two rounds with
    /// one number would be taken for one whole round.
    pub(super) fn end_round(&mut self) {
        if std::mem::take(&mut self.in_round) {
            self.numbers.told();
        }
    }

    /// An error for the accepted updates that could not be sent since the last call.
    pub(super) fn trouble(&mut self) -> Option<Error> {
        let e = self.trouble.take()?;
        let lost = self.gathered.lost();
        let context = format!(
            "updates that were accepted in a burst could not be sent, {lost} so far; their numbers are missing"
        );
        Some(e.context(context).with_lost(lost))
    }
}

/// State of the gathered updates, known without their lock.
#[derive(Debug)]
pub(super) struct Gathered {
    base: Instant,
    /// Since when an update waits, in microseconds after `base`; 0 if none does.
    since: AtomicU64,
    /// How long an update may wait, in microseconds.
    patience: AtomicU64,
    /// Number of updates that were accepted and could not be sent.
    lost: Counter,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered {
            base: clock::now(),
            since: AtomicU64::new(0),
            patience: AtomicU64::new(micros(AGE)),
            lost: Counter::new(),
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

    /// Notes the number of subscribers, on which it depends how long an update may wait.
    pub(super) fn reaches(&self, subscribers: usize) {
        self.patience.store(micros(patience(subscribers)), Ordering::Relaxed);
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_micros(self.patience.load(Ordering::Relaxed))
    }

    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Acquire);
        (since > 0).then(|| Duration::from_micros(self.micros(now).saturating_sub(since)))
    }

    fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.base))
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    pub(super) fn add_lost(&self, count: u64) {
        self.lost.add(count);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
