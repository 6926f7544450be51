//! Replicas that do not renew their rows. Replicas remove each other's rows, but the last one that is killed has none
//! beside it: so writers that wait for it remove its row, once its version was watched for its timeout, by one of them
//! or by several after one another. The times are their own; no two clocks are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::replicas::{Detail, REPLICAS, Rows, WATCHED};
use crate::error::{ErrorKind, Result};
use crate::store::{Store, Write};
use crate::update::{Name, Topic};

/// The versions of the rows that were watched, and for how long.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Times {
    watched: BTreeMap<Name, (u64, Duration)>,
}

impl Times {
    fn load(store: &dyn Store) -> Result<Times> {
        match store.get(REPLICAS, WATCHED, None) {
            Ok(row) => Ok(serde_json::from_str(&row.value).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Times::default()),
            Err(e) => Err(e),
        }
    }

    fn of(&self, id: &Name, version: u64) -> Duration {
        let watched = self.watched.get(id).filter(|(of, _)| *of == version);
        watched.map_or(Duration::ZERO, |(_, time)| *time)
    }
}

/// The rows that a writer watches.
pub(super) struct Unrenewed {
    /// Watched by others before this writer began. What they watch meanwhile is the same time.
    before: Times,
    now: Times,
    looked: Instant,
    /// When the store last took a write, or refused one.
    tried: Instant,
}

impl Unrenewed {
    pub(super) fn load(store: &dyn Store, now: Instant) -> Result<Unrenewed> {
        Ok(Unrenewed {
            before: Times::load(store)?,
            now: Times::default(),
            looked: now,
            tried: now,
        })
    }

    /// Takes the rows of the replicas that are waited for, and removes those whose owners are gone.
    pub(super) fn look<'a>(&mut self, store: &dyn Store, rows: impl Iterator<Item = (&'a Name, &'a Detail)> + Clone) {
        let now = Instant::now();
        let gone = self.gone(rows.clone(), now);
        let is_tried = !gone.is_empty() || self.is_to_be_tried(rows, now);
        if is_tried {
            self.tried = now;
            // While the store takes no writes nobody can renew, and that time does not count. Other writers may have
            // watched during it.
            if let Err(e) = store.allocate_unique_key(REPLICAS) {
                log::debug!("whether replicas can renew their rows: {e}");
                self.before = Times::default();
                self.now = Times::default();
                return;
            }
        }
        for (id, version) in gone {
            // Unless it was written since it was seen.
            match store.write(&Write::delete(REPLICAS, &id).if_version(version)) {
                Ok(_) => log::info!("the replica {id} has not renewed its row for its timeout: removed"),
                Err(e) => log::debug!("the row of the replica {id}, which is gone: {e}"),
            }
        }
    }

    /// True if a replica may soon count as gone, and it was not tried for a while whether it could renew.
    fn is_to_be_tried<'a>(&self, mut rows: impl Iterator<Item = (&'a Name, &'a Detail)>, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.tried);
        rows.any(|(id, row)| {
            let timeout = row.timeout();
            timeout.is_some_and(|timeout| self.now.of(id, row.version) > timeout / 2 && since > timeout / 4)
        })
    }

    /// The replicas that are gone, with the versions seen.
    fn gone<'a>(&mut self, rows: impl Iterator<Item = (&'a Name, &'a Detail)>, now: Instant) -> Vec<(Name, u64)> {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        let mut gone = Vec::new();
        for (id, row) in rows {
            // An older version of this library does not say.
            let Some(timeout) = row.timeout() else { continue };
            // Otherwise this process was stopped, and maybe the whole host.
            let is_watched = gap <= timeout / 2;
            match self.now.watched.get_mut(id) {
                Some((version, _)) if *version == row.version && !is_watched => {}
                Some((version, time)) if *version == row.version => *time += gap,
                _ => {
                    let before = self.before.of(id, row.version);
                    self.now.watched.insert(id.clone(), (row.version, before));
                }
            }
            if self.now.of(id, row.version) > timeout {
                gone.push((id.clone(), row.version));
            }
        }
        gone
    }

    /// Leaves the watched times to the next writer.
    pub(super) fn leave(&self, store: &dyn Store) {
        if let Err(e) = self.save(store) {
            log::debug!("how long replicas were watched: {e}");
        }
    }

    fn save(&self, store: &dyn Store) -> Result<()> {
        let stored = Times::load(store)?;
        let mut times = stored.clone();
        for (id, &(version, time)) in &self.now.watched {
            // Another writer may have watched it for longer.
            let time = time.max(stored.of(id, version));
            times.watched.insert(id.clone(), (version, time));
        }
        let there = Rows::read(store)?.there.into_iter();
        let there: BTreeSet<Name> = there.map(|(member, _)| member.id.into()).collect();
        times.watched.retain(|id, _| there.contains(id));
        let Ok(text) = serde_json::to_string(&times) else {
            return Ok(());
        };
        match store.set(REPLICAS, WATCHED, &text) {
            Err(e) if e.kind() == ErrorKind::NotFound => store.create(REPLICAS, WATCHED, &text, &Topic::ALL).map(drop),
            set => set.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Member;
    use crate::stores::memory::MemoryStore;
    #[cfg(feature = "testing")]
    use crate::testing::FaultyStore;

    fn row(version: u64) -> Detail {
        Detail {
            timeout_ms: Some(10_000),
            version,
            ..Detail::default()
        }
    }

    /// Looks at the row every second for this long; returns what is gone then.
    fn watch(writer: &mut Unrenewed, version: u64, seconds: u64) -> Vec<(Name, u64)> {
        let (id, row, start) = (Name::from("r"), row(version), writer.looked);
        let look = |second| writer.gone([(&id, &row)].into_iter(), start + Duration::from_secs(second));
        (0..=seconds).map(look).last().unwrap()
    }

    #[test]
    fn waits_after_one_another_add_up_and_those_at_one_time_do_not() {
        let store = MemoryStore::new();
        let member = serde_json::to_string(&Member {
            detail: serde_json::to_string(&row(1)).unwrap(),
            ..Member::default()
        });
        store.create(REPLICAS, "r", &member.unwrap(), &Topic::ALL).unwrap();
        let now = Instant::now();
        let wait = |version, seconds| {
            let mut writer = Unrenewed::load(&store, now).unwrap();
            let gone = watch(&mut writer, version, seconds);
            writer.save(&store).unwrap();
            gone
        };
        assert!(wait(1, 4).is_empty());
        let mut beside: Vec<_> = (0..5).map(|_| Unrenewed::load(&store, now).unwrap()).collect();
        for writer in &mut beside {
            assert!(watch(writer, 1, 4).is_empty());
            writer.save(&store).unwrap();
        }
        assert!(wait(1, 2).is_empty());
        assert_eq!(wait(1, 1), [("r".into(), 1)]);
        // A renewed row begins anew, and one that is gone is forgotten.
        assert!(wait(2, 10).is_empty());
        store.delete(REPLICAS, "r").unwrap();
        Unrenewed::load(&store, now).unwrap().save(&store).unwrap();
        assert_eq!(Times::load(&store).unwrap(), Times::default());
    }

    /// The time of an outage does not count, however long the row was watched before.
    #[cfg(feature = "testing")]
    #[test]
    fn no_row_is_removed_while_none_can_be_renewed() {
        let store = FaultyStore::new();
        store.create(REPLICAS, "r", "", &Topic::ALL).unwrap();
        let mut writer = Unrenewed::load(&store, Instant::now()).unwrap();
        let (id, row) = (Name::from("r"), row(1));
        let look = |writer: &mut Unrenewed| {
            writer.look(&store, [(&id, &row)].into_iter());
            store.get(REPLICAS, "r", None).is_ok()
        };
        assert_eq!(watch(&mut writer, 1, 11), [("r".into(), 1)]);
        store.fail(ErrorKind::Unavailable);
        look(&mut writer);
        store.mend();
        assert!(look(&mut writer));
        assert_eq!(writer.now.of(&id, 1), Duration::ZERO);
        // Without an outage it is gone.
        assert_eq!(watch(&mut writer, 1, 11), [("r".into(), 1)]);
        assert!(!look(&mut writer));
    }

    #[test]
    fn time_without_a_look_does_not_count() {
        let now = Instant::now();
        let mut writer = Unrenewed::load(&MemoryStore::new(), now).unwrap();
        let (id, row) = (Name::from("r"), row(1));
        for second in [1, 3_600, 3_604] {
            let at = now + Duration::from_secs(second);
            assert!(writer.gone([(&id, &row)].into_iter(), at).is_empty());
        }
        assert_eq!(writer.now.of(&id, 1), Duration::from_secs(4));
    }
}
