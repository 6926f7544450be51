//! A store that publishes what it writes: here in memory, through the driver of its subscribers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tablecast::codec::Codec;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::store::{Announcement, Announcer, Store, Write, Written};
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::{Driver, Outbound};
use tablecast::{Database, DatabaseOptions, ErrorKind, Publisher, PublisherOptions, Result, Topic};

use crate::common::within;
use crate::front::pass_on;
use crate::rig::{Rig, topic, update};
use crate::suite::assert_kind;

const ADDRESS: &str = "memory://network";

/// Stores and publishes under one lock.
struct Both {
    rows: MemoryStore,
    outbound: Mutex<Box<dyn Outbound>>,
    /// The next answer is lost.
    is_cut: Mutex<bool>,
}

impl std::fmt::Debug for Both {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Both")
    }
}

impl Announcer for Both {
    fn write_and_publish(&self, write: &Write<'_>, announcement: &Announcement<'_>) -> Result<Written> {
        assert_eq!(write.topic, Some(announcement.topic));
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

    pass_on!(|this| this.rows; get page_of_entries page_of_keys create_table delete_table allocate_unique_key);
}

fn with_codec(codec: Codec) {
    let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(ADDRESS).unwrap());
    let store = Arc::new(Both {
        rows: MemoryStore::new(),
        outbound: Mutex::new(driver.outbound().unwrap()),
        is_cut: Mutex::new(false),
    });
    let options = PublisherOptions {
        codec,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&*driver, options).unwrap();
    let database = Database::new(store.clone(), publisher, DatabaseOptions::default());
    let (rig, tenant) = (Rig::new(&driver), topic("tenant"));
    rig.listen(&["D", "tenant"], ADDRESS);
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
