//! Whether something was missed: follows the numbers of every publisher on every topic, and says what to tell.
//!
//! Pure bookkeeping: no sockets, no threads; the time is an argument. A loss is told unless a sync event that concerns
//! its topic was told after the lost update was sent, since the program has read the store since. All times are of
//! this process: a publisher tells how long ago something was, never when.

mod pending;
mod run;
mod sequence;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::codec::Hello;
use crate::error::{Error, ErrorKind};
use crate::update::{DbUpdate, Name, SyncReason, Topic};

use pending::Pending;
use run::{Run, RunState};
use sequence::{Accepted, Sequence};

/// After so many hello periods in silence a publisher is told to be silent: within the third.
const SILENT: f64 = 2.4;

/// So many publishers and sequences are followed; beyond, the publishers that were not heard for longest are forgotten.
const MAX_SIZE: usize = 1 << 18;

/// How long what a replaced run has sent may be on its way.
const STRAGGLERS: Duration = Duration::from_secs(1);

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
                _ => return,
            }
            self.scan = earlier(self.scan, run.silent_at(SILENT, now));
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

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// True if what was sent on the topic at `sent_by` at the latest is known to the program, or soon will be.
    fn is_covered(&self, topic: &Topic, sent_by: Instant) -> bool {
        let interest = self.topics.get(topic);
        interest.is_none_or(|topic| topic.generation > self.settled || sent_by <= topic.covered)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn find<'a>(publishers: &'a mut HashMap<Name, Vec<Run>>, publisher: &str, epoch: u64) -> Option<&'a mut Run> {
    publishers.get_mut(publisher)?.iter_mut().find(|run| run.epoch == epoch)
}
