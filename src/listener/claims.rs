//! The table of claims: one row for each event, under its id, with the run that processes it, and then the mark that it
//! is processed.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tables::{CLAIMS, LISTENERS};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Member;
use crate::store::{Row, Store, Write, Written};
use crate::update::{Name, Topic};

#[derive(Debug, Clone)]
pub(super) struct Claims(Arc<dyn Store>);

/// The writes of one step of the store.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Processed events, with the topic of the run that claimed them, and the version of the claim.
    pub(super) marks: Vec<(Name, Topic, u64)>,
    /// Events to claim.
    pub(super) claims: Vec<Name>,
    /// Claims to give up, in this version.
    pub(super) releases: Vec<(Name, u64)>,
    /// Events whose claims to remove.
    pub(super) removals: Vec<Name>,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.claims.is_empty() && self.releases.is_empty() && self.removals.is_empty()
    }
}

/// The outcome of a [`Step`], in its order.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) marks: Vec<Result<Claim>>,
    pub(super) claims: Vec<Result<Claim>>,
}

/// The owner of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// The asking run, with the version of the claim.
    Ours(u64),
    /// The asking run, after a listener that is gone, with the version of the claim.
    TakenOver(u64),
    /// Another listener, which may be processing it.
    Theirs(Topic),
    /// The listener that has marked it as processed.
    Done(Topic),
}

/// The contents of a row.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Value {
    /// The topic of the listener, which identifies the run.
    pub(super) owner: String,
    #[serde(default)]
    pub(super) done: bool,
}

impl Value {
    pub(super) fn from_row(row: &Row) -> Result<Value> {
        serde_json::from_str(&row.value).map_err(|e| {
            let context = format!("row {:?} of table {CLAIMS:?}", row.key);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })
    }

    fn text(owner: &Topic, done: bool) -> Result<String> {
        let value = Value {
            owner: owner.to_string(),
            done,
        };
        serde_json::to_string(&value)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "cannot write a claim").with_source(e))
    }
}

/// The most tries to write a row that others write between two looks at it.
const TRIES: usize = 4;

impl Claims {
    pub(super) fn new(store: Arc<dyn Store>) -> Claims {
        Claims(store)
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.0
    }

    /// Takes a step for the run of this topic: one step of the store, and a few more calls for each event that another
    /// listener has or had.
    ///
    /// # Errors
    /// The store's errors. Any part of the step may have been done then.
    pub(super) fn take(&self, step: &Step, run: &Topic) -> Result<Outcome> {
        let claimed = Value::text(run, false)?;
        let done = step.marks.iter().map(|(_, owner, _)| Value::text(owner, true));
        let done = done.collect::<Result<Vec<_>>>()?;
        let marks = step.marks.iter().zip(&done);
        let marks = marks.map(|((event, _, version), done)| Write::set(CLAIMS, event, done).if_version(*version));
        let claims = step.claims.iter().map(|event| Write::create(CLAIMS, event, &claimed));
        let releases = step.releases.iter();
        let releases = releases.map(|(event, version)| Write::delete(CLAIMS, event).if_version(*version));
        let removals = step.removals.iter().map(|event| Write::delete(CLAIMS, event));
        let writes: Vec<_> = marks.chain(claims).chain(releases).chain(removals).collect();
        let mut results = self.0.write_each(&writes)?.into_iter();
        let mut outcome = Outcome::default();
        for (event, owner, _) in &step.marks {
            let marked = match results.next() {
                Some(Ok(_)) => Ok(Claim::Done(owner.clone())),
                _ => of_one(self.mark(event, owner))?,
            };
            outcome.marks.push(marked);
        }
        // The registered listeners, read at most once before each claim that they decide.
        let mut registered = None;
        for event in &step.claims {
            let claim = match results.next() {
                Some(Ok(Written { version, .. })) => Ok(Claim::Ours(version)),
                _ => of_one(self.claim(event, run, &claimed, &mut registered))?,
            };
            outcome.claims.push(claim);
        }
        Ok(outcome)
    }

    /// Marks the event as processed by the run of this topic, though its claim has changed.
    fn mark(&self, event: &Name, owner: &Topic) -> Result<Claim> {
        let done = Value::text(owner, true)?;
        for _ in 0..TRIES {
            let written = match self.0.get(CLAIMS, event, None) {
                // The store has lost the claim.
                Err(e) if e.kind() == ErrorKind::NotFound => self.0.create(CLAIMS, event, &done, &Topic::ALL).map(drop),
                row => {
                    let row = row?;
                    let claim = Value::from_row(&row)?;
                    match (claim.done, claim.owner == owner.as_str()) {
                        (true, _) => return Ok(Claim::Done(Topic::new(claim.owner)?)),
                        (false, false) => return Ok(Claim::Theirs(Topic::new(claim.owner)?)),
                        (false, true) => {
                            let set = Write::set(CLAIMS, event, &done).if_version(row.version);
                            self.0.write(&set).map(drop)
                        }
                    }
                }
            };
            match written {
                Ok(()) => return Ok(Claim::Done(owner.clone())),
                Err(e) if e.is_overtaken() => {}
                Err(e) => return Err(e),
            }
        }
        Err(busy(event))
    }

    /// Claims an event that another listener has or had, unless that one is registered or has processed it.
    fn claim(
        &self,
        event: &Name,
        run: &Topic,
        claimed: &str,
        registered: &mut Option<HashSet<String>>,
    ) -> Result<Claim> {
        for _ in 0..TRIES {
            let row = match self.0.get(CLAIMS, event, None) {
                Err(e) if e.kind() == ErrorKind::NotFound => match self.0.create(CLAIMS, event, claimed, &Topic::ALL) {
                    Err(e) if e.is_overtaken() => continue,
                    created => return created.map(Claim::Ours),
                },
                row => row?,
            };
            let claim = Value::from_row(&row)?;
            if claim.done {
                return Ok(Claim::Done(Topic::new(claim.owner)?));
            }
            let is_ours = claim.owner == run.as_str();
            if !is_ours && self.is_registered(claim.owner.as_str(), registered)? {
                return Ok(Claim::Theirs(Topic::new(claim.owner)?));
            }
            // A claim by an unconfirmed try is written again, so that no sweep removes it as stray.
            match self
                .0
                .write(&Write::set(CLAIMS, event, claimed).if_version(row.version))
            {
                Ok(written) if is_ours => return Ok(Claim::Ours(written.version)),
                Ok(written) => return Ok(Claim::TakenOver(written.version)),
                Err(e) if e.is_overtaken() => {}
                Err(e) => return Err(e),
            }
        }
        Err(busy(event))
    }

    /// True if the owner of a claim that was just read is registered. It was registered before it claimed, so only a
    /// table read after the claim shows that it is gone; an older one shows only that it is present.
    fn is_registered(&self, owner: &str, known: &mut Option<HashSet<String>>) -> Result<bool> {
        if known.as_ref().is_some_and(|known| known.contains(owner)) {
            return Ok(true);
        }
        let is_there = |known: &mut HashSet<String>| known.contains(owner);
        self.registered().map(|now| is_there(known.insert(now)))
    }

    /// The topics of the registered listeners.
    pub(super) fn registered(&self) -> Result<HashSet<String>> {
        let rows = self.0.entries(LISTENERS, None);
        let members = rows.filter_map(|row| row.map(|row| Member::from_row(&row).ok()).transpose());
        members.map(|member| Ok(member?.address)).collect()
    }
}

/// Separates an error of one event from an outage.
fn of_one(claim: Result<Claim>) -> Result<Result<Claim>> {
    match claim {
        Err(e)
            if !matches!(
                e.kind(),
                ErrorKind::Malformed | ErrorKind::Conflict | ErrorKind::InvalidInput
            ) =>
        {
            Err(e)
        }
        claim => Ok(claim),
    }
}

fn busy(event: &str) -> Error {
    let context = format!("other listeners keep writing the claim of {event}");
    Error::new(ErrorKind::Conflict, context)
}

#[cfg(test)]
mod tests;
