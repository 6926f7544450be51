//! The ends of runs, of the listener, and of known events.

use std::time::{Duration, Instant};

use super::{Event, EventTable, Phase};
use crate::listener::messages::EventState;
use crate::listener::waiting::Waiting;
use crate::update::Topic;

impl EventTable {
    /// Begins a new run after one that was declared dead, which loses the events that it has not begun.
    pub(in crate::listener) fn begin_run(&mut self, run: Topic) {
        self.run = run;
        (self.unclaimed, self.ahead) = (0, self.current.claims.len());
        let is_begun = |event: &Event| !matches!(event.phase, Phase::Waiting(_) | Phase::Claimed(..));
        self.events.retain(|_, event| is_begun(event));
        self.bytes = self.events.values().map(|event| event.bytes).sum();
        self.waiting = Waiting::default();
    }

    /// Stops: begins no more events, and gives back those not begun.
    pub(in crate::listener) fn stop(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        self.stats.moved += self.give_back_if(now, |_| true);
        for (id, event) in &mut self.events {
            if let Phase::Claimed(_, version) = event.phase {
                event.phase = Phase::Releasing;
                self.ahead -= 1;
                self.next.releases.push((id.clone(), version));
            }
        }
    }

    /// Gives back all waiting events, since they cannot be claimed.
    pub(super) fn give_back(&mut self, now: Instant) {
        self.stats.dropped += self.give_back_if(now, |_| true);
    }

    /// Gives back the waiting events for which this is true; returns their number.
    fn give_back_if(&mut self, now: Instant, which: impl Fn(&Event) -> bool) -> u64 {
        if self.unclaimed == 0 {
            return 0;
        }
        let waiting = self.events.iter();
        let waiting = waiting.filter(|(_, event)| matches!(event.phase, Phase::Waiting(_)) && which(event));
        let waiting: Vec<_> = waiting.map(|(id, _)| id.clone()).collect();
        let count = waiting.len();
        self.unclaimed -= count;
        for id in waiting {
            self.end(id, EventState::Back, None, now);
        }
        if self.unclaimed == 0 {
            self.waiting = Waiting::default();
        }
        count as u64
    }

    /// True if an event is claimed or begun, and not marked yet.
    pub(in crate::listener) fn is_busy(&self) -> bool {
        let is_quiet = |event: &Event| matches!(event.phase, Phase::Waiting(_) | Phase::Done(..));
        !self.events.values().all(is_quiet)
    }

    /// True if the handler is being called.
    pub(in crate::listener) fn is_handling_any(&self) -> bool {
        let mut events = self.events.values();
        events.any(|event| matches!(event.phase, Phase::Handling(..)))
    }

    /// True if nothing is left to confirm or to remove.
    pub(in crate::listener) fn is_settled(&self) -> bool {
        self.events.is_empty() && self.next.removals.is_empty()
    }

    pub(in crate::listener) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Forgets events done longer than `retention` ago without a confirmation, and notifiers not heard from for as
    /// long. Gives back those that have waited for half of it: if another listener has processed one, its claim, which
    /// shows that, is removed after `retention`.
    pub(in crate::listener) fn expire(&mut self, retention: Duration, now: Instant) {
        let is_older = |since: Instant, age: Duration| now.saturating_duration_since(since) > age;
        self.stats.dropped += self.give_back_if(now, |event| is_older(event.came, retention / 2));
        let is_old = |since: Instant| is_older(since, retention);
        self.events
            .retain(|_, event| !matches!(event.phase, Phase::Done(_, since) if is_old(since)));
        self.notifiers.retain(|_, notifier| !is_old(notifier.heard));
        self.tries = self.notifiers.values().map(|notifier| notifier.tries.len()).sum();
    }
}
