//! Networks that are slow, silent, or cut.

use std::time::{Duration, Instant};

use tablecast::{ErrorKind, Publisher, PublisherOptions, SubscriberOptions};

use crate::common::{eventually, pass, within};
use crate::proxy::{Fault, Proxy};
use crate::rig::{LONG, Rig, quickly, send, topic, update};
use crate::servers::Server;
use crate::{BEAT, SECOND, SILENCE, driver, hasty, publisher, start, subscriber, syncs, told_with, with};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn answers_may_come_a_byte_at_a_time() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        proxy.set(Fault::Trickle);
        let driver = driver(&proxy.address());
        let publisher = publisher(&driver);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &proxy.address());
        for number in 0..20 {
            let name = format!("topic{number}");
            rig.listen(&[&name], &proxy.address());
            rig.only(&name, || send(&publisher, &name, &name));
        }
        let large = update("large").value("v".repeat(20_000));
        publisher.send_event(&large).unwrap();
        assert_eq!(rig.next().value, large.value);
        syncs(&rig, &["connected"]);
        assert_eq!(rig.subscriber.stats().errors, 0);
    });
}

#[test]
fn answers_may_come_late() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        proxy.set(Fault::Delay(Duration::from_millis(50)));
        let driver = driver(&proxy.address());
        let publisher = publisher(&driver);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &proxy.address());
        for key in ["1", "2", "3"] {
            rig.only(key, || send(&publisher, "D", key));
        }
        syncs(&rig, &["connected"]);
    });
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        proxy.set(Fault::MuteServer);
        let driver = with(&proxy.address(), hasty());
        let (rig, errors) = told_with(&driver, SubscriberOptions::default());
        start(&rig, &["D"], &proxy.address());
        let options = PublisherOptions {
            send_timeout: SECOND,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&*driver, options).unwrap();
        let sent = quickly(5 * SECOND, "send", || publisher.send_event(&update("k")));
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Timeout);
        assert!(rig.subscriber.wait_live(Duration::from_millis(10)).is_err());
        // It keeps trying.
        let tries = proxy.accepted();
        eventually(LONG, || proxy.accepted() > tries);
        assert!(rig.syncs.is_empty());
        proxy.set(Fault::None);
        rig.subscriber.wait_live(LONG).unwrap();
        syncs(&rig, &["connected"]);
        rig.only("1", || send(&publisher, "D", "1"));
    });
}

#[test]
fn a_stop_ends_what_is_being_connected() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        proxy.set(Fault::Silence);
        let rig = Rig::new(&with(&proxy.address(), Default::default()));
        for _ in 0..3 {
            start(&rig, &["D"], &proxy.address());
            let before = proxy.accepted();
            eventually(LONG, || proxy.accepted() > before);
            quickly(SECOND, "stop", || rig.subscriber.stop());
        }
    });
}

/// In one direction or both: an end that receives nothing has lost the connection.
#[test]
fn a_connection_that_fell_silent_is_replaced() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let driver = with(&proxy.address(), hasty());
        let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
        let rig = Rig::new(&driver);
        rig.listen(&["D"], &proxy.address());
        rig.only("1", || send(&publisher, "D", "1"));
        syncs(&rig, &["connected"]);
        for (number, fault) in [Fault::Silence, Fault::MuteServer].into_iter().enumerate() {
            proxy.set(fault);
            quickly(SILENCE + SECOND, "noticing the silence", || {
                syncs(&rig, &["address-lost"]);
            });
            let error = publisher.send_event(&update("lost")).unwrap_err();
            // The check before it found the silence, or there was no confirmation.
            assert!(
                [ErrorKind::Timeout, ErrorKind::Unconfirmed].contains(&error.kind()),
                "{error}"
            );
            proxy.set(Fault::None);
            rig.subscriber.wait_live(LONG).unwrap();
            syncs(&rig, &["reconnected"]);
            let key = number.to_string();
            rig.only(&key, || send(&publisher, "D", &key));
        }
    });
}

#[test]
fn a_connection_that_is_cut_is_replaced() {
    within(LIMIT, || {
        let server = Server::start();
        let proxy = Proxy::to(server.port());
        let driver = driver(&proxy.address());
        let publisher = publisher(&driver);
        let rig = subscriber(&driver);
        rig.listen(&["D"], &proxy.address());
        syncs(&rig, &["connected"]);
        for round in 0..10 {
            let key = round.to_string();
            rig.only(&key, || send(&publisher, "D", &key));
            proxy.cut();
            syncs(&rig, &["address-lost", "reconnected"]);
        }
        // A connection that is cut repeatedly is not tried in a tight loop.
        proxy.refuse(true);
        proxy.cut();
        let before = proxy.accepted();
        pass(SECOND);
        let tries = proxy.accepted() - before;
        assert!(tries <= 100, "{tries} tries in a second");
        eventually(LONG, || proxy.accepted() >= before + 2);
        proxy.refuse(false);
        syncs(&rig, &["address-lost", "reconnected"]);
        rig.subscriber.register_topic(&topic("more")).unwrap();
        rig.subscriber.wait_live(LONG).unwrap();
        rig.only("after", || send(&publisher, "more", "after"));
    });
}

#[test]
fn an_idle_server_is_asked_once_an_interval() {
    within(LIMIT, || {
        let server = Server::start();
        let rig = subscriber(&driver(&server.address()));
        rig.listen(&["D"], &server.address());
        let asked = || -> u64 {
            let stats: String = server.ask(&["INFO", "commandstats"]);
            let calls = stats
                .lines()
                .find_map(|line| line.strip_prefix("cmdstat_hello:calls=")?.split(',').next());
            calls.unwrap().parse().unwrap()
        };
        let start = Instant::now();
        let before = asked();
        pass(10 * BEAT);
        let times = asked() - before;
        let intervals = start.elapsed().div_duration_f64(BEAT);
        assert!(
            (times as f64) < 2.0 * intervals,
            "asked {times} times within {intervals} intervals"
        );
        eventually(LONG, || asked() > before);
    });
}
