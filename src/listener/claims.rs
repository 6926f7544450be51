//! The table of claims: one row for each event, by its id, that says who processes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{CLAIMS, LISTENERS};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Member;
use crate::store::{Row, Store, Write};
use crate::update::{Name, Topic};

#[derive(Debug, Clone)]
pub(super) struct Claims(Arc<dyn Store>);

/// Who has an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// The one who asked, from now on.
    Ours,
    /// The one who asked, instead of one that is gone.
    TakenOver,
    /// This listener, which is registered.
    Theirs(Topic),
    /// This listener has processed it, and ended cleanly.
    Done(Topic),
}

/// What a row says.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    /// The topic of the listener, which tells its runs apart.
    owner: String,
    #[serde(default)]
    done: bool,
}

impl Value {
    fn from_row(row: &Row) -> Result<Value> {
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

/// Others may write the row between two looks at it; that does not go on for ever.
const TRIES: usize = 4;

impl Claims {
    pub(super) fn new(store: Arc<dyn Store>) -> Claims {
        Claims(store)
    }

    /// Claims the event for `owner`, unless somebody has it who is registered, or who has processed it.
    pub(super) fn claim(&self, event: &str, owner: &Topic) -> Result<Claim> {
        let value = Value::text(owner, false)?;
        for _ in 0..TRIES {
            match self.0.create(CLAIMS, event, &value, &Topic::ALL) {
                Ok(_) => return Ok(Claim::Ours),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
            let row = match self.0.get(CLAIMS, event, None) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                row => row?,
            };
            let claim = Value::from_row(&row)?;
            if claim.done {
                return Ok(Claim::Done(Topic::new(claim.owner)?));
            }
            // By a try of which nobody knew whether it was made.
            if claim.owner == owner.as_str() {
                return Ok(Claim::Ours);
            }
            if self.registered()?.contains(&claim.owner) {
                return Ok(Claim::Theirs(Topic::new(claim.owner)?));
            }
            match self.0.write(&Write::set(CLAIMS, event, &value).version(row.version)) {
                Ok(_) => return Ok(Claim::TakenOver),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        let context = format!("others write the claim of {event} all the time");
        Err(Error::new(ErrorKind::Conflict, context))
    }

    /// Says that the owner, who is about to end, has processed the event.
    pub(super) fn mark_done(&self, event: &str, owner: &Topic) -> Result<()> {
        let value = Value::text(owner, true)?;
        match self.0.set(CLAIMS, event, &value) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            set => set.map(drop),
        }
    }

    pub(super) fn remove(&self, event: &str) -> Result<()> {
        match self.0.delete(CLAIMS, event) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// The topics of the listeners that are in the table.
    fn registered(&self) -> Result<HashSet<String>> {
        let rows = self.0.entries(LISTENERS, None);
        let members = rows.filter_map(|row| row.map(|row| Member::from_row(&row).ok()).transpose());
        members.map(|member| Ok(member?.address)).collect()
    }
}

/// Removes the claims that no notifier has confirmed: of listeners that are gone, and those of our own that we do not know of. How long they are there is judged by versions:
/// no two clocks are compared.
#[derive(Debug, Default)]
pub(super) struct Sweep(HashMap<Name, (u64, Instant)>);

impl Sweep {
    /// Looks at all claims, and removes those that were the same for `retention`.
    /// `is_stray` tells, by owner and event, of those of our own.
    pub(super) fn sweep(
        &mut self,
        claims: &Claims,
        is_stray: impl Fn(&str, &str) -> bool,
        retention: Duration,
        now: Instant,
    ) -> Result<()> {
        let registered = claims.registered()?;
        let mut seen = HashMap::new();
        for row in claims.0.entries(CLAIMS, None) {
            let row = row?;
            let owner = Value::from_row(&row).map(|claim| claim.owner);
            if owner.is_ok_and(|owner| registered.contains(&owner) && !is_stray(&owner, &row.key)) {
                continue;
            }
            let since = match self.0.get(&row.key) {
                Some((version, since)) if *version == row.version => *since,
                _ => now,
            };
            if now.saturating_duration_since(since) < retention {
                seen.insert(row.key, (row.version, since));
                continue;
            }
            match claims.0.write(&Write::delete(CLAIMS, &row.key).version(row.version)) {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
                removed => drop(removed?),
            }
        }
        self.0 = seen;
        Ok(())
    }
}
