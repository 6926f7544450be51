//! The promises, checked on a [`Play`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{Kind, Made, Play, TIMES, Told, key, name, place};
use crate::replica::row::{RowChange, Step};

impl Play {
    pub(super) fn tell(&mut self, step: Option<Step<u64>>) {
        let Some(step) = step else { return };
        note(&mut self.told, &step);
        match self.untold.get_mut(&step.key) {
            Some(earlier) => drop(earlier.join(step)),
            None => drop(self.untold.insert(step.key.clone(), step)),
        }
        if self.chance.u8(0..8) == 0 {
            self.tell_late();
        }
    }

    fn tell_late(&mut self) {
        let steps = std::mem::take(&mut self.untold).into_values();
        steps.for_each(|step| note(&mut self.told_late, &step));
    }

    /// Checks that positions and proofs are true.
    pub(super) fn check_laws(&self) -> Result<(), String> {
        // Without versions in the store, a late update cannot be distinguished from a new one.
        if self.went_back || self.kind == Kind::Plain {
            return Ok(());
        }
        for &of in &self.held {
            let topic = name(of);
            let position = self.core.position(&topic).map_or(0, |position| position.version);
            let proven = self.core.proven(&topic);
            for made in self.made.iter().filter(|made| made.topic == of) {
                let is_promised = made.version <= position || proven.is_some_and(|proven| made.at < proven);
                if is_promised && !self.includes(made) {
                    return Err(format!("{made:?} is missing; position {position}, proven {proven:?}"));
                }
            }
        }
        Ok(())
    }

    /// True if the row is as this write left it, or newer.
    fn includes(&self, made: &Made) -> bool {
        let held = self.core.rows.get(&key(made.key));
        // If the row had another topic in between, that topic's position may be behind.
        match held.filter(|held| *held.topic() == name(made.topic)) {
            Some(held) => held.version() >= made.version,
            None => {
                let later = |other: &&Made| other.key == made.key && other.version >= made.version;
                self.made.iter().filter(later).any(|other| !other.is_there)
            }
        }
    }

    /// Ends all writes, and lets everything under way arrive.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.is_away = false;
        self.slowness = 60;
        // Updates still under way arrive; they may be from before the store went back.
        self.pass(Duration::from_secs(2))?;
        // Time for a check that fell into that time, the next one, and the longest pause after an outage.
        self.pass(TIMES.check_interval * 2 + TIMES.max_backoff + Duration::from_secs(3))
    }

    pub(super) fn judge(&mut self) -> Result<(), String> {
        let held = self.core.rows.decoded.iter();
        let held: BTreeMap<_, _> = held.map(|row| (place(&row.key), (row.version, row.row))).collect();
        let wanted = self.store.rows.iter().filter(|(_, row)| self.held.contains(&row.topic));
        let wanted: BTreeMap<_, _> = wanted.map(|(key, row)| (*key, (row.version, row.value))).collect();
        if held != wanted {
            return Err(format!("C7: held {held:?}, stored {wanted:?}"));
        }
        if !self.core.is_synced() {
            return Err("not synced".into());
        }
        if !self.went_back && self.core.counts.went_back > 0 {
            return Err("the store did not go back".into());
        }
        self.tell_late();
        for (key, told) in self.told.iter().chain(&self.told_late) {
            let last = self
                .judge_row(told)
                .map_err(|wrong| format!("C8: key {key}: {wrong}: {told:?}"))?;
            if last != held.get(&place(key)).copied() {
                return Err(format!("C8: key {key}: last told {last:?}: {told:?}"));
            }
        }
        if self.told.len() < held.len() {
            return Err("C8: a row was not told".into());
        }
        Ok(())
    }

    /// Checks a row's reported changes against C8; returns its last state.
    fn judge_row(&self, told: &[RowChange<u64>]) -> Result<Option<(u64, u64)>, String> {
        let mut state: Option<(u64, u64)> = None;
        let mut version = 0;
        for change in told {
            let next = match (change, state) {
                (RowChange::Added { new }, None) => Some((new.version, new.row)),
                (RowChange::Changed { old, new }, Some(state))
                    if (old.version, old.row) == state
                        && (new.version, new.row, &new.topic) != (old.version, old.row, &old.topic) =>
                {
                    Some((new.version, new.row))
                }
                (RowChange::Removed { old: Some(old), .. }, Some(state)) if (old.version, old.row) == state => None,
                _ => return Err(format!("{change:?} after {state:?}")),
            };
            // Removing a topic removes its rows at their own versions; adding it again brings them back.
            let may_repeat = matches!(change, RowChange::Added { .. });
            let is_ordered = !self.went_back && self.kind != Kind::Plain;
            if is_ordered
                && (change.version() < version || change.version() == version && !may_repeat && next.is_some())
            {
                return Err(format!("version {} after {version}", change.version()));
            }
            version = change.version();
            state = next;
        }
        Ok(state)
    }

    pub(super) fn counted(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.core.counts;
        [
            ("applied", counts.applied),
            ("old", counts.old),
            ("unversioned", counts.unversioned),
            ("checks", counts.checks),
            ("catch_ups", counts.catch_ups),
            ("changes", counts.changes),
            ("listings", counts.listings),
            ("listed", counts.listed),
            ("went_back", counts.went_back),
            ("failures", counts.failures),
        ]
        .into()
    }
}

fn note(told: &mut Told, step: &Step<u64>) {
    for change in step.told() {
        told.entry(change.key().clone()).or_default().push(change);
    }
}
