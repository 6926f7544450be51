//! The notifier's bookkeeping: events under way, their listeners, and the actions for them. It is pure state, without
//! threads or sockets, and the time is an argument.
//!
//! An event is sent, held by a listener that has sent a receipt, and processed. Then it is settled: every listener that
//! may have a copy is asked until it can no longer begin it, and the claim is confirmed.

mod due;
mod event;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::messages::{Answer, Answers, EventState, Question};
use super::peers::{Peers, Standing};
use crate::clock::after;
use crate::update::{DbUpdate, Name};
use event::{Event, Phase, Try, doubled};

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Publish the event on the topic of this listener.
    Send {
        number: u64,
        attempt: u32,
        listener: Name,
        /// The event was sent before.
        again: bool,
    },
    /// Ask this listener about events.
    Ask { about: Vec<Question>, listener: Name },
    /// Confirm to this listener that these events are settled.
    Confirm { numbers: Vec<u64>, listener: Name },
    /// Count an event as processed.
    Processed { failed: bool, took: Duration },
    /// Report that no listener is alive, although an event is to be sent; once.
    NoListener,
}

/// The least time for an answer.
const MIN_ACK_TIMEOUT: Duration = Duration::from_millis(10);

/// The number of events sent to one listener before another has its turn.
const HAND: usize = 8;

/// How long events wait for more while all listeners are busy.
const GATHER: Duration = Duration::from_millis(100);

/// The state of a notifier. Actions follow from input at the next [`InFlight::tick`].
#[derive(Debug)]
pub(super) struct InFlight {
    ack_timeout: Duration,
    window: usize,
    peers: Peers,
    events: BTreeMap<u64, Event>,
    /// The number after the last event's.
    next: u64,
    /// Events to send as soon as a listener and the window have room.
    ready: VecDeque<u64>,
    /// Updates that wait for an earlier one of their row; the first of each row is not in it.
    rows: HashMap<(Name, Name), VecDeque<u64>>,
    /// Until when ready events wait for more.
    gathered: Option<Instant>,
    /// The number of events under way.
    flying: usize,
    timers: BTreeSet<(Instant, u64)>,
    questions: BTreeMap<Name, Vec<Question>>,
    confirms: BTreeMap<Name, Vec<u64>>,
    confirm_due: Option<Instant>,
    /// Recent confirmations, which a listener that is gone may not have received.
    confirmed: VecDeque<(Instant, Name, Vec<u64>)>,
    /// How long it takes at most until a listener's end is noticed.
    keep: Duration,
    has_reported_none: bool,
    /// The registered listeners were read once: until then, none is known, which says nothing.
    has_looked: bool,
    steps: Vec<Step>,
}

impl InFlight {
    pub(super) fn new(ack_timeout: Duration, window: usize, timeout: Duration) -> InFlight {
        let (ack_timeout, window) = (ack_timeout.max(MIN_ACK_TIMEOUT), window.max(1));
        InFlight {
            ack_timeout,
            window,
            peers: Peers::new(window, ack_timeout / 2),
            events: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            rows: HashMap::new(),
            gathered: None,
            flying: 0,
            timers: BTreeSet::new(),
            questions: BTreeMap::new(),
            confirms: BTreeMap::new(),
            confirm_due: None,
            confirmed: VecDeque::new(),
            keep: timeout.saturating_mul(2),
            has_reported_none: false,
            has_looked: false,
            steps: Vec::new(),
        }
    }

    /// Adds an event; its number is higher than all before.
    pub(super) fn add(&mut self, number: u64, update: DbUpdate, now: Instant) {
        let row = (update.table.clone(), update.key.clone());
        self.events.insert(number, Event::new(update, now));
        self.next = number + 1;
        match self.rows.get_mut(&row) {
            Some(behind) => behind.push_back(number),
            None => {
                self.rows.insert(row, VecDeque::new());
                self.ready.push_back(number);
            }
        }
    }

    /// Takes the listeners that are registered now.
    pub(super) fn listeners(&mut self, present: BTreeMap<Name, Standing>, now: Instant) {
        self.has_looked = true;
        if self.peers.set(present) {
            let numbers: Vec<u64> = self.events.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.look_for_gone(number, now));
            for (_, listener, numbers) in std::mem::take(&mut self.confirmed) {
                match self.peers.is_present(&listener) {
                    true => self.confirmed.push_back((now, listener, numbers)),
                    false => self.confirm_later(listener, numbers, now),
                }
            }
        }
        self.has_reported_none &= self.peers.is_empty();
    }

    /// Ends the tries at listeners that are gone, and sends the event again if such a listener had it.
    fn look_for_gone(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        for (name, tried) in &mut event.tries {
            tried.is_over |= !self.peers.is_present(name);
        }
        if event.phase.holder().is_some_and(|name| !self.peers.is_present(name)) {
            self.send(number, now);
        } else {
            self.settle(number, now);
        }
    }

    /// Takes a listener's answers.
    pub(super) fn answered(&mut self, answers: Answers, now: Instant) {
        self.peers.answered(&answers, now);
        self.has_reported_none &= self.peers.is_empty();
        for answer in answers.about {
            self.take(&answers.listener, answers.leaving, answer, now);
        }
    }

    fn take(&mut self, listener: &Name, leaving: bool, answer: Answer, now: Instant) {
        let number = answer.number;
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        let Some(tried) = event.tries.get_mut(listener) else {
            return;
        };
        let is_last = answer.attempt >= tried.attempt;
        tried.is_over |= is_last && answer.state != EventState::Held;
        if matches!(event.phase, Phase::Settling(_)) {
            return self.settle(number, now);
        }
        let is_holder = event.phase.holder() == Some(listener);
        match answer.state {
            EventState::Done | EventState::Failed => {
                let owner = answer.owner.unwrap_or_else(|| listener.clone());
                if is_holder {
                    let took = now.saturating_duration_since(event.sent);
                    self.peers.processed(listener, took, now);
                }
                self.processed(number, owner, answer.state == EventState::Failed, now);
            }
            EventState::Held if is_holder => {
                event.unanswered = 0;
                let patience = doubled(self.ack_timeout, event.asked);
                self.set_phase(number, Phase::Held(listener.clone()));
                self.set_due(number, Some(after(now, patience)));
            }
            EventState::Taken if is_last && event.phase != Phase::Waiting => {
                event.unanswered = 0;
                let patience = event.patience(self.ack_timeout);
                self.set_phase(number, Phase::Taken(answer.owner.unwrap_or_else(|| listener.clone())));
                self.set_due(number, Some(after(now, patience)));
            }
            EventState::Back if is_last && is_holder && !leaving => {
                let patience = event.patience(self.ack_timeout);
                self.set_phase(number, Phase::Back);
                self.set_due(number, Some(after(now, patience)));
            }
            // The claim is still this listener's, even if it does not know.
            EventState::Unknown if is_last && event.phase == Phase::Taken(listener.clone()) => {
                self.send_to(number, listener.clone(), now);
            }
            EventState::Back | EventState::Unknown if is_last && is_holder => self.send(number, now),
            EventState::Held | EventState::Taken | EventState::Back | EventState::Unknown => {}
        }
    }

    fn processed(&mut self, number: u64, owner: Name, failed: bool, now: Instant) {
        let Some(event) = self.events.get(&number) else {
            return;
        };
        let took = now.saturating_duration_since(event.since);
        let row = (event.update.table.clone(), event.update.key.clone());
        if event.phase == Phase::Waiting {
            self.ready.retain(|waiting| *waiting != number);
        }
        self.set_phase(number, Phase::Settling(owner));
        self.steps.push(Step::Processed { failed, took });
        match self.rows.get_mut(&row).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_back(next),
            _ => drop(self.rows.remove(&row)),
        }
        if let Some(event) = self.events.get_mut(&number) {
            event.asked = 0;
        }
        self.set_due(number, Some(after(now, self.ack_timeout)));
        self.settle(number, now);
    }

    /// Sends what can be sent, a few events at a time to one listener, so that they make one message.
    fn pump(&mut self, now: Instant) {
        self.gathered = self.gathering().filter(|until| *until > now);
        let mut hand: Option<(Name, usize)> = None;
        while self.gathered.is_none()
            && self.flying < self.window
            && let Some(number) = self.ready.front().copied()
            && let Some((listener, count)) = hand
                .take()
                .filter(|(name, count)| *count < HAND && self.peers.has_room(name))
                .or_else(|| Some((self.peers.next()?, 0)))
        {
            self.ready.pop_front();
            hand = Some((listener.clone(), count + 1));
            self.send_to(number, listener, now);
        }
        if self.has_looked && self.peers.is_empty() && !self.ready.is_empty() && !self.has_reported_none {
            self.has_reported_none = true;
            self.steps.push(Step::NoListener);
        }
    }

    /// Until when ready events wait for more; they would wait at any listener anyway.
    fn gathering(&self) -> Option<Instant> {
        let is_worth_it = self.flying > 0 && self.ready.len() < HAND && self.peers.are_busy();
        let first = self.ready.front().filter(|_| is_worth_it)?;
        Some(after(self.events.get(first)?.since, GATHER))
    }

    /// Sends an event again: to a listener that has not had it, else to any other than the last, else to that one.
    fn send(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get(&number) else { return };
        let holder = event.phase.holder();
        let fresh = self.peers.draw(|name| !event.tries.contains_key(name));
        let other = fresh.or_else(|| self.peers.draw(|name| Some(name) != holder));
        match other.or_else(|| self.peers.draw(|_| true)) {
            Some(listener) => self.send_to(number, listener, now),
            None => {
                self.set_phase(number, Phase::Waiting);
                self.set_due(number, None);
                self.ready.push_front(number);
            }
        }
    }

    fn send_to(&mut self, number: u64, listener: Name, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        event.attempt += 1;
        event.sends += 1;
        (event.unanswered, event.asked, event.sent) = (0, 0, now);
        let tried = Try {
            attempt: event.attempt,
            is_over: false,
        };
        event.tries.insert(listener.clone(), tried);
        let (attempt, again) = (event.attempt, event.sends > 1);
        let patience = event.patience(self.ack_timeout);
        self.set_phase(number, Phase::Sent(listener.clone()));
        self.steps.push(Step::Send {
            number,
            attempt,
            listener,
            again,
        });
        self.set_due(number, Some(after(now, patience)));
    }

    fn set_phase(&mut self, number: u64, phase: Phase) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut event.phase, phase);
        self.flying -= usize::from(before.is_flying());
        self.flying += usize::from(event.phase.is_flying());
        if let Some(holder) = before.holder() {
            self.peers.count(holder, false);
        }
        if let Some(holder) = event.phase.holder() {
            self.peers.count(holder, true);
        }
    }

    /// Takes the actions since the last call.
    pub(super) fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    pub(super) fn update(&self, number: u64) -> Option<&DbUpdate> {
        self.events.get(&number).map(|event| &event.update)
    }

    /// All events below this are settled.
    pub(super) fn low(&self) -> u64 {
        self.events.keys().next().copied().unwrap_or(self.next)
    }

    /// True if this event is not acknowledged yet.
    #[cfg(test)]
    pub(super) fn is_pending(&self, number: u64) -> bool {
        let event = self.events.get(&number);
        event.is_some_and(|event| !matches!(event.phase, Phase::Settling(_)))
    }

    /// True if everything is settled.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The updates that were never acknowledged, in order.
    pub(super) fn into_pending(self) -> Vec<DbUpdate> {
        let events = self.events.into_values();
        let pending = events.filter(|event| !matches!(event.phase, Phase::Settling(_)));
        pending.map(|event| event.update).collect()
    }
}

#[cfg(test)]
mod tests;
