//! The reading thread of a [`Play`], and the merging of what it reads, which may come later.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Kind, PAGE, Play, Reading, Stage, index, key, place, row};
use crate::replica::core::{Base, Read};
use crate::store::TableVersion;
use crate::update::{Name, Topic};

/// The most results that wait to be merged.
const WINDOW: usize = 2;

impl Play {
    /// Does everything that the reading thread has to do by now.
    pub(super) fn read(&mut self) {
        let now = self.now;
        loop {
            let is_due = self.core.deadline().is_some_and(|deadline| deadline <= now);
            let read = self.core.poll(now);
            assert_eq!(read.is_some(), is_due, "the deadline says when to poll");
            let Some(read) = read else { break };
            self.reading.push(Reading {
                read,
                next_at: now,
                stage: Stage::Start,
            });
        }
        let due: Vec<_> = self.reading.extract_if(.., |reading| reading.next_at <= now).collect();
        for mut reading in due {
            if self.merges.len() >= WINDOW {
                self.reading.push(reading);
            } else if self.is_away {
                self.later(move |play| play.core.handle_failure(&reading.read, play.now));
            } else if !self.step(&mut reading) {
                reading.next_at = now + Duration::from_millis(self.chance.u64(0..80));
                self.reading.push(reading);
            }
        }
    }

    /// Merges results, maybe not all.
    pub(super) fn merge(&mut self) {
        while self.chance.u8(0..5) > 0
            && let Some(merge) = self.merges.pop_front()
        {
            merge(self);
        }
    }

    fn later(&mut self, merge: impl FnOnce(&mut Play) + 'static) {
        self.merges.push_back(Box::new(merge));
    }

    fn base(&self, of: usize) -> Option<Base> {
        let (incarnation, table) = (self.store.incarnation, self.store.version);
        let version = match self.kind {
            Kind::Full => self.store.last[of],
            Kind::OfTables => table,
            Kind::Plain => return None,
        };
        Some(Base {
            version: TableVersion {
                incarnation,
                version,
                tip: self.store.tip,
                source: self.source,
            },
            table,
        })
    }

    /// Makes one call to the store; returns true if it was the last.
    fn step(&mut self, reading: &mut Reading) -> bool {
        match reading.read.clone() {
            Read::Versions { id, topics } => {
                let bases: Option<Vec<_>> = topics.iter().map(|topic| self.base(index(topic))).collect();
                self.later(move |play| play.core.take_versions(id, bases.as_deref(), play.now));
                true
            }
            Read::Rows { id, topic, keys } => {
                let base = self.base(index(&topic));
                let found = |key: Name| {
                    let found = self.store.rows.get(&place(&key));
                    let found = found.map(|found| row(&key, found.topic, found.version, found.value));
                    (key, found)
                };
                let rows: Vec<_> = keys.into_iter().map(found).collect();
                self.later(move |play| {
                    play.core.begin_rows(id, &topic, base, play.now);
                    for (key, found) in rows {
                        let step = play.core.take_row(id, &topic, &key, found.as_ref());
                        play.tell(step);
                    }
                    play.core.end_rows(id, &topic);
                });
                true
            }
            Read::Changes { id, topic, since } => {
                let since = match reading.stage {
                    Stage::Pages(_, since) => since,
                    Stage::Start => since,
                };
                let (stage, is_last) = self.read_changes(id, topic, since);
                reading.stage = stage;
                is_last
            }
            Read::Listing { id, topic } => {
                let Stage::Pages(after, _) = reading.stage else {
                    let base = self.base(index(&topic));
                    let held = self.core.rows.decoded.iter().filter(|row| row.topic == topic);
                    let held: Vec<_> = held.map(|row| row.key.clone()).collect();
                    self.later(move |play| play.core.begin_listing(id, &topic, base, held, play.now));
                    reading.stage = Stage::Pages(None, TableVersion::default());
                    return false;
                };
                let from = after.map_or(0, |after| after + 1);
                let rows = self
                    .store
                    .rows
                    .range(from..)
                    .filter(|(_, row)| row.topic == index(&topic));
                let page: Vec<_> = rows.take(PAGE).map(|(key, row)| (*key, row.clone())).collect();
                let last = page.last().map(|(key, _)| *key);
                let is_last = page.len() < PAGE;
                self.later(move |play| {
                    for (place, found) in page {
                        let new = row(&key(place), found.topic, found.version, found.value);
                        let step = play.core.take_listed(id, &topic, &new);
                        play.tell(step);
                    }
                    if is_last {
                        play.sweep(id, topic);
                    }
                });
                reading.stage = Stage::Pages(last, TableVersion::default());
                is_last
            }
        }
    }

    /// Reads a page of changes; returns what comes next, and true if it was the last.
    fn read_changes(&mut self, id: u64, topic: Arc<Topic>, since: TableVersion) -> (Stage, bool) {
        let store = &self.store;
        let stands = TableVersion {
            incarnation: store.incarnation,
            version: store.version,
            tip: store.tip,
            source: self.source,
        };
        if self.kind != Kind::Full || stands.went_back_since(&since) || since.version < store.forgotten {
            self.later(move |play| play.core.list_instead(id, &topic, play.now));
            return (Stage::Start, true);
        }
        let log = store.log[index(&topic)].range(since.version + 1..);
        let mut changes: Vec<_> = log.map(|(version, key)| (*version, *key)).collect();
        let more = changes.len() > PAGE;
        changes.truncate(PAGE);
        let version = match changes.last() {
            Some((version, _)) if more => stands.at(*version),
            _ => stands,
        };
        let found = |(version, place): (u64, usize)| {
            let found = store.rows.get(&place).filter(|row| row.topic == index(&topic));
            let found = found.map(|found| row(&key(place), found.topic, version, found.value));
            (key(place), version, found)
        };
        let changes: Vec<_> = changes.into_iter().map(found).collect();
        self.later(move |play| {
            for (key, version, found) in changes {
                let step = play.core.take_changed(id, &topic, &key, version, found.as_ref());
                play.tell(step);
            }
            if !more {
                play.core.end_changes(id, &topic, version, play.now);
            }
        });
        (Stage::Pages(None, version), !more)
    }

    /// Removes the rows that were on no page, one at a time: updates arrive in between.
    fn sweep(&mut self, id: u64, topic: Arc<Topic>) {
        let gone = self.core.end_listing(id, &topic);
        let of = Arc::clone(&topic);
        self.merges
            .push_front(Box::new(move |play| play.core.end_sweep(id, &of, play.now)));
        for key in gone {
            let of = Arc::clone(&topic);
            self.merges.push_front(Box::new(move |play| {
                let step = play.core.sweep(id, &of, &key);
                play.tell(step);
            }));
        }
    }
}
