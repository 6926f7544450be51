//! A store, a network and a reader around one [`Core`], with a hand-made clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::writes::Fate;
use crate::replica::core::{Core, Read, Times};
use crate::replica::row::{NewRow, RowChange, Step};
use crate::store::TableVersion;
use crate::update::{DbUpdate, Name, Topic};

pub(super) const TOPICS: [&str; 3] = ["a", "b", "c"];
pub(super) const KEYS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];
const STEP: Duration = Duration::from_millis(20);
pub(super) const PAGE: usize = 2;

pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(3);

pub(super) const TIMES: Times = Times {
    patience: Duration::from_millis(200),
    check_interval: CHECK_INTERVAL,
    spread: Duration::from_secs(1),
    max_backoff: Duration::from_secs(3),
};

/// The abilities of a store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Versions of topics, and changes.
    Full,
    /// Versions of tables.
    OfTables,
    /// Rows alone.
    Plain,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) topic: usize,
    pub(super) version: u64,
    pub(super) value: u64,
}

/// The contents of the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) incarnation: u64,
    pub(super) version: u64,
    pub(super) tip: u64,
    pub(super) rows: BTreeMap<usize, Row>,
    pub(super) last: [u64; 3],
    /// By topic: the last change of each key.
    pub(super) log: [BTreeMap<u64, usize>; 3],
    pub(super) forgotten: u64,
}

/// A write, for the laws.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) topic: usize,
    pub(super) key: usize,
    pub(super) version: u64,
    pub(super) at: Instant,
    pub(super) is_there: bool,
}

/// A read under way.
pub(super) struct Reading {
    pub(super) read: Read,
    pub(super) next_at: Instant,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Start,
    /// The next rows come after this key, or the next changes after this version.
    Pages(Option<usize>, TableVersion),
}

pub(super) struct Play {
    pub(super) chance: fastrand::Rng,
    pub(super) kind: Kind,
    pub(super) store: Contents,
    pub(super) backups: Vec<Contents>,
    pub(super) is_away: bool,
    pub(super) incarnations: u64,
    /// The server that has the store.
    pub(super) source: u64,
    /// The number of writes to this store, and to those that were lost.
    pub(super) writes: u64,
    pub(super) made: Vec<Made>,
    pub(super) went_back: bool,
    pub(super) net: Vec<(Instant, DbUpdate)>,
    pub(super) slowness: u64,
    /// The factor by which some updates are delayed.
    pub(super) late: u64,
    pub(super) now: Instant,
    pub(super) core: Core<u64>,
    pub(super) held: BTreeSet<usize>,
    /// The removed topics of which rows may be left, when these are removed, and those that still are to be.
    pub(super) leaving: Vec<(Instant, usize, Vec<&'static str>)>,
    pub(super) reading: Vec<Reading>,
    /// Results of reads that wait to be merged, in order.
    pub(super) merges: VecDeque<Merge>,
    pub(super) told: Told,
    /// What a handler is told that hears several changes of a row as one, and those that it has not heard.
    pub(super) told_late: Told,
    pub(super) untold: BTreeMap<Name, Step<u64>>,
}

pub(super) type Merge = Box<dyn FnOnce(&mut Play)>;

/// The changes of each row, in order.
pub(super) type Told = BTreeMap<Name, Vec<RowChange<u64>>>;

pub(super) fn name(index: usize) -> Topic {
    Topic::new(TOPICS[index]).unwrap()
}

pub(super) fn index(topic: &Topic) -> usize {
    TOPICS.iter().position(|name| *name == topic.as_str()).unwrap()
}

pub(super) fn key(index: usize) -> Name {
    KEYS[index].into()
}

pub(super) fn place(key: &str) -> usize {
    KEYS.iter().position(|name| *name == key).unwrap()
}

pub(super) fn row(key: &Name, topic: usize, version: u64, value: u64) -> NewRow<u64> {
    NewRow::new(key.clone(), name(topic).into(), version, Ok(value), value as u32)
}

impl Play {
    pub(super) fn new(seed: u64, kind: Kind, check_interval: Duration) -> Play {
        let now = Instant::now();
        let mut play = Play {
            chance: fastrand::Rng::with_seed(seed ^ 0x5eed),
            kind,
            store: Contents::default(),
            backups: Vec::new(),
            is_away: false,
            incarnations: 0,
            source: 1,
            writes: 0,
            made: Vec::new(),
            went_back: false,
            net: Vec::new(),
            slowness: 60,
            late: 20,
            now,
            core: Core::new(
                Times {
                    check_interval,
                    ..TIMES
                },
                seed,
                now,
            ),
            held: BTreeSet::new(),
            leaving: Vec::new(),
            reading: Vec::new(),
            merges: VecDeque::new(),
            told: BTreeMap::new(),
            told_late: BTreeMap::new(),
            untold: BTreeMap::new(),
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
        let wait = self.chance.u64(0..12_000) * self.chance.u64(0..2);
        self.leaving
            .push((self.now + Duration::from_millis(wait), index, KEYS.to_vec()));
    }

    /// Removes rows of removed topics whose time has come, maybe not all.
    fn evict(&mut self) {
        let now = self.now;
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain_mut(|(at, index, keys)| {
            while *at <= now && self.chance.u8(0..4) > 0 {
                let Some(key) = keys.pop() else {
                    self.core.end_evict(&name(*index));
                    return false;
                };
                if self
                    .core
                    .rows
                    .get(key)
                    .is_some_and(|held| *held.topic() == name(*index))
                {
                    let step = self.core.evict(&key.into());
                    self.tell(step);
                }
            }
            true
        });
        self.leaving = leaving;
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

    /// From now on no update is later than the replica's patience.
    pub(super) fn be_punctual(&mut self) {
        self.late = 2;
    }

    /// Delays the updates under way by `time`.
    pub(super) fn hold_back(&mut self, time: Duration) {
        self.net.iter_mut().for_each(|(at, _)| *at += time);
    }

    pub(super) fn back_up(&self) -> Contents {
        self.store.clone()
    }

    /// Restores an earlier state, without a look at the store before.
    pub(super) fn restore(&mut self, earlier: Contents) {
        self.went_back = true;
        self.store = earlier;
    }

    pub(super) fn lose(&mut self) {
        self.core.handle_loss(self.now);
    }

    /// Restores an earlier state. The replica reads the store before, so that it has seen the versions that are lost,
    /// and after, before the versions pass the old ones again; otherwise only a comparison of rows would show it.
    pub(super) fn go_back(&mut self) -> Result<(), String> {
        self.look()?;
        let Some(earlier) = self.chance.choice(&self.backups).cloned() else {
            return Ok(());
        };
        self.went_back |= earlier.version < self.store.version;
        // Lost states do not come back.
        self.backups.retain(|backup| backup.version <= earlier.version);
        self.store = earlier;
        self.look()
    }

    /// Another server takes over with an earlier state, and is written to at once. The replica has read the store of
    /// the one before.
    pub(super) fn take_over(&mut self) -> Result<(), String> {
        self.look()?;
        let earlier = self.chance.choice(&self.backups).cloned();
        let earlier = earlier.unwrap_or_else(|| self.store.clone());
        self.backups.retain(|backup| backup.version <= earlier.version);
        self.restore(earlier);
        self.source += 1;
        for _ in 0..self.chance.usize(0..12) {
            let fate = if self.chance.bool() { Fate::Told } else { Fate::Dropped };
            self.write(fate);
        }
        Ok(())
    }

    /// Makes the store available until the replica has read it.
    fn look(&mut self) -> Result<(), String> {
        self.is_away = false;
        self.pass(TIMES.check_interval + TIMES.max_backoff + Duration::from_secs(1))
    }

    /// Empties the store. The replica has read it before; otherwise nothing shows that the table is another one.
    pub(super) fn begin_anew(&mut self) -> Result<(), String> {
        self.look()?;
        self.went_back |= self.store.version > 0;
        self.backups.clear();
        self.store = Contents::default();
        Ok(())
    }

    /// Asserts that each position is at or above the topic's last version.
    pub(super) fn assert_positions(&self) {
        for &of in &self.held {
            let position = self.core.position(&name(of)).unwrap().version;
            assert!(position >= self.store.last[of], "{position}, {:?}", self.store.last);
        }
    }

    pub(super) fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.evict();
            self.chance.shuffle(&mut self.net);
            let now = self.now;
            let due: Vec<_> = self.net.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, update) in due {
                let new = self.core.wants(&update, now).and_then(|(version, topic)| {
                    let value = update.value.as_ref()?.parse().unwrap();
                    Some(row(&update.key, index(topic), version, value))
                });
                let (step, _) = self.core.handle_update(&update, new.as_ref(), now);
                self.tell(step);
            }
            self.read();
            self.merge();
        }
        self.check_laws()
    }
}
