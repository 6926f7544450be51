//! Whether something was missed: follows the numbers of every publisher on every topic, and says what to tell.
//!
//! Pure bookkeeping: no sockets, no threads; the time is an argument. A loss is told unless a sync event that concerns
//! its topic was told after the lost update was sent, since the program has read the store since. All times are of
//! this process: a publisher tells how long ago something was, never when.

mod pending;
mod run;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::codec::Hello;
use crate::error::{Error, ErrorKind};
use crate::update::{DbUpdate, Name, SyncReason, Topic};

use super::status::{PublisherStatus, TopicState, TopicStatus};
use pending::Pending;
use run::{Run, RunState};
use sequence::{Accepted, Sequence};

/// After so many hello periods in silence a publisher is told to be silent, within the third...
const SILENT: f64 = 2.6;
/// ... together with all that have missed two: what cuts off one often cuts off others.
const ALMOST_SILENT: f64 = 2.2;

/// So many publishers and sequences are followed; beyond, the publishers that were not heard for longest are forgotten.
const MAX_SIZE: usize = 1 << 18;

/// How long what a replaced run has sent may be on its way.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// How long after a look at who is silent the next one is at the earliest.
const BREATH: Duration = Duration::from_millis(20);

/// How often it is looked whether somebody can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Continuity {
    topics: HashMap<Topic, Interest>,
    /// Topics up to this generation are, or were once, in force everywhere.
    settled: u64,
    /// It is being found out whether an address is live: what concerns every topic will be told.
    unsure: bool,
    publishers: HashMap<Name, Vec<Run>>,
    /// Runs and their sequences.
    size: usize,
    /// Sequences in which something is missing that may still come.
    waiting: Vec<(Name, u64, Topic)>,
    /// When the first of them is given up.
    due: Option<Instant>,
    pending: Pending,
    /// When the publishers are next looked at: is one silent, can one be forgotten?
    scan: Option<Instant>,
    /// Everything that had come by then was seen.
    drained: Instant,
    /// Since when this process has been awake without a break.
    awake: Instant,
    counters: Counters,
    findings: Findings,
}

/// A registered topic.
#[derive(Debug)]
struct Interest {
    generation: u64,
    /// What was sent on it before is known to the program.
    covered: Instant,
}

/// From whom something came, and how.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) address: &'a str,
    pub(super) publisher: &'a Name,
    pub(super) epoch: u64,
}

/// What a [`Continuity`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) duplicates: u64,
    pub(super) gaps: u64,
    pub(super) lost: u64,
    pub(super) unnumbered: u64,
    pub(super) clashes: u64,
    pub(super) hellos: u64,
}

/// What is to be told to the program.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) syncs: Vec<SyncReason>,
    pub(super) errors: Vec<Error>,
}

impl Continuity {
    pub(super) fn new(now: Instant) -> Continuity {
        Continuity {
            topics: HashMap::new(),
            settled: 0,
            unsure: false,
            publishers: HashMap::new(),
            size: 0,
            waiting: Vec::new(),
            due: None,
            pending: Pending::default(),
            scan: None,
            drained: now,
            awake: now,
            counters: Counters::default(),
            findings: Findings::default(),
        }
    }

    /// A topic was registered. Updates before it is [settled](Continuity::settle) tell where the numbers begin.
    pub(super) fn register(&mut self, topic: Topic, generation: u64, now: Instant) {
        let interest = Interest {
            generation,
            covered: now,
        };
        self.topics.insert(topic, interest);
    }

    pub(super) fn unregister(&mut self, topic: &Topic) {
        self.topics.remove(topic);
        self.pending.forget(topic);
        for run in self.publishers.values_mut().flatten() {
            self.size -= usize::from(run.topics.remove(topic).is_some());
        }
    }

    /// Topics up to this generation are in force everywhere; or, `unsure`, that is to be told for an address.
    pub(super) fn settle(&mut self, generation: u64, unsure: bool, now: Instant) {
        self.unsure = unsure;
        if generation > self.settled {
            let newly = self.topics.values_mut().filter(|topic| topic.generation > self.settled);
            newly.for_each(|topic| topic.covered = now);
            self.settled = generation;
        }
    }

    /// Something that concerns every topic is being told.
    pub(super) fn cover(&mut self, now: Instant) {
        self.pending.clear();
        self.topics.values_mut().for_each(|topic| topic.covered = now);
    }

    /// An update of a registered topic came: hands out to `out` what is to be delivered.
    pub(super) fn update(&mut self, address: &str, update: DbUpdate, now: Instant, out: &mut Vec<DbUpdate>) {
        let Some(origin) = &update.origin else {
            self.counters.unnumbered += 1;
            return out.push(update);
        };
        // The path of nearly every update.
        if let Some(runs) = self.publishers.get_mut(&*origin.publisher)
            && let Some(run) = runs.iter_mut().find(|run| run.epoch == origin.epoch)
            && run.state == RunState::Running
            && let Some(sequence) = run.topics.get_mut(&update.topic)
            && sequence.is_next(origin.seq)
        {
            run.heard = now;
            sequence.advance();
            return out.push(update);
        }
        self.unusual(address, update, now, out);
    }

    /// An update that is not simply the next one.
    fn unusual(&mut self, address: &str, update: DbUpdate, now: Instant, out: &mut Vec<DbUpdate>) {
        let Some(origin) = update.origin.clone() else { return };
        let topic = update.topic.clone();
        let from = Sender {
            address,
            publisher: &origin.publisher,
            epoch: origin.epoch,
        };
        self.hear(&from, now);
        let previous_by = now.checked_sub(origin.idle).unwrap_or(now);
        let is_covered = self.is_covered(&topic, previous_by);
        let Some(run) = find(&mut self.publishers, &origin.publisher, origin.epoch) else {
            return out.push(update);
        };
        let sequence = run.topics.entry(topic.clone()).or_insert_with(|| {
            self.size += 1;
            if origin.seq > 1 && !is_covered {
                // It may have begun after the topic was live, with updates that were lost.
                self.pending.unproven(topic.clone(), now);
            }
            Sequence::after(origin.seq.saturating_sub(1))
        });
        let was_waiting = sequence.is_waiting();
        match sequence.accept(origin.seq, update, previous_by, now, out) {
            Accepted::InOrder => {}
            Accepted::Duplicate => self.counters.duplicates += 1,
            Accepted::Early => {
                self.due = earlier(self.due, sequence.deadline());
                if !was_waiting {
                    self.waiting.push((origin.publisher, origin.epoch, topic));
                }
            }
        }
        self.limit();
    }

    /// A hello came, or with `last` a goodbye.
    pub(super) fn hello(&mut self, from: &Sender<'_>, hello: &Hello, last: bool, now: Instant) {
        let (publisher, epoch) = (from.publisher, from.epoch);
        self.counters.hellos += 1;
        self.hear(from, now);
        for (name, number, age) in &hello.topics {
            let Some((topic, _)) = self.topics.get_key_value(name.as_str()) else {
                continue;
            };
            let topic = topic.clone();
            let sent_by = now.checked_sub(Duration::from_millis(*age)).unwrap_or(now);
            let is_covered = self.is_covered(&topic, sent_by);
            let Some(run) = find(&mut self.publishers, publisher, epoch) else {
                return;
            };
            match run.topics.get_mut(&topic) {
                Some(sequence) => {
                    let was_waiting = sequence.is_waiting();
                    sequence.learn(*number, sent_by, now);
                    self.due = earlier(self.due, sequence.deadline());
                    if sequence.is_waiting() && !was_waiting {
                        self.waiting.push((publisher.clone(), epoch, topic));
                    }
                }
                None => {
                    self.size += 1;
                    run.topics.insert(topic.clone(), Sequence::after(*number));
                    if !is_covered {
                        self.pending.unproven(topic, now);
                    }
                }
            }
        }
        if let Some(run) = find(&mut self.publishers, publisher, epoch) {
            run.period = Some(hello.period());
            if last {
                run.state = RunState::Gone;
            }
            self.scan = earlier(self.scan, run.silent_at(SILENT, now));
        }
        self.limit();
    }

    /// Something came from this run of a publisher.
    fn hear(&mut self, from: &Sender<'_>, now: Instant) {
        let (publisher, epoch) = (from.publisher, from.epoch);
        let runs = self.publishers.entry(publisher.clone()).or_default();
        if let Some(run) = runs.iter_mut().find(|run| run.epoch == epoch) {
            run.heard = now;
            if run.address != *from.address {
                run.address = from.address.into();
            }
            match run.state {
                RunState::Silent => run.state = RunState::Running,
                RunState::Replaced(at) if now.saturating_duration_since(at) > STRAGGLERS => {
                    run.state = RunState::Running;
                    self.counters.clashes += 1;
                    let context = format!("two publishers at a time use the id {publisher}: give each its own");
                    self.findings.errors.push(Error::new(ErrorKind::InvalidInput, context));
                }
                _ => {}
            }
            return;
        }
        for run in runs.iter_mut() {
            // Of one that is silent the program was told already.
            if run.state == RunState::Running {
                self.pending.restarted(publisher.clone(), now);
            }
            if run.state != RunState::Gone {
                run.state = RunState::Replaced(now);
            }
        }
        runs.push(Run::new(epoch, from.address.into(), now));
        self.size += 1;
        self.scan = earlier(self.scan, Some(now + SWEEP));
    }

    /// The connection to this address is gone, and the program is told: of whom it has heard through it, silence is no
    /// news.
    pub(super) fn lose(&mut self, address: &str) {
        for run in self.publishers.values_mut().flatten() {
            if run.state == RunState::Running && run.address == *address {
                run.state = RunState::Silent;
            }
        }
    }

    /// True if this publisher has said goodbye.
    pub(super) fn is_gone(&self, publisher: &str) -> bool {
        let runs = self.publishers.get(publisher);
        runs.is_some_and(|runs| runs.iter().all(|run| run.state == RunState::Gone))
    }

    /// Everything that has come was seen: there was nothing more to read.
    pub(super) fn drained(&mut self, now: Instant) {
        self.drained = now;
    }

    /// When [`Continuity::check`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.deadline().filter(|_| !self.unsure);
        earlier(earlier(self.due, self.scan), pending)
    }

    /// Does what is due; hands out to `out` what has waited in vain for what was before it.
    pub(super) fn check(&mut self, now: Instant, out: &mut Vec<DbUpdate>) -> Findings {
        if self.due.is_some_and(|at| at <= now) {
            self.give_up(now, out);
        }
        if self.scan.is_some_and(|at| at <= now) {
            self.look_for_silent(now);
        }
        let syncs = if self.unsure {
            Vec::new()
        } else {
            self.pending.take(now)
        };
        for reason in &syncs {
            match reason.topics() {
                None => self.cover(now),
                Some(topics) => {
                    for topic in topics {
                        if let Some(topic) = self.topics.get_mut(topic) {
                            topic.covered = now;
                        }
                    }
                }
            }
        }
        self.findings.syncs.extend(syncs);
        std::mem::take(&mut self.findings)
    }

    /// How it stands with every topic; `is_whole` if every connection is live.
    pub(super) fn status(&self, is_whole: bool, now: Instant) -> Vec<TopicStatus> {
        let mut topics: BTreeMap<_, _> = self
            .topics
            .iter()
            .map(|(topic, interest)| {
                let state = match interest.generation <= self.settled {
                    true if is_whole => TopicState::Live,
                    true => TopicState::Stale,
                    false => TopicState::Unconfirmed,
                };
                (topic.clone(), (state, Vec::new()))
            })
            .collect();
        for (publisher, runs) in &self.publishers {
            for run in runs {
                let state = match (run.state, run.period) {
                    (RunState::Gone | RunState::Replaced(_), _) => continue,
                    (RunState::Silent, _) => TopicState::Stale,
                    (RunState::Running, None) => TopicState::Unconfirmed,
                    (RunState::Running, Some(_)) => TopicState::Live,
                };
                for (topic, sequence) in &run.topics {
                    if let Some((_, publishers)) = topics.get_mut(topic) {
                        publishers.push(PublisherStatus {
                            publisher: publisher.clone(),
                            epoch: run.epoch,
                            state,
                            last: sequence.last(),
                            age: now.saturating_duration_since(run.heard),
                        });
                    }
                }
            }
        }
        let topics = topics.into_iter();
        topics
            .map(|(topic, (state, publishers))| TopicStatus {
                topic,
                state,
                publishers,
            })
            .collect()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// True if what was sent on the topic at `sent_by` at the latest is known to the program, or soon will be.
    fn is_covered(&self, topic: &Topic, sent_by: Instant) -> bool {
        let interest = self.topics.get(topic);
        interest.is_none_or(|topic| topic.generation > self.settled || sent_by <= topic.covered)
    }

    fn give_up(&mut self, now: Instant, out: &mut Vec<DbUpdate>) {
        self.due = None;
        for (publisher, epoch, topic) in std::mem::take(&mut self.waiting) {
            let sequence = find(&mut self.publishers, &publisher, epoch).and_then(|run| run.topics.get_mut(&topic));
            let Some(sequence) = sequence else { continue };
            match sequence.deadline() {
                None => continue,
                Some(at) if at > now => {
                    self.due = earlier(self.due, Some(at));
                    self.waiting.push((publisher, epoch, topic));
                    continue;
                }
                Some(_) => {}
            }
            let Some(missing) = sequence.give_up(out) else { continue };
            self.counters.gaps += 1;
            self.counters.lost = self.counters.lost.saturating_add(missing.count);
            if !self.is_covered(&topic, missing.sent_by) {
                self.pending.gap(publisher, topic, missing, now);
            }
        }
    }

    /// Looks for publishers that have fallen silent, and forgets those that are gone.
    fn look_for_silent(&mut self, now: Instant) {
        let late = self.scan.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let period = self.publishers.values().flatten().filter_map(|run| run.period).min();
        if period.is_some_and(|period| late > period / 2) {
            // This process was stopped, or had no processor: what came meanwhile is still to be read.
            self.awake = now;
        }
        let silent = |run: &Run, times| run.silent_at(times, self.awake).is_some_and(|at| at <= self.drained);
        let mut publishers = Vec::new();
        if self.publishers.values().flatten().any(|run| silent(run, SILENT)) {
            for (publisher, runs) in &mut self.publishers {
                for run in runs.iter_mut().filter(|run| silent(run, ALMOST_SILENT)) {
                    run.state = RunState::Silent;
                    publishers.push(publisher.clone());
                }
            }
        }
        self.publishers.retain(|_, runs| {
            runs.retain(|run| {
                let keep = !run.is_over(now);
                self.size -= if keep { 0 } else { 1 + run.topics.len() };
                keep
            });
            !runs.is_empty()
        });
        let runs = self.publishers.values().flatten();
        // What is overdue waits for the next look at everything that has come.
        let next = runs
            .filter_map(|run| run.silent_at(SILENT, self.awake))
            .map(|at| at.max(now + BREATH));
        self.scan = next.chain((!self.publishers.is_empty()).then(|| now + SWEEP)).min();
        if !publishers.is_empty() {
            publishers.sort();
            publishers.dedup();
            self.findings.syncs.push(SyncReason::Silence { publishers });
            self.cover(now);
        }
    }

    /// Forgets who was not heard for longest when there are too many.
    fn limit(&mut self) {
        if self.size <= MAX_SIZE {
            return;
        }
        let runs = self
            .publishers
            .iter()
            .flat_map(|(name, runs)| runs.iter().map(move |run| (run.heard, name, run.epoch)));
        let mut runs: Vec<_> = runs.map(|(heard, name, epoch)| (heard, name.clone(), epoch)).collect();
        runs.sort();
        for (_, name, epoch) in runs {
            if self.size <= MAX_SIZE / 4 * 3 {
                break;
            }
            if let Some(runs) = self.publishers.get_mut(&name) {
                runs.retain(|run| {
                    let keep = run.epoch != epoch;
                    self.size -= if keep { 0 } else { 1 + run.topics.len() };
                    keep
                });
                if runs.is_empty() {
                    self.publishers.remove(&name);
                }
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn find<'a>(publishers: &'a mut HashMap<Name, Vec<Run>>, publisher: &str, epoch: u64) -> Option<&'a mut Run> {
    publishers.get_mut(publisher)?.iter_mut().find(|run| run.epoch == epoch)
}
