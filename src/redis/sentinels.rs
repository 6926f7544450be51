//! The joint answer of all Sentinels of a master. Pure: no connections, threads or clock.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

use super::node::Node;
use super::sentinel::Configuration;

/// The last answer of each Sentinel, and the newest configuration that any of them has named.
///
/// Each failover has a higher epoch than those before it, so an answer with a lower one than another is outdated.
pub(super) struct Sentinels {
    answers: Vec<Answer>,
    known: Option<Configuration>,
    /// The configuration that a majority names instead of the known one, and since when.
    older: Option<(Configuration, Instant)>,
    /// The masters that are named in one epoch, none by a majority.
    disputed: Vec<Node>,
}

struct Answer {
    /// The round of questions that it answers.
    round: u64,
    at: Instant,
    said: Result<Configuration, (ErrorKind, String)>,
}

/// The state of a round of questions.
#[derive(Debug)]
pub(super) enum Verdict {
    /// More answers are needed, at most until this time if one has come.
    Wait(Option<Instant>),
    Master(Node),
    Failed(Error),
}

/// How long others may take after the first answer; less if most have answered.
const GRACE: Duration = Duration::from_millis(250);

/// How long a majority has to name an older configuration until it counts: Sentinels that a failover has not reached
/// yet hear of it within seconds, but ones that were set up anew begin with epoch 0.
const SETTLED: Duration = Duration::from_secs(10);

impl Sentinels {
    /// This number of Sentinels, none of which has answered.
    pub(super) fn new(count: usize, now: Instant) -> Sentinels {
        let unasked = || Answer {
            round: 0,
            at: now,
            said: Err((ErrorKind::Unavailable, "it was not asked yet".to_owned())),
        };
        Sentinels {
            answers: (0..count).map(|_| unasked()).collect(),
            known: None,
            older: None,
            disputed: Vec::new(),
        }
    }

    /// Takes the answer of the Sentinel of this number, or the reason why there is none.
    pub(super) fn heard(&mut self, number: usize, round: u64, said: Result<Configuration>, now: Instant) {
        if let Some(answer) = self.answers.get_mut(number) {
            let said = said.map_err(|e| (e.kind(), e.to_string()));
            *answer = Answer { round, at: now, said };
            self.decide(now);
        }
    }

    /// True if this is the master as far as is known.
    pub(super) fn stands(&self, node: &Node) -> bool {
        self.master() == Some(node)
    }

    /// The master, if it is known and undisputed.
    pub(super) fn master(&self) -> Option<&Node> {
        let known = self.known.as_ref().map(|known| &known.master);
        known.filter(|_| self.disputed.is_empty())
    }

    /// The outcome of this round of questions.
    pub(super) fn verdict(&self, round: u64, now: Instant) -> Verdict {
        let fresh = || self.answers.iter().filter(|answer| answer.round >= round);
        let good = || fresh().filter(|answer| answer.said.is_ok());
        let end = good().map(|answer| answer.at + GRACE).min();
        let is_complete = fresh().count() == self.answers.len() || self.is_majority(good().count());
        if !is_complete && end.is_none_or(|end| now < end) {
            return Verdict::Wait(end);
        }
        match self.master() {
            Some(master) if end.is_some() => Verdict::Master(master.clone()),
            _ => Verdict::Failed(self.error()),
        }
    }

    fn error(&self) -> Error {
        if let [one, other, ..] = &*self.disputed {
            let context = format!("the Sentinels disagree: the master is {one} for some of them, {other} for others");
            return Error::new(ErrorKind::Unavailable, context);
        }
        let errors: Vec<_> = self.answers.iter().filter_map(|it| it.said.as_ref().err()).collect();
        let kind = match errors.iter().all(|(kind, _)| *kind == ErrorKind::Denied) {
            true => ErrorKind::Denied,
            false => ErrorKind::Unavailable,
        };
        let texts: Vec<_> = errors.iter().map(|(_, text)| &**text).collect();
        Error::new(kind, "no Sentinel names the master").with_source(texts.join("; "))
    }

    fn is_majority(&self, count: usize) -> bool {
        count > self.answers.len() / 2
    }

    fn said(&self) -> impl Iterator<Item = &Configuration> {
        self.answers.iter().filter_map(|answer| answer.said.as_ref().ok())
    }

    /// The configuration that most Sentinels name.
    fn of_majority(&self) -> Option<Configuration> {
        let count = |wanted: &&Configuration| self.is_majority(self.said().filter(|said| said == wanted).count());
        self.said().find(count).cloned()
    }

    fn decide(&mut self, now: Instant) {
        let Some(epoch) = self.said().map(|said| said.epoch).max() else {
            return;
        };
        let mut newest: Vec<_> = self.said().filter(|said| said.epoch == epoch).cloned().collect();
        newest.sort_by(|one, other| one.master.cmp(&other.master));
        newest.dedup();
        self.disputed.clear();
        let is_outdated = |known: &Configuration| {
            epoch < known.epoch || (epoch == known.epoch && !newest.iter().any(|said| said.master == known.master))
        };
        if self.known.as_ref().is_some_and(is_outdated) {
            return self.weigh(now);
        }
        self.older = None;
        match (&*newest, self.of_majority()) {
            ([one], _) => self.known = Some(one.clone()),
            (_, Some(one)) if one.epoch == epoch => self.known = Some(one),
            _ => self.disputed = newest.into_iter().map(|said| said.master).collect(),
        }
    }

    /// No Sentinel names the known configuration any more.
    fn weigh(&mut self, now: Instant) {
        self.older = match (self.of_majority(), self.older.take()) {
            (None, _) => None,
            (Some(said), Some((before, since))) if said == before => match now.duration_since(since) >= SETTLED {
                true => {
                    self.known = Some(said);
                    None
                }
                false => Some((said, since)),
            },
            (Some(said), _) => Some((said, now)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(epoch: u64, host: &str) -> Result<Configuration> {
        Ok(Configuration {
            epoch,
            master: node(host),
        })
    }

    fn node(host: &str) -> Node {
        Node {
            host: host.into(),
            port: 1,
        }
    }

    fn down(kind: ErrorKind) -> Result<Configuration> {
        Err(Error::new(kind, "down"))
    }

    fn master(sentinels: &Sentinels, round: u64, now: Instant) -> String {
        match sentinels.verdict(round, now) {
            Verdict::Master(node) => node.host,
            Verdict::Wait(_) => "wait".into(),
            Verdict::Failed(e) => format!("{:?}", e.kind()),
        }
    }

    #[test]
    fn an_answer_of_most_is_enough_and_of_one_after_a_while() {
        let now = Instant::now();
        let mut three = Sentinels::new(3, now);
        assert_eq!(master(&three, 1, now), "wait");
        three.heard(0, 1, said(1, "a"), now);
        assert_eq!(master(&three, 1, now), "wait");
        assert_eq!(master(&three, 1, now + GRACE), "a");
        three.heard(1, 1, said(1, "a"), now);
        assert_eq!(master(&three, 1, now), "a");
        // Not for a later question.
        assert_eq!(master(&three, 2, now + GRACE), "wait");
        three.heard(0, 2, down(ErrorKind::Transport), now);
        three.heard(1, 2, down(ErrorKind::Denied), now);
        assert_eq!(master(&three, 2, now + GRACE), "wait");
        three.heard(2, 2, said(1, "a"), now);
        assert_eq!(master(&three, 2, now), "a");
    }

    #[test]
    fn without_an_answer_there_is_an_error() {
        let now = Instant::now();
        let mut two = Sentinels::new(2, now);
        two.heard(0, 1, down(ErrorKind::Denied), now);
        two.heard(1, 1, down(ErrorKind::Transport), now);
        assert_eq!(master(&two, 1, now), "Unavailable");
        two.heard(1, 1, down(ErrorKind::Denied), now);
        assert_eq!(master(&two, 1, now), "Denied");
    }

    #[test]
    fn the_newest_configuration_counts_and_no_older_one_after_it() {
        let now = Instant::now();
        let mut three = Sentinels::new(3, now);
        three.heard(0, 1, said(3, "old"), now);
        three.heard(1, 1, said(3, "old"), now);
        assert_eq!(master(&three, 1, now), "old");
        // One is enough.
        three.heard(2, 1, said(4, "new"), now);
        assert_eq!(master(&three, 1, now), "new");
        assert!(three.stands(&node("new")) && !three.stands(&node("old")));
        // Also if it is gone, and most have not heard of the failover.
        three.heard(2, 2, down(ErrorKind::Transport), now);
        for seconds in 0..9 {
            let now = now + Duration::from_secs(seconds);
            for number in 0..2 {
                three.heard(number, 2, said(3, "old"), now);
            }
            assert_eq!(master(&three, 2, now), "new");
        }
        // One that hears of it begins the time anew.
        let now = now + Duration::from_secs(9);
        three.heard(0, 2, said(4, "new"), now);
        three.heard(0, 2, said(3, "old"), now);
        three.heard(1, 2, said(3, "old"), now + SETTLED / 2);
        assert_eq!(master(&three, 2, now), "new");
    }

    /// They were set up anew.
    #[test]
    fn what_most_say_for_long_counts_whatever_its_epoch() {
        let now = Instant::now();
        let mut three = Sentinels::new(3, now);
        three.heard(0, 1, said(7, "a"), now);
        three.heard(0, 1, said(0, "b"), now);
        assert_eq!(master(&three, 1, now + GRACE), "a");
        let later = now + 2 * SETTLED;
        three.heard(0, 1, said(0, "b"), later);
        assert_eq!(master(&three, 1, later + GRACE), "a");
        three.heard(1, 1, said(0, "b"), later);
        three.heard(1, 1, said(0, "b"), later + SETTLED);
        assert_eq!(master(&three, 1, later), "b");
        three.heard(2, 1, said(1, "c"), later);
        assert_eq!(master(&three, 1, later), "c");
    }

    #[test]
    fn two_masters_in_one_epoch_are_named_unless_most_agree() {
        let now = Instant::now();
        let mut two = Sentinels::new(2, now);
        two.heard(0, 1, said(0, "a"), now);
        two.heard(1, 1, said(0, "b"), now);
        let Verdict::Failed(e) = two.verdict(1, now) else {
            panic!("no error")
        };
        assert!(e.to_string().contains("a:1") && e.to_string().contains("b:1"), "{e}");
        assert!(!two.stands(&node("a")) && !two.stands(&node("b")));
        let mut three = Sentinels::new(3, now);
        three.heard(0, 1, said(0, "a"), now);
        three.heard(1, 1, said(0, "b"), now);
        three.heard(2, 1, said(0, "b"), now);
        assert_eq!(master(&three, 1, now), "b");
    }
}
