//! State of one run of a publisher.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Counters;
use super::sequence::Sequence;
use crate::error::{Error, ErrorKind};
use crate::update::{DbUpdate, Name, Topic};

/// One run of a publisher: from its start to its end.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) epoch: u64,
    /// The listen address through which the run is heard.
    pub(super) address: Name,
    /// Another one through which it was heard since.
    pub(super) also: Option<Name>,
    /// The address whose budget the run counts against.
    pub(super) charged: Name,
    pub(super) state: RunState,
    pub(super) began: Instant,
    /// It has answered a question at its address.
    pub(super) has_answered: bool,
    /// That another publisher has its id was reported.
    pub(super) has_clashed: bool,
    /// When something was last received from the run.
    pub(super) heard: Instant,
    /// Silence before this time does not count.
    excused: Instant,
    /// The interval of its hellos; `None` if it never sent one.
    pub(super) period: Option<Duration>,
    pub(super) rounds: Rounds,
    pub(super) topics: HashMap<Topic, Sequence<DbUpdate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    /// Nothing was heard for too long, or the address was lost; this was reported.
    Silent,
    /// The address was unregistered.
    Left,
    /// The run said goodbye at this time.
    Gone(Instant),
    /// Another run of the same publisher began at this time, without a goodbye of this one.
    Replaced(Instant),
}

/// The hellos that have come. A round of hellos is one or more messages, and a topic is named in several rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The last round that came whole.
    whole: u64,
    /// The current round, and how many of its parts have come.
    current: (u64, u32),
    /// The last round of a publisher that seems to count anew, and the number of such rounds in a row.
    anew: (u64, u32),
}

/// Outcome of a part of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing is missing.
    Expected,
    /// Too many rounds in a row lack a part, so a topic may have been named only in missing parts.
    Missed,
    /// The publisher counts anew within one run.
    Anew,
}

/// Number of consecutive rounds, all below those heard before, that show that a publisher counts anew.
const ANEW: u32 = 8;

/// How long a run that said goodbye, or was replaced, is remembered: its messages may come late.
const REMEMBER_GONE: Duration = Duration::from_secs(60);
/// How long a silent run is remembered.
const REMEMBER_SILENT: Duration = Duration::from_secs(600);
/// How long a run that sends no hellos is remembered.
const REMEMBER_OTHER: Duration = Duration::from_secs(3600);

/// Maximum of errors that wait to be reported.
const MOST_ERRORS: usize = 16;

/// Lower bound of a hello period: a process may be without a processor for about as long.
const MIN_PERIOD: Duration = Duration::from_millis(50);

impl Run {
    pub(super) fn new(epoch: u64, address: Name, now: Instant) -> Run {
        Run {
            epoch,
            charged: address.clone(),
            address,
            also: None,
            state: RunState::Running,
            began: now,
            has_answered: false,
            has_clashed: false,
            heard: now,
            excused: now,
            period: None,
            rounds: Rounds::default(),
            topics: HashMap::new(),
        }
    }

    /// The number of entries: the run and its sequences.
    pub(super) fn size(&self) -> usize {
        1 + self.topics.len()
    }

    /// When the run will have been silent for `times` hello periods; `None` if it is not expected to send anything.
    pub(super) fn silent_at(&self, times: f64) -> Option<Instant> {
        let period = self.period.filter(|_| self.state == RunState::Running)?;
        Some(self.heard.max(self.excused) + period.max(MIN_PERIOD).mul_f64(times))
    }

    /// Excuses silence, once, if the process could not read for a large part of a period (`late`).
    pub(super) fn excuse(&mut self, late: Duration, now: Instant) {
        if self.excused <= self.heard && self.period.is_some_and(|period| late > period.max(MIN_PERIOD) / 2) {
            self.excused = now;
        }
    }

    /// True if the run can be forgotten.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let remember = match self.state {
            RunState::Gone(_) | RunState::Left | RunState::Replaced(_) => REMEMBER_GONE,
            RunState::Silent => REMEMBER_SILENT,
            RunState::Running if self.period.is_some() => return false,
            RunState::Running => REMEMBER_OTHER,
        };
        now.saturating_duration_since(self.heard) > remember
    }
}

impl Rounds {
    /// True if all parts of this round have come.
    pub(super) fn is_whole(&self, round: u64) -> bool {
        self.whole == round
    }

    /// Counts a part of a round; a topic is named in `told` rounds.
    pub(super) fn hear(&mut self, round: u64, part: u32, is_last: bool, told: u64) -> Heard {
        let (current, parts) = self.current;
        if round < current {
            // A publisher that counts anew sends consecutive rounds. Late rounds of another path stand between newer
            // ones, or catch up.
            let (before, count) = self.anew;
            self.anew = match round.checked_sub(before) {
                Some(0) => (round, count),
                Some(1) => (round, count + 1),
                _ => (round, 1),
            };
            if self.anew.1 < ANEW {
                return Heard::Expected;
            }
            *self = Rounds {
                whole: round,
                current: (round, 0),
                anew: (0, 0),
            };
            return Heard::Anew;
        }
        self.anew = (0, 0);
        let parts = if round > current { 0 } else { parts };
        self.current = (round, parts.max(if part == parts { part + 1 } else { 0 }));
        let missed = round.saturating_sub(self.whole).saturating_sub(1) >= told;
        if missed {
            self.whole = round - 1;
        }
        if is_last && part == parts {
            self.whole = round;
        }
        if missed { Heard::Missed } else { Heard::Expected }
    }
}

/// Counts two publishers of one id, and reports them unless many are to be reported: a peer can make up any number.
pub(super) fn clashed(publisher: &Name, counters: &mut Counters, errors: &mut Vec<Error>) {
    counters.clashes += 1;
    if errors.len() < MOST_ERRORS {
        let context = format!("two publishers at a time use the id {publisher}: give each its own");
        errors.push(Error::new(ErrorKind::InvalidInput, context));
    }
}
