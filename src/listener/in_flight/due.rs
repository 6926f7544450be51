//! Timed work: questions, and confirmations of settled events.

use std::time::{Duration, Instant};

use super::event::{Phase, Try, doubled};
use super::{InFlight, Step};
use crate::clock::after;
use crate::listener::messages::Question;
use crate::update::Name;

/// How long confirmations wait for others, so that one message and one step of the store serve many.
const BUNDLE_TIME: Duration = Duration::from_millis(100);

/// The number of confirmations that are sent at once.
const BUNDLE: usize = 256;

/// The most messages with confirmations that are remembered.
const MAX_CONFIRMED: usize = 4096;

/// How often a listener is asked about a processed event. After that the claim stays for the time of the option
/// `retention`.
const QUESTIONS: u32 = 3;

/// The unanswered questions about an event after which it is sent again: the listener may be gone.
const PATIENCE: u32 = 3;

impl InFlight {
    /// Does what is due.
    pub(in crate::listener) fn tick(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.set_due(number, None);
            self.is_due(number, now);
        }
        for (listener, about) in std::mem::take(&mut self.questions) {
            self.steps.push(Step::Ask { about, listener });
        }
        if self.confirm_due.is_some_and(|due| due <= now) {
            self.confirm(now);
        }
        self.pump(now);
    }

    fn is_due(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        match event.phase.clone() {
            Phase::Settling(_) if event.asked >= QUESTIONS => self.forget(number),
            Phase::Settling(_) => {
                let open = event.tries.iter().filter(|(_, tried)| !tried.is_over);
                let open: Vec<Name> = open.map(|(name, _)| name.clone()).collect();
                event.asked += 1;
                let patience = doubled(self.ack_timeout, event.asked);
                open.iter().for_each(|listener| self.ask(number, listener, true));
                self.set_due(number, Some(after(now, patience)));
            }
            Phase::Sent(name) | Phase::Held(name) | Phase::Taken(name)
                if event.unanswered < PATIENCE && self.peers.is_present(&name) =>
            {
                event.unanswered += 1;
                event.asked += 1;
                let patience = doubled(self.ack_timeout, event.asked - 1);
                self.ask(number, &name, false);
                self.set_due(number, Some(after(now, patience)));
            }
            Phase::Sent(_) | Phase::Held(_) | Phase::Taken(_) | Phase::Back => self.send(number, now),
            Phase::Waiting => {}
        }
    }

    fn ask(&mut self, number: u64, listener: &Name, settled: bool) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        event.attempt += 1;
        let attempt = event.attempt;
        let tried = Try {
            attempt,
            is_over: false,
        };
        event.tries.insert(listener.clone(), tried);
        self.questions.entry(listener.clone()).or_default().push(Question {
            number,
            attempt,
            settled,
        });
    }

    /// Confirms settled events now.
    pub(in crate::listener) fn confirm(&mut self, now: Instant) {
        self.confirm_due = None;
        let is_old = |(at, ..): &(Instant, Name, Vec<u64>)| now.saturating_duration_since(*at) > self.keep;
        while self.confirmed.len() > MAX_CONFIRMED || self.confirmed.front().is_some_and(is_old) {
            self.confirmed.pop_front();
        }
        for (holder, numbers) in std::mem::take(&mut self.confirms) {
            // If the holder is gone, any other listener removes the claims; if there is none, sweeps do it later.
            let listener = if self.peers.is_present(&holder) {
                Some(holder)
            } else {
                self.peers.draw(|_| true)
            };
            if let Some(listener) = listener {
                self.confirmed.push_back((now, listener.clone(), numbers.clone()));
                self.steps.push(Step::Confirm { numbers, listener });
            }
        }
    }

    /// Forgets an event that no listener can begin any more, and confirms its claim.
    pub(super) fn settle(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get(&number) else { return };
        let Phase::Settling(holder) = &event.phase else {
            return;
        };
        if event.tries.values().any(|tried| !tried.is_over) {
            return;
        }
        self.confirm_later(holder.clone(), vec![number], now);
        self.forget(number);
    }

    pub(super) fn confirm_later(&mut self, holder: Name, numbers: Vec<u64>, now: Instant) {
        let confirms = self.confirms.entry(holder).or_default();
        confirms.extend(numbers);
        let due = if confirms.len() < BUNDLE {
            now + BUNDLE_TIME
        } else {
            now
        };
        self.confirm_due = Some(self.confirm_due.map_or(due, |earlier| earlier.min(due)));
    }

    fn forget(&mut self, number: u64) {
        self.set_due(number, None);
        self.events.remove(&number);
    }

    pub(super) fn set_due(&mut self, number: u64, due: Option<Instant>) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        if let Some(before) = event.due.take() {
            self.timers.remove(&(before, number));
        }
        event.due = due;
        self.timers.extend(due.map(|due| (due, number)));
    }

    /// When [`InFlight::tick`] has work to do.
    pub(in crate::listener) fn due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        [timer, self.confirm_due, self.gathered].into_iter().flatten().min()
    }
}
