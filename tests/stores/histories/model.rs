//! A table as it should be.

use std::collections::BTreeMap;

use tablecast::store::{Changes, Page, Row, StoredChange, TableVersion, Write, WriteOp, Written};
use tablecast::{ErrorKind, Result, Topic};

use super::Handle;
use crate::random::Random;
use crate::suite::all;

#[derive(Clone)]
pub(super) struct Table {
    pub(super) name: String,
    /// The number of writes for which a delete is remembered.
    remembered: u64,
    pub(super) exists: bool,
    pub(super) rows: BTreeMap<String, Row>,
    /// All writes since the table was deleted.
    log: Vec<Logged>,
    /// The version of the table's delete.
    deleted: u64,
    pub(super) version: u64,
    unique: u64,
    /// States that the store has shown, and what has become of them.
    pub(super) seen: Vec<(TableVersion, Fate)>,
}

#[derive(Clone)]
struct Logged {
    version: u64,
    topic: Topic,
    key: String,
    is_delete: bool,
}

#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only Redis loses writes"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Kept,
    /// The store went back to before it.
    Lost,
    /// The table began anew.
    Gone,
}

impl Table {
    pub(super) fn new(name: String, remembered: u64) -> Table {
        Table {
            name,
            remembered,
            exists: false,
            rows: BTreeMap::new(),
            log: Vec::new(),
            deleted: 0,
            version: 0,
            unique: 0,
            seen: Vec::new(),
        }
    }

    /// The version of this key's last write.
    pub(super) fn last_of_key(&self, key: &str) -> Option<u64> {
        self.rows
            .get(key)
            .map(|row| row.version)
            .or_else(|| self.delete_of(key))
    }

    fn delete_of(&self, key: &str) -> Option<u64> {
        let last = self.log.iter().rev().find(|logged| logged.key == key)?;
        last.is_delete.then_some(last.version)
    }

    fn last_of(&self, topic: &Topic) -> u64 {
        let last = self.log.iter().rev().find(|logged| logged.topic == *topic);
        last.map_or(self.deleted, |last| last.version)
    }

    /// True if the store may have forgotten this delete.
    fn is_old(&self, version: u64) -> bool {
        version + self.remembered < self.version
    }

    fn add(&mut self, key: &str, topic: Topic, value: Option<&str>) {
        (self.version, self.exists) = (self.version + 1, true);
        let version = self.version;
        match value {
            Some(value) => {
                let row = Row {
                    key: key.into(),
                    value: value.to_owned(),
                    topic: topic.clone(),
                    version,
                };
                self.rows.insert(key.to_owned(), row);
            }
            None => _ = self.rows.remove(key),
        }
        let is_delete = value.is_none();
        self.log.push(Logged {
            version,
            topic,
            key: key.to_owned(),
            is_delete,
        });
    }

    /// As `written`, if updates cannot be sent.
    pub(super) fn unpublished(&mut self, write: &Write<'_>, result: Result<Written>) {
        let e = match result {
            Err(e)
                if !matches!(
                    e.kind(),
                    ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Conflict
                ) =>
            {
                e
            }
            result => {
                let version = self.version;
                self.written(write, result);
                assert_eq!(self.version, version, "written, but not published");
                return;
            }
        };
        let row = self.rows.get(write.key).cloned();
        match (write.op, &row) {
            (WriteOp::Create(_), None) => {}
            (WriteOp::Set(_) | WriteOp::Delete, Some(row)) if write.topic.is_none_or(|topic| *topic == row.topic) => {}
            _ => panic!("{write:?}: {e}"),
        }
        let is_equal = matches!((write.op, &row), (WriteOp::Set(value), Some(row)) if row.value == value);
        if write.unless_equal && is_equal {
            return;
        }
        let topic = row
            .as_ref()
            .map_or_else(|| write.topic.unwrap_or(&Topic::ALL).clone(), |row| row.topic.clone());
        match write.op {
            WriteOp::Create(value) | WriteOp::Set(value) => self.add(write.key, topic.clone(), Some(value)),
            WriteOp::Delete => self.add(write.key, topic.clone(), None),
        }
        if e.kind() != ErrorKind::Unconfirmed {
            self.add(write.key, topic, row.as_ref().map(|row| &*row.value));
        }
    }

    /// Compares the result of a write, and makes it.
    pub(super) fn written(&mut self, write: &Write<'_>, result: Result<Written>) {
        let row = self.rows.get(write.key).cloned();
        let last = self.last_of_key(write.key);
        let fits = |row: &Row| write.topic.is_none_or(|topic| *topic == row.topic);
        let expected = match (write.op, &row) {
            (WriteOp::Create(_), Some(_)) => Err(ErrorKind::AlreadyExists),
            (WriteOp::Set(_) | WriteOp::Delete, row) if !row.as_ref().is_some_and(fits) => Err(ErrorKind::NotFound),
            _ if write.if_version.is_some() && write.if_version != last => Err(ErrorKind::Conflict),
            _ => Ok(()),
        };
        let is_forgotten = row.is_none() && last.is_some_and(|last| self.is_old(last));
        let what = || {
            format!(
                "{} {:?} {:?} {:?}",
                write.table, write.key, write.topic, write.if_version
            )
        };
        let written = match (result, expected) {
            (Ok(written), Ok(())) => written,
            (Err(e), Ok(())) if is_forgotten && e.kind() == ErrorKind::Conflict => return,
            (Err(e), Err(kind)) => {
                assert_eq!(e.kind(), kind, "{}: {e}", what());
                if kind == ErrorKind::Conflict && !(is_forgotten && e.version().is_none()) {
                    assert_eq!(e.version(), last, "{}: {e}", what());
                }
                return;
            }
            (result, expected) => panic!("{}: {result:?}, expected {expected:?}", what()),
        };
        let before = row.as_ref().map(|row| row.value.clone());
        let is_equal = matches!(write.op, WriteOp::Set(value) if before.as_deref() == Some(value));
        let changed = !(write.unless_equal && is_equal);
        let topic = row.map_or_else(|| write.topic.unwrap_or(&Topic::ALL).clone(), |row| row.topic);
        let expected = Written {
            version: if changed { self.version + 1 } else { last.unwrap() },
            after: changed.then(|| self.last_of(&topic)),
            topic: topic.clone(),
            changed,
            before: before.filter(|_| write.returning),
        };
        assert_eq!(written, expected, "{}", what());
        if changed {
            let value = match write.op {
                WriteOp::Create(value) | WriteOp::Set(value) => Some(value),
                WriteOp::Delete => None,
            };
            self.add(write.key, topic, value);
        }
    }

    pub(super) fn delete(&mut self, key: &str) -> bool {
        let Some(row) = self.rows.get(key) else { return false };
        self.add(key, row.topic.clone(), None);
        true
    }

    pub(super) fn drop(&mut self) {
        if self.exists {
            self.version += 1;
            self.deleted = self.version;
        }
        self.exists = false;
        self.rows.clear();
        self.log.clear();
    }

    pub(super) fn allocate(&mut self, handle: &Handle) {
        self.unique += 1;
        assert_eq!(handle.store.allocate_unique_key(&self.name).unwrap(), self.unique);
    }

    pub(super) fn get(&self, handle: &Handle, key: &str, of: Option<&Topic>) {
        let row = self.rows.get(key).filter(|row| of.is_none_or(|of| *of == row.topic));
        match handle.store.get(&self.name, key, of) {
            Ok(found) => assert_eq!(Some(&found), row),
            Err(e) => assert_eq!((e.kind(), row), (ErrorKind::NotFound, None)),
        }
    }

    fn of<'a>(&'a self, of: Option<&'a Topic>) -> impl Iterator<Item = &'a Row> {
        self.rows
            .values()
            .filter(move |row| of.is_none_or(|of| *of == row.topic))
    }

    pub(super) fn page(&self, handle: &Handle, of: Option<&Topic>, after: Option<&str>) {
        let rows = self.of(of).filter(|row| after.is_none_or(|after| &*row.key > after));
        let rows: Vec<_> = rows.cloned().collect();
        let Page { items, next } = handle.store.page_of_entries(&self.name, of, after).unwrap();
        assert!(items.len() <= handle.limit && rows.starts_with(&items));
        assert!(next.is_some() || items.len() == rows.len());
        assert!(next.is_none() || next.as_ref() == items.last().map(|row| &row.key));
        let Page { items, next } = handle.store.page_of_keys(&self.name, of, after).unwrap();
        assert!(items.len() <= handle.limit && rows.iter().map(|row| &row.key).take(items.len()).eq(&items));
        assert!(next.is_some() || items.len() == rows.len());
        assert!(next.is_none() || next.as_ref() == items.last());
    }

    pub(super) fn list(&self, handle: &Handle, of: Option<&Topic>) {
        let rows: Vec<_> = self.of(of).cloned().collect();
        assert_eq!(all(handle.store.entries(&self.name, of)), rows);
        let keys = all(handle.store.keys(&self.name, of));
        assert!(keys.iter().eq(rows.iter().map(|row| &row.key)));
    }

    /// Compares the versions of the table and of these topics.
    pub(super) fn versions(&mut self, handle: &Handle, topics: &[Topic]) {
        let now = handle.store.table_version(&self.name).unwrap().unwrap();
        let versions = handle.store.topic_versions(&self.name, topics).unwrap().unwrap();
        assert_eq!(versions.table, now);
        assert_eq!(now.version, self.version);
        assert_eq!(now.version == 0, now.incarnation == 0);
        assert!(
            versions
                .versions
                .into_iter()
                .eq(topics.iter().map(|of| self.last_of(of)))
        );
        for (seen, fate) in &self.seen {
            match fate {
                Fate::Kept => {
                    assert!(!now.went_back_since(seen), "{seen:?}, {now:?}");
                    assert!(
                        now.version == 0 || (now == *seen) == (now.version == seen.version),
                        "{seen:?}, {now:?}"
                    );
                }
                Fate::Lost if now.version > seen.version => {}
                Fate::Lost | Fate::Gone => assert!(now.went_back_since(seen), "{fate:?} {seen:?}, {now:?}"),
            }
        }
        if self.seen.last().is_none_or(|(seen, _)| *seen != now) {
            self.seen.push((now, Fate::Kept));
        }
    }

    /// A position from which to ask for changes.
    pub(super) fn position(&self, random: &mut Random) -> TableVersion {
        let known: Vec<_> = self
            .seen
            .iter()
            .filter(|(_, fate)| *fate != Fate::Lost)
            .map(|(seen, _)| *seen)
            .collect();
        let mut since = match known.len() {
            0 => TableVersion::default(),
            count => known[random.below(count)],
        };
        match random.below(12) {
            0 => since = TableVersion::default(),
            1 => since.incarnation ^= 1 << random.below(64),
            2 => since.version = self.version + random.below(3) as u64,
            3 => since.tip ^= 1 << random.below(64),
            4 => since.version = [1 << 53, u64::MAX, 1 << 63][random.below(3)],
            5 => since.source ^= 1,
            6 => (since.version, since.tip) = (0, 0),
            7..10 => (since.version, since.tip) = (random.below(self.version as usize + 1) as u64, 0),
            _ => {}
        }
        since
    }

    /// Compares a page of changes, or all of them.
    pub(super) fn changes(&self, handle: &Handle, of: &Topic, mut since: TableVersion, all: bool) {
        let now = handle.store.table_version(&self.name).unwrap().unwrap();
        loop {
            let changes = handle.store.changes(&self.name, of, since).unwrap();
            let what = || format!("{} {of:?} since {since:?}, now {now:?}", self.name);
            let Changes::Page(page) = changes else {
                let of_topic = self
                    .log
                    .iter()
                    .filter(|logged| logged.topic == *of && logged.version > since.version);
                let mut writes = of_topic.filter(|logged| {
                    self.is_old(logged.version) && (logged.is_delete || logged.version + 10_000 < self.version)
                });
                assert!(
                    now.went_back_since(&since) || since.version < self.deleted || writes.next().is_some(),
                    "unknown: {}",
                    what()
                );
                return;
            };
            assert!(
                !now.went_back_since(&since) && since.version >= self.deleted,
                "known: {}",
                what()
            );
            let expected = self.changed(of, since.version);
            assert!(page.changes.len() <= handle.limit, "{}", what());
            let mut told = page.changes.clone();
            told.retain(|change| expected.contains(change) || !self.was_deleted(of, change));
            assert!(
                expected.starts_with(&told),
                "{}: {:?}, expected {expected:?}",
                what(),
                page.changes
            );
            let mut rest = expected[told.len()..].iter();
            assert!(rest.all(|change| change.version > page.version.version), "{}", what());
            let tip = if page.version.version == now.version {
                now.tip
            } else {
                0
            };
            assert_eq!(
                page.version,
                TableVersion {
                    version: page.version.version,
                    tip,
                    ..now
                },
                "{}",
                what()
            );
            if !page.more {
                assert_eq!(page.version, now, "{}", what());
                return;
            }
            assert!(page.version.version > since.version, "{}", what());
            if !all {
                return;
            }
            since = page.version;
        }
    }

    /// True for a delete of a row that is still not of this topic.
    fn was_deleted(&self, of: &Topic, change: &StoredChange) -> bool {
        let is_it =
            |logged: &Logged| logged.version == change.version && *change.key == logged.key && logged.topic == *of;
        change.value.is_none()
            && self.log.iter().any(|logged| is_it(logged) && logged.is_delete)
            && self.rows.get(&*change.key).is_none_or(|row| row.topic != *of)
    }

    /// The last change of each key of this topic after this version, oldest first.
    fn changed(&self, of: &Topic, since: u64) -> Vec<StoredChange> {
        let mut last = BTreeMap::new();
        for logged in self
            .log
            .iter()
            .filter(|logged| logged.topic == *of && logged.version > since)
        {
            last.insert(&*logged.key, logged);
        }
        let mut changes: Vec<_> = last
            .into_values()
            .map(|logged| match logged.is_delete {
                true => StoredChange {
                    key: logged.key.as_str().into(),
                    version: logged.version,
                    value: None,
                },
                false => self.rows[&logged.key].clone().into(),
            })
            .collect();
        changes.sort_by_key(|change| change.version);
        changes
    }
}
