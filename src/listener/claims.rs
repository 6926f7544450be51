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
            let is_ours = claim.owner == owner.as_str();
            if !is_ours && self.registered()?.contains(&claim.owner) {
                return Ok(Claim::Theirs(Topic::new(claim.owner)?));
            }
            // Ours by a try of which nobody knew whether it was made: written again, so that nobody takes it for a stray one.
            match self.0.write(&Write::set(CLAIMS, event, &value).version(row.version)) {
                Ok(_) if is_ours => return Ok(Claim::Ours),
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

    pub(super) fn remove(&self, events: &[Name]) -> Result<()> {
        self.0.delete_rows(CLAIMS, events).map(drop)
    }

    /// The topics of the listeners that are in the table.
    fn registered(&self) -> Result<HashSet<String>> {
        let rows = self.0.entries(LISTENERS, None);
        let members = rows.filter_map(|row| row.map(|row| Member::from_row(&row).ok()).transpose());
        members.map(|member| Ok(member?.address)).collect()
    }
}

/// Removes the claims that no notifier has confirmed. How long they are there is judged by versions: no two clocks are
/// compared.
#[derive(Debug, Default)]
pub(super) struct Sweep(HashMap<Name, (u64, Instant)>);

impl Sweep {
    /// Looks at all claims. Those of listeners that are gone say nothing, and are removed; but if their events were processed, they stay
    /// for the `retention`. So do those of our own that `is_stray`, by owner and event, says are not known here.
    pub(super) fn sweep(
        &mut self,
        claims: &Claims,
        is_stray: impl Fn(&str, &str) -> bool,
        retention: Duration,
        now: Instant,
    ) -> Result<()> {
        let rows = claims.0.entries(CLAIMS, None).collect::<Result<Vec<Row>>>()?;
        // Read after the claims: whoever has claimed something was registered before.
        let registered = claims.registered()?;
        let mut seen = HashMap::new();
        for row in rows {
            let claim = Value::from_row(&row).ok();
            let is_registered = claim.as_ref().is_some_and(|claim| registered.contains(&claim.owner));
            if is_registered && !claim.as_ref().is_some_and(|claim| is_stray(&claim.owner, &row.key)) {
                continue;
            }
            let says_nothing = !is_registered && claim.is_some_and(|claim| !claim.done);
            let since = match self.0.get(&row.key) {
                Some((version, since)) if *version == row.version => *since,
                _ => now,
            };
            if !says_nothing && now.saturating_duration_since(since) < retention {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::memory::MemoryStore;

    const RETENTION: Duration = Duration::from_secs(60);

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn claims() -> (Claims, Arc<dyn Store>) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        (Claims::new(Arc::clone(&store)), store)
    }

    fn register(store: &Arc<dyn Store>, name: &str) {
        let member = format!(r#"{{"epoch":1,"address":"{name}"}}"#);
        store.create(LISTENERS, name, &member, &Topic::ALL).unwrap();
    }

    fn left(store: &Arc<dyn Store>) -> Vec<String> {
        store.keys(CLAIMS, None).map(|key| key.unwrap().to_string()).collect()
    }

    #[test]
    fn an_event_has_one_owner_until_that_is_gone() {
        let (claims, store) = claims();
        let (a, b) = (topic("a"), topic("b"));
        ["a", "b"].iter().for_each(|name| register(&store, name));
        assert_eq!(claims.claim("e", &a).unwrap(), Claim::Ours);
        assert_eq!(claims.claim("e", &b).unwrap(), Claim::Theirs(a.clone()));
        assert_eq!(claims.claim("e", &a).unwrap(), Claim::Ours);
        store.delete(LISTENERS, "a").unwrap();
        assert_eq!(claims.claim("e", &b).unwrap(), Claim::TakenOver);
        assert_eq!(claims.claim("e", &a).unwrap(), Claim::Theirs(b.clone()));
        // It has ended cleanly.
        claims.mark_done("e", &b).unwrap();
        store.delete(LISTENERS, "b").unwrap();
        assert_eq!(claims.claim("e", &a).unwrap(), Claim::Done(b));
        claims.remove(&["e".into(), "missing".into()]).unwrap();
        claims.mark_done("e", &a).unwrap();
        assert_eq!(claims.claim("e", &a).unwrap(), Claim::Ours);
    }

    #[test]
    fn what_nobody_confirms_is_removed() {
        let (claims, store) = claims();
        let (a, gone) = (topic("a"), topic("gone"));
        register(&store, "a");
        for event in ["known", "stray"] {
            claims.claim(event, &a).unwrap();
        }
        claims.claim("lost", &gone).unwrap();
        claims.claim("done", &gone).unwrap();
        claims.mark_done("done", &gone).unwrap();
        store.create(CLAIMS, "malformed", "?", &Topic::ALL).unwrap();
        let mut sweep = Sweep::default();
        let start = Instant::now();
        let mut look = |after: Duration| {
            let is_stray = |owner: &str, event: &str| owner == "a" && event == "stray";
            sweep.sweep(&claims, is_stray, RETENTION, start + after).unwrap();
            left(&store)
        };
        assert_eq!(look(Duration::ZERO), ["done", "known", "malformed", "stray"]);
        assert_eq!(look(RETENTION / 2), ["done", "known", "malformed", "stray"]);
        // It was claimed again in between.
        claims.claim("stray", &a).unwrap();
        assert_eq!(look(RETENTION), ["known", "stray"]);
        assert_eq!(look(RETENTION * 2), ["known"]);
    }
}
