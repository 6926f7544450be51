//! A writer: stores each change, logs it, and then publishes it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use serde::{Deserialize, Serialize};
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::registry::Registration;
use tablecast::store::Write;
use tablecast::transport::Driver;
use tablecast::{Action, DbUpdate, Error, ErrorKind, Publisher, PublisherOptions, Result, Store, Topic};

use super::actor;
use super::history::{Change, Event, Log, wall_clock};
use super::random::Random;
use super::registry::RegistrySpec;
use super::stage::STORE_TIMEOUT;
use super::store::{self, WRITER};

/// Options of a writer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WriterSpec {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) store: String,
    /// The publisher service's socket, `ipc://..`, or the address to bind, `tcp://..`.
    pub(crate) address: String,
    pub(crate) topics: Vec<String>,
    /// How many rows each topic has.
    pub(crate) rows: usize,
    /// The length of a value.
    pub(crate) bytes: usize,
    /// Whether tables and keys have names that look like something else.
    pub(crate) odd: bool,
    /// Whether updates state the version of their row.
    pub(crate) versioned: bool,
    /// Whether stored changes are also published.
    pub(crate) publishes: bool,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    /// The publisher's id; `None` for a made one.
    pub(crate) id: Option<String>,
    pub(crate) hello_interval: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) send_hwm: i32,
    /// The registry in which it is registered under its name, if any.
    pub(crate) registry: Option<RegistrySpec>,
}

/// The writer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Clock {
    /// Wrong by this many seconds.
    Off(i64),
    /// Goes forth and back by up to an hour with every update.
    Steps,
}

impl Clock {
    /// How wrong it is at first.
    fn seconds(self) -> i64 {
        match self {
            Clock::Off(seconds) => seconds,
            Clock::Steps => 0,
        }
    }
}

/// Outcome of an order to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    pub(crate) refused: u64,
}

/// Orders for a writer, which answers each when it is done; [`Order::Send`] also when it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Sends this many updates, at this many a second.
    Send(u64, u64),
    /// Stores this many changes without sending them yet.
    Prepare(u64),
    /// Sends the prepared changes as fast as it can.
    Burst,
    Stop,
    /// Stores one more change and does not publish it.
    StoreOnly,
    /// Writes every row again whose last change could not be published.
    Repair,
}

pub(crate) const TABLES: &[&str] = &["lport", "chassis", "secgroup"];

pub(crate) const ODD: &[&str] = &[
    "",
    "*",
    "?",
    "[a]",
    "a.b",
    "{}",
    "\"",
    "\\",
    "\n",
    "\0",
    "é",
    "hello",
    "goodbye",
    "sync",
    "D",
    "\u{10FFFF}tablecast/hello",
];

struct Writer {
    spec: WriterSpec,
    log: Log,
    store: Arc<dyn Store>,
    publisher: Publisher,
    /// Dropped after the publisher.
    _registration: Option<Registration>,
    random: Random,
    /// The existing rows, as far as is known.
    there: HashSet<usize>,
    /// The last number of each topic.
    numbers: HashMap<usize, u64>,
    /// Rows whose last change could not be published.
    unpublished: Vec<usize>,
    /// Stored changes to send: the row, the change, and its update.
    prepared: Vec<(usize, Change, DbUpdate)>,
}

impl Writer {
    /// Opens a writer that goes on where an earlier one of the same name has ended.
    fn open(spec: WriterSpec) -> Result<Writer> {
        let path = spec.folder.join(format!("{WRITER}{}", spec.name));
        let options = PublisherOptions {
            id: spec.id.as_deref().map(Into::into),
            send_timeout: spec.send_timeout,
            hello_interval: spec.hello_interval,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&*driver(&spec)?, options)?;
        let log = Log::append_to(&path);
        log.write(Event::Opened {
            publisher: publisher.id().to_string(),
            epoch: publisher.epoch(),
        });
        let wrong = spec.clock.seconds() * 1_000_000;
        let registry = spec.registry.as_ref();
        let registration = registry.map(|registry| registry.register(&spec.name, &publisher, wrong));
        Ok(Writer {
            random: Random::from_seed(spec.seed),
            _registration: registration,
            store: store::open(&spec.store, STORE_TIMEOUT),
            spec,
            log,
            publisher,
            there: HashSet::new(),
            numbers: HashMap::new(),
            unpublished: Vec::new(),
            prepared: Vec::new(),
        })
    }

    fn address(&self) -> String {
        self.publisher.address().unwrap_or_default()
    }

    /// Changes a random row and publishes that. Returns true if the update was accepted.
    fn write(&mut self) -> bool {
        let row = self.random.below(self.spec.topics.len() * self.spec.rows);
        self.write_row(row)
    }

    fn write_row(&mut self, row: usize) -> bool {
        match self.store(row) {
            Ok((change, _)) if !self.spec.publishes => {
                self.log.write(Event::Stored(change));
                true
            }
            Ok((change, update)) => self.publish(row, change, &update),
            Err(error) => {
                self.refuse(row, &error, 0);
                false
            }
        }
    }

    /// Publishes a stored change. Returns true if it was accepted. Everything logged so far is then in the file.
    fn publish(&mut self, row: usize, change: Change, update: &DbUpdate) -> bool {
        self.log.write(Event::Stored(change));
        let start = Instant::now();
        let sent = self.publisher.send_event(update);
        let took = i64::try_from(start.elapsed().as_micros()).unwrap();
        match sent {
            Ok(()) => {
                let number = self.numbers.entry(row % self.spec.topics.len()).or_default();
                *number += 1;
                self.log.note(Event::Sent { seq: *number, took });
                self.unpublished.retain(|other| *other != row);
                true
            }
            Err(error) => {
                self.refuse(row, &error, took);
                false
            }
        }
    }

    fn refuse(&mut self, row: usize, error: &Error, took: i64) {
        let kind = error.kind().to_string();
        self.log.note(Event::Refused { kind, took });
        if !self.unpublished.contains(&row) {
            self.unpublished.push(row);
        }
    }

    fn prepare(&mut self, count: u64) {
        for _ in 0..count {
            let row = self.random.below(self.spec.topics.len() * self.spec.rows);
            let (change, update) = self.store(row).unwrap();
            self.prepared.push((row, change, update));
        }
    }

    fn burst(&mut self) -> Sent {
        let mut result = Sent::default();
        for (row, change, update) in std::mem::take(&mut self.prepared) {
            match self.publish(row, change, &update) {
                true => result.sent += 1,
                false => result.refused += 1,
            }
        }
        self.log.flush();
        result
    }

    /// Writes a row. Returns the change and its update.
    fn store(&mut self, row: usize) -> Result<(Change, DbUpdate)> {
        let topic = Topic::new(&*self.spec.topics[row % self.spec.topics.len()]).unwrap();
        let (tables, keys) = match self.spec.odd {
            true => (ODD, ODD),
            false => (TABLES, &[""][..]),
        };
        let table = tables[row % tables.len()];
        let key = format!("{}{}-{row}", self.spec.name, keys[row % keys.len()]);
        let deletes = self.there.contains(&row) && self.random.below(8) == 0;
        let value = "x".repeat(self.spec.bytes);
        let (action, written) = loop {
            let (action, write) = match self.there.contains(&row) {
                false => (Action::Create, Write::create(table, &key, &value).topic(&topic)),
                true if deletes => (Action::Delete, Write::delete(table, &key)),
                true => (Action::Set, Write::set(table, &key, &value)),
            };
            match self.store.write(&write) {
                Ok(written) => break (action, written),
                // An earlier writer of this name, or a write whose answer was lost, has made it.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => drop(self.there.insert(row)),
                Err(e) if e.kind() == ErrorKind::NotFound => drop(self.there.remove(&row)),
                Err(e) => return Err(e),
            }
        };
        let deleted = action == Action::Delete;
        match deleted {
            true => self.there.remove(&row),
            false => self.there.insert(row),
        };
        let change = Change {
            topic: topic.to_string(),
            table: table.into(),
            key: key.clone(),
            version: written.version,
            deleted,
        };
        let mut update = DbUpdate::new(table, key, action);
        update.topic = topic;
        update.value = (!deleted).then_some(value);
        if self.spec.versioned {
            (update.version, update.after) = (Some(written.version), written.after);
        }
        update.priority = 1 + self.random.below(9) as i32;
        update.timestamp = match self.spec.clock {
            Clock::Off(seconds) => wall_clock() + seconds * 1_000_000,
            Clock::Steps => wall_clock() + (self.random.below(7_200_000_000) as i64) - 3_600_000_000,
        };
        Ok((change, update))
    }

    /// Writes every row again whose last change could not be published, until that succeeds.
    fn repair(&mut self) {
        let deadline = Instant::now() + actor::LIMIT;
        while let Some(row) = self.unpublished.first().copied() {
            assert!(Instant::now() < deadline, "row {row} cannot be published");
            self.write_row(row);
        }
        self.log.flush();
    }

    /// Says goodbye.
    fn close(self) {
        drop(self.publisher);
        self.log.write(Event::Closed);
    }

    fn send(&mut self, count: u64, rate: u64, orders: &Receiver<Order>) -> Sent {
        let start = Instant::now();
        let mut result = Sent::default();
        for number in 0..count {
            let due = start + Duration::from_secs_f64(number as f64 / rate as f64);
            // Sleeping for less than this costs more than it is worth.
            let due = due.checked_sub(Duration::from_millis(1)).unwrap_or(start);
            // It is stopped, or the process that gives orders is gone.
            let told = match due > Instant::now() {
                true => orders.recv_deadline(due) != Err(RecvTimeoutError::Timeout),
                // A wait that is over when it begins would still let other threads run first.
                false => orders.try_recv() != Err(TryRecvError::Empty),
            };
            if told {
                break;
            }
            match self.write() {
                true => result.sent += 1,
                false => result.refused += 1,
            }
        }
        self.log.flush();
        result
    }
}

/// The body of a writer's process.
pub(crate) fn run(spec: WriterSpec) {
    let mut writer = match Writer::open(spec) {
        Ok(writer) => writer,
        Err(error) => return actor::answer(&Err::<String, _>(error.kind().to_string())),
    };
    actor::answer(&Ok::<_, String>(writer.address()));
    let orders = actor::orders::<Order>();
    for order in &orders {
        match order {
            Order::Send(count, rate) => actor::answer(&writer.send(count, rate, &orders)),
            Order::Prepare(count) => {
                writer.prepare(count);
                actor::answer(&());
            }
            Order::Burst => actor::answer(&writer.burst()),
            // Too late to stop anything.
            Order::Stop => {}
            Order::StoreOnly => {
                let (change, _) = writer.store(0).unwrap();
                writer.log.write(Event::Stored(change));
                actor::answer(&());
            }
            Order::Repair => {
                writer.repair();
                actor::answer(&());
            }
        }
    }
    writer.close();
}

fn driver(spec: &WriterSpec) -> Result<Box<dyn Driver>> {
    let options = ZmqOptions {
        send_hwm: spec.send_hwm,
        ..ZmqOptions::default()
    };
    Ok(match spec.address.starts_with("ipc://") {
        true => Box::new(ZmqMultiproc::new(&spec.address, options)?),
        false => Box::new(ZmqDriver::new(&spec.address, options)?),
    })
}
