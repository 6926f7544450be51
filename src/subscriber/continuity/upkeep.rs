//! What is done from time to time: giving up what does not come, noticing who is silent, forgetting who is gone.

use std::time::{Duration, Instant};

use super::run::{Run, RunState};
use super::{Continuity, MAX_SIZE, SILENT, SWEEP, earlier, find};
use crate::update::{DbUpdate, SyncReason};

/// Those who have missed two hellos are told together with those who have missed more: what cuts off one often cuts off
/// others.
const ALMOST_SILENT: f64 = 2.2;

/// How long after a look at who is silent the next one is at the earliest.
const BREATH: Duration = Duration::from_millis(20);

impl Continuity {
    pub(super) fn give_up(&mut self, now: Instant, out: &mut Vec<DbUpdate>) {
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
    pub(super) fn look_for_silent(&mut self, now: Instant) {
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
    pub(super) fn limit(&mut self) {
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
