//! Two ends of this library with keys.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{Action, Config, DbUpdate, ErrorKind, Node, Publisher, PublisherOptions};

use crate::LIMIT;
use crate::common::within;
use crate::party::{Party, bare, first_error, receive};
use crate::rig::{LONG, Rig, topic};

fn publisher(driver: &dyn Driver) -> (Publisher, String) {
    let publisher = Publisher::new(driver, PublisherOptions::default()).unwrap();
    let address = publisher.address().unwrap();
    (publisher, address)
}

#[test]
fn nodes_with_keys_hear_each_other() {
    within(LIMIT, || {
        let party = Party::new();
        let client = party.pair("client");
        party.list("client");
        let mut config = Config::default();
        config.publisher_port = 0;
        config.pub_sub_use_multiproc = false;
        config.curve_secret_key_file = party.path("server");
        config.curve_allowed_clients = party.path("clients");
        let node = Node::open(&config).unwrap();
        let publisher = node.publisher().unwrap();
        let address = publisher.address().unwrap();

        let mut config = Config::default();
        config
            .set("publishers", &address, tablecast::config::Source::Program)
            .unwrap();
        config.curve_secret_key_file = party.path("client");
        assert!(!format!("{config:?}").contains(client.public()));
        let subscriber = Node::open(&config).unwrap();
        let (sender, updates) = crossbeam_channel::unbounded::<DbUpdate>();
        subscriber.dispatcher().unwrap().on_table("t", sender).detach();
        subscriber.subscriber().unwrap().wait_live(LONG).unwrap();
        publisher
            .send_event(&DbUpdate::new("t", "k", Action::Set).value("{}"))
            .unwrap();
        assert_eq!(updates.recv_timeout(LONG).unwrap().key, "k");
        let status = subscriber.subscriber().unwrap().status();
        assert_eq!(&*status.addresses[0].address, address.as_str());
        assert!(status.addresses[0].authenticates);
    });
}

#[test]
fn a_pair_may_be_shared_or_missing() {
    within(LIMIT, || {
        let party = Party::new();
        // Without a list all that know the server's key are let in.
        let options = ZmqOptions {
            curve_allowed_clients: "".into(),
            ..party.options()
        };
        let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap());
        let (publisher, address) = publisher(&*driver);
        let plain: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
        let shared = Rig::new(&driver);
        shared.listen(&["D"], bare(&address));
        let without = Rig::new(&plain);
        without.listen(&["D"], &address);
        publisher.send_event(&crate::rig::update("k")).unwrap();
        assert_eq!([shared.next_key(), without.next_key()], ["k", "k"]);
    });
}

#[test]
fn refusals_say_why() {
    within(LIMIT, || {
        let party = Party::new();
        let (_, outsiders) = party.guests();
        assert_eq!(outsiders.len(), 3);
        let mut outbound = party.driver().outbound().unwrap();
        let address = outbound.address().unwrap();
        let error = first_error(&mut *receive(&*party.client("unlisted"), bare(&address)));
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(
            error.to_string().contains("does not let in this process's key"),
            "{error}"
        );

        let other = party.pair("other");
        let wrong = format!("{}?key={}", bare(&address), other.public());
        let error = first_error(&mut *receive(&*party.client("listed"), &wrong));
        assert!(error.to_string().contains("has it another key, "), "{error}");

        let plain = ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap();
        let error = first_error(&mut *receive(&plain, bare(&address)));
        // Either end may close the connection first.
        let text = error.to_string();
        assert!(
            text.contains("expects keys") || text.contains("expects no keys"),
            "{text}"
        );
        outbound.probes().unwrap();
        assert_eq!(outbound.subscribers(), Some(0));

        let outbound = plain.outbound().unwrap();
        let error = first_error(&mut *receive(&*party.client("listed"), &outbound.address().unwrap()));
        let text = error.to_string();
        assert!(
            text.contains("has no keys") || text.contains("has it another key"),
            "{text}"
        );
    });
}

#[test]
fn nothing_falls_back_to_plain_text() {
    let party = Party::new();
    let pair = party.pair("pair");
    let server = ZmqOptions {
        curve_server_key: pair.public().into(),
        ..ZmqOptions::default()
    };
    let driver = ZmqDriver::new("tcp://127.0.0.1:0", server.clone()).unwrap();
    let error = driver.outbound().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("curve_secret_key_file"), "{error}");
    let driver = ZmqDriver::new("epgm://127.0.0.1;239.192.1.1:5555", server).unwrap();
    assert_eq!(driver.outbound().err().unwrap().kind(), ErrorKind::Unsupported);
    let (mut inbound, _wake) = party.driver().inbound().unwrap();
    let error = inbound
        .connect(&format!("@tcp://127.0.0.1:1?key={}", pair.public()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// A proxy that keeps what passes in both directions.
fn record(target: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let target = target.trim_start_matches("tcp://").to_owned();
    let passed = Arc::<Mutex<Vec<u8>>>::default();
    let record = Arc::clone(&passed);
    let spawn = |body: Box<dyn FnOnce() + Send>| drop(std::thread::Builder::new().spawn(body).unwrap());
    spawn(Box::new(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&target).unwrap();
            let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
            for (mut from, mut to) in [(near, far), (ends.1, ends.0)] {
                let record = Arc::clone(&record);
                spawn(Box::new(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        record.lock().extend_from_slice(&bytes[..count]);
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                }));
            }
        }
    }));
    (address, passed)
}

#[test]
fn a_recorded_connection_shows_nothing() {
    within(LIMIT, || {
        let party = Party::new();
        party.invite(&["client"]);
        let plain: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
        let words = ["a_table_name", "a_key_of_a_row", "a_topic_of_all", "a_secret_value"];
        let seen = |server: &dyn Driver, client: &Arc<dyn Driver>| {
            let (publisher, address) = publisher(server);
            let (proxy, passed) = record(bare(&address));
            let rig = Rig::new(client);
            rig.listen(&[words[2]], &proxy);
            let update = DbUpdate::new(words[0], words[1], Action::Set).value(words[3]);
            publisher.send_event(&update.topic(topic(words[2]))).unwrap();
            assert_eq!(rig.next_key(), words[1]);
            let passed = passed.lock();
            let contains = |word: &&&str| passed.windows(word.len()).any(|window| window == word.as_bytes());
            words.iter().filter(contains).count()
        };
        assert_eq!(seen(&*plain, &plain), words.len());
        assert_eq!(seen(&party.driver(), &party.client("client")), 0);
    });
}
