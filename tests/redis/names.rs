//! Servers by name: name servers that say nothing or answer late, names with several addresses, names that move.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use tablecast::drivers::redis::RedisOptions;
use tablecast::store::StoreOptions;
use tablecast::stores::redis::RedisStore;
use tablecast::{ErrorKind, Publisher, PublisherOptions, Store, Topic};

use crate::common::{eventually, within};
use crate::net::{alone, deaf};
use crate::rig::{LONG, Rig, quickly, send, update};
use crate::servers::Server;
use crate::{SECOND, driver, start, syncs, told, with};

const LIMIT: Duration = Duration::from_secs(60);

/// What the library takes more than it was given, on a busy machine.
const SLACK: Duration = Duration::from_millis(300);

/// In a network of its own a test has every port.
const PORT: &str = "6379";

fn at(address: &str) -> Server {
    Server::with(&["--bind", address, "--port", PORT, "--protected-mode", "no"])
}

fn publisher(address: &str, send_timeout: Duration) -> Publisher {
    let options = PublisherOptions {
        send_timeout,
        ..PublisherOptions::default()
    };
    Publisher::new(&*with(address, RedisOptions::default()), options).unwrap()
}

fn store(address: &str, timeout: Duration) -> RedisStore {
    let store = StoreOptions {
        timeout,
        ..StoreOptions::default()
    };
    RedisStore::new(address, store, &RedisOptions::default()).unwrap()
}

#[test]
fn a_silent_name_server_breaks_no_time_limit() {
    let test = || {
        alone("names::a_silent_name_server_breaks_no_time_limit", "", |_| {
            let address = "redis://db.test:6379";
            let publisher = publisher(address, SECOND);
            for _ in 0..2 {
                let sent = quickly(SECOND + SLACK, "send", || publisher.send_event(&update("k")));
                let error = sent.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.to_string().contains("db.test"), "{error}");
            }
            quickly(SECOND, "drop", || drop(publisher));
            let store = store(address, SECOND);
            let error = quickly(SECOND + SLACK, "get", || store.get("t", "k", None)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            // Other servers of the address are asked in time.
            let _server = at("127.0.0.1");
            let addresses = "redis://db.test:6379,127.0.0.1:6379";
            let publisher = self::publisher(addresses, SECOND);
            for key in ["1", "2"] {
                publisher.send_event(&update(key)).unwrap();
            }
        });
    };
    within(LIMIT, test);
}

/// It has something to say goodbye to, and cannot find it any more.
#[test]
fn a_publisher_that_lost_its_server_is_dropped_in_time() {
    let test = || {
        alone(
            "names::a_publisher_that_lost_its_server_is_dropped_in_time",
            "",
            |names| {
                let server = at("127.0.0.1");
                names.tell("db.test", &["127.0.0.1"]);
                let publisher = publisher("redis://db.test:6379", SECOND);
                publisher.send_event(&update("k")).unwrap();
                names.forget("db.test");
                drop(server);
                quickly(SECOND, "drop", || drop(publisher));
            },
        );
    };
    within(LIMIT, test);
}

#[test]
fn a_silent_name_server_hurts_no_other_address() {
    let test = || {
        alone("names::a_silent_name_server_hurts_no_other_address", "", |names| {
            let server = at("127.0.0.1");
            let healthy = "redis://127.0.0.1:6379";
            let driver = with(healthy, RedisOptions::default());
            let publisher = crate::publisher(&driver);
            let rig = Rig::new(&driver);
            rig.listen(&["D"], healthy);
            let silent: Vec<_> = (0..20).map(|n| format!("redis://db{n}.test:6379")).collect();
            for address in &silent {
                rig.subscriber.register_listen_address(address).unwrap();
            }
            eventually(LONG, || (0..20).all(|n| names.asked(&format!("db{n}.test")) > 0));
            for number in 0..100 {
                let key = number.to_string();
                quickly(SECOND, "an update", || rig.only(&key, || send(&publisher, "D", &key)));
            }
            syncs(&rig, &["connected"]);
            quickly(SECOND, "unregister", || {
                assert!(rig.subscriber.unregister_listen_address(&silent[0]));
            });
            quickly(SECOND, "stop", || rig.subscriber.stop());
            start(&rig, &["D"], healthy);
            quickly(SECOND, "drop", || drop(rig));
            drop(server);
        });
    };
    within(LIMIT, test);
}

#[test]
fn an_answer_that_comes_late_is_taken() {
    let test = || {
        alone("names::an_answer_that_comes_late_is_taken", "", |names| {
            let _server = at("127.0.0.1");
            let address = "redis://db.test:6379";
            let short = publisher(address, SECOND / 4);
            let error = short.send_event(&update("lost")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            // Within the time that the system gives a name server, and after the send has given up.
            names.tell("db.test", &["127.0.0.1"]);
            eventually(LONG, || short.send_event(&update("k")).is_ok());
            let (rig, errors) = told(&driver("redis://late.test:6379"));
            start(&rig, &["D"], "redis://late.test:6379");
            let (kind, error) = errors.recv_timeout(LONG).unwrap();
            assert_eq!(kind, ErrorKind::Timeout);
            assert!(error.contains("late.test"), "{error}");
            names.tell("late.test", &["127.0.0.1"]);
            rig.subscriber.wait_live(LONG).unwrap();
            rig.only("1", || send(&short, "D", "1"));
        });
    };
    within(LIMIT, test);
}

#[test]
fn one_address_of_a_name_that_answers_will_do() {
    let hosts = "::1 db.test\n127.0.0.1 db.test\n127.0.0.2 db.test\n127.0.0.3 db.test\n127.0.0.4 db.test";
    let test = move || {
        alone("names::one_address_of_a_name_that_answers_will_do", hosts, |_| {
            let addresses: Vec<_> = ("db.test", 6379).to_socket_addrs().unwrap().collect();
            let [refuses, deaf_one, mute, replica, good] = addresses[..] else {
                panic!("{addresses:?}");
            };
            assert!(TcpStream::connect(refuses).is_err());
            let _deaf = deaf(deaf_one);
            let _mute = TcpListener::bind(mute).unwrap();
            let good = at(&good.ip().to_string());
            let master = addresses[4].ip().to_string();
            let _replica = Server::with(&[
                "--bind",
                &replica.ip().to_string(),
                "--port",
                PORT,
                "--protected-mode",
                "no",
                "--replicaof",
                &master,
                PORT,
            ]);
            let address = "redis://db.test:6379";
            let patient = PublisherOptions {
                send_timeout: 6 * SECOND,
                ..PublisherOptions::default()
            };
            let (store, rig) = (store(address, 6 * SECOND), Rig::new(&driver(address)));
            store.create("t", "k", "v", &Topic::ALL).unwrap();
            rig.listen(&["D"], address);
            // From then on the one that has answered is tried first.
            let driver = with(address, RedisOptions::default());
            for (key, limit) in [("2", LONG), ("3", SECOND)] {
                let publisher = Publisher::new(&*driver, patient.clone()).unwrap();
                quickly(limit, "send", || rig.only(key, || send(&publisher, "D", key)));
            }
            drop(good);
        });
    };
    within(LIMIT, test);
}

#[test]
fn a_lost_server_is_looked_up_again() {
    let test = || {
        alone("names::a_lost_server_is_looked_up_again", "", |names| {
            let address = "redis://db.test:6379";
            let mut server = at("127.0.0.1");
            names.tell("db.test", &["127.0.0.1"]);
            let (publisher, store) = (publisher(address, 4 * SECOND), store(address, 4 * SECOND));
            let rig = Rig::new(&driver(address));
            rig.listen(&["D"], address);
            syncs(&rig, &["connected"]);
            rig.only("1", || send(&publisher, "D", "1"));
            for (key, moved) in [("2", "127.0.0.2"), ("3", "::1")] {
                store.create("t", "k", "v", &Topic::ALL).unwrap();
                server.kill();
                names.tell("db.test", &[moved]);
                server = at(moved);
                syncs(&rig, &["address-lost", "reconnected"]);
                rig.only(key, || send(&publisher, "D", key));
                // The one that is there now is another one.
                assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
            }
        });
    };
    within(LIMIT, test);
}

#[test]
fn link_local_addresses_have_their_scope() {
    let test = || {
        alone("names::link_local_addresses_have_their_scope", "", |_| {
            let ip = ["-6", "address", "add", "fe80::1/64", "dev", "lo"];
            assert!(Command::new("ip").args(ip).status().unwrap().success());
            let _server = at("fe80::1%lo");
            for address in ["redis://[fe80::1%lo]:6379", "redis://[fe80::1%1]:6379"] {
                let rig = Rig::new(&driver(address));
                rig.listen(&["D"], address);
                rig.only("1", || send(&publisher(address, SECOND), "D", "1"));
            }
            let publisher = publisher("redis://[fe80::1%nosuch]:6379", SECOND);
            let error = publisher.send_event(&update("k")).unwrap_err();
            assert!(error.to_string().contains("fe80::1%nosuch"), "{error}");
        });
    };
    within(LIMIT, test);
}

/// Nodes of a cluster tell each other's names.
#[test]
fn names_that_a_server_tells_break_no_time_limit() {
    let test = || {
        alone("names::names_that_a_server_tells_break_no_time_limit", "", |names| {
            let server = Server::with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-announce-hostname",
                "node.test",
                "--cluster-preferred-endpoint-type",
                "hostname",
            ]);
            let () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            let address = server.address();
            let (publisher, store) = (publisher(&address, SECOND), store(&address, SECOND));
            let sent = quickly(SECOND + SLACK, "send", || publisher.send_event(&update("k")));
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::Timeout);
            let error = quickly(SECOND + SLACK, "get", || store.get("t", "k", None)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(names.asked("node.test") > 0);
            names.tell("node.test", &["127.0.0.1"]);
            eventually(LONG, || publisher.send_event(&update("k")).is_ok());
            assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
        });
    };
    within(LIMIT, test);
}
