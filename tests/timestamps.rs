//! The timestamps of one publisher rise strictly, in the order of sending, whatever its clock does.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use common::within;
use tablecast::codec::{Codec, Decoder, Message};
use tablecast::drivers::memory::MemoryDriver;
use tablecast::transport::{Driver, Inbound, Received};
use tablecast::{Action, DbUpdate, Publisher, PublisherOptions, Topic};

const LIMIT: Duration = Duration::from_secs(30);
const ADDRESS: &str = "memory://timestamps";

/// A publisher, and the receiving end of its updates.
fn publisher(codec: Codec) -> (Publisher, Box<dyn Inbound>) {
    let driver = MemoryDriver::new(ADDRESS).unwrap().capacity(100_000);
    let options = PublisherOptions {
        codec,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&driver, options).unwrap();
    let (mut inbound, _) = driver.inbound().unwrap();
    for number in 0..4 {
        inbound.subscribe(&topic(number)).unwrap();
    }
    inbound.connect(ADDRESS).unwrap();
    (publisher, inbound)
}

fn topic(number: usize) -> Topic {
    Topic::new(format!("topic{number}")).unwrap()
}

fn update(timestamp: i64) -> DbUpdate {
    let mut update = DbUpdate::new("t", "k", Action::Set);
    update.timestamp = timestamp;
    update
}

fn received(inbound: &mut dyn Inbound, count: usize) -> Vec<DbUpdate> {
    let (mut decoder, mut messages, mut updates) = (Decoder::new(), Vec::new(), Vec::new());
    let deadline = Instant::now() + LIMIT;
    while updates.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} came", updates.len());
        if let Received::Frame { topic, payload, .. } = inbound.recv(Some(Duration::from_millis(100))).unwrap() {
            let topic = Topic::new(String::from_utf8(topic.to_vec()).unwrap()).unwrap();
            decoder.decode(&topic, payload, &mut messages).unwrap();
        }
        updates.extend(messages.drain(..).filter_map(|message| match message {
            Message::Update(update) => Some(update),
            Message::Control(_) => None,
        }));
    }
    updates
}

#[test]
fn they_rise_over_all_topics_and_threads_when_the_clock_steps() {
    const EACH: usize = 2000;
    for codec in [Codec::Json, Codec::MessagePack] {
        within(LIMIT, move || {
            let (publisher, mut inbound) = publisher(codec);
            thread::scope(|scope| {
                for number in 0..4 {
                    let publisher = &publisher;
                    scope.spawn(move || {
                        for round in 0..EACH / 4 {
                            // The threads' clocks go back, stand still, and jump by an hour.
                            let hour = 3_600_000_000 * (round as i64 % 3);
                            let time = 1_700_000_000_000_000 + hour - round as i64;
                            publisher.send_event(&update(time).topic(topic(number))).unwrap();
                            publisher.send_event_to(&topic(3 - number), &update(time)).unwrap();
                            let batch = [update(time), update(time - 5)];
                            publisher.send_batch(&topic(number), &batch).unwrap();
                        }
                    });
                }
            });
            let (mut last, mut all) = (HashMap::new(), BTreeSet::new());
            for update in received(&mut *inbound, 4 * EACH) {
                let before = last.insert(update.topic, update.timestamp);
                assert!(before < Some(update.timestamp), "{codec}");
                assert!(
                    all.insert(update.timestamp),
                    "{codec}: no two have the same, on whatever topic"
                );
            }
        });
    }
}

#[test]
fn they_are_the_updates_own_where_those_rise_and_never_overflow() {
    within(LIMIT, || {
        let (publisher, mut inbound) = publisher(Codec::Json);
        let own = [i64::MIN + 1, -5, 0, 7, 7, 6, 100, i64::MAX - 1, 3, 3];
        for timestamp in own {
            let update = update(timestamp);
            publisher.send_event_to(&topic(0), &update).unwrap();
            assert_eq!(update.timestamp, timestamp);
        }
        publisher.send_batch(&topic(1), &[update(0), update(i64::MAX)]).unwrap();
        let timestamps: Vec<i64> = received(&mut *inbound, own.len() + 2)
            .iter()
            .map(|update| update.timestamp)
            .collect();
        let max = i64::MAX;
        assert_eq!(
            timestamps,
            [i64::MIN + 1, -5, 0, 7, 8, 9, 100, max - 1, max, max, max, max]
        );
    });
}

#[test]
fn what_was_refused_raises_none() {
    within(LIMIT, || {
        let (publisher, mut inbound) = publisher(Codec::MessagePack);
        publisher.send_event_to(&topic(0), &update(1)).unwrap();
        let large = update(i64::MAX).value("x".repeat(17 << 20));
        publisher.send_event_to(&topic(0), &large).unwrap_err();
        publisher.send_event_to(&topic(0), &update(2)).unwrap();
        let updates = received(&mut *inbound, 2);
        let sent = |update: &DbUpdate| (update.timestamp, update.origin.as_ref().unwrap().seq);
        assert_eq!(updates.iter().map(sent).collect::<Vec<_>>(), [(1, 1), (2, 2)]);
    });
}
