//! The promises of replicas, C7 and C8.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::super::history::{Change, Event, History, Kind, Row, Time};
use super::promises::{missing, was_killed};
use super::{Deadline, Histories, Place, Violation};

/// C7: in time, a replica has exactly the store's rows of its topics.
pub(crate) fn kept(histories: &Histories, deadline: Deadline) -> Vec<Violation> {
    let ended = histories.programs.iter().filter(|program| !was_killed(program));
    ended
        .flat_map(|program| kept_by(program, &histories.stored, deadline))
        .collect()
}

fn kept_by(program: &History, store: &BTreeMap<Row, Change>, deadline: Deadline) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut topics = BTreeSet::new();
    let mut settled = None;
    for (index, line) in program.lines.iter().enumerate() {
        match &line.event {
            Event::Registered(topic) => drop(topics.insert(&**topic)),
            Event::Unregistered(topic) => drop(topics.remove(&**topic)),
            Event::Settled { since, .. } => settled = Some((index, *since)),
            _ => {}
        }
    }
    let Some((index, since)) = settled else {
        return vec![missing(program, "C7")];
    };
    let ended = rows_of(program);
    let rows: BTreeSet<_> = store.keys().chain(ended.keys()).collect();
    for row in rows {
        let stored = store.get(row).filter(|change| topics.contains(&*change.topic));
        let (stored, ended) = (stored.map(|change| change.version), ended.get(row).copied());
        if stored != ended {
            violations.push(Violation::Diverged {
                program: program.name.clone(),
                row: row.clone(),
                stored,
                ended,
            });
        }
    }
    if since > deadline.0 {
        violations.push(Violation::Late {
            settled: Place::new(program, index),
            by: since - deadline.0,
        });
    }
    violations
}

/// The versions of a replica's rows at its end.
fn rows_of(program: &History) -> BTreeMap<Row, u64> {
    let rows = program.lines.iter().filter_map(|line| match &line.event {
        Event::Row(change) => Some((change.row(), change.version)),
        _ => None,
    });
    rows.collect()
}

/// The row changes that a replica has reported.
#[derive(Debug, Default)]
pub(crate) struct Told {
    rows: BTreeMap<Row, Last>,
    /// When topics were unregistered, in changes.
    unregistered: HashMap<String, u64>,
    changes: u64,
}

/// The last reported change of a row.
#[derive(Debug)]
struct Last {
    version: u64,
    is_there: bool,
    /// When its last state was reported, counted in changes.
    at: u64,
}

impl Told {
    /// Takes a change. Returns the last reported version as an error if the change does not follow from it.
    pub(crate) fn take(&mut self, kind: Kind, change: &Change, old: Option<u64>) -> Result<(), Option<u64>> {
        self.changes += 1;
        let last = self.rows.get(&change.row());
        let known = last.filter(|last| last.is_there).map(|last| last.version);
        // A row of a topic that comes back is reported again as it was.
        let came_back = |last: &Last| self.unregistered.get(&change.topic).is_some_and(|at| *at >= last.at);
        let is_newer = last.is_none_or(|last| change.version > last.version || came_back(last));
        let is_right = match kind {
            Kind::Added => known.is_none() && is_newer,
            Kind::Changed => known.is_some() && is_newer,
            // If only the absence of a row was seen, the version is that of its last state.
            Kind::Removed => known.is_some_and(|known| change.version >= known),
        };
        let told = last.map(|last| last.version);
        let is_there = kind != Kind::Removed;
        let at = last.filter(|_| !is_there).map_or(self.changes, |last| last.at);
        let version = change.version;
        self.rows.insert(change.row(), Last { version, is_there, at });
        match is_right && old == known {
            true => Ok(()),
            false => Err(told),
        }
    }

    fn unregister(&mut self, topic: &str) {
        self.unregistered.insert(topic.into(), self.changes);
    }

    /// The versions of the present rows.
    pub(crate) fn rows(&self) -> BTreeMap<Row, u64> {
        let there = self.rows.iter().filter(|(_, last)| last.is_there);
        there.map(|(row, last)| (row.clone(), last.version)).collect()
    }
}

/// C8: for each row `Added` is reported first, then changes in the order of versions, each once, with the last reported
/// state as the old one; the last change is the replica's state at its end.
pub(crate) fn told_right(histories: &Histories) -> Vec<Violation> {
    histories.programs.iter().flat_map(told_by).collect()
}

fn told_by(program: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut told = Told::default();
    for (index, line) in program.lines.iter().enumerate() {
        match &line.event {
            Event::Unregistered(topic) => told.unregister(topic),
            Event::RowChange { kind, change, old } => {
                if let Err(last) = told.take(*kind, change, *old) {
                    let told = Place::new(program, index);
                    violations.push(Violation::Untrue { told, last });
                }
            }
            _ => {}
        }
    }
    if was_killed(program)
        || !program
            .lines
            .iter()
            .any(|line| matches!(line.event, Event::Settled { .. }))
    {
        return violations;
    }
    let (told, ended) = (told.rows(), rows_of(program));
    let rows: BTreeSet<_> = told.keys().chain(ended.keys()).collect();
    for row in rows {
        let (told, ended) = (told.get(row).copied(), ended.get(row).copied());
        if told != ended {
            violations.push(Violation::Untold {
                program: program.name.clone(),
                row: row.clone(),
                told,
                ended,
            });
        }
    }
    violations
}

/// A replica's report of its staleness, and its rows at that time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// For each topic, the reported time up to which nothing is missing.
    pub(crate) since: BTreeMap<String, Time>,
    /// The rows that it had after that.
    pub(crate) rows: Vec<Change>,
}

/// C7: staleness is never understated: every change stored before the time up to which nothing is missing is there.
/// Returns the missing changes, each with the version that the replica had.
pub(crate) fn understated(writers: &[History], proofs: &[Proof]) -> Vec<(Change, Option<u64>)> {
    let lines = writers.iter().flat_map(|writer| &writer.lines);
    let stored = lines.filter_map(|line| match &line.event {
        Event::Stored(change) => Some((line.at, change)),
        _ => None,
    });
    let mut stored: Vec<_> = stored.collect();
    stored.sort_by_key(|(at, _)| *at);
    let mut deleted: HashMap<Row, u64> = HashMap::new();
    for (_, change) in stored.iter().filter(|(_, change)| change.deleted) {
        let newest = deleted.entry(change.row()).or_default();
        *newest = change.version.max(*newest);
    }
    let mut missing = Vec::new();
    for proof in proofs {
        let held: HashMap<Row, u64> = proof.rows.iter().map(|row| (row.row(), row.version)).collect();
        let last = proof.since.values().max().copied().unwrap_or(0);
        let known = stored.partition_point(|(at, _)| *at < last);
        for (at, change) in &stored[..known] {
            if proof.since.get(&change.topic).is_none_or(|since| at >= since) {
                continue;
            }
            let row = change.row();
            let has = held.get(&row).or_else(|| deleted.get(&row)).copied();
            if has.is_none_or(|version| version < change.version) {
                missing.push(((*change).clone(), has));
            }
        }
    }
    missing
}
