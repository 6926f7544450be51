//! Resync: the reads from the store, their times, and their results.

use std::time::{Duration, Instant};

use super::standing::Heard;
use super::topic::{Base, OfTopic, Read, Want, reading};
use super::{CheckRun, Core};
use crate::clock;
use crate::replica::row::{NewRow, Step};
use crate::store::TableVersion;
use crate::update::{Name, Topic};

/// The pause after the first failure of the store.
const BACKOFF: Duration = Duration::from_millis(100);

impl<T> Core<T> {
    /// The next thing to read.
    pub(in crate::replica) fn poll(&mut self, now: Instant) -> Option<Read> {
        if self.topics.is_empty() || self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        if self.check.due <= now && self.check.running.is_none() {
            return Some(self.begin_check(now));
        }
        let due = |of_topic: &OfTopic| of_topic.due().filter(|(at, _)| *at <= now);
        if self.agenda.is_empty() {
            let topics = self.topics.iter().filter(|(_, of_topic)| due(of_topic).is_some());
            self.agenda.extend(topics.map(|(topic, _)| topic.clone()));
            self.searched = now;
        }
        while let Some(topic) = self.agenda.pop_front() {
            if let Some(of_topic) = self.topics.get_mut(&topic)
                && let Some((_, want)) = due(of_topic)
            {
                self.reads += 1;
                return Some(of_topic.begin(self.reads, &topic, want, self.heard, now, &mut self.counts));
            }
        }
        None
    }

    /// The time of the next read, without further input.
    pub(in crate::replica) fn deadline(&self) -> Option<Instant> {
        let check = self.check.running.is_none().then_some(self.check.due);
        let topics = self.topics.values().filter_map(|of_topic| of_topic.due());
        let topics = topics.map(|(at, _)| at);
        if self.topics.is_empty() {
            return None;
        }
        // Without another search: there may be thousands of topics.
        let agenda = self.agenda.iter().filter_map(|topic| self.topics.get(topic)?.due());
        let agenda = agenda.map(|(at, _)| at).find(|at| *at <= self.searched);
        let due = agenda.or_else(|| check.into_iter().chain(topics).min())?;
        Some(self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// False if the result of this read is ignored.
    pub(in crate::replica) fn is_reading(&self, read: &Read) -> bool {
        let of_topic = |topic: &Topic| self.topics.get(topic).and_then(|of_topic| of_topic.running.as_ref());
        match read {
            Read::Versions { id, .. } => self.check.running.as_ref().is_some_and(|check| check.id == *id),
            Read::Changes { id, topic, .. } | Read::Listing { id, topic } | Read::Rows { id, topic, .. } => {
                of_topic(topic).is_some_and(|running| running.id == *id)
            }
        }
    }

    fn begin_check(&mut self, now: Instant) -> Read {
        self.reads += 1;
        self.counts.checks += 1;
        let topics = self.topics().cloned().collect();
        let of_table = self.heard;
        let heard = self.topics.iter().map(|(topic, of_topic)| {
            let of_topic = of_topic.standing.heard;
            (Topic::clone(topic), Heard { of_table, of_topic })
        });
        self.check.running = Some(CheckRun {
            id: self.reads,
            asked: now,
            hurried: std::mem::take(&mut self.check.hurried),
            heard: heard.collect(),
        });
        let jitter = 0.2 * self.chance.f64();
        let interval = self.times.check_interval;
        self.check.due = clock::after(now, interval.saturating_sub(interval.mul_f64(jitter)));
        Read::Versions { id: self.reads, topics }
    }

    /// Takes in the versions of a check's topics, in their order; `None` if the store has no versions.
    pub(in crate::replica) fn take_versions(&mut self, id: u64, bases: Option<&[Base]>, now: Instant) {
        let Some(check) = self.check.running.take_if(|check| check.id == id) else {
            return;
        };
        self.store_answers();
        let patience = if check.hurried {
            Duration::ZERO
        } else {
            self.times.patience
        };
        for (place, (topic, heard)) in check.heard.into_iter().enumerate() {
            let Some(of_topic) = self.topics.get_mut(&topic) else {
                continue;
            };
            let Some(base) = bases.map(|bases| bases.get(place).copied()) else {
                of_topic.want(now, Want::List);
                continue;
            };
            let Some(base) = base else { continue };
            let missed = Some((check.asked, base.version.version));
            let Some(position) = of_topic.standing.position else {
                of_topic.missed_check = missed;
                continue;
            };
            if self.shows_less(base, heard, now) {
                return;
            }
            let Some(of_topic) = self.topics.get_mut(&topic) else {
                continue;
            };
            if is_of_unknown_history(position, base) {
                of_topic.missed_check = missed;
                if of_topic.listing().is_none() {
                    of_topic.want(now, Want::List);
                }
                continue;
            }
            let standing = &mut of_topic.standing;
            standing.position = Some(TableVersion {
                incarnation: base.version.incarnation,
                ..position
            });
            standing.had(base.version.version);
            standing.owe(base.version.version, clock::after(now, patience));
            standing.prove(check.asked, base.version.version);
            if standing.covers(base.version.version) {
                let passes = of_topic.ahead.lacks(base.version.version, base.table);
                standing.advance(base.table, now, self.patience);
                of_topic.ahead.forget_to(base.table);
                if passes {
                    of_topic.want(now, Want::List);
                }
            }
        }
        self.forget_passed();
    }

    pub(super) fn store_answers(&mut self) {
        self.failures = 0;
        self.paused_until = None;
    }

    /// Returns true if the store's version is lower than before, or than what was heard of the topic or the table: it
    /// went back. Also if another server answers, which may lack writes and have taken others since.
    pub(super) fn shows_less(&mut self, base: Base, heard: Heard, now: Instant) -> bool {
        let table = TableVersion {
            version: base.table,
            ..base.version
        };
        let less = base.version.version < heard.of_topic || base.table < heard.of_table;
        let less = less || table.went_back_since(&self.seen);
        let other = table.is_of_another_source(&self.seen);
        self.seen = table;
        if less {
            self.went_back(now);
        } else if other {
            self.distrust_soon(now);
        }
        less || other
    }

    pub(super) fn went_back(&mut self, now: Instant) {
        self.counts.went_back += 1;
        self.distrust(now);
    }

    /// Takes in a row that was changed or deleted after the position.
    pub(in crate::replica) fn take_changed(
        &mut self,
        id: u64,
        topic: &Topic,
        key: &Name,
        version: u64,
        new: Option<&NewRow<T>>,
    ) -> Option<Step<T>> {
        let of_topic = reading(&mut self.topics, id, topic)?;
        of_topic.standing.had(version);
        self.heard = self.heard.max(version);
        of_topic.ahead.shown(key, version);
        if of_topic.standing.covers(version) {
            return None;
        }
        self.counts.changes += 1;
        match new {
            Some(new) => self.put(new),
            None => self.delete(key, version).0,
        }
    }

    /// Ends a catch-up: moves the position to this version. It moves only now: of a row that changed twice only the
    /// last change is listed, perhaps on the last page.
    pub(in crate::replica) fn end_changes(&mut self, id: u64, topic: &Topic, version: TableVersion, now: Instant) {
        let Some(of_topic) = reading(&mut self.topics, id, topic) else {
            return;
        };
        let Some(running) = of_topic.running.take() else { return };
        let base = Base::of_table(version);
        self.store_answers();
        if self.shows_less(base, running.heard, now) {
            return;
        }
        let Some(of_topic) = self.topics.get_mut(topic) else {
            return;
        };
        // Updates have moved the position since the read began, and changes up to there were left out; or they have
        // brought states that the store does not know.
        let is_doubted = of_topic.position().is_some_and(|position| {
            is_of_unknown_history(position, base) || of_topic.ahead.lacks(position.version, version.version)
        });
        if is_doubted {
            of_topic.want(now, Want::List);
            return;
        }
        if let Some(position) = &mut of_topic.standing.position {
            position.incarnation = version.incarnation;
        }
        of_topic.standing.advance(version.version, now, self.patience);
        of_topic.standing.prove(running.asked, version.version);
        of_topic.ahead.forget_to(version.version);
        self.forget_passed();
    }

    /// Lists the topic, since the store does not know the changes since the position.
    pub(in crate::replica) fn list_instead(&mut self, id: u64, topic: &Topic, now: Instant) {
        if let Some(of_topic) = reading(&mut self.topics, id, topic) {
            of_topic.running = None;
            of_topic.want(now, Want::List);
        }
    }

    /// Takes in the topic's version before rows were read by their keys, if the store has versions.
    pub(in crate::replica) fn begin_rows(&mut self, id: u64, topic: &Topic, base: Option<Base>, now: Instant) {
        let Some(of_topic) = reading(&mut self.topics, id, topic) else {
            return;
        };
        let (Some(running), Some(base)) = (&mut of_topic.running, base) else {
            return;
        };
        let before = running.heard;
        // A row that is missing, of whatever topic, was deleted since it had an earlier version of the table.
        running.heard.of_table = running.heard.of_table.max(base.last());
        of_topic.standing.had(base.version.version);
        self.shows_less(base, before, now);
    }

    /// Takes in a row that was read by its key; `None` if there is none.
    pub(in crate::replica) fn take_row(
        &mut self,
        id: u64,
        topic: &Topic,
        key: &Name,
        new: Option<&NewRow<T>>,
    ) -> Option<Step<T>> {
        let of_topic = reading(&mut self.topics, id, topic)?;
        let Some(new) = new else {
            let heard = of_topic.running.as_ref().map_or(0, |running| running.heard.of_table);
            return self.rows.gone(key, heard);
        };
        match self.topics.get_mut(new.topic()) {
            None => self.rows.gone(key, new.version().saturating_sub(1)),
            Some(of_topic) if of_topic.is_old(new.version()) => None,
            Some(of_topic) => {
                of_topic.standing.had(new.version());
                self.heard = self.heard.max(new.version());
                let step = self.put(new)?;
                if let Some(of_topic) = self.topics.get_mut(new.topic()) {
                    of_topic.suspect(key, new.version());
                }
                Some(step)
            }
        }
    }

    pub(in crate::replica) fn end_rows(&mut self, id: u64, topic: &Topic) {
        if let Some(of_topic) = reading(&mut self.topics, id, topic) {
            of_topic.running = None;
            self.store_answers();
        }
    }

    /// The store failed: repeats the read, with growing pauses. The reads that were under way fail together.
    pub(in crate::replica) fn handle_failure(&mut self, read: &Read, now: Instant) {
        self.counts.failures += 1;
        let at = match self.paused_until.filter(|until| now < *until) {
            Some(until) => until,
            None => {
                let pause = (BACKOFF * 2u32.pow(self.failures.min(10))).min(self.times.max_backoff);
                self.failures += 1;
                clock::after(now, pause.mul_f64(1.0 - 0.5 * self.chance.f64()))
            }
        };
        self.paused_until = Some(at);
        let (id, topic, want) = match read {
            Read::Versions { id, .. } => {
                if let Some(check) = self.check.running.take_if(|check| check.id == *id) {
                    self.check.due = at;
                    self.check.hurried |= check.hurried;
                }
                return;
            }
            Read::Changes { id, topic, .. } => (id, topic, Want::CatchUp),
            Read::Listing { id, topic } => (id, topic, Want::List),
            Read::Rows { id, topic, .. } => (id, topic, Want::CatchUp),
        };
        if let Some(of_topic) = reading(&mut self.topics, *id, topic) {
            of_topic.running = None;
            of_topic.want(at, want);
        }
    }
}

/// True if it is not known whether the store still has the history that the position is of: there was none when it
/// began.
pub(super) fn is_of_unknown_history(position: TableVersion, base: Base) -> bool {
    position.incarnation == 0 && position.version > 0 && base.version.incarnation != 0
}
