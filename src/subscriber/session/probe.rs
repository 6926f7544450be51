//! A question to an address: are all topics in force, and is the publisher alive?

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::update::Topic;

/// How soon to check again whether everything that has arrived was read.
pub(super) const SOON: Duration = Duration::from_millis(5);

/// The longest wait for an answer before an address is asked again.
const MAX_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) topic: Topic,
    pub(super) generation: u64,
    pub(super) asked: Instant,
    /// When the first question of this series was asked; nothing was received after it.
    pub(super) first_asked: Instant,
    /// When to ask again, since the answer may have been dropped. A new question voids the answer to the old one, which
    /// may stand behind a backlog, so each question waits twice as long as the one before.
    pub(super) again_at: Instant,
    patience: Duration,
    /// When it was late for the first time, but there may have been unread input.
    postponed: Option<Instant>,
    /// Set by a hello that was sent after the question should have arrived: when the answer is due.
    pub(super) passed_by: Option<Instant>,
    /// Another hello has come since `passed_by`, so nothing sent before the first one is unread.
    pub(super) is_passed_again: bool,
    /// The transport was asked how many bytes have come.
    pub(super) is_weighed: bool,
    /// When the transport was last asked, or could have been.
    pub(super) looked: Instant,
    /// Since when the verdict waits only for unread input.
    pub(super) unread_since: Option<Instant>,
    /// There was unread input when the transport was asked.
    pub(super) is_unread: bool,
}

impl Probe {
    /// Creates a probe that is sent now, for topics up to `generation`.
    pub(super) fn new(topic: Topic, generation: u64, patience: Duration, now: Instant) -> Probe {
        Probe {
            topic,
            generation,
            asked: now,
            first_asked: now,
            again_at: after(now, patience),
            patience,
            postponed: None,
            passed_by: None,
            is_passed_again: false,
            is_weighed: false,
            looked: now,
            unread_since: None,
            is_unread: false,
        }
    }

    /// Returns the generation and the next question's patience if the probe was not answered in time and all input of
    /// that time was read.
    pub(super) fn late(&mut self, now: Instant, drained: Instant) -> Option<(u64, Duration)> {
        if self.again_at > now {
            return None;
        }
        let late = now.saturating_duration_since(self.again_at);
        let wait = if late > self.patience / 2 {
            // This process was stopped, or had no processor, and could not read in that time.
            self.postponed = self.postponed.map(|at| after(at, late));
            self.patience / 2
        } else if drained < self.again_at {
            SOON
        } else {
            return Some((self.generation, self.longer()));
        };
        if now >= after(*self.postponed.get_or_insert(now), self.patience * 2) {
            return Some((self.generation, self.longer()));
        }
        self.again_at = after(now, wait);
        None
    }

    /// Notes that a hello without delay has overtaken the question, so that the answer is due after `margin`.
    pub(super) fn pass_by(&mut self, margin: Duration, now: Instant) {
        match self.passed_by {
            None => self.passed_by = Some(after(now, margin)),
            Some(at) => self.is_passed_again |= at <= now,
        }
    }

    /// Forgets the hellos that have overtaken the question.
    pub(super) fn forget_hellos(&mut self) {
        (self.passed_by, self.is_passed_again) = (None, false);
    }

    /// True if the answer should have come after the hello that overtook the question, and all input of that time was
    /// read.
    pub(super) fn is_passed_by(&mut self, margin: Duration, now: Instant, drained: Instant) -> bool {
        let Some(at) = self.passed_by.filter(|at| *at <= now) else {
            return false;
        };
        let wait = if self.is_passed_again {
            return true;
        } else if now.saturating_duration_since(at) > margin {
            // This process was stopped, or had no processor.
            margin
        } else if drained < at {
            SOON
        } else {
            return true;
        };
        self.passed_by = Some(after(now, wait));
        false
    }

    /// The patience of the next question.
    pub(super) fn longer(&self) -> Duration {
        self.patience.saturating_mul(2).min(MAX_PATIENCE)
    }
}
