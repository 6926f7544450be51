//! A store, a network and a reader by hand-made time, around one [`Core`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::replica::core::{Base, Core, Read, Times};
use crate::replica::row::{NewRow, RowChange, Step};
use crate::store::TableVersion;
use crate::update::{Action, DbUpdate, Name, Topic};

const TOPICS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];
const STEP: Duration = Duration::from_millis(20);
const PAGE: usize = 2;

pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(3);

const TIMES: Times = Times {
    patience: Duration::from_millis(200),
    check_interval: CHECK_INTERVAL,
    spread: Duration::from_secs(1),
    max_backoff: Duration::from_secs(3),
};

/// What a store can tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Versions of topics, and changes.
    Full,
    /// Versions of tables.
    OfTables,
    /// Rows alone.
    Plain,
}

/// What becomes of the update of a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Told,
    /// And mostly nobody says so.
    Lost,
    /// And nobody says so.
    Dropped,
    Doubled,
    Unversioned,
    WithoutAfter,
    /// Written, then undone; the undo may be told.
    Undone,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    topic: usize,
    version: u64,
    value: u64,
}

/// What the store has.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    incarnation: u64,
    version: u64,
    rows: BTreeMap<usize, Row>,
    last: [u64; 3],
    /// By topic: of each key the last change.
    log: [BTreeMap<u64, usize>; 3],
    forgotten: u64,
}

/// A write that was made, for the laws: the row's topic, its key, when, and whether it is there after it.
#[derive(Debug)]
struct Made {
    topic: usize,
    key: usize,
    version: u64,
    at: Instant,
    is_there: bool,
}

/// A read under way.
struct Reading {
    read: Read,
    next_at: Instant,
    stage: Stage,
}

enum Stage {
    Start,
    /// Rows after this key; or changes after this version.
    Pages(Option<usize>, TableVersion),
}

pub(super) struct Play {
    chance: fastrand::Rng,
    kind: Kind,
    store: State,
    backups: Vec<State>,
    is_away: bool,
    incarnations: u64,
    made: Vec<Made>,
    went_back: bool,
    net: Vec<(Instant, DbUpdate)>,
    slowness: u64,
    /// How many times slower some updates are.
    late: u64,
    now: Instant,
    core: Core<u64>,
    held: BTreeSet<usize>,
    reading: Vec<Reading>,
    told: BTreeMap<Name, Vec<RowChange<u64>>>,
}

fn name(index: usize) -> Topic {
    Topic::new(TOPICS[index]).unwrap()
}

fn index(topic: &Topic) -> usize {
    TOPICS.iter().position(|name| *name == topic.as_str()).unwrap()
}

fn key(index: usize) -> Name {
    KEYS[index].into()
}

fn place(key: &str) -> usize {
    KEYS.iter().position(|name| *name == key).unwrap()
}

fn row(value: u64) -> NewRow<u64> {
    NewRow {
        row: Ok(value),
        sum: value as u32,
    }
}

impl Play {
    pub(super) fn new(seed: u64, kind: Kind, check_interval: Duration) -> Play {
        let now = Instant::now();
        let mut play = Play {
            chance: fastrand::Rng::with_seed(seed ^ 0x5eed),
            kind,
            store: State::default(),
            backups: Vec::new(),
            is_away: false,
            incarnations: 0,
            made: Vec::new(),
            went_back: false,
            net: Vec::new(),
            slowness: 60,
            late: 20,
            now,
            core: Core::new(Times { check_interval, ..TIMES }, seed, now),
            held: BTreeSet::new(),
            reading: Vec::new(),
            told: BTreeMap::new(),
        };
        play.hold(0);
        play.hold(1);
        play
    }

    fn hold(&mut self, index: usize) {
        self.held.insert(index);
        self.core.add_topic(&name(index), self.now);
    }

    pub(super) fn toggle_topic(&mut self) {
        let index = self.chance.usize(0..TOPICS.len());
        if !self.held.remove(&index) {
            return self.hold(index);
        }
        self.core.remove_topic(&name(index));
        for key in KEYS {
            let step = self.core.evict(&key.into());
            self.tell(step);
        }
    }

    pub(super) fn toggle_store(&mut self) {
        self.is_away = !self.is_away;
    }

    pub(super) fn forget_log(&mut self) {
        self.store.forgotten = self.store.version;
    }

    pub(super) fn slow_down(&mut self) {
        self.slowness = self.chance.u64(1..1_500);
    }

    /// Nothing is later than it is waited for.
    pub(super) fn be_punctual(&mut self) {
        self.late = 2;
    }

    /// What is on its way comes so much later.
    pub(super) fn hold_back(&mut self, time: Duration) {
        self.net.iter_mut().for_each(|(at, _)| *at += time);
    }

    pub(super) fn back_up(&self) -> State {
        self.store.clone()
    }

    /// The store is put back, and nobody has looked before.
    pub(super) fn restore(&mut self, earlier: State) {
        self.went_back = true;
        self.store = earlier;
    }

    pub(super) fn lose(&mut self) {
        self.core.handle_loss(self.now);
    }

    /// An earlier state of the store is put back. It is looked at before the numbers have come round, and was looked at before, so
    /// that what is lost had been seen with its numbers; or else only a comparison of the rows would show it.
    pub(super) fn go_back(&mut self) -> Result<(), String> {
        self.look()?;
        let Some(earlier) = self.chance.choice(&self.backups).cloned() else { return Ok(()) };
        self.went_back |= earlier.version < self.store.version;
        // What was lost does not come back.
        self.backups.retain(|backup| backup.version <= earlier.version);
        self.store = earlier;
        self.look()
    }

    /// The store is there for as long as it takes until it is looked at.
    fn look(&mut self) -> Result<(), String> {
        self.is_away = false;
        self.pass(TIMES.check_interval + TIMES.max_backoff + Duration::from_secs(1))
    }

    /// The store is emptied. What was written before had been looked at, or else nothing shows which table it was.
    pub(super) fn begin_anew(&mut self) -> Result<(), String> {
        self.look()?;
        self.went_back |= self.store.version > 0;
        self.backups.clear();
        self.store = State::default();
        Ok(())
    }

    pub(super) fn delete_table(&mut self) {
        if self.store.rows.is_empty() {
            return;
        }
        self.store.version += 1;
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

    /// One write of a random row.
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

    /// One new row of each topic that is held, in the place of another, or else none.
    pub(super) fn write_each_topic(&mut self) {
        for of in self.held.clone() {
            let of_topic = self.store.rows.iter().find(|(_, row)| row.topic == of).map(|(key, _)| *key);
            let free = (0..KEYS.len()).find(|key| !self.store.rows.contains_key(key));
            let Some(key) = of_topic.or(free) else { continue };
            let update = self.put(key, of, Some(7));
            self.send(update, Fate::Told);
        }
    }

    /// Each position is at the topic's last version, or beyond.
    pub(super) fn assert_positions(&self) {
        for &of in &self.held {
            let position = self.core.position(&name(of)).unwrap().version;
            assert!(position >= self.store.last[of], "{position}, {:?}", self.store.last);
        }
    }

    /// Writes a row, or deletes it; the update that tells of it.
    fn put(&mut self, place: usize, of: usize, value: Option<u64>) -> DbUpdate {
        let store = &mut self.store;
        if store.incarnation == 0 {
            self.incarnations += 1;
            store.incarnation = self.incarnations;
        }
        store.version += 1;
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
                // A loss is told of, or nobody knows.
                if self.chance.bool() {
                    self.core.handle_loss(self.now + Duration::from_millis(300));
                }
                return;
            }
            Fate::Dropped => return,
            Fate::Unversioned => (update.version, update.after) = (None, None),
            Fate::WithoutAfter => update.after = None,
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

    pub(super) fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.chance.shuffle(&mut self.net);
            let now = self.now;
            let due: Vec<_> = self.net.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, update) in due {
                let new = self
                    .core
                    .wants(&update, now)
                    .then(|| update.value.as_ref().map(|value| row(value.parse().unwrap())));
                let (step, _) = self.core.handle_update(&update, new.flatten(), now);
                self.tell(step);
            }
            self.read();
        }
        self.check_laws()
    }

    /// What the thread that reads the store does by now.
    fn read(&mut self) {
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
            version: TableVersion { incarnation, version },
            table,
        })
    }

    /// One call of the store; true if the read is done.
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
                    let found = found.map(|found| (name(found.topic), found.version, row(found.value)));
                    let step = self.core.take_row(*id, topic, key, found);
                    self.tell(step);
                }
                self.core.end_rows(*id, topic);
                true
            }
            Read::Changes { id, topic, since } => {
                let since = match reading.stage {
                    Stage::Start => *since,
                    Stage::Pages(_, since) => since,
                };
                let store = &self.store;
                let stands = TableVersion {
                    incarnation: store.incarnation,
                    version: store.version,
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
                    Some((version, _)) if more => TableVersion {
                        version: *version,
                        ..stands
                    },
                    _ => stands,
                };
                for (version, place) in changes {
                    let found = self.store.rows.get(&place).filter(|row| row.topic == index(topic));
                    let found = found.map(|found| row(found.value));
                    let step = self.core.take_changed(*id, topic, &key(place), version, found);
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
                    let step = self
                        .core
                        .take_listed(*id, topic, &key(*place), found.version, row(found.value));
                    self.tell(step);
                }
                if page.len() == PAGE {
                    reading.stage = Stage::Pages(page.last().map(|(key, _)| *key), TableVersion::default());
                    return false;
                }
                for key in self.core.end_listing(*id, topic, now) {
                    let step = self.core.sweep(*id, topic, &key);
                    self.tell(step);
                }
                self.core.end_sweep(*id, topic, now);
                true
            }
        }
    }

    fn tell(&mut self, step: Option<Step<u64>>) {
        let change = step.and_then(|step| step.told());
        if let Some(change) = change {
            self.told.entry(change.key().clone()).or_default().push(change);
        }
    }

    /// What a position and a proof say is true.
    fn check_laws(&self) -> Result<(), String> {
        // Of a store that tells no versions a late update cannot be told from a new one.
        if self.went_back || self.kind == Kind::Plain {
            return Ok(());
        }
        for &of in &self.held {
            let topic = name(of);
            let position = self.core.position(&topic).map_or(0, |position| position.version);
            let proven = self.core.proven(&topic);
            for made in self.made.iter().filter(|made| made.topic == of) {
                let is_promised = made.version <= position || proven.is_some_and(|proven| made.at < proven);
                if is_promised && !self.includes(made) {
                    return Err(format!("{made:?} is missing; position {position}, proven {proven:?}"));
                }
            }
        }
        Ok(())
    }

    /// True if the row is as this write left it, or newer.
    fn includes(&self, made: &Made) -> bool {
        let held = self.core.rows.get(&key(made.key));
        // Of a row that had another topic in between, that one's position may be behind.
        match held.filter(|held| *held.topic() == name(made.topic)) {
            Some(held) => held.version() >= made.version,
            None => {
                let later = |other: &&Made| other.key == made.key && other.version >= made.version;
                self.made.iter().filter(later).any(|other| !other.is_there)
            }
        }
    }

    /// Nothing is written any more, and everything is on its way no longer than the bound.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.is_away = false;
        self.slowness = 60;
        // What is still on its way comes, which may be from before the store went back.
        self.pass(Duration::from_secs(2))?;
        // A check that fell in that time, and the next one; the store was away for up to the longest pause.
        self.pass(TIMES.check_interval * 2 + TIMES.max_backoff + Duration::from_secs(3))
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        let held = self.core.rows.decoded.iter();
        let held: BTreeMap<_, _> = held.map(|row| (place(&row.key), (row.version, row.row))).collect();
        let wanted = self.store.rows.iter().filter(|(_, row)| self.held.contains(&row.topic));
        let wanted: BTreeMap<_, _> = wanted.map(|(key, row)| (*key, (row.version, row.value))).collect();
        if held != wanted {
            return Err(format!("C7: held {held:?}, stored {wanted:?}"));
        }
        if !self.core.is_synced() {
            return Err("not synced".into());
        }
        for (key, told) in &self.told {
            let last = self.judge_row(told).map_err(|wrong| format!("C8: key {key}: {wrong}: {told:?}"))?;
            if last != held.get(&place(key)).copied() {
                return Err(format!("C8: key {key}: last told {last:?}: {told:?}"));
            }
        }
        if self.told.len() < held.len() {
            return Err("C8: a row was not told".into());
        }
        Ok(())
    }

    /// Holds what was told of a row against C8; returns its last state.
    fn judge_row(&self, told: &[RowChange<u64>]) -> Result<Option<(u64, u64)>, String> {
        let mut state: Option<(u64, u64)> = None;
        let mut version = 0;
        for change in told {
            let next = match (change, state) {
                (RowChange::Added { row }, None) => Some((row.version, row.row)),
                (RowChange::Changed { old, new }, Some(state))
                    if (old.version, old.row) == state
                        && (new.version, new.row, &new.topic) != (old.version, old.row, &old.topic) =>
                {
                    Some((new.version, new.row))
                }
                (RowChange::Removed { old: Some(old), .. }, Some(state)) if (old.version, old.row) == state => None,
                _ => return Err(format!("{change:?} after {state:?}")),
            };
            // A topic that is held no more takes its rows out as of their own versions, and brings them back.
            let may_repeat = matches!(change, RowChange::Added { .. });
            let is_ordered = !self.went_back && self.kind != Kind::Plain;
            if is_ordered && (change.version() < version || change.version() == version && !may_repeat && next.is_some()) {
                return Err(format!("version {} after {version}", change.version()));
            }
            version = change.version();
            state = next;
        }
        Ok(state)
    }

    pub(super) fn counted(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.core.counts;
        [
            ("applied", counts.applied),
            ("old", counts.old),
            ("unversioned", counts.unversioned),
            ("checks", counts.checks),
            ("catch_ups", counts.catch_ups),
            ("changes", counts.changes),
            ("listings", counts.listings),
            ("listed", counts.listed),
            ("went_back", counts.went_back),
            ("failures", counts.failures),
        ]
        .into()
    }
}
