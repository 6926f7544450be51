//! Steps of the store, which bundle events, and their outcomes.

use std::time::Instant;

use super::{AHEAD, BUNDLE, Bundle, ENOUGH, Event, EventTable, GATHER, Phase, REMOVAL, Turn};
use crate::error::{Error, Result};
use crate::listener::claims::{Claim, Outcome, Step};
use crate::listener::messages::{EventId, EventState};

impl EventTable {
    /// True if there is a step to take.
    pub(in crate::listener) fn has_step(&self, now: Instant) -> bool {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let count = self.next.marks.len() + self.claimable();
        let is_rested = self.rests_until.is_none_or(|until| until <= now);
        let is_worth_it = count >= ENOUGH || self.ahead == 0 && is_rested || is_due(self.step_due);
        count > 0 && is_worth_it
            || !self.next.releases.is_empty()
            || self.next.removals.len() >= BUNDLE
            || is_due(self.removal_due)
    }

    /// The number of events that can be claimed.
    fn claimable(&self) -> usize {
        match !self.is_stopping && self.ahead < AHEAD {
            true => self.unclaimed,
            false => 0,
        }
    }

    /// The time of the next step, without further input.
    pub(in crate::listener) fn step_due(&self) -> Option<Instant> {
        let is_pending = self.next.marks.len() + self.claimable() > 0;
        let rests_until = self.rests_until.filter(|_| is_pending && self.ahead == 0);
        let step_due = self.step_due.filter(|_| is_pending);
        [step_due, rests_until, self.removal_due].into_iter().flatten().min()
    }

    /// The next step. It claims nothing unless `is_held`: other listeners may have declared this run dead.
    pub(in crate::listener) fn step(&mut self, is_held: bool, now: Instant) -> Step {
        let front = |ids: &mut Vec<EventId>| ids.drain(..ids.len().min(BUNDLE)).collect();
        let marks = front(&mut self.next.marks);
        let removals = front(&mut self.next.removals);
        self.removal_due = Some(now + REMOVAL).filter(|_| !self.next.removals.is_empty());
        let mut claims = Vec::new();
        if !is_held {
            self.give_back(now);
        } else if !self.is_stopping && self.ahead < AHEAD {
            claims = self.waiting.pop(BUNDLE);
            claims.retain(|id| self.begin_to_claim(id));
        }
        self.began = Some(now);
        // The remaining events have waited already.
        self.step_due = Some(now).filter(|_| self.next.marks.len() + self.claimable() > 0);
        self.current = Bundle {
            marks,
            claims,
            releases: std::mem::take(&mut self.next.releases),
            removals,
        };
        let (names, current) = (
            |ids: &[EventId]| ids.iter().map(|id| id.to_string().into()).collect(),
            &self.current,
        );
        let versions = current.marks.iter().filter_map(|id| match self.events.get(id) {
            Some(Event {
                run,
                phase: Phase::Handled(version, _),
                ..
            }) => Some((id.to_string().into(), run.clone(), *version)),
            _ => None,
        });
        let releases = current.releases.iter();
        Step {
            marks: versions.collect(),
            claims: names(&current.claims),
            releases: releases
                .map(|(id, version)| (id.to_string().into(), *version))
                .collect(),
            removals: names(&current.removals),
        }
    }

    fn begin_to_claim(&mut self, id: &EventId) -> bool {
        let Some(event) = self.events.get_mut(id) else {
            return false;
        };
        match std::mem::replace(&mut event.phase, Phase::Releasing) {
            Phase::Waiting(update) => {
                event.phase = Phase::Claiming(update);
                event.run = self.run.clone();
                self.unclaimed -= 1;
                self.ahead += 1;
                true
            }
            // It was dropped, and arrived again.
            other => {
                event.phase = other;
                false
            }
        }
    }

    /// Takes the outcome of the step; returns the turns of the claimed events, and the errors.
    pub(in crate::listener) fn end_step(&mut self, outcome: Result<Outcome>, now: Instant) -> (Vec<Turn>, Vec<Error>) {
        let Bundle {
            marks,
            claims,
            releases,
            removals,
        } = std::mem::take(&mut self.current);
        // A lone event causes no pause.
        let began = self.began.take().filter(|_| marks.len() + claims.len() > 1);
        self.rests_until = began.map(|began| now + now.saturating_duration_since(began).min(GATHER));
        let (mut turns, mut errors) = (Vec::new(), Vec::new());
        for (id, _) in releases {
            self.stats.moved += 1;
            self.end(id, EventState::Back, None, now);
        }
        match outcome {
            Ok(outcome) => {
                for (id, claim) in marks.into_iter().zip(outcome.marks) {
                    errors.extend(self.marked(id, claim, now).err());
                }
                for (id, claim) in claims.into_iter().zip(outcome.claims) {
                    match self.claimed(id, claim, now) {
                        Ok(turn) => turns.extend(turn),
                        Err(e) => errors.push(e),
                    }
                }
            }
            Err(e) => {
                self.next.marks.extend(marks);
                self.step_due.get_or_insert(now);
                if !removals.is_empty() {
                    self.next.removals.extend(removals);
                    self.removal_due.get_or_insert(now + REMOVAL);
                }
                for id in claims {
                    self.ahead -= 1;
                    self.stats.dropped += 1;
                    self.end(id, EventState::Back, None, now);
                }
                errors.push(e);
            }
        }
        (turns, errors)
    }

    fn marked(&mut self, id: EventId, claim: Result<Claim>, now: Instant) -> Result<()> {
        match claim {
            Ok(Claim::Done(owner)) => {
                if let Some(event) = self.events.get_mut(&id)
                    && let Phase::Handled(_, state) = event.phase
                {
                    let attempt = event.attempt;
                    let owner = Some(owner).filter(|owner| *owner != self.run);
                    event.phase = Phase::Done(state, now);
                    self.answer(id, attempt, state, owner, now);
                }
                Ok(())
            }
            // It was taken over while this run was declared dead.
            Ok(Claim::Theirs(owner)) => {
                self.end(id, EventState::Taken, Some(owner), now);
                Ok(())
            }
            Ok(Claim::Ours(_) | Claim::TakenOver(_)) => Ok(()),
            Err(e) => {
                self.next.marks.push(id);
                self.step_due.get_or_insert(now);
                Err(e)
            }
        }
    }

    fn claimed(&mut self, id: EventId, claim: Result<Claim>, now: Instant) -> Result<Option<Turn>> {
        self.ahead -= 1;
        let Some(event) = self.events.get_mut(&id) else {
            return Ok(None);
        };
        let (state, owner) = match claim {
            Ok(Claim::Ours(version) | Claim::TakenOver(version)) => {
                self.stats.taken_over += u64::from(matches!(claim, Ok(Claim::TakenOver(_))));
                if event.run != self.run {
                    // Another run has begun meanwhile, since the run of this claim was declared dead.
                    self.remove(&id);
                } else if self.is_stopping {
                    event.phase = Phase::Releasing;
                    self.next.releases.push((id, version));
                } else if let Phase::Claiming(update) = std::mem::replace(&mut event.phase, Phase::Releasing) {
                    self.ahead += 1;
                    let (priority, timestamp) = (update.priority, update.timestamp);
                    event.phase = Phase::Claimed(update, version);
                    return Ok(Some(Turn {
                        id,
                        priority,
                        timestamp,
                    }));
                }
                return Ok(None);
            }
            Ok(Claim::Theirs(owner)) => {
                self.stats.left += 1;
                (EventState::Taken, owner)
            }
            Ok(Claim::Done(owner)) => {
                self.stats.repeated += 1;
                (EventState::Done, owner)
            }
            Err(e) => {
                self.stats.dropped += 1;
                self.end(id, EventState::Back, None, now);
                return Err(e);
            }
        };
        let owner = Some(owner).filter(|owner| *owner != self.run);
        self.end(id, state, owner, now);
        Ok(None)
    }
}
