//! Servers that do not know `HELLO`, as before Redis 6.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use tablecast::{AddressState, ErrorKind, Store, SubscriberOptions, Topic};

use crate::common::{eventually, within};
use crate::rig::{LONG, send, topic, update};
use crate::servers::{Cluster, Server};
use crate::store::store;
use crate::{driver, hasty, publisher, start, subscriber, syncs, told, told_with, with};

const LIMIT: Duration = Duration::from_secs(60);

/// They quote the unknown request, and so the password.
pub(crate) const OLD: [&str; 3] = ["--rename-command", "HELLO", ""];

fn old(more: &[&str]) -> Server {
    Server::with(&[&OLD, more].concat())
}

/// The library's connections, as the server describes them.
fn clients(server: &Server) -> Vec<String> {
    let clients: String = server.ask(&["CLIENT", "LIST"]);
    let ours = clients.lines().filter(|client| client.contains(" name=tablecast "));
    ours.map(str::to_owned).collect()
}

fn has_topics(client: &str) -> bool {
    !client.contains(" sub=0 ")
}

#[test]
fn everything_works_in_resp2() {
    within(LIMIT, || {
        let mut server = old(&["--requirepass", "hunter2"]);
        let address = format!("redis://:hunter2@{}/2", server.host());
        let driver = driver(&address);
        let (rig, errors) = told(&driver);
        rig.listen(&["D", "E"], &address);
        syncs(&rig, &["connected"]);
        let publisher = publisher(&driver);
        rig.only("1", || send(&publisher, "D", "1"));
        rig.subscriber.unregister_topic(&topic("D"));
        rig.subscriber.register_topic(&topic("F")).unwrap();
        rig.subscriber.wait_live(LONG).unwrap();
        send(&publisher, "D", "not for us");
        rig.only("2", || send(&publisher, "F", "2"));
        let store = store(&address);
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        assert_eq!(store.get("t", "k", None).unwrap().value, "v");
        let keys: Vec<String> = server.ask(&["KEYS", "*"]);
        assert!(keys.is_empty(), "the database 0 holds {keys:?}");
        // A reader has a connection for questions about the server's health beside that of its topics.
        eventually(LONG, || server.clients() == 4);
        let clients = clients(&server);
        assert!(clients.iter().all(|client| client.contains(" resp=2")), "{clients:#?}");
        let readers = clients.iter().filter(|client| has_topics(client));
        assert_eq!(readers.count(), 1, "{clients:#?}");
        server.kill();
        syncs(&rig, &["address-lost"]);
        server.restart();
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["reconnected"]);
        rig.only("3", || send(&publisher, "E", "3"));
        let errors: Vec<_> = errors.try_iter().collect();
        assert!(!format!("{errors:?}").contains("hunt"), "{errors:?}");
    });
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    within(LIMIT, || {
        let server = old(&["--requirepass", "hunter2"]);
        for login in [":hunter3@", "someone:hunter2@", ""] {
            let address = format!("redis://{login}{}", server.host());
            let (rig, errors) = told(&driver(&address));
            start(&rig, &["D"], &address);
            let (kind, text) = errors.recv_timeout(LONG).unwrap();
            assert_eq!(kind, ErrorKind::Denied, "{text}");
            let published = publisher(&driver(&address)).send_event(&update("k")).unwrap_err();
            let stored = store(&address).get("t", "k", None).unwrap_err();
            for text in [
                text,
                format!("{published} {published:?}"),
                format!("{stored} {stored:?}"),
            ] {
                assert!(
                    !text.contains("hunt") && !text.contains("; "),
                    "a password is what is wrong: {text}"
                );
            }
        }
    });
}

/// What refuses `HELLO` as servers and proxies do, and then a login as Redis 5 does. Returns its address.
fn refusing(hello: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 1024]);
            while let Ok(length @ 1..) = stream.read(&mut request) {
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let answer = match request.contains("HELLO") {
                    true => hello,
                    false if request.starts_with("*2\r\n$4\r\nAUTH") => "-ERR invalid password",
                    false => "-ERR wrong number of arguments for 'auth' command",
                };
                // The client may have gone.
                let _ = stream.write_all(format!("{answer}\r\n").as_bytes());
            }
        }
    };
    std::thread::Builder::new().spawn(answer).unwrap();
    host
}

#[test]
fn a_refused_login_is_final() {
    within(LIMIT, || {
        let unknown = "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `hunter2`, ";
        for (hello, login, expected) in [
            (unknown, ":hunter2", "invalid password"),
            (unknown, "default:hunter2", "invalid password"),
            (unknown, "someone:hunter2", "a server before Redis 6 knows no users"),
            ("-unsupported command 'HELLO'", ":hunter2", "invalid password"),
            ("-NOPROTO unsupported protocol version", ":hunter2", "invalid password"),
            ("-NOAUTH Authentication required.", ":hunter2", "invalid password"),
            ("-ERR Command is disabled", ":hunter2", "invalid password"),
            ("-WRONGPASS invalid username-password pair", ":hunter2", "WRONGPASS"),
        ] {
            let store = store(&format!("redis://{login}@{}", refusing(hello)));
            let error = store.get("t", "k", None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{hello}: {error}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(expected) && !text.contains("hunt"), "{hello}: {text}");
        }
    });
}

#[test]
fn a_server_that_hangs_or_is_demoted_is_left() {
    within(LIMIT, || {
        let (server, other) = (old(&[]), Server::start());
        let driver = with(&server.address(), hasty());
        let (rig, _errors) = told_with(&driver, SubscriberOptions::default());
        rig.listen(&["D"], &server.address());
        syncs(&rig, &["connected"]);
        server.hang();
        syncs(&rig, &["address-lost"]);
        server.resume();
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["reconnected"]);
        // Both connections go on, but its master does not receive what is published there.
        let () = server.ask(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
        syncs(&rig, &["address-lost"]);
        assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        let () = server.ask(&["REPLICAOF", "NO", "ONE"]);
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["reconnected"]);
    });
}

#[test]
fn either_connection_may_be_lost() {
    within(LIMIT, || {
        let server = old(&[]);
        let (rig, _errors) = told(&driver(&server.address()));
        rig.listen(&["D"], &server.address());
        syncs(&rig, &["connected"]);
        for of_topics in [true, false] {
            let clients = clients(&server);
            let lost = clients.iter().find(|client| has_topics(client) == of_topics);
            let id = lost.and_then(|client| client.strip_prefix("id=")?.split(' ').next());
            let () = server.ask(&["CLIENT", "KILL", "ID", id.unwrap()]);
            syncs(&rig, &["address-lost", "reconnected"]);
            eventually(LONG, || server.clients() == 2);
        }
    });
}

#[test]
fn a_failover_of_a_cluster_is_noticed() {
    within(LIMIT, || {
        let mut cluster = Cluster::with(&OLD);
        let rig = subscriber(&driver(&cluster.addresses()));
        rig.listen(&["D"], &cluster.addresses());
        syncs(&rig, &["connected"]);
        let store = store(&cluster.addresses());
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        // Not the master of the node that the reader has: its connections go on.
        let reader = cluster.spread("D").iter().position(|count| *count == 1).unwrap();
        let masters = cluster.masters();
        let gone = masters
            .into_iter()
            .find(|&master| master != reader && cluster.replica_of(master) != reader);
        cluster.nodes[gone.unwrap()].kill();
        let sync = rig.next_sync();
        assert!(["address-lost", "reconnected"].contains(&sync.as_str()), "{sync:?}");
        rig.subscriber.wait_live(LONG).unwrap();
        let publisher = publisher(&driver(&cluster.addresses()));
        rig.only("1", || send(&publisher, "D", "1"));
        eventually(LONG, || store.get("t", "k", None).is_ok_and(|row| row.value == "v"));
    });
}
