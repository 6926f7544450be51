//! The work of a listener, part by part, as its threads do it.

use std::time::Duration;

use super::{Listener, Message, RETENTION, World};
use crate::error::{Error, ErrorKind};
use crate::listener::claims::{Step as StoreStep, Value};
use crate::listener::messages::{Answers, EventId};
use crate::listener::tables::{CLAIMS, LISTENERS};
use crate::update::{DbUpdate, Topic};

/// The parts of a listener's work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    BeginStep,
    TakeStep,
    EndStep,
    BeginHandler,
    Receive,
    EndHandler,
    Answer,
    QueueAgain,
    Sweep,
}

pub(super) const WORK: [Work; 9] = [
    Work::BeginStep,
    Work::TakeStep,
    Work::EndStep,
    Work::BeginHandler,
    Work::Receive,
    Work::EndHandler,
    Work::Answer,
    Work::QueueAgain,
    Work::Sweep,
];

pub(super) const WORK_ALL: [Work; 13] = [
    Work::TakeStep,
    Work::EndStep,
    Work::Receive,
    Work::BeginStep,
    Work::TakeStep,
    Work::EndStep,
    Work::QueueAgain,
    Work::BeginHandler,
    Work::EndHandler,
    Work::BeginStep,
    Work::TakeStep,
    Work::EndStep,
    Work::Answer,
];

impl World {
    /// Lets a listener do a part of its work.
    pub(super) fn work(&mut self, at: usize, what: Work) {
        let is_held = self.is_registered(self.listeners[at].events.run());
        let (chance, fails, now) = (&mut self.chance, self.fails, self.now);
        let listener = &mut self.listeners[at];
        if listener.is_suspended || listener.is_killed {
            return;
        }
        match what {
            // It notices that it was declared dead.
            Work::BeginStep if listener.step.is_none() && !is_held && !listener.events.is_stopping() => {
                let topic = Topic::new(format!("listener/{}/again/{}", listener.id, self.born)).unwrap();
                self.born += 1;
                listener.events.begin_run(topic.clone());
                self.register(&topic);
            }
            Work::BeginStep if listener.step.is_none() => {
                let run = listener.events.run().clone();
                let ahead = if chance.bool() {
                    Duration::from_secs(1)
                } else {
                    Duration::ZERO
                };
                let step = listener.events.step(is_held, now + ahead);
                listener.step = Some((step, run, None));
            }
            Work::TakeStep => {
                if let Some((step, run, outcome @ None)) = &mut listener.step {
                    *outcome = Some(match fails > 0 && chance.u8(0..fails) == 0 {
                        true => {
                            let _ = listener.claims.take(&part(step, chance), run);
                            Err(Error::new(ErrorKind::Unconfirmed, "an outage"))
                        }
                        false => listener.claims.take(step, run),
                    });
                }
            }
            Work::EndStep => {
                if let Some((_, _, Some(outcome))) = listener.step.take_if(|(.., outcome)| outcome.is_some()) {
                    let (turns, _) = listener.events.end_step(outcome, now);
                    listener.turns.extend(turns.into_iter().map(|turn| turn.id));
                }
            }
            Work::QueueAgain => {
                if chance.bool() {
                    listener.turns.clear();
                }
                listener
                    .turns
                    .extend(listener.events.turns().into_iter().map(|turn| turn.id));
            }
            Work::BeginHandler => {
                if listener.turns.is_empty() {
                    return;
                }
                let id = listener.turns.swap_remove(chance.usize(0..listener.turns.len()));
                let Some(update) = listener.events.begin(&id, is_held, now) else {
                    return;
                };
                listener.handling.push(id.clone());
                let run = listener.events.run().clone();
                self.begins(&id, &update, run);
            }
            Work::Receive => {
                let received = listener.inbox.drain(..);
                received.for_each(|message| listener.events.receive(message, now));
            }
            Work::EndHandler => {
                if listener.handling.is_empty() {
                    return;
                }
                let id = listener.handling.swap_remove(chance.usize(0..listener.handling.len()));
                listener.events.ended(id.clone(), chance.u8(0..4) == 0, now);
                let event = self.event(&id);
                self.ended.insert(event);
            }
            Work::Sweep => {
                let Listener {
                    events, sweep, claims, ..
                } = listener;
                events.expire(RETENTION, now);
                let is_stray = |owner: &str, event: &str| owner == events.run().as_str() && !events.knows(event);
                sweep.sweep(claims, is_stray, RETENTION, now).unwrap();
            }
            Work::Answer => {
                let ahead = if chance.bool() {
                    Duration::from_secs(1)
                } else {
                    Duration::ZERO
                };
                let answers = listener.events.answers(now + ahead);
                for (topic, about) in answers {
                    let answers = Answers {
                        listener: listener.events.run().as_str().into(),
                        waiting: listener.events.load() as u64,
                        leaving: listener.events.is_stopping(),
                        about,
                    };
                    let notifier = self.notifiers.iter().position(|notifier| notifier.topic == topic);
                    self.network.push(Message::ToNotifier(notifier.unwrap(), answers));
                }
                if listener.events.is_stopping() && !listener.events.is_busy() && listener.step.is_none() {
                    let listener = self.listeners.remove(at);
                    let _ = self.store.delete(LISTENERS, listener.events.run().as_str());
                }
            }
            Work::BeginStep => {}
        }
    }

    fn event(&self, id: &EventId) -> (usize, u64) {
        let notifier = self.notifiers.iter().position(|notifier| notifier.topic == id.notifier);
        (notifier.unwrap(), id.number)
    }

    fn begins(&mut self, id: &EventId, update: &DbUpdate, by: Topic) {
        let event = self.event(id);
        assert!(
            !self.acknowledged.contains(&event),
            "{event:?} is begun after it was acknowledged"
        );
        // Done counts, whoever has done it, and whether or not it was told.
        let row = self.store.get(CLAIMS, &id.to_string(), None).unwrap();
        let claim = Value::from_row(&row).unwrap();
        assert!(
            !claim.done && claim.owner == by.as_str(),
            "{event:?} is begun by {by}: {claim:?}"
        );
        let before = self.begun.entry(event).or_default();
        let again = before.iter().all(|one| self.dead.contains(one));
        assert!(again, "{event:?} is begun by {by} after {before:?}, of which one lives");
        before.push(by);
        let newest = self
            .newest
            .entry(format!("{} {}", event.0, update.key).into())
            .or_insert(0);
        assert!(*newest <= id.number, "{event:?} is begun after {newest}");
        *newest = id.number;
    }
}

/// A part of a step, as it was taken before an outage.
fn part(step: &StoreStep, chance: &mut fastrand::Rng) -> StoreStep {
    let share = chance.u8(0..=4);
    let mut some = || chance.u8(0..4) < share;
    StoreStep {
        marks: step.marks.iter().filter(|_| some()).cloned().collect(),
        claims: step.claims.iter().filter(|_| some()).cloned().collect(),
        releases: step.releases.iter().filter(|_| some()).cloned().collect(),
        removals: step.removals.iter().filter(|_| some()).cloned().collect(),
    }
}
