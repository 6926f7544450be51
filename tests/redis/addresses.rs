//! Addresses as they are written: with a password, a database, a socket; and invalid ones.

use std::time::Duration;

use tablecast::config::{Config, Source};
use tablecast::{AddressState, ErrorKind, Node, Store, Topic};

use crate::common::{eventually, within};
use crate::rig::{LONG, send};
use crate::servers::Server;
use crate::store::store;
use crate::{driver, publisher, start, subscriber, told};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_password_may_stand_in_the_address_and_is_never_shown() {
    within(LIMIT, || {
        let server = Server::with(&["--requirepass", "hunter2"]);
        let address = format!("redis://default:hunter2@{}", server.host());
        let driver = driver(&address);
        let (rig, errors) = told(&driver);
        rig.listen(&["D"], &address);
        let publisher = publisher(&driver);
        rig.only("1", || send(&publisher, "D", "1"));
        store(&address).create("t", "k", "v", &Topic::ALL).unwrap();
        // The same address without the password.
        assert!(!rig.subscriber.register_listen_address(&server.address()).unwrap());
        let status = rig.subscriber.status();
        assert_eq!(status.addresses[0].address, *server.address());
        let told: Vec<_> = rig.syncs.try_iter().collect();
        let wrong = store(&address.replace("hunter2", "hunter3"));
        let refused = wrong.get("t", "k", None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        let errors: Vec<_> = errors.try_iter().collect();
        let shown = format!(
            "{driver:?} {status:?} {told:?} {errors:?} {refused:?} {wrong:?} {:?}",
            publisher.address()
        );
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(rig.subscriber.unregister_listen_address(&address));
    });
}

#[test]
fn the_hosts_of_the_database_may_be_a_url() {
    within(LIMIT, || {
        let server = Server::with(&["--requirepass", "hunter2"]);
        let mut config = Config::default();
        let address = format!("redis://:hunter2@{}/2", server.host());
        for (option, value) in [
            ("remote_db_hosts", &*address),
            ("pub_sub_driver", "redis"),
            ("nb_db_class", "redis"),
        ] {
            config.set(option, value, Source::Flag).unwrap();
        }
        config.pub_sub_use_multiproc = false;
        let node = Node::open(&config).unwrap();
        node.subscriber().unwrap().wait_live(LONG).unwrap();
        node.database()
            .unwrap()
            .store()
            .create("t", "k", "v", &Topic::ALL)
            .unwrap();
        assert!(!format!("{config:?} {config:#?} {node:?}").contains("hunter2"));
        // Only in that database.
        let in_first = store(&format!("redis://:hunter2@{}", server.host()));
        assert_eq!(in_first.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
        let in_second = store(&format!("valkey://:hunter2@{}/2", server.host()));
        assert_eq!(in_second.get("t", "k", None).unwrap().value, "v");
        let none = store(&format!("redis://:hunter2@{}/99", server.host()));
        let error = none.get("t", "k", None).unwrap_err();
        assert!(error.to_string().contains("DB index"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Denied);
        let wrong = config
            .set("remote_db_hosts", "redis://:hunter2@h:1:2", Source::Flag)
            .unwrap_err();
        assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
    });
}

#[test]
fn a_socket_of_the_file_system_does_as_well() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let mut server = Server::with(&["--unixsocket", socket.to_str().unwrap()]);
        let address = format!("unix://{}", socket.display());
        let driver = driver(&address);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &address);
        let publisher = publisher(&driver);
        rig.only("1", || send(&publisher, "D", "1"));
        let store = store(&address);
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        // A write and its update are one step here too.
        assert!(store.announcer(&publisher.address().unwrap()).is_some());
        server.kill();
        eventually(LONG, || rig.peers()[0].1 != AddressState::Live);
        assert!(store.get("t", "k", None).is_err());
        server.restart();
        rig.subscriber.wait_live(LONG).unwrap();
        assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// As the paths of options.
#[test]
fn the_path_of_a_socket_is_expanded() {
    within(LIMIT, || {
        let home = std::env::var("HOME").unwrap();
        let folder = tempfile::tempdir_in(&home).unwrap();
        let socket = folder.path().join("redis.sock");
        let _server = Server::with(&["--unixsocket", socket.to_str().unwrap()]);
        let below = socket.strip_prefix(&home).unwrap().display();
        for address in [format!("unix://~/{below}"), format!("unix://$HOME/{below}?db=0")] {
            let mut config = Config::default();
            for (option, value) in [
                ("remote_db_hosts", &*address),
                ("pub_sub_driver", "redis"),
                ("nb_db_class", "redis"),
                ("pub_sub_use_multiproc", "false"),
            ] {
                config.set(option, value, Source::Flag).unwrap();
            }
            config.validate().unwrap();
            let node = Node::open(&config).unwrap();
            node.subscriber().unwrap().wait_live(LONG).unwrap();
            let database = node.database().unwrap();
            database.store().create("t", &address, "v", &Topic::ALL).unwrap();
            let shown = node.publisher().unwrap().address().unwrap();
            assert_eq!(shown, format!("unix://{}", socket.display()));
        }
        let error = driver_error("unix:///$NOWHERE/r.sock");
        assert!(error.contains("NOWHERE is not set"), "{error}");
    });
}

fn driver_error(address: &str) -> String {
    let made = tablecast::drivers::redis::RedisDriver::new(address, crate::options());
    made.unwrap_err().to_string()
}

/// It would take subscriptions, but nothing is published there.
#[test]
fn a_sentinel_is_not_taken_for_a_server() {
    within(LIMIT, || {
        let sentinel = Server::sentinel("port PORT\nbind 127.0.0.1\n");
        let address = sentinel.address();
        let (rig, errors) = told(&driver(&address));
        start(&rig, &["D"], &address);
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Denied);
        assert!(text.contains("is a Sentinel"), "{text}");
        assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        let error = store(&address).get("t", "k", None).unwrap_err();
        assert!(error.to_string().contains("is a Sentinel"), "{error}");
    });
}
