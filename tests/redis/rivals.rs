//! Several hosts of one address without Sentinels, two of which may be masters.

use std::time::Duration;

use parking_lot::Mutex;
use tablecast::{AddressState, ErrorKind, PublisherOptions, Store, Topic};

use crate::common::{eventually, pass, within};
use crate::rig::{LONG, send, update};
use crate::servers::Server;
use crate::store::store;
use crate::{BEAT, SECOND, driver, publisher, start, syncs, told};

const LIMIT: Duration = Duration::from_secs(60);

/// Nothing is written to either, and the error names both.
#[test]
fn two_masters_of_one_address_are_both_named() {
    within(LIMIT, || {
        let (one, other) = (Server::start(), Server::start());
        let address = format!("redis://{},{}", one.host(), other.host());
        let has_both = |text: &str| text.contains(&one.host()) && text.contains(&other.host());
        let names_both = |text: &str| assert!(has_both(text), "{text}");
        let rows = |server: &Server| server.ask::<i64>(&["DBSIZE"]);
        let driver = driver(&address);
        let kept = store(&address);
        let options = PublisherOptions {
            send_timeout: SECOND / 2,
            hello_interval: 60 * SECOND,
            ..PublisherOptions::default()
        };
        let publisher = tablecast::Publisher::new(&*driver, options).unwrap();
        let (rig, errors) = told(&driver);
        let refuse = || {
            let error = kept.create("t", "refused", "v", &Topic::ALL).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            names_both(&error.to_string());
            // The last try may have had too little time left to find out.
            eventually(LONG, || {
                let error = publisher.send_event(&update("k")).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                has_both(&error.to_string())
            });
        };
        refuse();
        start(&rig, &["D"], &address);
        names_both(&errors.recv_timeout(LONG).unwrap().1);
        assert_eq!((rows(&one), rows(&other)), (0, 0));
        // Only one of them.
        let () = other.ask(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["connected"]);
        rig.only("1", || send(&crate::publisher(&driver), "D", "1"));
        // It is connected from now on.
        eventually(LONG, || publisher.send_event(&update("2")).is_ok());
        kept.create("t", "k", "v", &Topic::ALL).unwrap();
        eventually(LONG, || rows(&other) == rows(&one));
        // It is noticed by those that are connected.
        let () = other.ask(&["REPLICAOF", "NO", "ONE"]);
        let is = |kind, e: tablecast::Error| e.kind() == kind && has_both(&e.to_string());
        eventually(LONG, || {
            kept.set("t", "k", "v").is_err_and(|e| is(ErrorKind::Unavailable, e))
        });
        eventually(LONG, || {
            publisher
                .send_event(&update("k"))
                .is_err_and(|e| is(ErrorKind::Timeout, e))
        });
        let before = (rows(&one), rows(&other));
        refuse();
        assert_eq!((rows(&one), rows(&other)), before);
        // Two addresses of one server are not two masters.
        let alias = format!("redis://{},localhost:{}", one.host(), one.port());
        store(&alias).create("t", "alias", "v", &Topic::ALL).unwrap();
    });
}

/// What it is connected to may not be the master that others publish to.
#[test]
fn a_connected_reader_leaves_when_there_are_two_masters() {
    within(LIMIT, || {
        let (one, other) = (Server::start(), Server::start());
        let follow = || other.ask::<()>(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);
        follow();
        let address = format!("redis://{},{}", one.host(), other.host());
        let driver = driver(&address);
        let (rig, errors) = told(&driver);
        start(&rig, &["D"], &address);
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["connected"]);
        assert!(errors.is_empty());
        let () = other.ask(&["REPLICAOF", "NO", "ONE"]);
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains(&one.host()) && text.contains(&other.host()), "{text}");
        syncs(&rig, &["address-lost"]);
        assert_eq!(rig.peers()[0].1, AddressState::Connecting);
        follow();
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["reconnected"]);
        rig.only("1", || send(&publisher(&driver), "D", "1"));
        // It looks on, and takes one server by two names for one.
        let alias = format!("redis://{},localhost:{}", one.host(), one.port());
        let (alone, errors) = told(&driver);
        start(&alone, &["D"], &alias);
        alone.subscriber.wait_live(LONG).unwrap();
        pass(5 * BEAT);
        syncs(&alone, &["connected"]);
        assert!(errors.is_empty());
    });
}

/// It may be an old master that is back with an old password: it does not count, but is reported once.
#[test]
fn a_server_that_refuses_the_login_is_reported_once() {
    within(LIMIT, || {
        let master = Server::with(&["--requirepass", "hunter2"]);
        let old = Server::with(&["--requirepass", "hunter3"]);
        let nobody = crate::common::free_port();
        let address = format!("redis://:hunter2@{},{},127.0.0.1:{nobody}", master.host(), old.host());
        let warnings = Warnings::about(&old.host());
        let kept = store(&address);
        kept.create("t", "k", "v", &Topic::ALL).unwrap();
        eventually(LONG, || !warnings.all().is_empty());
        for _ in 0..5 {
            pass(BEAT);
            kept.set("t", "k", "v").unwrap();
        }
        let said = warnings.all();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("WRONGPASS") && !said[0].contains("hunter"), "{said:?}");
        // A reader reports it too; nobody reports a host that is away, or a replica.
        let (rig, _errors) = told(&driver(&address));
        start(
            &rig,
            &["D"],
            &format!("redis://:hunter2@{},{}", master.host(), old.host()),
        );
        rig.subscriber.wait_live(LONG).unwrap();
        eventually(LONG, || warnings.all().len() == 2);
        assert_eq!(Warnings::about(&format!("127.0.0.1:{nobody}")).all(), [""; 0]);
        let replica = Server::with(&["--requirepass", "hunter2", "--masterauth", "hunter2"]);
        let () = replica.ask(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
        let beside = store(&format!("redis://:hunter2@{},{}", master.host(), replica.host()));
        beside.set("t", "k", "w").unwrap();
        assert_eq!(Warnings::about(&replica.host()).all(), [""; 0]);
    });
}

/// The warnings of this process that name a host.
struct Warnings(String);

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Warnings {
    fn about(host: &str) -> Warnings {
        struct Logger;
        impl log::Log for Logger {
            fn enabled(&self, _: &log::Metadata<'_>) -> bool {
                true
            }
            fn log(&self, record: &log::Record<'_>) {
                LOGGED.lock().push(record.args().to_string());
            }
            fn flush(&self) {}
        }
        // Another test may have done it.
        if log::set_logger(&Logger).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
        Warnings(host.to_owned())
    }

    fn all(&self) -> Vec<String> {
        let begin = format!("cannot ask {} ", self.0);
        let logged = LOGGED.lock();
        logged.iter().filter(|line| line.starts_with(&begin)).cloned().collect()
    }
}
