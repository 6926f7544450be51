//! The notifier's bookkeeping: what is on its way, to whom, and what is to be done about it. No threads, no sockets, and the
//! time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::envelope::{Answer, State};
use crate::thread::after;
use crate::update::{DbUpdate, Name};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Publish the event on the topic of this listener.
    Send { number: u64, attempt: u32, listener: Name },
    /// Ask this listener whether copies of an event that is settled are still on their way to it.
    Ask { number: u64, attempt: u32, listener: Name },
    /// Tell this listener that these events are settled.
    Confirm { numbers: Vec<u64>, listener: Name },
    /// It is done with.
    Processed { failed: bool, took: Duration },
    /// There is somebody to send to, but no listener is alive. Said once.
    Nobody,
}

/// Confirmations wait so long for others, so that one message and one pass over the claims serve many.
const BUNDLE_TIME: Duration = Duration::from_millis(100);

/// They do not wait any longer when there are so many.
const BUNDLE: usize = 256;

/// How often a listener is asked for the answer to an event that is done with. After that the claim stays for the time of
/// the option `retention`.
const QUESTIONS: u32 = 3;

/// No listener answers sooner.
const MIN_ACK_TIMEOUT: Duration = Duration::from_millis(10);

/// The most that the time for an answer is doubled.
const DOUBLINGS: u32 = 4;

#[derive(Debug)]
pub(super) struct InFlight {
    ack_timeout: Duration,
    window: usize,
    choice: Choice,
    /// Who is registered, and whether it may be chosen.
    present: BTreeMap<Name, bool>,
    /// Who has said that it is leaving.
    leaving: BTreeSet<Name>,
    events: BTreeMap<u64, Event>,
    /// What is to be sent as soon as there is somebody, and room in the window.
    ready: VecDeque<u64>,
    /// What waits for an earlier update of its row; the first of each row is not in it.
    rows: HashMap<(Name, Name), VecDeque<u64>>,
    /// How many are on their way.
    flying: usize,
    timers: BTreeSet<(Instant, u64)>,
    confirms: BTreeMap<Name, Vec<u64>>,
    confirm_due: Option<Instant>,
    told_nobody: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Event {
    update: DbUpdate,
    since: Instant,
    phase: Phase,
    /// How often it was sent.
    attempt: u32,
    tries: BTreeMap<Name, Try>,
    due: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Not on its way.
    Waiting,
    /// On its way to this listener.
    Sent(Name),
    /// This listener has claimed it.
    Taken(Name),
    /// Processed; this one has the claim. Others were asked so often whether copies are still on their way.
    Settling(Name, u32),
}

/// What was sent to one listener.
#[derive(Debug)]
struct Try {
    /// The last one.
    attempt: u32,
    /// It has answered the last one: since messages keep their order, it has none before it either.
    answered: bool,
}

impl InFlight {
    pub(super) fn new(ack_timeout: Duration, window: usize) -> InFlight {
        InFlight {
            ack_timeout: ack_timeout.max(MIN_ACK_TIMEOUT),
            window: window.max(1),
            choice: Choice::default(),
            present: BTreeMap::new(),
            leaving: BTreeSet::new(),
            events: BTreeMap::new(),
            ready: VecDeque::new(),
            rows: HashMap::new(),
            flying: 0,
            timers: BTreeSet::new(),
            confirms: BTreeMap::new(),
            confirm_due: None,
            told_nobody: false,
            steps: Vec::new(),
        }
    }

    /// A new event; its number is higher than all before.
    pub(super) fn add(&mut self, number: u64, update: DbUpdate, now: Instant) {
        let row = (update.table.clone(), update.key.clone());
        self.events.insert(
            number,
            Event {
                update,
                since: now,
                phase: Phase::Waiting,
                attempt: 0,
                tries: BTreeMap::new(),
                due: None,
            },
        );
        match self.rows.get_mut(&row) {
            Some(behind) => behind.push_back(number),
            None => {
                self.rows.insert(row, VecDeque::new());
                self.ready.push_back(number);
            }
        }
        self.pump(now);
    }

    /// Who is registered now, and whether it may be chosen.
    pub(super) fn listeners(&mut self, present: BTreeMap<Name, bool>, now: Instant) {
        let is_anyone_gone = self.present.keys().any(|name| !present.contains_key(name));
        self.present = present;
        self.leaving.retain(|name| self.present.contains_key(name));
        self.choose_among();
        if is_anyone_gone {
            let numbers: Vec<u64> = self.events.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.look_for_gone(number, now));
        }
        self.pump(now);
    }

    fn choose_among(&mut self) {
        let may = |(name, may): &(&Name, &bool)| **may && !self.leaving.contains(*name);
        let chosen = self.present.iter().filter(may).map(|(name, _)| name.clone());
        self.choice.set(chosen.collect());
        self.told_nobody &= self.choice.is_empty();
    }

    /// Whoever is gone neither answers nor processes anything any more.
    fn look_for_gone(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        for (name, tried) in &mut event.tries {
            tried.answered |= !self.present.contains_key(name);
        }
        match &event.phase {
            Phase::Sent(name) | Phase::Taken(name) if !self.present.contains_key(name) => self.send(number, now),
            Phase::Settling(..) => self.settle(number, now),
            _ => {}
        }
    }

    /// A listener has answered.
    pub(super) fn answered(&mut self, number: u64, answer: Answer, now: Instant) {
        if answer.state == State::Moved && self.leaving.insert(answer.listener.clone()) {
            self.choose_among();
        }
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        if let Some(tried) = event.tries.get_mut(&answer.listener) {
            tried.answered |= answer.attempt >= tried.attempt;
        }
        if matches!(event.phase, Phase::Settling(..)) {
            return self.settle(number, now);
        }
        match answer.state {
            State::Done | State::Failed => self.processed(number, answer, now),
            State::Taken => {
                let patience = self.patience(number);
                if let Some(event) = self.events.get_mut(&number)
                    && event.phase != Phase::Waiting
                {
                    event.phase = Phase::Taken(answer.owner);
                    self.set_due(number, Some(after(now, patience)));
                }
            }
            State::Moved => {
                if event.phase == Phase::Sent(answer.listener) {
                    self.send(number, now);
                }
            }
        }
        self.pump(now);
    }

    fn processed(&mut self, number: u64, answer: Answer, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut event.phase, Phase::Settling(answer.owner, 0));
        match before {
            Phase::Waiting => self.ready.retain(|waiting| *waiting != number),
            _ => self.flying -= 1,
        }
        self.steps.push(Step::Processed {
            failed: answer.state == State::Failed,
            took: now.saturating_duration_since(event.since),
        });
        let row = (event.update.table.clone(), event.update.key.clone());
        match self.rows.get_mut(&row).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_back(next),
            _ => drop(self.rows.remove(&row)),
        }
        self.set_due(number, Some(after(now, self.ack_timeout)));
        self.settle(number, now);
    }

    /// Lets go of an event that nobody can have a copy of any more.
    fn settle(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get(&number) else { return };
        let Phase::Settling(holder, _) = &event.phase else {
            return;
        };
        if event.tries.values().any(|tried| !tried.answered) {
            return;
        }
        let confirms = self.confirms.entry(holder.clone()).or_default();
        confirms.push(number);
        let due = if confirms.len() < BUNDLE {
            now + BUNDLE_TIME
        } else {
            now
        };
        self.confirm_due = Some(self.confirm_due.map_or(due, |earlier| earlier.min(due)));
        self.forget(number);
    }

    fn forget(&mut self, number: u64) {
        self.set_due(number, None);
        self.events.remove(&number);
    }

    /// Sends what can be sent.
    fn pump(&mut self, now: Instant) {
        while self.flying < self.window
            && !self.choice.is_empty()
            && let Some(number) = self.ready.pop_front()
        {
            self.flying += 1;
            self.send(number, now);
        }
        if self.choice.is_empty() && !self.ready.is_empty() && !self.told_nobody {
            self.told_nobody = true;
            self.steps.push(Step::Nobody);
        }
    }

    /// Sends an event, which counts as flying, to a listener that has not had it yet, or if all had, to any.
    fn send(&mut self, number: u64, now: Instant) {
        let Some(event) = self.events.get(&number) else { return };
        let owner = match &event.phase {
            Phase::Taken(owner) if self.present.contains_key(owner) => Some(owner.clone()),
            _ => None,
        };
        // The owner itself knows best; every other time another one finds out whether it is gone.
        let was_asked = |name: &Name| {
            event
                .tries
                .get(name)
                .is_some_and(|tried| tried.attempt == event.attempt)
        };
        let listener = match owner.clone().filter(|owner| !was_asked(owner)) {
            Some(owner) => Some(owner),
            None => {
                let other = |name: &Name| owner.as_ref() != Some(name);
                let fresh = self.choice.draw(|name| !event.tries.contains_key(name));
                let fresh = fresh.or_else(|| self.choice.draw(other));
                fresh.or_else(|| self.choice.draw(|_| true))
            }
        };
        match listener {
            Some(listener) => self.send_to(number, listener, now),
            None => {
                self.flying -= 1;
                self.ready.push_front(number);
                self.set_due(number, None);
                if let Some(event) = self.events.get_mut(&number) {
                    event.phase = Phase::Waiting;
                }
            }
        }
    }

    fn send_to(&mut self, number: u64, listener: Name, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        event.attempt += 1;
        if !matches!(event.phase, Phase::Taken(_)) {
            event.phase = Phase::Sent(listener.clone());
        }
        let tried = Try {
            attempt: event.attempt,
            answered: false,
        };
        event.tries.insert(listener.clone(), tried);
        self.steps.push(Step::Send {
            number,
            attempt: event.attempt,
            listener,
        });
        let patience = self.patience(number);
        self.set_due(number, Some(after(now, patience)));
    }

    /// How long an answer is waited for: longer after each try, for it may be that all are just busy.
    fn patience(&self, number: u64) -> Duration {
        let attempt = self.events.get(&number).map_or(0, |event| event.attempt);
        self.ack_timeout
            .saturating_mul(1 << attempt.saturating_sub(1).min(DOUBLINGS))
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.set_due(number, None);
            match self.events.get(&number).map(|event| event.phase.clone()) {
                Some(Phase::Sent(_) | Phase::Taken(_)) => self.send(number, now),
                Some(Phase::Settling(_, asked)) if asked < QUESTIONS => self.ask(number, asked, now),
                Some(Phase::Settling(..)) => self.forget(number),
                Some(Phase::Waiting) | None => {}
            }
        }
        if self.confirm_due.is_some_and(|due| due <= now) {
            self.confirm();
        }
        self.pump(now);
    }

    fn ask(&mut self, number: u64, asked: u32, now: Instant) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        for (listener, tried) in event.tries.iter_mut().filter(|(_, tried)| !tried.answered) {
            event.attempt += 1;
            tried.attempt = event.attempt;
            self.steps.push(Step::Ask {
                number,
                attempt: event.attempt,
                listener: listener.clone(),
            });
        }
        if let Phase::Settling(_, count) = &mut event.phase {
            *count = asked + 1;
        }
        self.set_due(number, Some(after(now, self.ack_timeout.saturating_mul(2 << asked))));
    }

    /// Says now what is settled.
    pub(super) fn confirm(&mut self) {
        self.confirm_due = None;
        for (holder, numbers) in std::mem::take(&mut self.confirms) {
            // Of one that is gone any other removes the claims; if there is none they go with the time.
            let listener = if self.present.contains_key(&holder) {
                Some(holder)
            } else {
                self.choice.draw(|_| true)
            };
            if let Some(listener) = listener {
                self.steps.push(Step::Confirm { numbers, listener });
            }
        }
    }

    fn set_due(&mut self, number: u64, due: Option<Instant>) {
        let Some(event) = self.events.get_mut(&number) else {
            return;
        };
        if let Some(before) = event.due.take() {
            self.timers.remove(&(before, number));
        }
        event.due = due;
        self.timers.extend(due.map(|due| (due, number)));
    }

    /// When [`InFlight::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        [timer, self.confirm_due].into_iter().flatten().min()
    }

    /// What is to be done since this was last called.
    pub(super) fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    pub(super) fn update(&self, number: u64) -> Option<&DbUpdate> {
        self.events.get(&number).map(|event| &event.update)
    }

    /// Ends it all: what was never acknowledged, in order.
    pub(super) fn into_pending(self) -> Vec<DbUpdate> {
        let events = self.events.into_values();
        let pending = events.filter(|event| !matches!(event.phase, Phase::Settling(..)));
        pending.map(|event| event.update).collect()
    }
}

#[cfg(test)]
mod tests;
