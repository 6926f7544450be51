//! The requirements of every driver.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::RwLock;
use tablecast::codec::Codec;
use tablecast::transport::Outbound;
use tablecast::{DbUpdate, ErrorKind, Publisher, PublisherOptions, SyncReason};

use crate::Setup;
use crate::common::{eventually, pass, within};
use crate::rig::{LONG, Rig, quickly, send, topic, update};

/// Held exclusively by cases that measure the process.
static ALONE: RwLock<()> = RwLock::new(());

/// Runs a case beside others.
pub(crate) fn shared(case: impl FnOnce() + Send + 'static) {
    let _others = ALONE.read();
    within(Duration::from_secs(30), case);
}

/// Runs a case while no other runs.
pub(crate) fn alone(case: impl FnOnce() + Send + 'static) {
    let _nobody = ALONE.write();
    within(Duration::from_secs(30), case);
}

impl Setup {
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(&*self.driver, PublisherOptions::default()).unwrap()
    }

    pub(crate) fn address(&self, publisher: &Publisher) -> String {
        let address = self.address.clone().or_else(|| publisher.address());
        address.expect("neither the setup nor the publisher has an address")
    }

    /// A publisher, and a subscriber that is live on these topics.
    pub(crate) fn pair(&self, topics: &[&str]) -> (Publisher, Rig) {
        let publisher = self.publisher();
        let rig = Rig::new(&self.driver);
        rig.listen(topics, &self.address(&publisher));
        (publisher, rig)
    }

    /// As [`Rig::only`], for a `rig` that was connected to something else before.
    #[track_caller]
    fn only(&self, rig: &Rig, key: &str, send: impl FnOnce()) {
        send();
        let mut keys = iter::repeat_with(|| rig.next_key()).skip_while(|next| self.comes_late && next != key);
        assert_eq!(keys.next().unwrap(), key);
        assert!(rig.updates.is_empty());
    }
}

pub(crate) fn delivers_in_order(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["D"]);
    for number in 0..2000 {
        let update = update(&format!("k{}", number % 7)).value(number.to_string());
        publisher.send_event(&update).unwrap();
    }
    let mut last = BTreeMap::new();
    for _ in 0..2000 {
        let update = rig.next();
        let number: i64 = update.value.unwrap().parse().unwrap();
        let before = last.insert(update.key.to_string(), number);
        assert_eq!(number - before.unwrap_or(number - 7), 7);
    }
    assert_eq!(publisher.stats().sent, 2000);
    assert_eq!(rig.next_sync().as_str(), "connected");
    assert!(rig.syncs.is_empty());
    let stats = rig.subscriber.stats();
    assert_eq!((stats.decoded, stats.malformed, stats.errors), (2000, 0, 0));
}

/// Rows of one topic and priority while a callback lets the queue grow: with a clock that stands still and then goes
/// back, and from a publisher that states no time.
pub(crate) fn keeps_the_order_of_sending(setup: fn() -> Setup) {
    const COUNT: usize = 10_000;
    // The keys order each update before the one sent before it.
    let key = |part: &str, number: usize| format!("{part}{:05}", COUNT - number);
    let check = |rig: &Rig, part: &str, send: &mut dyn FnMut(usize)| {
        let (open, gate) = bounded::<()>(0);
        let guard = rig.dispatcher.on_update(move |_: &DbUpdate| {
            let _ = gate.recv();
        });
        let before = rig.subscriber.stats().decoded;
        for number in 0..COUNT {
            send(number);
            // Within the capacity of every transport.
            if number % 500 == 499 {
                eventually(LONG, || rig.subscriber.stats().decoded > before + number as u64);
            }
        }
        drop(open);
        // Some updates that showed the connection, or of the part before, may still be on their way through another
        // node of a cluster.
        let keys = iter::repeat_with(|| rig.next_key()).filter(|key| key.starts_with(part) && key != "valid");
        let keys: Vec<String> = keys.take(COUNT).collect();
        drop(guard);
        assert_eq!(
            keys.iter()
                .zip(0..COUNT)
                .find(|(got, number)| **got != key(part, *number)),
            None
        );
    };

    let setup = setup();
    let (publisher, rig) = setup.pair(&["D"]);
    let now = update("").timestamp;
    check(&rig, "timed", &mut |number| {
        let mut update = update(&key("timed", number));
        update.timestamp = now - number.saturating_sub(COUNT / 2) as i64;
        publisher.send_event(&update).unwrap();
    });
    drop((publisher, rig));

    let (mut outbound, rig) = unnumbered(&setup);
    check(&rig, "untimed", &mut |number| {
        let payload = format!(
            r#"{{"table":"row","key":"{}","action":"set","value":"{{}}"}}"#,
            key("untimed", number)
        );
        outbound.send(b"D", payload.as_bytes(), LONG).unwrap();
    });
}

pub(crate) fn matches_topics_exactly(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["last"]);
    let long = "x".repeat(65_536);
    let wanted = [
        "D",
        "tenant1",
        "*",
        "?x",
        "[a]",
        "[",
        "nul\0",
        "\0",
        "日本",
        "é",
        "\u{10FFFF}",
        " ",
        "\n",
        &*long,
    ];
    let others = [
        "Dxyz",
        "d",
        "D ",
        "tenant10",
        "tenant",
        "**",
        "?",
        "a",
        "[]",
        "nul",
        "nul\0\0",
        "\0\0",
        "日",
        "日本語",
        "e\u{301}",
        "\u{10FFFF}t",
        &long[1..],
    ];
    rig.listen(&wanted, &setup.address(&publisher));
    for name in wanted.iter().chain(&others) {
        send(&publisher, name, name);
    }
    // A connection keeps the order, but the dispatcher goes by timestamps; the counters show that this was the last.
    send(&publisher, "last", "last");
    let mut got: Vec<_> = (0..=wanted.len()).map(|_| rig.next()).collect();
    assert!(got.iter().all(|update| update.key == update.topic.as_str()));
    let mut got: Vec<_> = got.drain(..).map(|update| update.topic.to_string()).collect();
    got.sort_unstable();
    let mut wanted: Vec<_> = wanted.iter().chain(&["last"]).map(|&name| name.to_owned()).collect();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
    assert!(rig.updates.is_empty());
    assert_eq!(rig.subscriber.stats().malformed, 0);
}

pub(crate) fn takes_long_keys_and_topics(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["D"]);
    let key = "é".repeat(32_768);
    publisher.send_event(&update(&key)).unwrap();
    assert_eq!(rig.next_key(), key);
    for key in ["", "a\0b", "\"\\\n", "日本"] {
        publisher.send_event(&update(key)).unwrap();
        assert_eq!(rig.next_key(), key);
    }
    let refused = publisher.send_event(&update(&"k".repeat(65_537))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let long = topic(&"t".repeat(65_537));
    assert_eq!(
        publisher.send_event_to(&long, &update("k")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        rig.subscriber.register_topic(&long).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let large = update("k").value("v".repeat(17 << 20));
    assert_eq!(publisher.send_event(&large).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(publisher.stats().failed, 3);
    let large = update("large").value("v".repeat(5 << 20));
    publisher.send_event(&large).unwrap();
    assert_eq!(rig.next().value, large.value);
}

pub(crate) fn unregistering_stops_delivery(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["a", "b"]);
    let address = setup.address(&publisher);
    for _ in 0..10 {
        rig.only("1", || send(&publisher, "a", "1"));
        assert!(rig.subscriber.unregister_topic(&topic("a")));
        assert!(!rig.subscriber.unregister_topic(&topic("a")));
        send(&publisher, "a", "lost");
        rig.only("2", || send(&publisher, "b", "2"));
        assert!(rig.subscriber.register_topic(&topic("a")).unwrap());
        assert!(!rig.subscriber.register_topic(&topic("a")).unwrap());
        rig.subscriber.wait_live(LONG).unwrap();
    }
    assert!(rig.subscriber.unregister_listen_address(&address));
    assert!(!rig.subscriber.unregister_listen_address(&address));
    assert!(rig.peers().is_empty());
    send(&publisher, "a", "lost");
    // Back again: updates sent in between do not come.
    rig.listen(&[], &address);
    setup.only(&rig, "3", || send(&publisher, "b", "3"));
}

pub(crate) fn registers_while_running(setup: fn() -> Setup) {
    let setup = setup();
    let rig = Rig::new(&setup.driver);
    rig.subscriber.daemonize().unwrap();
    let error = rig.subscriber.wait_live(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let publisher = setup.publisher();
    rig.listen(&["first"], &setup.address(&publisher));
    rig.only("1", || send(&publisher, "first", "1"));
    for number in 0..20 {
        let name = format!("topic{number}");
        rig.listen(&[&name], &setup.address(&publisher));
        rig.only(&name, || send(&publisher, &name, &name));
    }
    // Only the first confirmation is a sync event: more topics are no reason to read the store again.
    assert_eq!(rig.next_sync().as_str(), "connected");
    assert!(rig.syncs.is_empty());
}

pub(crate) fn many_subscribers(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, first) = setup.pair(&["D"]);
    if setup.address(&publisher).starts_with('@') {
        // There the subscribers bind, and a port has only one.
        return;
    }
    let others: Vec<_> = (0..5).map(|_| Rig::new(&setup.driver)).collect();
    for (number, rig) in others.iter().enumerate() {
        rig.listen(&["D", &format!("own{number}")], &setup.address(&publisher));
    }
    for number in 0..100 {
        send(&publisher, "D", &number.to_string());
        send(&publisher, &format!("own{}", number % 5), "own");
    }
    for rig in &others {
        let keys: Vec<_> = (0..120).map(|_| rig.next_key()).collect();
        assert_eq!(keys.iter().filter(|key| *key == "own").count(), 20);
    }
    assert_eq!(
        (0..100).map(|_| first.next_key()).filter(|key| key != "own").count(),
        100
    );
    drop(others);
    first.only("after", || send(&publisher, "D", "after"));
}

pub(crate) fn many_publishers(setup: fn() -> Setup) {
    let setups = [setup(), setup(), setup()];
    let publishers: Vec<_> = setups.iter().map(Setup::publisher).collect();
    let rig = Rig::new(&setups[0].driver);
    for (setup, publisher) in setups.iter().zip(&publishers) {
        rig.listen(&["D"], &setup.address(publisher));
    }
    for number in 0..300 {
        send(&publishers[number % 3], "D", &number.to_string());
    }
    let mut got: Vec<usize> = (0..300).map(|_| rig.next_key().parse().unwrap()).collect();
    got.sort_unstable();
    assert!(got.into_iter().eq(0..300));
    assert_eq!(rig.peers().len(), 3);
    let mut addresses: Vec<_> = (0..3)
        .map(|_| match rig.next_sync() {
            SyncReason::Connected { address } => address.to_string(),
            other => panic!("{other}"),
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    rig.subscriber
        .unregister_listen_address(&setups[1].address(&publishers[1]));
    send(&publishers[1], "D", "lost");
    rig.only("0", || send(&publishers[0], "D", "0"));
    rig.only("2", || send(&publishers[2], "D", "2"));
    assert!(rig.syncs.is_empty(), "unregistering is no loss");
}

pub(crate) fn stops_and_starts_again(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["D"]);
    for number in 0..5 {
        let key = number.to_string();
        setup.only(&rig, &key, || send(&publisher, "D", &key));
        assert!(rig.subscriber.is_running());
        let twice = rig.subscriber.daemonize().unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::InvalidInput);
        quickly(Duration::from_secs(1), "stop", || rig.subscriber.stop());
        assert!(!rig.subscriber.is_running());
        quickly(Duration::from_millis(100), "a second stop", || rig.subscriber.stop());
        rig.listen(&[], &setup.address(&publisher));
        assert_eq!(
            rig.next_certain_sync().as_str(),
            if number == 0 { "connected" } else { "reconnected" }
        );
    }
    assert_eq!(rig.next_certain_sync().as_str(), "reconnected");
}

pub(crate) fn drops_promptly(setup: fn() -> Setup) {
    let setup = setup();
    let mut publisher = setup.publisher();
    for _ in 0..3 {
        let rig = Rig::new(&setup.driver);
        rig.listen(&["D"], &setup.address(&publisher));
        send(&publisher, "D", "1");
        quickly(Duration::from_secs(1), "drop of the subscriber", || drop(rig));
        quickly(Duration::from_secs(1), "drop of the publisher", || drop(publisher));
        // An address is free only a moment after its socket was closed.
        let mut next = None;
        eventually(LONG, || {
            next = Publisher::new(&*setup.driver, PublisherOptions::default()).ok();
            next.is_some()
        });
        publisher = next.unwrap();
    }
}

/// Without a reader the driver drops or refuses, in either case within the time limit, and works again afterwards.
pub(crate) fn send_is_bounded(setup: fn() -> Setup) {
    let setup = setup();
    let timeout = Duration::from_millis(50);
    let options = PublisherOptions {
        send_timeout: timeout,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&*setup.driver, options).unwrap();
    let (mut stuck, _wake) = setup.driver.inbound().unwrap();
    stuck.subscribe(&topic("D")).unwrap();
    stuck.connect(&setup.address(&publisher)).unwrap();
    let mut refused = 0;
    for number in 0..1003 {
        let sent = quickly(timeout + Duration::from_millis(200), "send", || {
            publisher.send_event(&update(&number.to_string()))
        });
        if let Err(error) = sent {
            // A server may confirm too late.
            let late = [ErrorKind::Timeout, ErrorKind::Unconfirmed];
            assert!(late.contains(&error.kind()), "{error}");
            refused += 1;
        }
    }
    let stats = publisher.stats();
    assert_eq!((stats.sent, stats.failed), (1003 - refused, refused));
    drop(stuck);
    eventually(LONG, || publisher.send_event(&update("after")).is_ok());
}

pub(crate) fn batches_arrive_whole(setup: fn() -> Setup) {
    let setup = setup();
    let (publisher, rig) = setup.pair(&["D", "other"]);
    let updates: Vec<_> = (0..500).map(|n| update("row").value(n.to_string())).collect();
    publisher.send_batch(&topic("other"), &updates).unwrap();
    publisher.send_batch(&topic("other"), &[]).unwrap();
    for number in 0..500 {
        let update = rig.next();
        assert_eq!(update.value, Some(number.to_string()));
        assert_eq!(update.topic, topic("other"));
        assert_eq!(update.origin.unwrap().seq, number + 1);
    }
    let large: Vec<_> = (0..20).map(|_| update("large").value("v".repeat(1 << 20))).collect();
    assert_eq!(
        publisher.send_batch(&topic("D"), &large).unwrap_err().kind(),
        ErrorKind::TooLarge
    );
    rig.only("after", || send(&publisher, "other", "after"));
    assert_eq!(publisher.stats().sent, 501);
    assert_eq!(publisher.stats().failed, 20);
}

/// The updates of a batch go out one by one, and a subscriber that reads nothing stops them half-way: those that read
/// are told of the rest.
pub(crate) fn a_cut_batch_is_a_gap(setup: fn() -> Setup) {
    let setup = setup();
    let options = PublisherOptions {
        codec: Codec::Dragonflow1,
        send_timeout: Duration::from_millis(100),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&*setup.driver, options).unwrap();
    let rig = Rig::new(&setup.driver);
    rig.listen(&["D"], &setup.address(&publisher));
    assert_eq!(rig.next_sync().as_str(), "connected");
    let (mut stuck, _wake) = setup.driver.inbound().unwrap();
    stuck.subscribe(&topic("D")).unwrap();
    stuck.connect(&setup.address(&publisher)).unwrap();
    let batch = vec![update("row"); 1003];
    let error = publisher.send_batch(&topic("D"), &batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    (0..1000).for_each(|_| assert_eq!(rig.next_key(), "row"));
    let gap = rig.next_sync();
    assert!(
        matches!(
            gap,
            SyncReason::Gap {
                from: 1001,
                to: 1001,
                ..
            }
        ),
        "{gap:?}"
    );
    // Of this one nothing was sent.
    let error = publisher.send_batch(&topic("D"), &batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!((publisher.stats().sent, publisher.stats().failed), (1000, 3 + 1003));
    drop(stuck);
    send(&publisher, "D", "after");
    assert_eq!(rig.next().origin.unwrap().seq, 1002);
}

/// Updates sent as fast as possible, on one topic or on several in turn, arrive whole and in order, including the last,
/// after which nothing more is sent.
pub(crate) fn bursts_arrive_whole(setup: fn() -> Setup) {
    const TOPICS: [&str; 3] = ["D", "one", "two"];
    const COUNT: usize = 900;
    let setup = setup();
    let (publisher, rig) = setup.pair(&TOPICS);
    for part in 0..5 {
        for number in 0..COUNT {
            let name = TOPICS[number / (1 << part) % 3];
            send(&publisher, name, &format!("{part} {number}"));
        }
        let mut last = BTreeMap::new();
        for _ in 0..COUNT {
            let update = rig.next();
            let (of, number) = update.key.split_once(' ').unwrap();
            assert_eq!(of, part.to_string());
            let number = Some(number.parse::<usize>().unwrap());
            assert!(last.insert(update.topic, number) < Some(number));
        }
    }
    assert_eq!(rig.next_sync().as_str(), "connected");
    assert!(rig.syncs.is_empty());
    let stats = publisher.stats();
    assert_eq!((stats.sent, stats.failed, stats.lost), (5 * COUNT as u64, 0, 0));
    assert_eq!(rig.subscriber.stats().decoded, 5 * COUNT as u64);
}

/// An update accepted right before the publisher is dropped still arrives, before the goodbye.
pub(crate) fn a_burst_ends_with_the_publisher(setup: fn() -> Setup) {
    for count in [9, 50, 900] {
        let setup = setup();
        let (publisher, rig) = setup.pair(&["D"]);
        for number in 0..count {
            send(&publisher, "D", &number.to_string());
        }
        drop(publisher);
        for number in 0..count {
            assert_eq!(rig.next_key(), number.to_string());
        }
        eventually(LONG, || rig.subscriber.stats().hellos > 0);
        assert_eq!(rig.subscriber.stats().gaps, 0);
    }
}

pub(crate) fn survives_binary_topics(setup: fn() -> Setup) {
    let setup = setup();
    survives(
        &setup,
        &[
            b"D\xff",
            b"\xff\xfe\x00",
            b"",
            b"D\0",
            b"\xf4\x8f\xbf\xbftablecast/probe/x",
        ],
        &[b"{}"],
        0,
    );
}

pub(crate) fn survives_malformed_payloads(setup: fn() -> Setup) {
    let setup = setup();
    let payloads: [&[u8]; 6] = [b"", b"{", b"{}", b"\xff\xff", b"[[[[[[[", b"\xdf\xff\xff\xff\xff"];
    survives(&setup, &[b"D"], &payloads, payloads.len() as u64);
}

/// A bare sending end, and a subscriber connected to it.
fn unnumbered(setup: &Setup) -> (Box<dyn Outbound>, Rig) {
    // A port is free only a moment after its publisher was dropped.
    let mut opened = None;
    eventually(LONG, || {
        opened = setup.driver.outbound().ok();
        opened.is_some()
    });
    let mut outbound = opened.unwrap();
    let rig = Rig::new(&setup.driver);
    let address = setup.address.clone().or_else(|| outbound.address()).unwrap();
    rig.subscriber.register_topic(&topic("D")).unwrap();
    rig.subscriber.register_listen_address(&address).unwrap();
    rig.subscriber.daemonize().unwrap();
    let valid = br#"{"table":"row","key":"valid","action":"set","value":null,"topic":"D"}"#;
    // It answers no probes, so only received updates show the connection.
    eventually(LONG, || {
        outbound.probes().unwrap();
        outbound.send(b"D", valid, LONG).unwrap();
        rig.updates.recv_timeout(Duration::from_millis(10)).is_ok()
    });
    (outbound, rig)
}

/// Sends these from a bare sending end, and expects that they are only counted.
fn survives(setup: &Setup, topics: &[&[u8]], payloads: &[&[u8]], malformed: u64) {
    let (mut outbound, rig) = unnumbered(setup);
    let second = Duration::from_secs(1);
    for topic in topics {
        for payload in payloads {
            outbound.send(topic, payload, second).unwrap();
        }
    }
    let last = br#"{"table":"row","key":"last","action":"set","value":null,"topic":"D"}"#;
    outbound.send(b"D", last, second).unwrap();
    // Some updates that showed the connection may still be on their way.
    let mut others = iter::repeat_with(|| rig.next_key()).skip_while(|key| key == "valid");
    assert_eq!(others.next().unwrap(), "last");
    eventually(LONG, || rig.subscriber.stats().malformed == malformed);
    assert_eq!(rig.subscriber.stats().errors, 0);
    assert!(rig.subscriber.is_running());
    assert!(rig.syncs.try_iter().all(|reason| reason.as_str() == "connected"));
}

pub(crate) fn a_late_publisher_is_found(setup: fn() -> Setup) {
    let setup = setup();
    let Some(address) = setup.address.clone() else {
        return;
    };
    let rig = Rig::new(&setup.driver);
    rig.subscriber.register_topic(&topic("D")).unwrap();
    rig.subscriber.register_listen_address(&address).unwrap();
    rig.subscriber.daemonize().unwrap();
    pass(Duration::from_millis(50));
    let publisher = setup.publisher();
    rig.subscriber.wait_live(LONG).unwrap();
    rig.only("1", || send(&publisher, "D", "1"));
}

/// "For ever" is a valid duration.
pub(crate) fn waits_for_ever_when_asked(setup: fn() -> Setup) {
    let setup = setup();
    let options = PublisherOptions {
        send_timeout: Duration::MAX,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&*setup.driver, options).unwrap();
    let rig = Rig::new(&setup.driver);
    rig.subscriber.register_topic(&topic("D")).unwrap();
    rig.subscriber
        .register_listen_address(&setup.address(&publisher))
        .unwrap();
    rig.subscriber.daemonize().unwrap();
    rig.subscriber.wait_live(Duration::MAX).unwrap();
    match publisher.wait_subscribers(1, Duration::MAX) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    rig.only("1", || send(&publisher, "D", "1"));
}
