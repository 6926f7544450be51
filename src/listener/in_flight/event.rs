//! An event under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::update::{DbUpdate, Name};

#[derive(Debug)]
pub(super) struct Event {
    pub(super) update: DbUpdate,
    pub(super) since: Instant,
    pub(super) phase: Phase,
    /// The number of the last try or question.
    pub(super) attempt: u32,
    /// The number of sends.
    pub(super) sends: u32,
    pub(super) sent: Instant,
    /// The number of successive unanswered questions.
    pub(super) unanswered: u32,
    /// The number of questions since the last send.
    pub(super) asked: u32,
    pub(super) tries: BTreeMap<Name, Try>,
    pub(super) due: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not sent yet, or waiting for a listener.
    Waiting,
    /// Under way to this listener.
    Sent(Name),
    /// This listener has sent a receipt.
    Held(Name),
    /// This listener has claimed it, according to another one.
    Taken(Name),
    /// A listener gave it back; it is sent again after a while.
    Back,
    /// Processed; this listener has the claim.
    Settling(Name),
}

impl Phase {
    /// The listener that is to process it.
    pub(super) fn holder(&self) -> Option<&Name> {
        match self {
            Phase::Sent(name) | Phase::Held(name) | Phase::Taken(name) => Some(name),
            Phase::Waiting | Phase::Back | Phase::Settling(_) => None,
        }
    }

    pub(super) fn is_flying(&self) -> bool {
        !matches!(self, Phase::Waiting | Phase::Settling(_))
    }
}

/// The sends and questions of an event to one listener.
#[derive(Debug)]
pub(super) struct Try {
    /// The number of the last one.
    pub(super) attempt: u32,
    /// The listener has answered the last one and does not hold the event, so it will not begin it.
    pub(super) is_over: bool,
}

/// How often the time for an answer is doubled at most.
const DOUBLINGS: u32 = 4;

impl Event {
    pub(super) fn new(update: DbUpdate, now: Instant) -> Event {
        Event {
            update,
            since: now,
            phase: Phase::Waiting,
            attempt: 0,
            sends: 0,
            sent: now,
            unanswered: 0,
            asked: 0,
            tries: BTreeMap::new(),
            due: None,
        }
    }

    /// The time for an answer: longer after each try, since all listeners may just be busy.
    pub(super) fn patience(&self, ack_timeout: Duration) -> Duration {
        doubled(ack_timeout, self.sends.saturating_sub(1))
    }
}

/// The time for an answer after this number of doublings, or the most.
pub(super) fn doubled(ack_timeout: Duration, times: u32) -> Duration {
    ack_timeout.saturating_mul(1 << times.min(DOUBLINGS))
}
