//! Random histories of all calls, by several handles of a store, each answer compared with that of a plain model. Every
//! history draws its own weights, so that some do one thing all the time and others never.

mod flaky;
pub(crate) mod follow;
#[cfg(feature = "redis")]
mod lost;
mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tablecast::store::{DELETES_REMEMBERED, StoreOptions, TableVersion, Write, WriteOp, Written};
use tablecast::{Database, ErrorKind, Publisher, Result, Store, Topic};

use crate::Setup;
use crate::random::Random;
use crate::suite::topic;
use model::Table;

const TABLES: [&str; 4] = ["", ".b", "\0", "}/about"];
const KEYS: [&str; 10] = ["", "a", "a.b", "*", "k\0", "é", "\u{10ffff}", "@", "\u{7f}", "k"];
const TOPICS: [&str; 5] = ["D", "Dx", "*", "D\0", "é"];

/// A handle, and how many rows are in a page.
struct Handle {
    store: Arc<dyn Store>,
    database: Option<(Database, flaky::Flaky)>,
    limit: usize,
}

#[derive(Clone, Copy)]
enum Call {
    Write,
    WriteEach,
    DeleteRows,
    Get,
    Page,
    List,
    CreateTable,
    DeleteTable,
    Allocate,
    Versions,
    Changes,
    Follow,
    Advance,
    Tables,
    /// The store goes back.
    Lose,
}

/// Each call, with the weights among which a history chooses.
const CALLS: [(Call, &[usize]); 15] = [
    (Call::Write, &[1, 5, 20, 20]),
    (Call::WriteEach, &[0, 5, 20, 20]),
    (Call::DeleteRows, &[0, 1, 4]),
    (Call::Get, &[0, 1, 4]),
    (Call::Page, &[0, 1, 4]),
    (Call::List, &[0, 1, 4]),
    (Call::CreateTable, &[0, 0, 1, 4]),
    (Call::DeleteTable, &[0, 0, 1, 4]),
    (Call::Allocate, &[0, 0, 1]),
    (Call::Versions, &[0, 1, 4]),
    (Call::Changes, &[0, 1, 5, 10]),
    (Call::Follow, &[0, 1, 5, 10]),
    (Call::Advance, &[0, 0, 0, 0, 1, 2]),
    (Call::Tables, &[0, 0, 0, 1]),
    (Call::Lose, &[0, 1, 1]),
];

/// What a store may do to lose writes, and the model with it.
trait Loss {
    fn lose(&mut self, random: &mut Random, tables: &mut [Table]);
}

pub(crate) fn random_histories_agree(setup: Setup) {
    run(&setup, &mut Random::new("random_histories_agree"), None);
}

/// Plays histories for a while, at least one. Each prints its seed.
fn run(setup: &Setup, random: &mut Random, mut loss: Option<&mut dyn Loss>) {
    for_a_while(random, |random, number| {
        play(setup, random, &format!("{number}"), loss.as_deref_mut());
    });
}

/// For 0.8 s, or the seconds in `TABLECAST_TEST_HISTORIES`.
fn for_a_while(random: &mut Random, mut body: impl FnMut(&mut Random, usize)) {
    let wanted = std::env::var("TABLECAST_TEST_HISTORIES").ok();
    let seconds = wanted.and_then(|seconds| seconds.parse().ok()).unwrap_or(0.8);
    let start = Instant::now();
    for number in 0.. {
        println!("history {number}: TABLECAST_TEST_SEED={}", random.seed());
        body(random, number);
        if start.elapsed() > Duration::from_secs_f64(seconds) {
            return;
        }
    }
}

fn some<'a>(random: &mut Random, all: &[&'a str]) -> Vec<&'a str> {
    let count = 1 + random.below(all.len());
    (0..count).map(|_| all[random.below(all.len())]).collect()
}

struct Play<'r> {
    random: &'r mut Random,
    keys: Vec<&'static str>,
    topics: Vec<Topic>,
    tables: Vec<Table>,
    /// Of ten writes, so many are creates, sets or deletes.
    ops: [usize; 3],
    /// Of ten writes, so many name a version, a topic.
    named: [usize; 2],
}

fn play(setup: &Setup, random: &mut Random, name: &str, mut loss: Option<&mut (dyn Loss + '_)>) {
    let weights = CALLS.map(|(call, weights)| match call {
        Call::Lose if loss.is_none() => 0,
        _ => weights[random.below(weights.len())],
    });
    let handles: Vec<_> = (0..1 + random.below(3)).map(|_| open(setup, random)).collect();
    let tables: BTreeSet<_> = some(random, &TABLES).into_iter().collect();
    let mut play = Play {
        keys: some(random, &KEYS),
        topics: some(random, &TOPICS).into_iter().map(topic).collect(),
        tables: tables
            .iter()
            .map(|end| Table::new(format!("{name}{end}"), DELETES_REMEMBERED))
            .collect(),
        ops: [1 + random.below(4), random.below(5), random.below(5)],
        named: [random.below(7), random.below(11)],
        random,
    };
    let count = [5, 30, 120][play.random.below(3)];
    for _ in 0..count {
        let call = CALLS[play.random.among(&weights)].0;
        let handle = &handles[play.random.below(handles.len())];
        match (call, &mut loss) {
            (Call::Lose, Some(loss)) => loss.lose(play.random, &mut play.tables),
            _ => play.take(call, handle),
        }
    }
    for table in &mut play.tables {
        table.list(&handles[0], None);
        table.versions(&handles[0], &play.topics);
        for topic in &play.topics {
            table.changes(&handles[0], topic, TableVersion::default(), true);
        }
    }
    play.tables
        .iter()
        .for_each(|table| _ = handles[0].store.delete_table(&table.name).unwrap());
}

fn open(setup: &Setup, random: &mut Random) -> Handle {
    let limit = [1, 2, 3, 5, 1000][random.below(5)];
    let options = StoreOptions {
        batch_amount: limit,
        deletes_remembered: DELETES_REMEMBERED,
        // More than a busy machine takes.
        timeout: Duration::from_secs(30),
    };
    let store = (setup.open)(options);
    let database = (random.below(3) == 0).then(|| {
        let driver = flaky::Flaky::default();
        let publisher = Publisher::new(&driver, Default::default()).unwrap();
        (Database::new(Arc::clone(&store), publisher, Default::default()), driver)
    });
    Handle { store, database, limit }
}

impl Handle {
    fn write(&self, write: &Write<'_>) -> Result<Written> {
        match &self.database {
            Some((database, _)) => database.write(write, 5),
            None => self.store.write(write),
        }
    }
}

impl Play<'_> {
    fn one<T>(&mut self, chance: usize, of: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.random.below(10) < chance).then(|| of(self))
    }

    fn key(&mut self) -> &'static str {
        self.keys[self.random.below(self.keys.len())]
    }

    fn topic(&mut self) -> Topic {
        self.topics[self.random.below(self.topics.len())].clone()
    }

    fn value(&mut self) -> String {
        match self.random.below(300) {
            0 => "x".repeat(3 << 20),
            1..20 => "y\0é".repeat(self.random.below(3000)),
            _ => ["", "1", "2"][self.random.below(3)].to_owned(),
        }
    }

    fn parts(&mut self, table: usize) -> Parts {
        let (key, value) = (self.key(), self.value());
        let what = self.random.among(&self.ops);
        let topic = self.one(self.named[1], Self::topic);
        let table = &self.tables[table];
        let version = (self.random.below(10) < self.named[0]).then(|| match self.random.below(10) {
            0 => 0,
            1 => table.version,
            2 => table.version + 1,
            3 => 1 << 53,
            4 => self.random.next() >> 12,
            5 => table.last_of_key(key).unwrap_or(1).saturating_sub(1),
            _ => table.last_of_key(key).unwrap_or(table.version),
        });
        let flags = (self.random.below(3) == 0, self.random.below(3) == 0);
        Parts {
            key,
            what,
            value,
            topic,
            version,
            flags,
        }
    }

    fn take(&mut self, call: Call, handle: &Handle) {
        let at = self.random.below(self.tables.len());
        match call {
            Call::Write => {
                let parts = self.parts(at);
                let table = &mut self.tables[at];
                let name = table.name.clone();
                let write = parts.write(&name);
                let fails = (self.random.below(4) == 0).then(|| {
                    use ErrorKind::*;
                    [Timeout, Unavailable, Unconfirmed, Transport][self.random.below(4)]
                });
                match (&handle.database, fails) {
                    (Some((database, driver)), Some(kind)) => {
                        *driver.0.lock() = Some(kind);
                        table.unpublished(&write, database.write(&write, 5));
                        *driver.0.lock() = None;
                    }
                    _ => table.written(&write, handle.write(&write)),
                }
            }
            Call::WriteEach => {
                let count = self.random.below(12);
                let tables: Vec<_> = (0..count)
                    .map(|_| {
                        if self.random.below(3) == 0 {
                            self.random.below(self.tables.len())
                        } else {
                            at
                        }
                    })
                    .collect();
                let parts: Vec<_> = tables.iter().map(|table| self.parts(*table)).collect();
                let names: Vec<_> = self.tables.iter().map(|table| table.name.clone()).collect();
                let writes: Vec<_> = parts
                    .iter()
                    .zip(&tables)
                    .map(|(parts, at)| parts.write(&names[*at]))
                    .collect();
                let results = handle.store.write_each(&writes).unwrap();
                assert_eq!(results.len(), writes.len());
                for ((write, at), result) in writes.iter().zip(&tables).zip(results) {
                    self.tables[*at].written(write, result);
                }
            }
            Call::DeleteRows => {
                let keys: Vec<_> = (0..self.random.below(6)).map(|_| self.key().into()).collect();
                let table = &mut self.tables[at];
                let deleted = handle.store.delete_rows(&table.name, &keys).unwrap();
                assert_eq!(deleted, keys.iter().filter(|key| table.delete(key)).count());
            }
            Call::Get => {
                let (key, of) = (self.key(), self.one(4, Self::topic));
                self.tables[at].get(handle, key, of.as_ref());
            }
            Call::Page => {
                let (of, after) = (self.one(5, Self::topic), self.one(7, Self::key));
                self.tables[at].page(handle, of.as_ref(), after);
            }
            Call::List => {
                let of = self.one(5, Self::topic);
                self.tables[at].list(handle, of.as_ref());
            }
            Call::CreateTable => {
                let table = &mut self.tables[at];
                assert_eq!(handle.store.create_table(&table.name).unwrap(), !table.exists);
                table.exists = true;
            }
            Call::DeleteTable => {
                let table = &mut self.tables[at];
                assert_eq!(handle.store.delete_table(&table.name).unwrap(), table.exists);
                table.drop();
            }
            Call::Allocate => self.tables[at].allocate(handle),
            Call::Versions => {
                let topics: Vec<_> = (0..self.random.below(8)).map(|_| self.topic()).collect();
                self.tables[at].versions(handle, &topics);
            }
            Call::Changes | Call::Follow => {
                let of = self.topic();
                let since = self.tables[at].position(self.random);
                self.tables[at].changes(handle, &of, since, matches!(call, Call::Follow));
            }
            Call::Advance => {
                let table = &mut self.tables[at];
                let Some(key) = table.rows.keys().next().cloned() else {
                    return;
                };
                let name = table.name.clone();
                let writes = vec![Write::set(&name, &key, "x"); 100 + self.random.below(1200)];
                for (write, result) in writes.iter().zip(handle.store.write_each(&writes).unwrap()) {
                    table.written(write, result);
                }
            }
            Call::Tables => {
                let all = handle.store.tables().unwrap();
                assert!(all.is_sorted_by(|one, next| one.name < next.name));
                for table in &self.tables {
                    let found = all.iter().find(|found| *found.name == *table.name);
                    assert_eq!(found.is_some(), table.exists);
                    if let Some(rows) = found.and_then(|found| found.rows) {
                        assert_eq!(rows, table.rows.len() as u64);
                    }
                }
            }
            Call::Lose => {}
        }
    }
}

/// The parts of a write, without its table.
struct Parts {
    key: &'static str,
    /// Create, set or delete.
    what: usize,
    value: String,
    topic: Option<Topic>,
    version: Option<u64>,
    /// Unless equal, returning.
    flags: (bool, bool),
}

impl Parts {
    fn write<'a>(&'a self, table: &'a str) -> Write<'a> {
        let op = [WriteOp::Create(&self.value), WriteOp::Set(&self.value), WriteOp::Delete][self.what];
        let mut write = Write::delete(table, self.key);
        (write.op, write.topic, write.if_version) = (op, self.topic.as_ref(), self.version);
        (write.unless_equal, write.returning) = self.flags;
        write
    }
}
