//! A store that publishes what it writes: here in memory, through the driver of its subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use tablecast::codec::Codec;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::store::{Announcement, Announcer, Row, Store, Write, Written};
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::{Driver, Outbound};
use tablecast::{Database, DatabaseOptions, ErrorKind, Publisher, PublisherOptions, Result, SyncReason, Topic};

use crate::common::{eventually, within};
use crate::front::pass_on;
use crate::rig::{LONG, Rig, topic, update};
use crate::suite::assert_kind;

const ADDRESS: &str = "memory://network";

/// Stores and publishes under one lock.
struct Both {
    rows: MemoryStore,
    /// Rows read.
    reads: AtomicUsize,
    outbound: Mutex<Box<dyn Outbound>>,
    /// The next answer is lost.
    is_cut: Mutex<bool>,
    /// Writes of this table wait here.
    gate: Receiver<()>,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Both")
    }
}

impl Announcer for Both {
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written> {
        assert_eq!(write.topic, Some(announcement.topic));
        if write.table == "slow" {
            self.gate.recv().unwrap();
        }
        let mut outbound = self.outbound.lock();
        let written = self.rows.write(write)?;
        if written.changed {
            let payload = announcement.payload(written.version, written.after.unwrap());
            assert!(payload.len() <= announcement.max_payload_len());
            outbound.send(announcement.topic.as_str().as_bytes(), &payload, Duration::from_secs(1))?;
        }
        let is_cut = std::mem::take(&mut *self.is_cut.lock());
        match is_cut {
            true => Err(tablecast::Error::new(ErrorKind::Unconfirmed, "the answer was lost")),
            false => Ok(written),
        }
    }
}

impl Store for Both {
    fn announcer(&self, address: &str) -> Option<&dyn Announcer> {
        (address == ADDRESS).then_some(self)
    }

    fn write(&self, _: &Write<'_>) -> Result<Written> {
        panic!("stored without being published");
    }

    fn get(&self, table: &str, key: &str, topic: Option<&Topic>) -> Result<Row> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.rows.get(table, key, topic)
    }

    pass_on!(|this| this.rows; page_of_entries page_of_keys create_table delete_table allocate_unique_key);
}

/// A database over such a store, its subscriber, and the gate of the slow table.
fn open(options: PublisherOptions) -> (Database, Arc<Both>, Rig, Sender<()>) {
    let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(ADDRESS).unwrap());
    let (open, gate) = bounded(0);
    let store = Arc::new(Both {
        rows: MemoryStore::new(),
        reads: AtomicUsize::new(0),
        outbound: Mutex::new(driver.outbound().unwrap()),
        is_cut: Mutex::new(false),
        gate,
    });
    let publisher = Publisher::new(&*driver, options).unwrap();
    let database = Database::new(store.clone(), publisher, DatabaseOptions::default());
    let rig = Rig::new(&driver);
    rig.listen(&["D", "tenant"], ADDRESS);
    (database, store, rig, open)
}

/// What can be said of rows of one topic is no answer about a row of another one.
#[test]
fn a_topic_that_cannot_be_sent_is_not_taken_for_another_row_s() {
    within(Duration::from_secs(30), || {
        let (database, store, rig, _) = open(PublisherOptions {
            max_topic_bytes: 6,
            ..PublisherOptions::default()
        });
        let set = || database.write(&Write::set("t", "k", "new"), 0);
        store.rows.create("t", "k", "old", &topic("longest")).unwrap();
        for _ in 0..3 {
            assert_kind(set(), ErrorKind::InvalidInput);
        }
        store.rows.delete("t", "k").unwrap();
        store.rows.create("t", "k", "old", &topic("tenant")).unwrap();
        assert_eq!(set().unwrap().topic, topic("tenant"));
        assert_eq!(rig.next().topic, topic("tenant"));
    });
}

/// A store that takes its time holds up its row's topic alone: not other topics, and not the hellos.
#[test]
fn others_send_while_a_store_takes_its_time() {
    within(Duration::from_secs(30), || {
        let (database, _, rig, gate) = open(PublisherOptions {
            hello_interval: Duration::from_millis(50),
            send_timeout: Duration::from_millis(100),
            ..PublisherOptions::default()
        });
        let (tenant, publisher) = (topic("tenant"), database.publisher());
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| database.write(&Write::create("slow", "a", "1").topic(&tenant), 0));
            // Its number is set aside once another one has to wait for it.
            let busy = || publisher.send_event(&update("early").topic(tenant.clone()));
            let error = std::iter::repeat_with(busy).find_map(Result::err).unwrap();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            let before = rig.updates.try_iter().count() as u64;
            database.write(&Write::create("t", "b", "1"), 0).unwrap();
            publisher.send_event(&update("c")).unwrap();
            assert_eq!([rig.next_key(), rig.next_key()], ["b", "c"]);
            let hellos = publisher.stats().hellos;
            eventually(LONG, || publisher.stats().hellos > hellos + 3);
            gate.send(()).unwrap();
            slow.join().unwrap().unwrap();
            publisher.send_event(&update("d").topic(tenant.clone())).unwrap();
            for (key, number) in [("a", 1), ("d", 2)] {
                let update = rig.next();
                assert_eq!((&*update.key, update.origin.unwrap().seq), (key, before + number));
            }
        });
        let told: Vec<_> = rig.syncs.try_iter().collect();
        assert!(
            told.iter().all(|reason| matches!(reason, SyncReason::Connected { .. })),
            "{told:?}"
        );
    });
}

fn with_codec(codec: Codec) {
    let (database, store, rig, _) = open(PublisherOptions {
        codec,
        ..PublisherOptions::default()
    });
    let tenant = topic("tenant");
    let write = |write: Write<'_>| database.write(&write, 3);
    let (mut seqs, mut lasts) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    let mut told = |action: &str, value: Option<&str>, topic: &str, version: u64| {
        let update = rig.next();
        assert_eq!((update.action.as_str(), update.value.as_deref()), (action, value));
        assert_eq!(
            (update.topic.as_str(), update.version, update.priority),
            (topic, Some(version), 3)
        );
        assert_eq!(update.after, Some(lasts.insert(topic.to_owned(), version).unwrap_or(0)));
        // Numbers without gaps and repetitions.
        let seq = seqs.entry(topic.to_owned()).or_insert(0);
        *seq += 1;
        assert_eq!(update.origin.unwrap().seq, *seq);
    };

    let created = write(Write::create("t", "a", "1")).unwrap();
    told("create", Some("1"), "D", created.version);
    let created = write(Write::create("t", "b", "1").topic(&tenant)).unwrap();
    told("create", Some("1"), "tenant", created.version);
    // The topic is looked up.
    let set = write(Write::set("t", "b", "2")).unwrap();
    told("set", Some("2"), "tenant", set.version);
    assert!(!write(Write::set("t", "b", "2").unless_equal()).unwrap().changed);
    assert_kind(write(Write::create("t", "b", "3")), ErrorKind::AlreadyExists);
    assert_kind(write(Write::set("t", "b", "3").topic(&Topic::ALL)), ErrorKind::NotFound);
    assert_kind(write(Write::delete("t", "none")), ErrorKind::NotFound);
    let large = "x".repeat(17 << 20);
    assert_kind(write(Write::set("t", "b", &large)), ErrorKind::TooLarge);
    assert_eq!(database.store().get("t", "b", None).unwrap().version, set.version);
    // A version with many digits, after many writes.
    for number in 0..300 {
        let set = write(Write::set("t", "b", &number.to_string()).topic(&tenant)).unwrap();
        told("set", Some(&number.to_string()), "tenant", set.version);
    }
    // An update that may have been sent has used up its number; otherwise the next one would look like it.
    *store.is_cut.lock() = true;
    assert_kind(write(Write::set("t", "b", "cut")), ErrorKind::Unconfirmed);
    let row = database.store().get("t", "b", None).unwrap();
    assert_eq!(row.value, "cut");
    told("set", Some("cut"), "tenant", row.version);
    let deleted = write(Write::delete("t", "b")).unwrap();
    told("delete", None, "tenant", deleted.version);
    assert!(rig.updates.is_empty());

    // The last update was sent by a clock an hour ahead.
    let mut ahead = update("ahead").priority(3);
    ahead.timestamp += 3_600_000_000;
    database.publisher().send_event(&ahead).unwrap();
    write(Write::create("t", "c", "1")).unwrap();
    let timestamps = [rig.next().timestamp, rig.next().timestamp];
    assert_eq!(timestamps, [ahead.timestamp, ahead.timestamp + 1]);
}

#[test]
fn one_step_in_json() {
    within(Duration::from_secs(30), || with_codec(Codec::Json));
}

#[test]
fn one_step_in_messagepack() {
    within(Duration::from_secs(30), || with_codec(Codec::MessagePack));
}

/// A write that names no topic reads the row, until two in a row had the same topic, and where that was wrong.
#[test]
fn a_topic_is_guessed() {
    within(Duration::from_secs(30), || {
        let (database, store, rig, _) = open(PublisherOptions::default());
        let tenant = topic("tenant");
        let write = |write: Write<'_>, told: &str, reads: usize| {
            database.write(&write, 0).unwrap();
            assert_eq!(rig.next().topic.as_str(), told);
            assert_eq!(store.reads.swap(0, Ordering::Relaxed), reads);
        };
        write(Write::create("t", "a", "0").topic(&tenant), "tenant", 0);
        for (value, reads) in [("1", 1), ("2", 1), ("3", 0), ("4", 0)] {
            write(Write::set("t", "a", value), "tenant", reads);
        }
        write(Write::delete("t", "a"), "tenant", 0);
        write(Write::create("t", "a", "0"), "D", 0);
        for (value, reads) in [("1", 1), ("2", 1), ("3", 0)] {
            write(Write::set("t", "a", value), "D", reads);
        }
        let stats = database.publisher().stats();
        assert_eq!((stats.sent, stats.failed), (10, 0));
    });
}
