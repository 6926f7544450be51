//! Follows the numbers of every publisher on every topic, finds losses, and makes the sync events for them.
//!
//! Pure: no sockets, no threads; the time is an argument. A loss is not reported if a sync event that concerns its
//! topic was emitted after the lost update was sent, since the program has read the store since. All times are of this
//! process: a publisher says how long ago something was, never when.

mod hello;
mod leaving;
mod pending;
mod run;
mod scope;
pub(super) mod sequence;
mod status;
mod upkeep;

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::error::Error;
use crate::event::SyncReason;
use crate::update::{DbUpdate, Name, Origin, Topic};

use pending::Pending;
use run::{Run, RunState};
#[cfg(test)]
pub(super) use scope::MAX_SIZE;
pub(super) use scope::Scope;
use sequence::{Accepted, Sequence};

/// Hello periods without input after which a publisher is reported silent. A range, so that many subscribers do not
/// report it at once.
const SILENT: (f64, f64) = (2.3, 2.6);

/// Maximum of runs followed for one publisher. Beyond it, the run not heard for longest is forgotten.
const MAX_RUNS: usize = 16;

/// How long messages of a replaced run, or messages after a goodbye, may still arrive late.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Interval of the search for runs that can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Continuity {
    publishers: HashMap<Name, Vec<Run>>,
    /// Number of runs and sequences, by the address through which the run was first heard.
    sizes: HashMap<Name, usize>,
    /// Sequences in which something is missing that may still come.
    waiting: Vec<(Name, u64, Topic)>,
    /// When the first of them is given up.
    due: Option<Instant>,
    pending: Pending,
    /// Periods after which a publisher is silent.
    silent: f64,
    /// The next look for publishers that are silent or can be forgotten.
    scan: Option<Instant>,
    /// Everything that had arrived by then was read.
    drained: Instant,
    counters: Counters,
    errors: Vec<Error>,
    /// Every update is looked at on its own.
    #[cfg(test)]
    pub(super) is_thorough: bool,
}

/// The run of a publisher that something came from, and the address through which it came.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) address: &'a str,
    pub(super) publisher: &'a Name,
    pub(super) epoch: u64,
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
    /// Addresses of publishers that seem silent; an answer from the address proves the silence.
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
            #[cfg(test)]
            is_thorough: false,
        }
    }

    /// Forgets a topic that was unregistered.
    pub(super) fn unregister(&mut self, topic: &Topic) {
        self.pending.forget(topic);
        for run in self.publishers.values_mut().flatten() {
            let removed = run.topics.remove(topic).is_some();
            shrink(&mut self.sizes, &run.charged, usize::from(removed));
        }
    }

    /// Forgets all topics.
    pub(super) fn unregister_all(&mut self) {
        self.pending.forget_all();
        for run in self.publishers.values_mut().flatten() {
            shrink(&mut self.sizes, &run.charged, run.topics.len());
            run.topics.clear();
        }
    }

    /// Called when an event that concerns every topic is emitted.
    pub(super) fn covered(&mut self) {
        self.pending.clear();
    }

    /// True if these are the next updates of one run on one topic, as those of most frames are: their numbers are then
    /// taken. Otherwise nothing has changed.
    #[inline]
    pub(super) fn are_next(&mut self, address: &str, updates: &[DbUpdate], heard: Instant) -> bool {
        let Some(DbUpdate {
            topic,
            origin: Some(first),
            ..
        }) = updates.first()
        else {
            return updates.is_empty();
        };
        let follows = |(place, update): (usize, &DbUpdate)| {
            let next = (first.seq.checked_add(place as u64), first.epoch, &first.publisher);
            let is_next = |origin: &Origin| (Some(origin.seq), origin.epoch, &origin.publisher) == next;
            update.origin.as_ref().is_some_and(is_next)
        };
        let do_follow = updates.iter().enumerate().skip(1).all(follows);
        #[cfg(test)]
        let do_follow = do_follow && !self.is_thorough;
        let sequence = do_follow.then(|| next(&mut self.publishers, address, topic, first, heard));
        let taken = sequence
            .flatten()
            .map(|sequence| sequence.advance(updates.len() as u64));
        taken.is_some()
    }

    /// Handles the updates of one registered topic from one frame, and appends those to deliver to `out`. `heard` is
    /// roughly the current time; `clock` is read where it matters. Returns true if there may be later work.
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
        // The sequence of the last update in `out`, if that update is of this frame.
        let mut current: Option<&mut Sequence<DbUpdate>> = None;
        for update in updates {
            let Some(origin) = &update.origin else {
                self.counters.unnumbered += 1;
                current = None;
                out.push(update);
                continue;
            };
            // The common case within a frame: the next update of the same run.
            if let Some(sequence) = &mut current
                && let Some(Origin { publisher, epoch, .. }) = out.last().and_then(|last| last.origin.as_ref())
                && (*epoch, publisher) == (origin.epoch, &origin.publisher)
                && sequence.is_next(origin.seq)
            {
                sequence.advance(1);
                out.push(update);
                continue;
            }
            if let Some(sequence) = next(&mut self.publishers, address, &update.topic, origin, heard) {
                sequence.advance(1);
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

    /// Handles an update that is not simply the next one.
    fn unusual(&mut self, scope: Scope<'_>, address: &str, update: DbUpdate, now: Instant, out: &mut Vec<DbUpdate>) {
        let Some(origin) = update.origin.clone() else { return };
        let topic = update.topic.clone();
        let from = Sender {
            address,
            publisher: &origin.publisher,
            epoch: origin.epoch,
        };
        self.hear(scope, &from, now);
        let previous_by = now.checked_sub(origin.idle).unwrap_or(now);
        let Some(run) = find(&mut self.publishers, &origin.publisher, origin.epoch) else {
            return out.push(update);
        };
        if scope.is_elsewhere(&origin.publisher, run, address) {
            self.counters.duplicates += 1;
            return;
        }
        run.heard = now;
        let sequence = run.topics.entry(topic.clone()).or_insert_with(|| {
            grow(&mut self.sizes, &run.charged);
            if origin.seq > 1 && !scope.is_covered(&topic, address, previous_by) {
                // The run may have begun after the topic was live, with updates that were lost.
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
        self.limit(address, scope.most());
    }

    /// Notes input from this run of a publisher.
    fn hear(&mut self, scope: Scope<'_>, from: &Sender<'_>, now: Instant) {
        let (publisher, epoch) = (from.publisher, from.epoch);
        let runs = self.publishers.entry(publisher.clone()).or_default();
        if let Some(run) = runs.iter_mut().find(|run| run.epoch == epoch) {
            if run.address == *from.address || run.state != RunState::Running {
                run.heard = now;
            } else if run.also.as_deref() != Some(from.address) {
                run.also = Some(from.address.into());
            }
            match run.state {
                RunState::Silent | RunState::Left => run.state = RunState::Running,
                // The run goes on after its goodbye, so the goodbye was not its own.
                RunState::Gone(at) if is_after(at, now) => run.state = RunState::Running,
                RunState::Replaced(at) if is_after(at, now) => {
                    run.state = RunState::Running;
                    run::clashed(publisher, &mut self.counters, &mut self.errors);
                }
                _ => return,
            }
            run.address = from.address.into();
            self.scan = earlier(self.scan, run.silent_at(self.silent));
            return;
        }
        // A run that goes on elsewhere was not replaced by this one, which may be made up, as may others beside it.
        let is_elsewhere = |run: &Run| scope.is_elsewhere(publisher, run, from.address);
        let goes_on = runs.iter().any(is_elsewhere);
        for run in runs.iter_mut().filter(|run| !is_elsewhere(run)) {
            match run.state {
                // The run may have sent updates after its silence was reported.
                RunState::Running | RunState::Silent if run.has_answered || !goes_on => {
                    self.pending.restarted(publisher.clone(), now);
                }
                // Its last updates were missed, unless this address was connected later.
                RunState::Left if scope.is_any_uncovered(from.address, run.heard) => {
                    self.pending.restarted(publisher.clone(), now);
                }
                _ => {}
            }
            if !matches!(run.state, RunState::Gone(_)) {
                run.state = RunState::Replaced(now);
            }
        }
        if runs.len() >= MAX_RUNS
            && let Some(oldest) = (0..runs.len()).min_by_key(|index| (is_elsewhere(&runs[*index]), runs[*index].heard))
        {
            let run = runs.swap_remove(oldest);
            shrink(&mut self.sizes, &run.charged, run.size());
        }
        let run = Run::new(epoch, from.address.into(), now);
        grow(&mut self.sizes, &run.charged);
        runs.push(run);
        self.scan = earlier(self.scan, Some(now + SWEEP));
    }

    /// Called when an address has answered: silent publishers are looked for again.
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

    /// True if numbers heard through this address are missing.
    pub(super) fn is_waiting(&self, address: &str) -> bool {
        let runs = self.publishers.values().flatten().filter(|run| run.address == *address);
        runs.flat_map(|run| run.topics.values()).any(Sequence::is_waiting)
    }

    /// Notes that everything that had arrived by now was read.
    pub(super) fn drained(&mut self, now: Instant) {
        self.drained = now;
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
impl Continuity {
    pub(super) fn is_empty(&self) -> bool {
        self.publishers.is_empty() && self.sizes.is_empty()
    }

    pub(super) fn knows(&self, publisher: &str) -> bool {
        self.publishers.contains_key(publisher)
    }
}

#[cfg(any(test, fuzzing))]
impl Continuity {
    pub(super) fn len(&self) -> usize {
        self.sizes.values().sum()
    }

    /// Checks that the sizes agree with the contents.
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

/// The sequence of a run that is heard at `heard`, if this is its next number and nothing else is to be done.
#[inline]
fn next<'a>(
    publishers: &'a mut HashMap<Name, Vec<Run>>,
    address: &str,
    topic: &Topic,
    origin: &Origin,
    heard: Instant,
) -> Option<&'a mut Sequence<DbUpdate>> {
    let run = find(publishers, &origin.publisher, origin.epoch)?;
    if run.state != RunState::Running || run.address != *address {
        return None;
    }
    let sequence = run
        .topics
        .get_mut(topic)
        .filter(|sequence| sequence.is_next(origin.seq))?;
    run.heard = heard;
    Some(sequence)
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
