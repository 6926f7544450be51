//! Regular work: giving up missing numbers, noticing silence, forgetting runs that are gone.

use std::time::{Duration, Instant};

use super::run::{Run, RunState};
use super::{Continuity, Findings, SWEEP, Scope, earlier, find, shrink};
use crate::event::SyncReason;
use crate::subscriber::session::peer::{Peer, Proof};
use crate::update::DbUpdate;

/// Publishers that have missed two hellos are reported together with those that have missed more, since a cut that
/// affects one often affects others.
const ALMOST_SILENT: f64 = 2.1;

/// Minimum time between two looks for silent publishers.
const BREATH: Duration = Duration::from_millis(20);

/// A missing number is given up only when everything that has arrived was read, but after this time in any case.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How soon to try again to give up a number while there is more to read.
const AGAIN: Duration = Duration::from_millis(10);

/// True if nothing that a run sent before this moment can still be on its way or unread: its address has answered a
/// later question. If the address answers nothing, everything that had arrived by then must have been read, or there
/// was always more to read for another period.
fn is_proven(run: &Run, scope: Scope<'_>, at: Instant, drained: Instant, now: Instant) -> bool {
    match scope.peers.get(&run.address).map_or(Proof::None, Peer::proof) {
        Proof::None => at <= drained || at + run.period.unwrap_or_default().max(LONGEST_WAIT) <= now,
        Proof::Awaited => false,
        Proof::Until(asked) => at <= asked,
    }
}

impl Continuity {
    /// The next time at which [`Continuity::check`] has something to do. `is_unsure` says that an event about an
    /// address, which would cover what is pending, may come soon.
    pub(in crate::subscriber::session) fn deadline(&self, is_unsure: bool) -> Option<Instant> {
        let pending = self.pending.deadline(is_unsure);
        earlier(earlier(self.due, self.scan), pending)
    }

    /// Does what is due. Appends updates that waited in vain for an earlier one to `out`.
    pub(in crate::subscriber::session) fn check(
        &mut self,
        scope: Scope<'_>,
        is_unsure: bool,
        now: Instant,
        out: &mut Vec<DbUpdate>,
    ) -> Findings {
        if self.due.is_some_and(|at| at <= now) {
            self.give_up(scope, now, out);
        }
        let mut findings = Findings {
            errors: std::mem::take(&mut self.errors),
            ..Findings::default()
        };
        if self.scan.is_some_and(|at| at <= now) {
            self.look_for_silent(scope, now, &mut findings);
        }
        if !findings.syncs.is_empty() {
            // Silence concerns every topic.
            self.pending.clear();
        }
        findings.syncs.extend(self.pending.take(now, is_unsure));
        findings
    }

    fn give_up(&mut self, scope: Scope<'_>, now: Instant, out: &mut Vec<DbUpdate>) {
        self.due = None;
        for (publisher, epoch, topic) in std::mem::take(&mut self.waiting) {
            let Some(run) = find(&mut self.publishers, &publisher, epoch) else {
                continue;
            };
            let Some(sequence) = run.topics.get_mut(&topic) else {
                continue;
            };
            let Some(at) = sequence.deadline() else { continue };
            let may_still_be_unread = !sequence.is_full() && self.drained < at && now < at + LONGEST_WAIT;
            if at > now || may_still_be_unread {
                self.due = earlier(self.due, Some(at.max(now + AGAIN)));
                self.waiting.push((publisher, epoch, topic));
                continue;
            }
            let Some(missing) = sequence.give_up(now, out) else {
                continue;
            };
            self.counters.gaps += 1;
            self.counters.lost = self.counters.lost.saturating_add(missing.count);
            if !scope.is_covered(&topic, &run.address, missing.sent_by) {
                self.pending.gap(publisher, topic, missing, now);
            }
        }
    }

    /// Looks for publishers that have fallen silent, and forgets those that are gone.
    fn look_for_silent(&mut self, scope: Scope<'_>, now: Instant, findings: &mut Findings) {
        let late = self.scan.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let drained = self.drained;
        let quiet_at = |run: &Run, times| run.silent_at(times).filter(|at| *at <= now);
        let mut is_silent = false;
        for run in self.publishers.values_mut().flatten() {
            // This process was stopped, or had no processor, so there may be unread input.
            run.excuse(late, now);
            if let Some(at) = quiet_at(run, self.silent) {
                let almost = run.silent_at(ALMOST_SILENT).unwrap_or(at);
                match is_proven(run, scope, almost, drained, now) {
                    true => is_silent = true,
                    false => findings.asks.push(run.address.clone()),
                }
            }
        }
        let mut publishers = Vec::new();
        if is_silent {
            for (publisher, runs) in &mut self.publishers {
                for run in runs.iter_mut() {
                    if quiet_at(run, ALMOST_SILENT).is_some_and(|at| is_proven(run, scope, at, drained, now)) {
                        run.state = RunState::Silent;
                        publishers.push(publisher.clone());
                    }
                }
            }
        }
        self.publishers.retain(|_, runs| {
            runs.retain(|run| {
                let keep = !run.is_over(now);
                shrink(&mut self.sizes, &run.charged, if keep { 0 } else { run.size() });
                keep
            });
            !runs.is_empty()
        });
        let runs = self.publishers.values().flatten();
        // Overdue work waits until everything that has arrived was read.
        let next = runs
            .filter_map(|run| run.silent_at(self.silent))
            .map(|at| at.max(now + BREATH));
        self.scan = next.chain((!self.publishers.is_empty()).then(|| now + SWEEP)).min();
        findings.asks.sort();
        findings.asks.dedup();
        publishers.sort();
        publishers.dedup();
        if !publishers.is_empty() {
            findings.syncs.push(SyncReason::Silence { publishers });
        }
    }

    /// Forgets the runs of this address that were not heard for longest, if there are too many.
    pub(super) fn limit(&mut self, address: &str, most: usize) {
        if self.sizes.get(address).is_none_or(|size| *size <= most) {
            return;
        }
        let runs = self
            .publishers
            .iter()
            .flat_map(|(name, runs)| runs.iter().map(move |run| (name, run)));
        let runs = runs.filter(|(_, run)| run.charged == *address);
        // A publisher that sends hellos is more likely a real one.
        let mut runs: Vec<_> = runs
            .map(|(name, run)| (run.period.is_some(), run.heard, name.clone(), run.epoch))
            .collect();
        runs.sort();
        for (_, _, name, epoch) in runs {
            if self.sizes.get(address).is_none_or(|size| *size <= most / 4 * 3) {
                break;
            }
            if let Some(runs) = self.publishers.get_mut(&name) {
                runs.retain(|run| {
                    let keep = run.epoch != epoch;
                    shrink(&mut self.sizes, &run.charged, if keep { 0 } else { run.size() });
                    keep
                });
                if runs.is_empty() {
                    self.publishers.remove(&name);
                }
            }
        }
    }
}
