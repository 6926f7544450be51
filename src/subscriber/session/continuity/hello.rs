//! A hello's report of the publisher's numbers.

use std::time::{Duration, Instant};

use super::run::{Heard, Run, RunState, clashed};
use super::sequence::Sequence;
use super::{Continuity, STRAGGLERS, Scope, Sender, earlier, find, grow, shrink};
use crate::codec::{Hello, TOLD};
use crate::subscriber::session::peer::Peer;

impl Continuity {
    /// Handles a hello, or with `last` a goodbye.
    pub(in crate::subscriber::session) fn hello(
        &mut self,
        scope: Scope<'_>,
        from: &Sender<'_>,
        hello: &Hello,
        last: bool,
        now: Instant,
    ) {
        self.counters.hellos += 1;
        self.hear(scope, from, now);
        let owner = scope.peers.get(from.address).and_then(Peer::owner);
        let is_owner = owner == Some((from.publisher, from.epoch));
        match find(&mut self.publishers, from.publisher, from.epoch) {
            Some(run) if scope.is_elsewhere(from.publisher, run, from.address) => return,
            Some(run) if is_owner && run.state == RunState::Running => {
                (run.address, run.has_answered) = (from.address.into(), true);
            }
            // The publisher is heard elsewhere, so this hello may be forged.
            Some(run) if run.address != *from.address => return,
            _ => {}
        }
        if is_owner {
            self.look_for_a_clash(scope, from, now);
        }
        self.hear_round(scope, from, hello, now);
        for (name, number, age) in &hello.topics {
            let Some(topic) = scope.topics.get(name.as_bytes()).cloned() else {
                continue;
            };
            let sent_by = now.checked_sub(Duration::from_millis(*age)).unwrap_or(now);
            let Some(run) = find(&mut self.publishers, from.publisher, from.epoch) else {
                return;
            };
            match run.topics.get_mut(&topic) {
                Some(sequence) => {
                    let was_waiting = sequence.is_waiting();
                    sequence.learn(*number, sent_by, now);
                    self.due = earlier(self.due, sequence.deadline());
                    if sequence.is_waiting() && !was_waiting {
                        self.waiting.push((from.publisher.clone(), from.epoch, topic));
                    }
                }
                None => {
                    grow(&mut self.sizes, &run.charged);
                    run.topics.insert(topic.clone(), Sequence::told(*number, now));
                    if !scope.is_covered(&topic, from.address, sent_by) {
                        self.pending.unproven(topic, now);
                    }
                }
            }
        }
        if let Some(run) = find(&mut self.publishers, from.publisher, from.epoch) {
            run.period = Some(hello.period());
            if last {
                // No later hello names the topics of its parts that have not come.
                let is_cut = hello.round.is_some_and(|round| !run.rounds.is_whole(round));
                if is_cut && run.state == RunState::Running && scope.is_any_uncovered(from.address, now) {
                    self.pending.missed(from.publisher.clone(), now);
                }
                run.state = RunState::Gone(now);
            }
            self.scan = earlier(self.scan, run.silent_at(self.silent));
        }
        self.limit(from.address, scope.most());
    }

    /// Reports another publisher of this id, if one was still heard at its own address a while after this run began.
    fn look_for_a_clash(&mut self, scope: Scope<'_>, from: &Sender<'_>, now: Instant) {
        let Some(runs) = self.publishers.get_mut(from.publisher) else {
            return;
        };
        let own = runs.iter().find(|run| run.epoch == from.epoch && !run.has_clashed);
        let Some(since) = own.map(|run| run.began + STRAGGLERS) else {
            return;
        };
        let clashes = |run: &Run| run.heard > since && scope.is_elsewhere(from.publisher, run, from.address);
        if runs.iter().any(clashes) {
            runs.iter_mut().for_each(|run| run.has_clashed = true);
            clashed(from.publisher, &mut self.counters, &mut self.errors);
            self.scan = Some(now);
        }
    }

    /// Counts the round. A topic is named in [`TOLD`] rounds after its last use, so if none of that many rounds arrived
    /// whole, its last updates may be lost silently.
    fn hear_round(&mut self, scope: Scope<'_>, from: &Sender<'_>, hello: &Hello, now: Instant) {
        let Some(round) = hello.round else { return };
        let Some(run) = find(&mut self.publishers, from.publisher, from.epoch) else {
            return;
        };
        match run.rounds.hear(round, hello.part, !hello.more, TOLD) {
            Heard::Expected => {}
            Heard::Missed => {
                // Topics that this round does not name were last used before this time.
                let rounds = u32::try_from(TOLD - 1).unwrap_or(u32::MAX);
                let untold = hello.period().mul_f64(0.75).saturating_mul(rounds);
                let sent_by = now.checked_sub(untold).unwrap_or(now);
                if scope.is_any_uncovered(from.address, sent_by) {
                    self.pending.missed(from.publisher.clone(), now);
                }
            }
            Heard::Anew => {
                shrink(&mut self.sizes, &run.charged, run.topics.len());
                run.topics.clear();
                self.pending.restarted(from.publisher.clone(), now);
            }
        }
    }
}
