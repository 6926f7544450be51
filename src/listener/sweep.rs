//! Removes the claims that no notifier has confirmed. Their age is judged by versions, without comparing clocks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::claims::{Claims, Value};
use super::tables::CLAIMS;
use crate::error::Result;
use crate::store::{Row, Write};
use crate::update::Name;

/// When each removable claim was first seen in its current version.
#[derive(Debug, Default)]
pub(super) struct Sweep(HashMap<Name, (u64, Instant)>);

impl Sweep {
    /// Looks at all claims. Open claims of listeners that are gone are removed at once. Done claims stay for the
    /// `retention`, and so do this listener's own claims that are unknown here, according to `is_stray` of owner and
    /// event.
    pub(super) fn sweep(
        &mut self,
        claims: &Claims,
        is_stray: impl Fn(&str, &str) -> bool,
        retention: Duration,
        now: Instant,
    ) -> Result<()> {
        let rows = claims.store().entries(CLAIMS, None).collect::<Result<Vec<Row>>>()?;
        // Read after the claims: the owner of each was registered before.
        let registered = claims.registered()?;
        let mut seen = HashMap::new();
        let mut old = Vec::new();
        for row in rows {
            let claim = Value::from_row(&row).ok();
            let is_open = claim.as_ref().is_some_and(|claim| !claim.done);
            let is_registered = claim.as_ref().is_some_and(|claim| registered.contains(&claim.owner));
            let is_stray = || claim.as_ref().is_some_and(|claim| is_stray(&claim.owner, &row.key));
            if is_open && is_registered && !is_stray() {
                continue;
            }
            let since = match self.0.get(&row.key) {
                Some((version, since)) if *version == row.version => *since,
                _ => now,
            };
            let says_nothing = is_open && !is_registered;
            if says_nothing || now.saturating_duration_since(since) >= retention {
                old.push((row.key, row.version));
            } else {
                seen.insert(row.key, (row.version, since));
            }
        }
        self.0 = seen;
        let deletes = old
            .iter()
            .map(|(key, version)| Write::delete(CLAIMS, key).if_version(*version));
        let deletes: Vec<_> = deletes.collect();
        if deletes.is_empty() {
            return Ok(());
        }
        for result in claims.store().write_each(&deletes)? {
            match result {
                Err(e) if e.is_overtaken() => {}
                removed => drop(removed?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tables::LISTENERS;
    use super::*;
    use crate::store::Store;
    use crate::stores::memory::MemoryStore;
    use crate::update::Topic;

    const RETENTION: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_confirmed_is_removed() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let create = |table, key, value: &str| store.create(table, key, value, &Topic::ALL).unwrap();
        create(LISTENERS, "a", r#"{"epoch":1,"address":"a"}"#);
        let claim = |event, owner, done| {
            create(CLAIMS, event, &format!(r#"{{"owner":"{owner}","done":{done}}}"#));
        };
        claim("known", "a", false);
        claim("stray", "a", false);
        claim("lost", "gone", false);
        claim("done", "gone", true);
        claim("done here", "a", true);
        create(CLAIMS, "malformed", "?");
        let claims = Claims::new(Arc::clone(&store));
        let mut sweep = Sweep::default();
        let start = Instant::now();
        let mut look = |after: Duration| {
            let is_stray = |owner: &str, event: &str| owner == "a" && event == "stray";
            sweep.sweep(&claims, is_stray, RETENTION, start + after).unwrap();
            let left = store.keys(CLAIMS, None);
            left.map(|key| key.unwrap().to_string()).collect::<Vec<_>>()
        };
        let all = ["done", "done here", "known", "malformed", "stray"];
        assert_eq!(look(Duration::ZERO), all);
        assert_eq!(look(RETENTION / 2), all);
        // It was claimed again in between.
        store.set(CLAIMS, "stray", r#"{"owner":"a"}"#).unwrap();
        assert_eq!(look(RETENTION), ["known", "stray"]);
        assert_eq!(look(RETENTION * 2), ["known"]);
    }
}
