//! One table of a replica as pure state: the newest rows, the holes, and the reads to make. It has no threads, sockets,
//! locks or clock.
//!
//! `handle_…` and `take_…` take input, [`Core::poll`] gives the next read, and [`Core::deadline`] says when to call it
//! again without input. A result comes back under the number of its [`Read`]; it is ignored if the read is no longer
//! wanted.

mod ahead;
mod left;
mod listing;
mod proofs;
mod reads;
mod rows;
mod standing;
mod topic;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::row::{NewRow, Step};
use super::stats::ReplicaStats;
use crate::clock;
use crate::store::TableVersion;
use crate::update::{Action, DbUpdate, Name, Topic};
use ahead::Ahead;
use left::Left;
#[cfg(feature = "metrics")]
pub(crate) use proofs::OnTopic;
pub(super) use rows::Rows;
use standing::Heard;
use topic::OfTopic;
pub(super) use topic::{Base, Read, Want};

/// For this long after a store went back, updates only cause catch-ups: they may be from before.
const QUARANTINE: Duration = Duration::from_secs(5);

/// The times of a [`Core`].
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// How long a hole may stay before the replica catches up, at least; twice as long at most.
    pub(super) patience: Duration,
    /// The time between two checks, less up to a fifth.
    pub(super) check_interval: Duration,
    /// The span over which replicas spread their checks after a common loss.
    pub(super) spread: Duration,
    /// The longest pause after failures of the store.
    pub(super) max_backoff: Duration,
}

/// One table of a replica.
pub(super) struct Core<T> {
    pub(super) rows: Rows<T>,
    /// Rows share their topic's name.
    topics: BTreeMap<Arc<Topic>, OfTopic>,
    left: Left,
    /// The rows stay as they are.
    has_ended: bool,
    /// Some topic [distrusts](OfTopic::distrusts) the held rows.
    distrusts: bool,
    /// That of the topics, also for those to come.
    quarantined_until: Option<Instant>,
    /// The table's version as last read from the store.
    seen: TableVersion,
    /// The highest version heard of, from any source.
    heard: u64,
    check: Check,
    reads: u64,
    failures: u32,
    /// The store failed: nothing is read before this time.
    paused_until: Option<Instant>,
    /// The topics with due reads when all topics were last searched, and that time.
    agenda: VecDeque<Arc<Topic>>,
    searched: Instant,
    /// A topic that was not synced when last asked: most sync in their order.
    unsynced: Option<Arc<Topic>>,
    times: Times,
    /// How long the next hole may stay: many replicas may have it at the same time.
    patience: Duration,
    chance: fastrand::Rng,
    /// Without its rows, which are counted on demand.
    pub(super) counts: ReplicaStats,
}

/// The checks of a table.
struct Check {
    due: Instant,
    /// Whatever the next check finds missing is read at once.
    hurried: bool,
    running: Option<CheckRun>,
}

struct CheckRun {
    id: u64,
    asked: Instant,
    hurried: bool,
    /// The topics, and the highest versions heard of before the check.
    heard: Vec<(Topic, Heard)>,
}

impl<T> Core<T> {
    pub(super) fn new(times: Times, seed: u64, now: Instant) -> Core<T> {
        let mut core = Core {
            rows: Rows::default(),
            topics: BTreeMap::new(),
            left: Left::default(),
            has_ended: false,
            distrusts: false,
            quarantined_until: None,
            seen: TableVersion::default(),
            heard: 0,
            check: Check {
                due: clock::after(now, times.check_interval),
                hurried: false,
                running: None,
            },
            reads: 0,
            failures: 0,
            paused_until: None,
            agenda: VecDeque::new(),
            searched: now,
            unsynced: None,
            patience: times.patience,
            times,
            chance: fastrand::Rng::with_seed(seed),
            counts: ReplicaStats::default(),
        };
        core.draw_patience();
        core
    }

    fn draw_patience(&mut self) {
        let patience = self.times.patience;
        self.patience = patience.saturating_add(patience.mul_f64(self.chance.f64()));
    }

    /// Begins to hold the rows of this topic.
    pub(super) fn add_topic(&mut self, topic: &Topic, now: Instant) {
        if !self.topics.contains_key(topic) {
            let of_topic = OfTopic {
                due: Some((now, Want::List)),
                may_have_rows: self.left.has(topic),
                distrusts: self.left.doubts(topic),
                quarantined_until: self.quarantined_until,
                ..OfTopic::default()
            };
            self.distrusts |= of_topic.distrusts;
            self.topics.insert(Arc::new(topic.clone()), of_topic);
        }
    }

    /// Stops holding the rows of this topic; [`Core::evict`] removes those that are there, and then comes
    /// [`Core::end_evict`].
    pub(super) fn remove_topic(&mut self, topic: &Topic) {
        let is_doubted = match self.topics.remove(topic) {
            Some(of_topic) => of_topic.distrusts,
            None => self.left.doubts(topic),
        };
        self.left.add(topic, is_doubted);
        if self.topics.is_empty() {
            // The store is no longer read, and its versions may come to mean another history.
            self.left.doubt();
            self.forget_deletes();
        }
    }

    /// Stops holding all topics; the rows stay.
    pub(super) fn end(&mut self) {
        self.topics.clear();
        self.forget_deletes();
        self.has_ended = true;
    }

    /// Removes a row of a topic that is no longer held.
    pub(super) fn evict(&mut self, key: &Name) -> Option<Step<T>> {
        let held = self.rows.get(key).filter(|_| !self.has_ended)?;
        let is_held = self.topics.contains_key(held.topic());
        (!is_held)
            .then(|| self.rows.evict(key, !self.left.doubts(held.topic())))
            .flatten()
    }

    pub(super) fn end_evict(&mut self, topic: &Topic) {
        self.left.end(topic);
    }

    /// False if no row of the topic is held.
    pub(super) fn may_have_rows(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|of_topic| of_topic.may_have_rows)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.keys().map(|topic| &**topic)
    }

    /// The topic, shared with its other rows.
    pub(super) fn topic(&self, topic: &Topic) -> Option<&Arc<Topic>> {
        self.topics.get_key_value(topic).map(|(topic, _)| topic)
    }

    /// The version and topic of an update, if it is news as far as the position shows.
    pub(super) fn wants(&self, update: &DbUpdate, now: Instant) -> Option<(u64, &Arc<Topic>)> {
        let (topic, of_topic) = self.topics.get_key_value(&update.topic)?;
        let version = state_version(update)?;
        (of_topic.takes_updates(now) && !of_topic.is_old(version)).then_some((version, topic))
    }

    /// Takes in an update, with its decoded row if [`Core::wants`] it. Also returns true if [`Core::deadline`] may now
    /// be earlier.
    pub(super) fn handle_update(
        &mut self,
        update: &DbUpdate,
        row: Option<&NewRow<T>>,
        now: Instant,
    ) -> (Option<Step<T>>, bool) {
        let Some(of_topic) = self.topics.get_mut(&update.topic) else {
            return (None, false);
        };
        let Some(version) = state_version(update) else {
            self.counts.unversioned += 1;
            return (None, of_topic.reread(&update.key, now));
        };
        if of_topic.distrusts {
            // The listing to come includes it, or the check after it finds it.
            self.counts.old += 1;
            return (None, false);
        }
        if !of_topic.takes_updates(now) {
            self.counts.old += 1;
            return (None, of_topic.want(clock::after(now, self.patience), Want::CatchUp));
        }
        if of_topic.is_old(version) {
            self.counts.old += 1;
            if of_topic.note_missed(version) {
                return (None, false);
            }
            return (None, self.contradicts(update, version, now));
        }
        let (step, is_news) = match row.filter(|_| update.action != Action::Delete) {
            Some(row) => {
                let step = self.put(row);
                if step.is_some()
                    && let Some(of_topic) = self.topics.get_mut(&update.topic)
                {
                    of_topic.suspect(&update.key, version);
                }
                let is_news = step.is_some();
                (step, is_news)
            }
            // A monitor's delete has the version of the table, which the store does not show.
            None => {
                let (step, is_news) = self.delete(&update.key, version);
                (step, is_news && update.after.is_some())
            }
        };
        self.counts.applied += u64::from(step.is_some());
        self.heard = self.heard.max(version);
        let Some(of_topic) = self.topics.get_mut(&update.topic) else {
            return (step, false);
        };
        let wakes = of_topic.standing.merged(update.after, version, now, self.patience);
        if is_news && !of_topic.standing.covers(version) {
            of_topic.ahead.note(&update.key, version);
        }
        if wakes {
            self.draw_patience();
        }
        if self.rows.has_too_many_deletes() {
            self.forget_passed();
        }
        (step, wakes)
    }

    /// Takes in a state of a row if it is newer than the held one, or if the held one is doubted.
    fn put(&mut self, new: &NewRow<T>) -> Option<Step<T>> {
        match self.doubts(new.key()) {
            true => self.rows.correct(new),
            false => self.rows.put(new),
        }
    }

    /// As [`Core::put`], for a delete. Also returns true if it was news.
    fn delete(&mut self, key: &Name, version: u64) -> (Option<Step<T>>, bool) {
        let is_news = self.doubts(key) || self.rows.is_news(key, version);
        (is_news.then(|| self.rows.delete(key, version)).flatten(), is_news)
    }

    /// True if the held row may be of another history than the store's.
    fn doubts(&self, key: &str) -> bool {
        (self.distrusts || self.left.has_doubted())
            && self
                .rows
                .get(key)
                .is_some_and(|held| match self.topics.get(held.topic()) {
                    Some(of_topic) => of_topic.doubts(key),
                    None => self.left.doubts(held.topic()),
                })
    }

    /// Returns true if a write that the position includes is newer than its row: it is of another history, so the store
    /// went back.
    fn contradicts(&mut self, update: &DbUpdate, version: u64, now: Instant) -> bool {
        let position = self.position(&update.topic);
        let held = self.rows.get(&update.key);
        let is_newer = position.is_some_and(|position| version <= position.version)
            && held.is_some_and(|held| *held.topic() == update.topic && held.version() < version);
        if is_newer {
            // So that the listing does not report it again.
            self.seen = TableVersion::default();
            self.counts.went_back += 1;
            self.distrust_soon(now);
        }
        is_newer
    }

    /// Updates may have been lost: checks the table at a random moment, and catches up at once.
    pub(super) fn handle_loss(&mut self, now: Instant) {
        let random = self.chance.f64();
        self.demand(clock::after(now, self.times.spread.mul_f64(random)));
    }

    /// As [`Core::check`], and catches up at once.
    pub(super) fn demand(&mut self, at: Instant) {
        self.check(at);
        self.check.hurried = true;
    }

    /// Checks at this time. If a check is under way, another one follows.
    pub(super) fn check(&mut self, at: Instant) {
        self.check.due = self.check.due.min(at);
    }

    /// As [`Core::distrust`], at a random moment: all replicas find the reason at about the same time.
    fn distrust_soon(&mut self, now: Instant) {
        let random = self.chance.f64();
        self.distrust(clock::after(now, self.times.spread.mul_f64(random)));
    }

    /// Makes a listing of each topic, at this time, the truth, whatever is held: a row may have moved to another topic.
    pub(super) fn distrust(&mut self, at: Instant) {
        self.distrusts = true;
        self.left.doubt();
        self.heard = 0;
        self.quarantined_until = Some(clock::after(at, QUARANTINE));
        // Its answer may be of another history.
        self.check.running = None;
        for of_topic in self.topics.values_mut() {
            of_topic.standing.distrust();
            of_topic.ahead = Ahead::default();
            of_topic.missed_check = None;
            of_topic.distrusts = true;
            of_topic.quarantined_until = self.quarantined_until;
            of_topic.running = None;
            of_topic.want(at, Want::List);
        }
        self.forget_deletes();
    }

    /// Forgets the deletes that every topic has passed.
    fn forget_passed(&mut self) {
        if !self.rows.remembers_deletes() {
            return;
        }
        let version = |of_topic: &OfTopic| of_topic.standing.position.map_or(0, |position| position.version);
        let passed = self.topics.values().map(version).min();
        self.rows.forget_deletes(passed.unwrap_or(u64::MAX));
        if self.rows.has_too_many_deletes() {
            self.forget_deletes();
        }
    }

    /// Forgets all deletes. A late update may bring a deleted row back until the next catch-up. So early updates are
    /// forgotten too: only a catch-up moves the positions past them.
    fn forget_deletes(&mut self) {
        self.rows.forget_deletes(u64::MAX);
        self.topics
            .values_mut()
            .for_each(|of_topic| of_topic.standing.forget_early());
    }
}

/// The version of an update that has the row's state; otherwise the row is read.
fn state_version(update: &DbUpdate) -> Option<u64> {
    let has_state = update.value.is_some() || update.action == Action::Delete;
    update.version.filter(|_| has_state)
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
