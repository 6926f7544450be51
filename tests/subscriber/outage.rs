//! Publishers that go and come back, that are foreign, or that fall silent, over ZeroMQ.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{eventually, free_port, within};
use crate::peer::{await_subscription, bound};
use crate::rig::{LONG, Rig, quickly, send, topic};
use crate::{driver, publisher};
use crossbeam_channel::bounded;
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{
    AddressState, Config, ErrorKind, Publisher, PublisherOptions, SubscriberOptions, SyncReason, TopicState,
};

const SECOND: Duration = Duration::from_secs(1);

fn rig() -> Rig {
    Rig::new(&driver("tcp://127.0.0.1:0"))
}

fn impatient() -> Rig {
    let options = SubscriberOptions {
        live_timeout: Duration::from_millis(100),
        ..SubscriberOptions::default()
    };
    Rig::with(&driver("tcp://127.0.0.1:0"), options, QueueOptions::default())
}

fn start(rig: &Rig, name: &str, address: &str) {
    rig.subscriber.register_topic(&topic(name)).unwrap();
    rig.subscriber.register_listen_address(address).unwrap();
    rig.subscriber.daemonize().unwrap();
}

#[test]
fn a_publisher_comes_back_with_every_topic() {
    within(Duration::from_secs(20), || {
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let first = publisher(&address);
        let rig = rig();
        let names: Vec<_> = (0..1500).map(|number| format!("tenant{number}")).collect();
        let topics: Vec<_> = names.iter().map(String::as_str).collect();
        rig.listen(&topics, &address);
        assert_eq!(
            rig.next_sync(),
            SyncReason::Connected {
                address: address.as_str().into()
            }
        );
        drop(first);
        // It said goodbye, so nothing is lost, but nothing is live either.
        eventually(LONG, || rig.peers()[0].1 == AddressState::Connecting);
        assert!(rig.syncs.is_empty());
        let error = rig.subscriber.wait_live(Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
        let second = publisher(&address);
        rig.subscriber.wait_live(LONG).unwrap();
        assert_eq!(
            rig.next_sync(),
            SyncReason::Reconnected {
                address: address.as_str().into()
            }
        );
        // At once: being live is the promise that all topics are in force.
        for name in &names {
            send(&second, name, name);
        }
        let mut came: Vec<_> = names.iter().map(|_| rig.next_key()).collect();
        let mut sent = names.clone();
        came.sort_unstable();
        sent.sort_unstable();
        assert_eq!(came, sent);
        assert!(rig.syncs.is_empty());
    });
}

/// Topics registered while the connection is down are in force when it is back.
#[test]
fn topics_registered_during_an_outage_count() {
    within(Duration::from_secs(20), || {
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let rig = rig();
        let mut current = publisher(&address);
        rig.listen(&["old", "gone"], &address);
        for round in 0..3 {
            drop(current);
            eventually(LONG, || rig.peers()[0].1 == AddressState::Connecting);
            let name = format!("new{round}");
            rig.subscriber.register_topic(&topic(&name)).unwrap();
            rig.subscriber.unregister_topic(&topic("gone"));
            current = publisher(&address);
            rig.subscriber.wait_live(LONG).unwrap();
            send(&current, "gone", "lost");
            rig.only("1", || send(&current, &name, "1"));
            rig.only("2", || send(&current, "old", "2"));
        }
    });
}

/// Dragonflow's publishers are plain PUB sockets that know nothing of hellos.
#[test]
fn a_publisher_without_hellos_is_understood() {
    within(LONG, || {
        let context = zmq::Context::new();
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let foreign = context.socket(zmq::PUB).unwrap();
        foreign.set_linger(0).unwrap();
        foreign.bind(&address).unwrap();
        let rig = impatient();
        start(&rig, "D", &address);
        let error = rig.subscriber.wait_live(Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains(&address), "{error}");
        eventually(LONG, || rig.peers() == [(address.clone(), AddressState::NoHello)]);
        // The program still gets the event that asks it to read the store.
        assert_eq!(rig.next_sync().as_str(), "connected");
        let mut message = vec![0x85];
        for (name, text) in [
            ("table", Some("lport")),
            ("key", Some("port-1")),
            ("action", Some("create")),
            ("value", Some(r#"{"id":"port-1"}"#)),
            ("topic", None),
        ] {
            message.push(0xa0 | name.len() as u8);
            message.extend(name.bytes());
            match text {
                Some(text) => {
                    message.push(0xa0 | text.len() as u8);
                    message.extend(text.bytes());
                }
                None => message.push(0xc0),
            }
        }
        foreign.send_multipart([&b"D"[..], &message], 0).unwrap();
        let update = rig.next();
        assert_eq!(
            (&*update.table, &*update.key, update.action.as_str()),
            ("lport", "port-1", "create")
        );
        assert_eq!(update.value.as_deref(), Some(r#"{"id":"port-1"}"#));
        assert_eq!(
            (update.priority, update.topic.as_str(), &update.origin),
            (5, "D", &None)
        );
        assert!(rig.syncs.is_empty());
        // Its `sync` asks all programs to read everything again.
        let sync = br#"{"table":null,"key":null,"action":"sync","value":null,"topic":"D"}"#;
        foreign.send_multipart([&b"D"[..], sync], 0).unwrap();
        assert_eq!(rig.next_sync(), SyncReason::Requested);
        // It goes and comes back.
        drop(foreign);
        assert_eq!(rig.next_sync().as_str(), "address-lost");
        let foreign = context.socket(zmq::XPUB).unwrap();
        eventually(LONG, || foreign.bind(&address).is_ok());
        await_subscription(&foreign, "D");
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        foreign.send_multipart([&b"D"[..], &message], 0).unwrap();
        assert_eq!(rig.next_key(), "port-1");
    });
}

/// What is lost of it does not show: the program reads everything from time to time, if the options say so.
#[test]
fn a_publisher_without_hellos_is_made_up_for() {
    within(LONG, || {
        let context = zmq::Context::new();
        let (_foreign, address) = bound(&context, zmq::PUB);
        let mut config = Config::default();
        config.live_timeout_ms = Duration::from_millis(100);
        config.resync_without_hellos_ms = Duration::from_millis(200);
        let driver = driver("tcp://127.0.0.1:0");
        let rig = Rig::with(&driver, (&config).into(), QueueOptions::default());
        start(&rig, "D", &address);
        assert_eq!(rig.next_sync().as_str(), "connected");
        for _ in 0..3 {
            assert_eq!(rig.next_sync(), SyncReason::NoHellos);
        }
        assert_eq!(rig.peers(), [(address, AddressState::NoHello)]);
        assert_eq!(rig.subscriber.status().topics[0].state, TopicState::Unconfirmed);
    });
}

/// A foreign subscriber, a plain SUB socket, gets two frames.
#[test]
fn a_foreign_subscriber_is_served() {
    within(LONG, || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let context = zmq::Context::new();
        let foreign = context.socket(zmq::SUB).unwrap();
        foreign.set_rcvtimeo(10_000).unwrap();
        foreign.set_subscribe(b"D").unwrap();
        foreign.connect(&publisher.address().unwrap()).unwrap();
        publisher.wait_subscribers(1, LONG).unwrap();
        send(&publisher, "D", "1");
        let frames = foreign.recv_multipart(0).unwrap();
        assert_eq!((frames.len(), &*frames[0]), (2, &b"D"[..]));
        let message: serde_json::Value = rmp_serde::from_slice(&frames[1]).unwrap();
        assert_eq!(message["key"], "1");
        drop(foreign);
        let error = publisher.wait_subscribers(2, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
}

/// A connection falls silent, as when a cable is cut: a proxy stops passing bytes on.
#[test]
fn a_silent_connection_is_noticed() {
    within(Duration::from_secs(20), || {
        let publisher = publisher("tcp://127.0.0.1:0");
        let target = publisher.address().unwrap().replace("tcp://", "");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let options = SubscriberOptions {
            hello_interval: Duration::from_millis(400),
            ..SubscriberOptions::default()
        };
        let (cut, is_cut) = bounded::<()>(0);
        let proxy = std::thread::Builder::new().spawn(move || {
            for stream in listener.incoming().take(1) {
                let (near, far) = (stream.unwrap(), std::net::TcpStream::connect(&target).unwrap());
                for (mut from, mut to) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    let is_cut = is_cut.clone();
                    let copy = move || {
                        let mut buf = [0; 4096];
                        use std::io::{Read, Write};
                        while let Ok(length @ 1..) = from.read(&mut buf) {
                            let open = is_cut.try_recv() == Err(crossbeam_channel::TryRecvError::Empty);
                            if open && to.write_all(&buf[..length]).is_err() {
                                return;
                            }
                        }
                    };
                    std::thread::Builder::new().spawn(copy).unwrap();
                }
            }
        });
        let rig = Rig::with(&driver("tcp://127.0.0.1:0"), options, QueueOptions::default());
        rig.listen(&["D"], &address);
        assert_eq!(rig.next_sync().as_str(), "connected");
        rig.only("1", || send(&publisher, "D", "1"));
        drop(cut);
        quickly(Duration::from_secs(2), "noticing the silence", || {
            assert_eq!(rig.next_sync().as_str(), "address-lost");
        });
        proxy.unwrap().join().unwrap();
        quickly(SECOND, "stop", || rig.subscriber.stop());
    });
}

/// libzmq closes a connection on a message over the limit. Hellos fit the limit, however many topics there are and
/// however small the limit is.
#[test]
fn hellos_fit_the_limit() {
    within(Duration::from_secs(60), || {
        let options = ZmqOptions {
            max_frame_bytes: 4_000,
            ..ZmqOptions::default()
        };
        let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap());
        let options = PublisherOptions {
            max_message_bytes: 1_000,
            hello_interval: Duration::from_millis(50),
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&*driver, options).unwrap();
        let options = SubscriberOptions {
            max_message_bytes: 1_000,
            ..SubscriberOptions::default()
        };
        let rig = Rig::with(&driver, options, QueueOptions::default());
        let names: Vec<_> = (0..150)
            .map(|number| format!("a topic with a name of some length {number}"))
            .collect();
        let topics: Vec<_> = names.iter().map(String::as_str).collect();
        rig.listen(&topics, &publisher.address().unwrap());
        assert_eq!(rig.next_sync().as_str(), "connected");
        names.iter().for_each(|name| send(&publisher, name, name));
        let before = publisher.stats().hellos;
        // A round takes several messages, and each topic is named in five rounds.
        eventually(LONG, || publisher.stats().hellos > before + 60);
        names.iter().for_each(|_| _ = rig.next());
        rig.only("last", || send(&publisher, topics[0], "last"));
        assert!(rig.syncs.is_empty(), "{:?}", rig.syncs.try_iter().collect::<Vec<_>>());
    });
}
