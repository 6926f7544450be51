//! What is known of one run of a publisher.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::sequence::Sequence;
use crate::update::{DbUpdate, Name, Topic};

/// One run of a publisher: from its start to its end.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) epoch: u64,
    /// Through which listen address it was last heard.
    pub(super) address: Name,
    pub(super) state: RunState,
    /// When something of it was last received.
    pub(super) heard: Instant,
    /// How often it says hello; `None` if it never did.
    pub(super) period: Option<Duration>,
    pub(super) topics: HashMap<Topic, Sequence<DbUpdate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    /// Nothing was heard of it for too long, or its address was lost; the program was told.
    Silent,
    /// It said goodbye.
    Gone,
    /// Another run of the same publisher began without a goodbye of this one.
    Replaced(Instant),
}

/// For so long a run that said goodbye, or was replaced, is remembered: something of it may come late.
const REMEMBER_GONE: Duration = Duration::from_secs(60);
/// For so long one that is silent is remembered; after that it begins anew.
const REMEMBER_SILENT: Duration = Duration::from_secs(600);
/// For so long one that does not say hellos is remembered.
const REMEMBER_OTHER: Duration = Duration::from_secs(3600);

impl Run {
    pub(super) fn new(epoch: u64, address: Name, now: Instant) -> Run {
        Run {
            epoch,
            address,
            state: RunState::Running,
            heard: now,
            period: None,
            topics: HashMap::new(),
        }
    }

    /// When it will have been silent for `times` hello periods, counted from `since` at the earliest; `None` if it is not
    /// expected to say anything.
    pub(super) fn silent_at(&self, times: f64, since: Instant) -> Option<Instant> {
        let period = self.period.filter(|_| self.state == RunState::Running)?;
        Some(self.heard.max(since) + period.mul_f64(times))
    }

    /// True if it can be forgotten.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let remember = match self.state {
            RunState::Gone | RunState::Replaced(_) => REMEMBER_GONE,
            RunState::Silent => REMEMBER_SILENT,
            RunState::Running if self.period.is_some() => return false,
            RunState::Running => REMEMBER_OTHER,
        };
        now.saturating_duration_since(self.heard) > remember
    }
}
