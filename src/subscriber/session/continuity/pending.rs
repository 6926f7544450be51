//! Sync events that wait for the end of a burst, so that a burst is reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::sequence::Missing;
use crate::event::SyncReason;
use crate::update::{Name, Topic};

/// A burst is over when nothing was added for this time...
const CALM: Duration = Duration::from_millis(50);

/// ... and is reported after this time even if it goes on.
const LONGEST: Duration = Duration::from_secs(1);

/// Maximum of publishers named for one of the reasons that concern every topic: a peer can make up any number.
const MOST_NAMED: usize = 1024;

/// Events to emit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The first and the last number of each publisher and topic.
    gaps: BTreeMap<(Topic, Name), (u64, u64)>,
    unproven: BTreeSet<Topic>,
    restarted: BTreeSet<Name>,
    /// Publishers with too many missed hellos.
    missed: BTreeSet<Name>,
    /// When the burst began, and when an event was last added.
    burst: Option<(Instant, Instant)>,
}

impl Pending {
    pub(super) fn gap(&mut self, publisher: Name, topic: Topic, missing: Missing, now: Instant) {
        let (from, to) = self
            .gaps
            .entry((topic, publisher))
            .or_insert((missing.from, missing.to));
        (*from, *to) = (missing.from.min(*from), missing.to.max(*to));
        self.added(now);
    }

    pub(super) fn unproven(&mut self, topic: Topic, now: Instant) {
        self.unproven.insert(topic);
        self.added(now);
    }

    pub(super) fn restarted(&mut self, publisher: Name, now: Instant) {
        note(&mut self.restarted, publisher);
        self.added(now);
    }

    pub(super) fn missed(&mut self, publisher: Name, now: Instant) {
        note(&mut self.missed, publisher);
        self.added(now);
    }

    fn added(&mut self, now: Instant) {
        let (first, _) = self.burst.unwrap_or((now, now));
        self.burst = Some((first, now));
    }

    /// Called when an event that concerns every topic is emitted, which covers all of these.
    pub(super) fn clear(&mut self) {
        *self = Pending::default();
    }

    /// Drops the events of an unregistered topic.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.gaps.retain(|(of, _), _| of != topic);
        self.unproven.remove(topic);
    }

    /// Drops the events of all topics.
    pub(super) fn forget_all(&mut self) {
        self.gaps.clear();
        self.unproven.clear();
    }

    /// The next time at which [`Pending::take`] returns something. `is_unsure` says that an event that covers all of
    /// these may come soon, which is waited for.
    pub(super) fn deadline(&self, is_unsure: bool) -> Option<Instant> {
        let (first, last) = self.burst?;
        let longest = first + LONGEST;
        Some(if is_unsure { longest } else { longest.min(last + CALM) })
    }

    /// Takes out the events that are due.
    pub(super) fn take(&mut self, now: Instant, is_unsure: bool) -> Vec<SyncReason> {
        if self.deadline(is_unsure).is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut all = std::mem::take(self);
        if !all.restarted.is_empty() || !all.missed.is_empty() {
            // These concern every topic.
            (all.gaps, all.unproven) = (BTreeMap::new(), BTreeSet::new());
        }
        let restarted = all
            .restarted
            .into_iter()
            .map(|publisher| SyncReason::Restarted { publisher });
        let missed = (!all.missed.is_empty()).then(|| SyncReason::HellosMissed {
            publishers: all.missed.into_iter().collect(),
        });
        let gaps = all
            .gaps
            .into_iter()
            .map(|((topic, publisher), (from, to))| SyncReason::Gap {
                publisher,
                topic,
                from,
                to,
            });
        let unproven = (!all.unproven.is_empty()).then(|| SyncReason::Unproven {
            topics: all.unproven.into_iter().collect(),
        });
        restarted.chain(missed).chain(gaps).chain(unproven).collect()
    }
}

/// Notes one more publisher, or leaves it out: an event that concerns every topic comes in any case.
fn note(publishers: &mut BTreeSet<Name>, publisher: Name) {
    if publishers.len() < MOST_NAMED {
        publishers.insert(publisher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_publishers_are_named() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        for number in 0..2 * MOST_NAMED {
            pending.restarted(number.to_string().into(), now);
            pending.missed(number.to_string().into(), now);
        }
        let reasons = pending.take(now + LONGEST, false);
        assert_eq!(reasons.len(), MOST_NAMED + 1);
        assert!(
            matches!(reasons.last(), Some(SyncReason::HellosMissed { publishers }) if publishers.len() == MOST_NAMED)
        );
    }
}
