//! Follows the numbers of every publisher on every topic, finds losses, and makes the sync events for them.
//!
//! Pure: no sockets, no threads; the time is an argument. A loss is reported unless a sync event that concerns its
//! topic was emitted after the lost update was sent, since the program has read the store since. All times are of this
//! process: a publisher says how long ago something was, never when.

mod hello;
mod pending;
mod run;
pub(super) mod sequence;
mod status;
mod upkeep;

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::error::Error;
use crate::update::{DbUpdate, Name, Origin, SyncReason, Topic};

use super::{Peers, Proof, Topics};
use pending::Pending;
use run::{Run, RunState};
use sequence::{Accepted, Sequence};

/// Hello periods without a word after which a publisher is reported silent: within the third. A range, so that many
/// subscribers do not report it at once.
const SILENT: (f64, f64) = (2.3, 2.6);

/// Maximum of publishers and sequences that are followed through one address (about 40 MiB at most); beyond, the runs
/// of that address that were not heard for longest are forgotten.
pub(super) const MAX_SIZE: usize = 1 << 16;

/// Maximum of runs of one publisher that are followed; beyond, the one that was not heard for longest is forgotten.
const MAX_RUNS: usize = 16;

/// How long what a replaced run has sent may be on its way, or comes late after a goodbye.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Interval of the search for runs that can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Continuity {
    publishers: HashMap<Name, Vec<Run>>,
    /// Runs and their sequences, by the address through which they were first heard.
    sizes: HashMap<Name, usize>,
    /// Sequences in which something is missing that may still come.
    waiting: Vec<(Name, u64, Topic)>,
    /// When the first of them is given up.
    due: Option<Instant>,
    pending: Pending,
    /// Periods after which a publisher is silent.
    silent: f64,
    /// When the publishers are next looked at: is one silent, can one be forgotten?
    scan: Option<Instant>,
    /// Everything that had come by then was seen.
    drained: Instant,
    counters: Counters,
    errors: Vec<Error>,
}

/// From which run of a publisher something came, and through which address.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) address: &'a str,
    pub(super) publisher: &'a Name,
    pub(super) epoch: u64,
}

/// The registered topics, and their state: decides whether a loss is to be reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) topics: &'a Topics,
    pub(super) peers: &'a Peers,
}

impl Scope<'_> {
    /// True if what was sent on the topic at `sent_by` at the latest, and heard through this address, is known to the
    /// program, or soon will be.
    fn is_covered(&self, topic: &Topic, address: &str, sent_by: Instant) -> bool {
        let Some((covered, generation)) = self.topics.covered(topic) else {
            return true;
        };
        let since = self.peers.get(address).and_then(|peer| peer.in_force_since(generation));
        since.is_none_or(|since| sent_by <= since.max(covered))
    }
}

/// Counts of a [`Continuity`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) duplicates: u64,
    pub(super) gaps: u64,
    pub(super) lost: u64,
    pub(super) unnumbered: u64,
    pub(super) clashes: u64,
    pub(super) hellos: u64,
}

/// Events for the program.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) syncs: Vec<SyncReason>,
    pub(super) errors: Vec<Error>,
    /// Addresses through which publishers are heard that seem silent: their answer proves it.
    pub(super) asks: Vec<Name>,
}

impl Continuity {
    pub(super) fn new(now: Instant, jitter: &mut fastrand::Rng) -> Continuity {
        let (least, most) = SILENT;
        Continuity {
            publishers: HashMap::new(),
            sizes: HashMap::new(),
            waiting: Vec::new(),
            due: None,
            pending: Pending::default(),
            silent: least + (most - least) * jitter.f64(),
            scan: None,
            drained: now,
            counters: Counters::default(),
            errors: Vec::new(),
        }
    }

    /// A topic is not registered any more.
    pub(super) fn unregister(&mut self, topic: &Topic) {
        self.pending.forget(topic);
        for run in self.publishers.values_mut().flatten() {
            let removed = run.topics.remove(topic).is_some();
            shrink(&mut self.sizes, &run.charged, usize::from(removed));
        }
    }

    /// No topic is registered any more.
    pub(super) fn unregister_all(&mut self) {
        self.pending.forget_all();
        for run in self.publishers.values_mut().flatten() {
            shrink(&mut self.sizes, &run.charged, run.topics.len());
            run.topics.clear();
        }
    }

    /// An event that concerns every topic is being emitted.
    pub(super) fn covered(&mut self) {
        self.pending.clear();
    }

    /// Updates of one registered topic came in a frame: hands out to `out` what is to be delivered. `heard` is about the time
    /// now; `clock` is read where it matters. True if there may be something to do later.
    #[inline]
    pub(super) fn updates(
        &mut self,
        scope: Scope<'_>,
        address: &str,
        updates: impl Iterator<Item = DbUpdate>,
        heard: Instant,
        clock: impl Fn() -> Instant,
        out: &mut Vec<DbUpdate>,
    ) -> bool {
        let mut is_unusual = false;
        // Of the last of `out`, if that is of this frame.
        let mut current: Option<&mut Sequence<DbUpdate>> = None;
        for update in updates {
            let Some(origin) = &update.origin else {
                self.counters.unnumbered += 1;
                current = None;
                out.push(update);
                continue;
            };
            // The case of most updates of a frame: the next of the run that the one before was of.
            if let Some(sequence) = &mut current
                && let Some(Origin { publisher, epoch, .. }) = out.last().and_then(|last| last.origin.as_ref())
                && (*epoch, publisher) == (origin.epoch, &origin.publisher)
                && sequence.is_next(origin.seq)
            {
                sequence.advance();
                out.push(update);
                continue;
            }
            // The path of nearly every frame.
            if let Some(runs) = self.publishers.get_mut(&*origin.publisher)
                && let Some(run) = runs.iter_mut().find(|run| run.epoch == origin.epoch)
                && run.state == RunState::Running
                && let Some(sequence) = run.topics.get_mut(&update.topic)
                && sequence.is_next(origin.seq)
            {
                run.heard = heard;
                sequence.advance();
                out.push(update);
                current = Some(sequence);
                continue;
            }
            current = None;
            self.unusual(scope, address, update, clock(), out);
            is_unusual = true;
        }
        is_unusual
    }

    /// An update that is not simply the next one.
    fn unusual(&mut self, scope: Scope<'_>, address: &str, update: DbUpdate, now: Instant, out: &mut Vec<DbUpdate>) {
        let Some(origin) = update.origin.clone() else { return };
        let topic = update.topic.clone();
        let from = Sender {
            address,
            publisher: &origin.publisher,
            epoch: origin.epoch,
        };
        self.hear(&from, now);
        let previous_by = now.checked_sub(origin.idle).unwrap_or(now);
        let Some(run) = find(&mut self.publishers, &origin.publisher, origin.epoch) else {
            return out.push(update);
        };
        let sequence = run.topics.entry(topic.clone()).or_insert_with(|| {
            grow(&mut self.sizes, &run.charged);
            if origin.seq > 1 && !scope.is_covered(&topic, address, previous_by) {
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
        self.limit(address);
    }

    /// Something came from this run of a publisher.
    fn hear(&mut self, from: &Sender<'_>, now: Instant) {
        let (publisher, epoch) = (from.publisher, from.epoch);
        let runs = self.publishers.entry(publisher.clone()).or_default();
        if let Some(run) = runs.iter_mut().find(|run| run.epoch == epoch) {
            if run.address == *from.address || run.state != RunState::Running {
                run.heard = now;
            }
            match run.state {
                RunState::Silent | RunState::Left => run.state = RunState::Running,
                // The goodbye was another run's.
                RunState::Gone(at) if is_after(at, now) => run.state = RunState::Running,
                RunState::Replaced(at) if is_after(at, now) => {
                    run.state = RunState::Running;
                    self.counters.clashes += 1;
                    self.errors.push(run::clash(publisher));
                }
                _ => return,
            }
            run.address = from.address.into();
            self.scan = earlier(self.scan, run.silent_at(self.silent));
            return;
        }
        for run in runs.iter_mut() {
            match run.state {
                // The silence was reported, but the events before its death came after that.
                RunState::Running | RunState::Silent => self.pending.restarted(publisher.clone(), now),
                RunState::Gone(_) | RunState::Left | RunState::Replaced(_) => {}
            }
            if !matches!(run.state, RunState::Gone(_)) {
                run.state = RunState::Replaced(now);
            }
        }
        if runs.len() >= MAX_RUNS
            && let Some(oldest) = (0..runs.len()).min_by_key(|index| runs[*index].heard)
        {
            let run = runs.swap_remove(oldest);
            shrink(&mut self.sizes, &run.charged, run.size());
        }
        let run = Run::new(epoch, from.address.into(), now);
        grow(&mut self.sizes, &run.charged);
        runs.push(run);
        self.scan = earlier(self.scan, Some(now + SWEEP));
    }

    /// The connection to this address is gone, and that is reported: silence of publishers heard through it is no news.
    pub(super) fn lose(&mut self, address: &str) {
        self.leave(address, RunState::Silent);
    }

    /// The address is not listened to any more: of what was heard through it alone, nothing is expected.
    pub(super) fn forget(&mut self, address: &str) {
        self.leave(address, RunState::Left);
    }

    fn leave(&mut self, address: &str, state: RunState) {
        for run in self.publishers.values_mut().flatten() {
            if matches!(run.state, RunState::Running | RunState::Silent) && run.address == *address {
                run.state = state;
            }
        }
    }

    /// An address has answered: whether what is heard through it is silent is looked at anew.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.scan.is_some() {
            self.scan = Some(now);
        }
    }

    /// True if this run of a publisher has said goodbye.
    pub(super) fn is_gone(&self, publisher: &str, epoch: u64) -> bool {
        let runs = self.publishers.get(publisher);
        let run = runs.and_then(|runs| runs.iter().find(|run| run.epoch == epoch));
        run.is_some_and(|run| matches!(run.state, RunState::Gone(_)))
    }

    /// True if something is missing of what is heard through this address.
    pub(super) fn is_waiting(&self, address: &str) -> bool {
        let runs = self.publishers.values().flatten().filter(|run| run.address == *address);
        runs.flat_map(|run| run.topics.values()).any(Sequence::is_waiting)
    }

    /// Everything that has come was seen: there was nothing more to read.
    pub(super) fn drained(&mut self, now: Instant) {
        self.drained = now;
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Counts on from here.
    pub(super) fn count_from(&mut self, counters: Counters) {
        self.counters = counters;
    }
}

#[cfg(test)]
impl Continuity {
    pub(super) fn is_empty(&self) -> bool {
        self.publishers.is_empty() && self.sizes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.sizes.values().sum()
    }

    pub(super) fn knows(&self, publisher: &str) -> bool {
        self.publishers.contains_key(publisher)
    }

    /// The counts agree with the contents.
    pub(super) fn check_sizes(&self) {
        let runs = self.publishers.values().flatten();
        assert_eq!(runs.map(Run::size).sum::<usize>(), self.len());
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn is_after(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) > STRAGGLERS
}

fn find<'a>(publishers: &'a mut HashMap<Name, Vec<Run>>, publisher: &str, epoch: u64) -> Option<&'a mut Run> {
    publishers.get_mut(publisher)?.iter_mut().find(|run| run.epoch == epoch)
}

fn grow(sizes: &mut HashMap<Name, usize>, address: &Name) {
    match sizes.get_mut(address) {
        Some(size) => *size += 1,
        None => _ = sizes.insert(address.clone(), 1),
    }
}

fn shrink(sizes: &mut HashMap<Name, usize>, address: &Name, by: usize) {
    if let Some(size) = sizes.get_mut(address) {
        *size = size.saturating_sub(by);
        if *size == 0 {
            sizes.remove(address);
        }
    }
}
