//! A question to an address: are all topics in force, do you live?

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::update::Topic;

/// How soon it is looked again whether everything that has come was seen.
pub(super) const SOON: Duration = Duration::from_millis(5);

/// The longest wait for an answer before an address is asked again.
const MAX_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) topic: Topic,
    pub(super) generation: u64,
    pub(super) asked: Instant,
    /// When the first question was asked after which nothing has come, of which this is a repetition.
    pub(super) first_asked: Instant,
    /// When to ask again: the answer may have been dropped. A new question makes the answer to the old one worthless,
    /// which may stand behind a backlog, so each waits twice as long as the one before.
    pub(super) again_at: Instant,
    patience: Duration,
    /// A hello has come that was said after the question should have arrived: when the answer should be there too.
    pub(super) passed_by: Option<Instant>,
    /// Another one has come since then: nothing that was sent before it is unread.
    pub(super) is_passed_again: bool,
    /// The transport is being asked whether bytes have come.
    pub(super) is_weighed: bool,
    /// When it was last asked that, or might have been.
    pub(super) looked: Instant,
    /// Since when it waits only for all to be read that has come.
    pub(super) unread_since: Option<Instant>,
    /// As of when it is weighed, not all was read that had come.
    pub(super) is_unread: bool,
}

impl Probe {
    /// A probe that is sent now, for topics up to `generation`.
    pub(super) fn new(topic: Topic, generation: u64, patience: Duration, now: Instant) -> Probe {
        Probe {
            topic,
            generation,
            asked: now,
            first_asked: now,
            again_at: after(now, patience),
            patience,
            passed_by: None,
            is_passed_again: false,
            is_weighed: false,
            looked: now,
            unread_since: None,
            is_unread: false,
        }
    }

    /// If it has not been answered in time, as far as what has come was seen: its generation, and the patience for the
    /// next one.
    pub(super) fn late(&mut self, now: Instant, drained: Instant) -> Option<(u64, Duration)> {
        if self.again_at > now {
            return None;
        }
        if now.saturating_duration_since(self.again_at) > self.patience / 2 {
            // This process was stopped, or had no processor.
            self.again_at = after(now, self.patience / 2);
            return None;
        }
        if drained < self.again_at {
            self.again_at = after(now, SOON);
            return None;
        }
        Some((self.generation, self.longer()))
    }

    /// A hello that was not delayed has passed it by, and the answer should be there after `margin`.
    pub(super) fn pass_by(&mut self, margin: Duration, now: Instant) {
        match self.passed_by {
            None => self.passed_by = Some(after(now, margin)),
            Some(at) => self.is_passed_again |= at <= now,
        }
    }

    /// True if the answer should have come behind the hello that has passed the question by, as far as what has come was
    /// seen.
    pub(super) fn is_passed_by(&mut self, margin: Duration, now: Instant, drained: Instant) -> bool {
        let Some(at) = self.passed_by.filter(|at| *at <= now) else {
            return false;
        };
        let wait = match now.saturating_duration_since(at) {
            _ if self.is_passed_again => return true,
            // This process was stopped, or had no processor.
            late if late > margin => margin,
            _ if drained < at => SOON,
            _ => return true,
        };
        self.passed_by = Some(after(now, wait));
        false
    }

    /// The patience for the next one.
    pub(super) fn longer(&self) -> Duration {
        self.patience.saturating_mul(2).min(MAX_PATIENCE)
    }
}
