//! The listener's bookkeeping: which events wait, are claimed, handled, done, to be answered and to be removed. It is
//! pure state, without threads, sockets or store, and the time is an argument.
//!
//! An event waits, is claimed, has its turn at the program's dispatcher, is marked as done in the store, and only then
//! acknowledged. It is known until its notifier confirms the acknowledgement.

mod answers;
mod ends;
mod known_notifier;
mod steps;

use std::collections::HashMap;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::messages::{Answer, Body, EventId, EventState, ListenerMessage, Question};
use super::options::ListenerStats;
use super::waiting::Waiting;
use crate::update::{DbUpdate, Topic};
use answers::PendingAnswers;
use known_notifier::KnownNotifier;

#[derive(Debug)]
pub(super) struct EventTable {
    /// The topic of the current run.
    run: Topic,
    events: HashMap<EventId, Event>,
    /// The bytes of the events that have not begun.
    bytes: usize,
    notifiers: HashMap<Topic, KnownNotifier>,
    /// The number of tries of all notifiers.
    tries: usize,
    waiting: Waiting,
    /// The number of events that wait.
    unclaimed: usize,
    /// The number of events that are claimed, or about to be, but not begun.
    ahead: usize,
    /// Work for the next step, and for the current one.
    next: Bundle,
    current: Bundle,
    /// When claims and marks make a step, however few they are, and when removals do.
    step_due: Option<Instant>,
    removal_due: Option<Instant>,
    /// When the step under way began.
    began: Option<Instant>,
    /// Until this time events are gathered; the pause is as long as the last step took.
    rests_until: Option<Instant>,
    answers: PendingAnswers,
    is_stopping: bool,
    stats: ListenerStats,
}

/// Events for a step of the store.
#[derive(Debug, Default)]
struct Bundle {
    marks: Vec<EventId>,
    claims: Vec<EventId>,
    releases: Vec<(EventId, u64)>,
    removals: Vec<EventId>,
}

#[derive(Debug)]
struct Event {
    /// The last try heard of.
    attempt: u32,
    /// The bytes of its update, until it begins.
    bytes: usize,
    came: Instant,
    /// The topic of the run that claimed it.
    run: Topic,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Waiting(Box<DbUpdate>),
    Claiming(Box<DbUpdate>),
    /// Claimed in this version; waits for its turn.
    Claimed(Box<DbUpdate>, u64),
    Handling(u64, ThreadId),
    Handled(u64, EventState),
    /// The claim is being given up.
    Releasing,
    Done(EventState, Instant),
}

/// The turn of a claimed event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) id: EventId,
    pub(super) priority: i32,
    pub(super) timestamp: i64,
}

/// How long claims and marks wait for more, and the number that is enough. Without events to handle they wait only as
/// long as the last step took: the more listeners wait for each other at the store, the fewer and larger their steps
/// become.
const GATHER: Duration = Duration::from_millis(5);
const ENOUGH: usize = 128;

/// How long removals of claims wait for another step that can include them.
const REMOVAL: Duration = Duration::from_millis(100);

/// The most events claimed, marked or removed in one step.
const BUNDLE: usize = 512;

/// More events are claimed while fewer than this are claimed and not begun.
const AHEAD: usize = 256;

/// The most events, bytes of events that have not begun, and notifiers known at a time.
const MAX_EVENTS: usize = 1 << 18;
const MAX_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };
const MAX_NOTIFIERS: usize = 1 << 16;

impl EventTable {
    pub(super) fn new(run: Topic) -> EventTable {
        EventTable {
            run,
            events: HashMap::new(),
            bytes: 0,
            notifiers: HashMap::new(),
            tries: 0,
            waiting: Waiting::default(),
            unclaimed: 0,
            ahead: 0,
            next: Bundle::default(),
            current: Bundle::default(),
            step_due: None,
            removal_due: None,
            began: None,
            rests_until: None,
            answers: PendingAnswers::default(),
            is_stopping: false,
            stats: ListenerStats::default(),
        }
    }

    /// Takes a message.
    pub(super) fn receive(&mut self, message: ListenerMessage, now: Instant) {
        let ListenerMessage {
            on,
            notifier,
            low,
            body,
        } = message;
        // Messages to an earlier run are dropped with it.
        if on != self.run {
            return;
        }
        if self.notifiers.len() >= MAX_NOTIFIERS && !self.notifiers.contains_key(&notifier) {
            return;
        }
        let known = self.notifiers.entry(notifier.clone());
        let known = known.or_insert_with(|| KnownNotifier::new(now));
        let settled = known.receive(low, &mut self.tries, now);
        let id = |number| EventId {
            notifier: notifier.clone(),
            number,
        };
        let is_waiting = |event: &Event| matches!(event.phase, Phase::Waiting(_));
        for id in settled.map(id) {
            // A copy of what another listener has processed; it would outlive the claim that shows this.
            if self.events.get(&id).is_some_and(is_waiting) {
                self.forget(&id);
            }
        }
        let Some(known) = self.notifiers.get_mut(&notifier) else {
            return;
        };
        match body {
            Body::Event(number, attempt, update) => {
                if known.is_new(number, attempt, &mut self.tries) {
                    let receipt = known.receipt(now);
                    self.add(id(number), attempt, update, (now, receipt));
                }
            }
            Body::Questions(about) => {
                for question in about {
                    self.asked(id(question.number), question, now);
                }
            }
            Body::Confirmations(numbers) => {
                for number in numbers {
                    self.confirmed(id(number), now);
                }
            }
        }
    }

    fn add(&mut self, id: EventId, attempt: u32, update: Box<DbUpdate>, (now, receipt): (Instant, Instant)) {
        if let Some(event) = self.events.get_mut(&id) {
            event.attempt = attempt;
            let state = event.state();
            self.stats.repeated += u64::from(state != EventState::Held);
            return self.answer(id, attempt, state, None, now);
        }
        let bytes = bytes_of(&update);
        let is_full = self.events.len() >= MAX_EVENTS || self.bytes > 0 && self.bytes + bytes > MAX_BYTES;
        if self.is_stopping || is_full {
            self.stats.moved += u64::from(self.is_stopping);
            self.stats.dropped += u64::from(!self.is_stopping);
            return self.answer(id, attempt, EventState::Back, None, now);
        }
        self.waiting.push(id.clone(), update.priority);
        self.unclaimed += 1;
        self.step_due.get_or_insert(now + GATHER);
        self.bytes += bytes;
        let event = Event {
            attempt,
            bytes,
            came: now,
            run: self.run.clone(),
            phase: Phase::Waiting(update),
        };
        self.events.insert(id.clone(), event);
        self.answer(id, attempt, EventState::Held, None, receipt);
    }

    fn asked(&mut self, id: EventId, question: Question, now: Instant) {
        if let Some(known) = self.notifiers.get_mut(&id.notifier) {
            known.is_new(question.number, question.attempt, &mut self.tries);
        }
        let mut attempt = question.attempt;
        let state = match self.events.get_mut(&id) {
            Some(event) if question.settled && matches!(event.phase, Phase::Waiting(_)) => {
                self.forget(&id);
                EventState::Unknown
            }
            Some(event) => {
                event.attempt = event.attempt.max(attempt);
                attempt = event.attempt;
                event.state()
            }
            None => EventState::Unknown,
        };
        self.stats.repeated += u64::from(matches!(state, EventState::Done | EventState::Failed));
        self.answer(id, attempt, state, None, now);
    }

    fn confirmed(&mut self, id: EventId, now: Instant) {
        match self.events.get(&id).map(|event| &event.phase) {
            None => {}
            Some(Phase::Waiting(_) | Phase::Done(..)) => self.forget(&id),
            // Notifiers confirm only acknowledged events.
            Some(_) => return,
        }
        if self.next.removals.len() < MAX_EVENTS {
            self.next.removals.push(id);
            self.removal_due.get_or_insert(now + REMOVAL);
        }
    }

    /// Begins an event whose turn has come; returns the update for the handler, if it is to be called, on this thread.
    pub(super) fn begin(&mut self, id: &EventId, is_held: bool, now: Instant) -> Option<Box<DbUpdate>> {
        let event = self.events.get_mut(id)?;
        let (update, version) = match std::mem::replace(&mut event.phase, Phase::Releasing) {
            Phase::Claimed(update, version) => (update, version),
            other => {
                event.phase = other;
                return None;
            }
        };
        self.ahead -= 1;
        self.bytes -= std::mem::take(&mut event.bytes);
        if !is_held {
            self.stats.dropped += 1;
            self.end(id.clone(), EventState::Back, None, now);
            return None;
        }
        event.phase = Phase::Handling(version, std::thread::current().id());
        Some(update)
    }

    /// Ends a handler's call. Returns true if exactly one event is now to be marked.
    pub(super) fn ended(&mut self, id: EventId, failed: bool, now: Instant) -> bool {
        self.handled(failed);
        if let Some(event) = self.events.get_mut(&id)
            && let Phase::Handling(version, _) = event.phase
        {
            let state = if failed { EventState::Failed } else { EventState::Done };
            event.phase = Phase::Handled(version, state);
            self.next.marks.push(id);
            self.step_due.get_or_insert(now + GATHER);
        }
        self.next.marks.len() == 1
    }

    /// Counts a call of the handler.
    pub(super) fn handled(&mut self, failed: bool) {
        self.stats.handled += 1;
        self.stats.failed += u64::from(failed);
    }

    /// Answers about an event, and forgets it.
    fn end(&mut self, id: EventId, state: EventState, owner: Option<Topic>, now: Instant) {
        if let Some(event) = self.remove(&id) {
            self.answer(id, event.attempt, state, owner, now);
        }
    }

    /// Forgets an event that waits or is done, without an answer.
    fn forget(&mut self, id: &EventId) {
        if let Some(event) = self.remove(id) {
            self.unclaimed -= usize::from(matches!(event.phase, Phase::Waiting(_)));
        }
    }

    fn remove(&mut self, id: &EventId) -> Option<Event> {
        self.events.remove(id).inspect(|event| self.bytes -= event.bytes)
    }

    fn answer(&mut self, id: EventId, attempt: u32, state: EventState, owner: Option<Topic>, due: Instant) {
        let answer = Answer {
            number: id.number,
            attempt,
            state,
            owner: owner.map(|owner| owner.as_str().into()),
        };
        self.answers.put(id.notifier, answer, due);
    }

    /// Takes the answers that are due.
    pub(super) fn answers(&mut self, now: Instant) -> Vec<(Topic, Vec<Answer>)> {
        self.answers.take(now)
    }

    /// When the next of [`EventTable::answers`] are due.
    pub(super) fn answers_due(&self) -> Option<Instant> {
        self.answers.next_due()
    }

    /// The turns of the claimed events that have not begun.
    pub(super) fn turns(&self) -> Vec<Turn> {
        let turns = self.events.iter().filter_map(|(id, event)| match &event.phase {
            Phase::Claimed(update, _) => Some(Turn {
                id: id.clone(),
                priority: update.priority,
                timestamp: update.timestamp,
            }),
            _ => None,
        });
        turns.collect()
    }

    /// True if this thread is inside the handler.
    pub(super) fn is_handling(&self, thread: ThreadId) -> bool {
        let mut events = self.events.values();
        events.any(|event| matches!(event.phase, Phase::Handling(_, at) if at == thread))
    }

    /// True if the event is known here.
    pub(super) fn knows(&self, event: &str) -> bool {
        EventId::parse(event).is_ok_and(|id| self.events.contains_key(&id))
    }

    /// The number of events that have not begun.
    pub(super) fn load(&self) -> usize {
        self.unclaimed + self.ahead
    }

    /// The topic of the current run.
    pub(super) fn run(&self) -> &Topic {
        &self.run
    }

    pub(super) fn stats(&self) -> ListenerStats {
        let claims = (self.events.len() + self.next.removals.len() + self.current.removals.len()) as u64;
        ListenerStats { claims, ..self.stats }
    }
}

/// The bytes that an update takes, approximately.
pub(super) fn bytes_of(update: &DbUpdate) -> usize {
    update.value.as_ref().map_or(0, String::len) + update.table.len() + update.key.len()
}

impl Event {
    /// The state for an answer.
    fn state(&self) -> EventState {
        match self.phase {
            Phase::Done(state, _) => state,
            _ => EventState::Held,
        }
    }
}

#[cfg(test)]
mod tests;
