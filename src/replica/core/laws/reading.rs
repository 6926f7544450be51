//! The reading thread of a [`Play`].

use std::time::Duration;

use super::world::{Kind, PAGE, Play, Reading, Stage, index, key, place, row};
use crate::replica::core::{Base, Read};
use crate::store::TableVersion;

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
            if self.is_away {
                self.core.handle_failure(&reading.read, now);
            } else if !self.step(&mut reading) {
                reading.next_at = now + Duration::from_millis(self.chance.u64(0..80));
                self.reading.push(reading);
            }
        }
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

    /// Makes one call to the store; returns true if the read is done.
    fn step(&mut self, reading: &mut Reading) -> bool {
        let now = self.now;
        match &reading.read {
            Read::Versions { id, topics } => {
                let bases: Option<Vec<_>> = topics.iter().map(|topic| self.base(index(topic))).collect();
                self.core.take_versions(*id, bases.as_deref(), now);
                true
            }
            Read::Rows { id, topic, keys } => {
                self.core.begin_rows(*id, topic, self.base(index(topic)), now);
                for key in keys {
                    let found = self.store.rows.get(&place(key));
                    let found = found.map(|found| row(key, found.topic, found.version, found.value));
                    let step = self.core.take_row(*id, topic, key, found.as_ref());
                    self.tell(step);
                }
                self.core.end_rows(*id, topic);
                true
            }
            Read::Changes { id, topic, since } => {
                let since = match reading.stage {
                    Stage::Pages(_, since) => since,
                    _ => *since,
                };
                let store = &self.store;
                let stands = TableVersion {
                    incarnation: store.incarnation,
                    version: store.version,
                    tip: store.tip,
                    source: self.source,
                };
                if self.kind != Kind::Full || stands.went_back_since(&since) || since.version < store.forgotten {
                    self.core.list_instead(*id, topic, now);
                    return true;
                }
                let log = store.log[index(topic)].range(since.version + 1..);
                let mut changes: Vec<_> = log.map(|(version, key)| (*version, *key)).collect();
                let more = changes.len() > PAGE;
                changes.truncate(PAGE);
                let version = match changes.last() {
                    Some((version, _)) if more => stands.at(*version),
                    _ => stands,
                };
                for (version, place) in changes {
                    let found = self.store.rows.get(&place).filter(|row| row.topic == index(topic));
                    let key = key(place);
                    let found = found.map(|found| row(&key, found.topic, version, found.value));
                    let step = self.core.take_changed(*id, topic, &key, version, found.as_ref());
                    self.tell(step);
                }
                if !more {
                    self.core.end_changes(*id, topic, version, now);
                }
                reading.stage = Stage::Pages(None, version);
                !more
            }
            Read::Listing { id, topic } => {
                let of = index(topic);
                if let Stage::Sweep(gone) = &mut reading.stage {
                    // One at a time: updates arrive in between.
                    let Some(key) = gone.pop() else {
                        self.core.end_sweep(*id, topic, now);
                        return true;
                    };
                    let step = self.core.sweep(*id, topic, &key);
                    self.tell(step);
                    return false;
                }
                let Stage::Pages(after, _) = reading.stage else {
                    let held = self.core.rows.decoded.iter().filter(|row| row.topic == *topic);
                    let held: Vec<_> = held.map(|row| row.key.clone()).collect();
                    self.core.begin_listing(*id, topic, self.base(of), held, now);
                    reading.stage = Stage::Pages(None, TableVersion::default());
                    return false;
                };
                let from = after.map_or(0, |after| after + 1);
                let rows = self.store.rows.range(from..).filter(|(_, row)| row.topic == of);
                let page: Vec<_> = rows.take(PAGE).map(|(key, row)| (*key, row.clone())).collect();
                for (place, found) in &page {
                    let new = row(&key(*place), found.topic, found.version, found.value);
                    let step = self.core.take_listed(*id, topic, &new);
                    self.tell(step);
                }
                if page.len() == PAGE {
                    reading.stage = Stage::Pages(page.last().map(|(key, _)| *key), TableVersion::default());
                    return false;
                }
                reading.stage = Stage::Sweep(self.core.end_listing(*id, topic));
                false
            }
        }
    }
}
