//! The writes to the store of a [`Play`], and what becomes of the updates about them.

use std::time::{Duration, Instant};

use super::world::{KEYS, Made, Play, Row, TOPICS, index, key, name, place};
use crate::update::{Action, DbUpdate};

/// The fate of a write's update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Told,
    /// With or without a sync event.
    Lost,
    /// Without a sync event.
    Dropped,
    Doubled,
    Unversioned,
    WithoutAfter,
    /// Published late by a monitor: a delete has the version that the table has then.
    Polled,
    /// A set without its value, or a delete with one.
    Odd,
    /// Written, then undone; the undo may be published.
    Undone,
}

impl Play {
    pub(super) fn delete_table(&mut self) {
        if self.store.rows.is_empty() {
            return;
        }
        self.store.version += 1;
        self.writes += 1;
        self.store.tip = self.writes;
        let version = self.store.version;
        for (key, row) in std::mem::take(&mut self.store.rows) {
            self.made.push(Made {
                topic: row.topic,
                key,
                version,
                at: self.now,
                is_there: false,
            });
        }
        self.store.last = [version; 3];
        self.store.forgotten = version;
    }

    /// Writes a random row.
    pub(super) fn write(&mut self, fate: Fate) {
        if self.is_away {
            return;
        }
        let key = self.chance.usize(0..KEYS.len());
        let before = self.store.rows.get(&key).cloned();
        let update = match &before {
            Some(row) if self.chance.u8(0..10) < 4 => self.put(key, row.topic, None),
            Some(row) => {
                let value = self.chance.u64(0..1 << 30);
                self.put(key, row.topic, Some(value))
            }
            None => {
                let topic = self.chance.usize(0..TOPICS.len());
                let value = self.chance.u64(0..1 << 30);
                self.put(key, topic, Some(value))
            }
        };
        if self.chance.u8(0..8) == 0 {
            self.backups.push(self.store.clone());
        }
        if fate != Fate::Undone {
            return self.send(update, fate);
        }
        let topic = index(&update.topic);
        let undo = self.put(key, topic, before.map(|row| row.value));
        let fate = if self.chance.bool() { Fate::Told } else { Fate::Lost };
        self.send(undo, fate);
    }

    /// Writes one row of each held topic: an existing one, or else a free key, if there is one.
    pub(super) fn write_each_topic(&mut self) {
        for of in self.held.clone() {
            let of_topic = self
                .store
                .rows
                .iter()
                .find(|(_, row)| row.topic == of)
                .map(|(key, _)| *key);
            let free = (0..KEYS.len()).find(|key| !self.store.rows.contains_key(key));
            let Some(key) = of_topic.or(free) else { continue };
            let update = self.put(key, of, Some(7));
            self.send(update, Fate::Told);
        }
    }

    /// Writes or deletes a row; returns the update about it.
    fn put(&mut self, place: usize, of: usize, value: Option<u64>) -> DbUpdate {
        let store = &mut self.store;
        if store.incarnation == 0 {
            self.incarnations += 1;
            store.incarnation = self.incarnations;
        }
        store.version += 1;
        self.writes += 1;
        store.tip = self.writes;
        let version = store.version;
        store.log[of].retain(|_, key| *key != place);
        store.log[of].insert(version, place);
        let after = std::mem::replace(&mut store.last[of], version);
        let action = match value {
            Some(value) => {
                let row = Row {
                    topic: of,
                    version,
                    value,
                };
                store.rows.insert(place, row).map_or(Action::Create, |_| Action::Set)
            }
            None => {
                store.rows.remove(&place);
                Action::Delete
            }
        };
        self.made.push(Made {
            topic: of,
            key: place,
            version,
            at: self.now,
            is_there: value.is_some(),
        });
        let mut update = DbUpdate::new("t", key(place), action).topic(name(of));
        update.value = value.map(|value| value.to_string());
        (update.version, update.after) = (Some(version), Some(after));
        update
    }

    fn send(&mut self, mut update: DbUpdate, fate: Fate) {
        match fate {
            Fate::Lost => {
                // With a sync event, or without.
                if self.chance.bool() {
                    self.core.handle_loss(self.now + Duration::from_millis(300));
                }
                return;
            }
            Fate::Dropped => return,
            Fate::Unversioned => (update.version, update.after) = (None, None),
            Fate::WithoutAfter => update.after = None,
            Fate::Polled => {
                (0..self.chance.usize(0..4)).for_each(|_| self.write(Fate::Dropped));
                let row = self.store.rows.get(&place(&update.key));
                match row.map(|row| row.version) {
                    None if update.value.is_none() => update.version = Some(self.store.version),
                    version if version == update.version => {}
                    // The monitor publishes what came after it.
                    _ => return,
                }
                update.after = None;
            }
            Fate::Odd => update.value = update.value.is_none().then(|| "7".into()),
            Fate::Doubled => {
                let at = self.arrival();
                self.net.push((at, update.clone()));
            }
            Fate::Told | Fate::Undone => {}
        }
        let at = self.arrival();
        self.net.push((at, update));
    }

    fn arrival(&mut self) -> Instant {
        let late = if self.chance.u8(0..10) == 0 { self.late } else { 1 };
        let delay = self.chance.u64(0..=self.slowness);
        self.now + Duration::from_millis((delay * late).min(2_000))
    }
}
