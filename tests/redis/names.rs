//! Servers by name: name servers that are silent or late, names with several addresses, names that move.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::Command;
use std::time::Duration;

use tablecast::config::Secret;
use tablecast::drivers::redis::RedisOptions;
use tablecast::store::StoreOptions;
use tablecast::stores::redis::RedisStore;
use tablecast::{ErrorKind, Publisher, PublisherOptions, Store, Topic};

use crate::common::{eventually, within};
use crate::net::{alone, deaf};
use crate::proxy::{Fault, Proxy};
use crate::rig::{LONG, Rig, quickly, send, update};
use crate::servers::{Cluster, Server};
use crate::store::limits;
use crate::store_cluster::tables;
use crate::{SECOND, driver, start, subscriber, syncs, told, wary, with};

const LIMIT: Duration = Duration::from_secs(60);

/// Time that a busy machine may add to a time limit.
const SLACK: Duration = Duration::from_secs(2);

/// Less than the system waits for a name server, and more than a busy machine adds.
const PROMPT: Duration = Duration::from_secs(3);

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
            quickly(PROMPT, "drop", || drop(publisher));
            let store = store(address, SECOND);
            let error = quickly(SECOND + SLACK, "get", || store.get("t", "k", None)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            // Other servers of the address are tried in time.
            let _server = at("127.0.0.1");
            let addresses = "redis://db.test:6379,127.0.0.1:6379";
            let publisher = self::publisher(addresses, 8 * SECOND);
            for key in ["1", "2"] {
                publisher.send_event(&update(key)).unwrap();
            }
        });
    };
    within(LIMIT, test);
}

/// It has a goodbye to send, and no longer finds the server.
#[test]
fn a_publisher_that_lost_its_server_is_dropped_in_time() {
    let test = || {
        alone(
            "names::a_publisher_that_lost_its_server_is_dropped_in_time",
            "",
            |names| {
                let server = at("127.0.0.1");
                names.tell("db.test", &["127.0.0.1"]);
                let publisher = publisher("redis://db.test:6379", LONG);
                publisher.send_event(&update("k")).unwrap();
                names.forget("db.test");
                drop(server);
                quickly(PROMPT, "drop", || drop(publisher));
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
            let driver = driver(healthy);
            let publisher = crate::publisher(&driver);
            let rig = subscriber(&driver);
            rig.listen(&["D"], healthy);
            let silent: Vec<_> = (0..20).map(|n| format!("redis://db{n}.test:6379")).collect();
            for address in &silent {
                rig.subscriber.register_listen_address(address).unwrap();
            }
            eventually(LONG, || (0..20).all(|n| names.asked(&format!("db{n}.test")) > 0));
            for number in 0..100 {
                let key = number.to_string();
                quickly(PROMPT, "an update", || rig.only(&key, || send(&publisher, "D", &key)));
            }
            syncs(&rig, &["connected"]);
            quickly(PROMPT, "unregister", || {
                assert!(rig.subscriber.unregister_listen_address(&silent[0]));
            });
            quickly(PROMPT, "stop", || rig.subscriber.stop());
            start(&rig, &["D"], healthy);
            quickly(PROMPT, "drop", || drop(rig));
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
            let (rig, errors) = told(&with("redis://late.test:6379", wary()));
            start(&rig, &["D"], "redis://late.test:6379");
            let (kind, error) = errors.recv_timeout(LONG).unwrap();
            assert_eq!(kind, ErrorKind::Timeout);
            assert!(error.contains("late.test"), "{error}");
            names.tell("late.test", &["127.0.0.1"]);
            rig.subscriber.wait_live(LONG).unwrap();
            rig.only("1", || send(&publisher(address, LONG), "D", "1"));
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
                send_timeout: LONG,
                ..PublisherOptions::default()
            };
            let (store, rig) = (store(address, 2 * LONG), subscriber(&driver(address)));
            store.create("t", "k", "v", &Topic::ALL).unwrap();
            rig.listen(&["D"], address);
            // From then on the address that has answered is tried first.
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
            let (publisher, store) = (publisher(address, LONG), store(address, 2 * LONG));
            let rig = subscriber(&driver(address));
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
                // Another server is there now.
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
                let rig = subscriber(&driver(address));
                rig.listen(&["D"], address);
                rig.only("1", || send(&publisher(address, LONG), "D", "1"));
            }
            let publisher = publisher("redis://[fe80::1%nosuch]:6379", SECOND);
            let error = publisher.send_event(&update("k")).unwrap_err();
            assert!(error.to_string().contains("fe80::1%nosuch"), "{error}");
        });
    };
    within(LIMIT, test);
}

/// Most of the addresses do not answer, and the one that does is far away.
#[test]
fn addresses_that_do_not_answer_cost_the_others_no_time() {
    let hosts = (1..=8).map(|n| format!("127.0.0.{n} db.test\n")).collect::<String>();
    let test = move || {
        let name = "names::addresses_that_do_not_answer_cost_the_others_no_time";
        alone(name, &hosts, |_| {
            let mut addresses: Vec<_> = ("db.test", 6379).to_socket_addrs().unwrap().collect();
            assert_eq!(addresses.len(), 8);
            let last = addresses.pop().unwrap();
            let _deaf: Vec<_> = addresses.into_iter().map(deaf).collect();
            let server = Server::start();
            let proxy = Proxy::at(&last.to_string(), server.port());
            proxy.set(Fault::Delay(Duration::from_millis(200)));
            let address = "redis://db.test:6379";
            let (store, publisher) = (store(address, 8 * SECOND), publisher(address, 8 * SECOND));
            store.create("t", "k", "v", &Topic::ALL).unwrap();
            publisher.send_event(&update("k")).unwrap();
        });
    };
    within(LIMIT, test);
}

#[test]
fn nodes_are_reached_where_we_were_told_if_not_where_they_say() {
    let test = || {
        let name = "names::nodes_are_reached_where_we_were_told_if_not_where_they_say";
        alone(name, "", |names| {
            let cluster = Cluster::with(&[
                "--cluster-announce-hostname",
                "node.test",
                "--cluster-preferred-endpoint-type",
                "hostname",
            ]);
            let address = cluster.addresses();
            let use_it = |key: &str| {
                let (publisher, store) = (publisher(&address, 2 * SECOND), store(&address, 4 * SECOND));
                for table in tables(&cluster) {
                    quickly(4 * SECOND + SLACK, "create", || {
                        store.create(&table, key, "v", &Topic::ALL)
                    })
                    .unwrap();
                    assert!(store.keys(&table, None).all(|key| key.is_ok()));
                }
                let rig = Rig::new(&with(&address, RedisOptions::default()));
                rig.listen(&["D"], &address);
                quickly(2 * SECOND + SLACK, "send", || {
                    rig.only(key, || send(&publisher, "D", key));
                });
                // Once the nodes' addresses are known, this costs nothing.
                for table in tables(&cluster) {
                    quickly(PROMPT, "set", || store.set(&table, key, "w")).unwrap();
                }
                // The next one may listen to a node that has not passed it on yet.
                cluster.settle();
            };
            // The name server is silent, or names a host where nothing listens.
            use_it("silent");
            names.tell("node.test", &["127.0.0.9"]);
            use_it("refused");
            names.tell("node.test", &["127.0.0.1"]);
            use_it("right");
            assert!(names.asked("node.test") > 0);
        });
    };
    within(LIMIT, test);
}

/// The nodes have the same port on different hosts, and are to announce names that they do not have.
#[test]
fn nodes_without_names_are_reached() {
    let test = || {
        alone("names::nodes_without_names_are_reached", "", |_| {
            let node = |ip: &str| {
                Server::with(&[
                    "--bind",
                    ip,
                    "--port",
                    PORT,
                    "--protected-mode",
                    "no",
                    "--bind-source-addr",
                    ip,
                    "--cluster-announce-ip",
                    ip,
                    "--cluster-enabled",
                    "yes",
                    "--cluster-preferred-endpoint-type",
                    "hostname",
                ])
            };
            let nodes = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(node);
            for (number, node) in nodes.iter().enumerate() {
                let (first, last) = (number * 16_384 / 3, (number + 1) * 16_384 / 3 - 1);
                let () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
                let () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
                let () = nodes[0].ask(&["CLUSTER", "MEET", &format!("127.0.0.{}", number + 1), PORT]);
            }
            let is_well = |node: &Server| {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            eventually(LONG, || nodes.iter().all(is_well));
            let refused: redis::RedisResult<String> = nodes[0].try_ask(&["GET", "foo"]);
            assert!(refused.unwrap_err().to_string().contains("?:6379"));
            let all = "redis://127.0.0.1:6379,127.0.0.2:6379,127.0.0.3:6379";
            let mut secret = RedisOptions::default();
            (secret.user, secret.password) = ("caster".into(), Secret::new("secret"));
            for node in &nodes {
                let user = ["caster", "on", ">secret", "~*", "&*", "+@all", "-cluster"];
                let () = node.ask(&[&["ACL", "SETUSER"], &user[..]].concat());
            }
            // A user without the right to ask for the slots' owners goes by refusals.
            for (round, (address, options)) in [
                ("redis://127.0.0.1:6379", RedisOptions::default()),
                ("redis://127.0.0.2:6379", RedisOptions::default()),
                (all, secret),
            ]
            .into_iter()
            .enumerate()
            {
                let store = RedisStore::new(address, limits(), &options).unwrap();
                for table in 0..20 {
                    let table = format!("t{table}");
                    store.create(&table, &round.to_string(), "v", &Topic::ALL).unwrap();
                    assert_eq!(store.keys(&table, None).count(), round + 1);
                }
            }
            // A table that moves.
            let slot: u16 = nodes[0].ask(&["CLUSTER", "KEYSLOT", "tablecast{4:move}/rows"]);
            let (from, to) = (
                &nodes[usize::from(slot) * 3 / 16_384],
                &nodes[(usize::from(slot) * 3 / 16_384 + 1) % 3],
            );
            let id = |node: &Server| node.ask::<String>(&["CLUSTER", "MYID"]);
            let () = to.ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &id(from)]);
            let () = from.ask(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &id(to)]);
            let store = store("redis://127.0.0.1:6379", 2 * LONG);
            store.create("move", "k", "v", &Topic::ALL).unwrap();
            assert_eq!(store.get("move", "k", None).unwrap().version, 1);
            // The driver finds all of them.
            let driver = driver("redis://127.0.0.1:6379");
            let rigs: Vec<_> = (0..3).map(|_| subscriber(&driver)).collect();
            for rig in &rigs {
                rig.listen(&["D"], "redis://127.0.0.1:6379");
            }
            for node in &nodes {
                assert_eq!(node.ask::<(String, i64)>(&["PUBSUB", "NUMSUB", "D"]).1, 1);
            }
        });
    };
    within(LIMIT, test);
}

/// Nodes of a cluster announce each other's names.
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
            // There may be time for the given address.
            let sent = quickly(SECOND + SLACK, "send", || publisher.send_event(&update("k")));
            assert!(sent.map_or_else(|e| e.kind() == ErrorKind::Timeout, |()| true));
            let error = quickly(SECOND + SLACK, "get", || store.get("t", "k", None)).unwrap_err();
            assert!(
                [ErrorKind::Timeout, ErrorKind::NotFound].contains(&error.kind()),
                "{error}"
            );
            assert!(names.asked("node.test") > 0);
            names.tell("node.test", &["127.0.0.1"]);
            eventually(LONG, || publisher.send_event(&update("k")).is_ok());
            assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
        });
    };
    within(LIMIT, test);
}
