//! Comparing a replica with the store.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use serde::Serialize;

use super::part::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::update::{Name, Topic};

/// A row that still differed from the store's after the replica had caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The table.
    pub table: Name,
    /// The row's key.
    pub key: Name,
    /// The version in the replica; `None` if there was no row.
    pub held: Option<u64>,
    /// The version in the store; `None` if there was no row. If the versions are equal, the values differ.
    pub stored: Option<u64>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |version: Option<u64>| version.map_or("no row".into(), |version| format!("version {version}"));
        let (held, stored) = (version(self.held), version(self.stored));
        write!(
            f,
            "table {:?} key {:?}: {held}, in the store {stored}",
            self.table, self.key
        )
    }
}

/// The number of looks at a row that differs. A row that is written constantly differs at times.
const LOOKS: usize = 3;

/// A key, with the held and the stored version and sum.
type Unequal = (Name, Option<(u64, u32)>, Option<(u64, u32)>);

/// Compares a table; calls `catch_up` before a row counts as different.
pub(super) fn compare(
    part: &Arc<dyn Part>,
    topics: &[Topic],
    store: &dyn Store,
    deadline: Instant,
    catch_up: impl Fn() -> Result<()>,
) -> Result<Vec<Difference>> {
    let mut suspects = HashSet::new();
    let held: BTreeSet<&Topic> = topics.iter().collect();
    let mut unseen: HashSet<Name> = part.keys(&|topic| held.contains(topic)).into_iter().collect();
    for topic in topics {
        for row in store.entries(part.name(), Some(topic)) {
            let row = row?;
            in_time(deadline)?;
            unseen.remove(&row.key);
            if part.stamp(&row.key) != Some((row.version, part.sum(&row.value))) {
                suspects.insert(row.key);
            }
        }
    }
    suspects.extend(unseen);
    // A difference that stays the same on both sides, look after look, is no change under way.
    let mut before: Option<Vec<Unequal>> = None;
    for _ in 0..LOOKS {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        catch_up()?;
        let mut now = Vec::new();
        for key in &suspects {
            in_time(deadline)?;
            let stored = match store.get(part.name(), key, None) {
                Ok(row) => part.holds(&row.topic).then(|| (row.version, part.sum(&row.value))),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
            let held = part.stamp(key);
            if held != stored {
                now.push((key.clone(), held, stored));
            }
        }
        if let Some(before) = &before {
            now.retain(|unequal| before.contains(unequal));
        }
        suspects = now.iter().map(|(key, ..)| key.clone()).collect();
        before = Some(now);
    }
    let difference = |(key, held, stored): Unequal| Difference {
        table: part.name().clone(),
        key,
        held: held.map(|(version, _)| version),
        stored: stored.map(|(version, _)| version),
    };
    Ok(before.unwrap_or_default().into_iter().map(difference).collect())
}

fn in_time(deadline: Instant) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Timeout, "comparing a replica with the store"))
}
