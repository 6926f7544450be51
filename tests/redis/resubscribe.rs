//! The option `resubscribe` when it is `manual`: the program registers its topics again after a fault.

use std::sync::Arc;
use std::time::Duration;

use tablecast::config::Resubscribe;
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{AddressState, SubscriberOptions, SyncReason, Topic};

use crate::common::within;
use crate::rig::{LONG, Rig, send, topic};
use crate::servers::Server;
use crate::{driver, hasty, listening, publisher, syncs, with};

const LIMIT: Duration = Duration::from_secs(60);

fn manual(driver: &Arc<dyn Driver>, options: SubscriberOptions) -> Rig {
    let options = SubscriberOptions {
        resubscribe: Resubscribe::Manual,
        ..options
    };
    Rig::with(driver, options, QueueOptions::default())
}

/// Registers the cleared topics again, as a program does when it is asked to. Returns when all are reported to be in
/// force.
#[track_caller]
fn register_again(rig: &Rig, address: &str, expected: &[Topic]) {
    let cleared = SyncReason::Cleared {
        address: address.into(),
        topics: expected.to_vec(),
    };
    assert_eq!(rig.next_certain_sync(), cleared);
    for topic in expected {
        assert!(rig.subscriber.register_topic(topic).unwrap(), "{topic}");
    }
    let mut back = Vec::new();
    while back.len() < expected.len() {
        match rig.next_certain_sync() {
            SyncReason::Resubscribed { topics } => back.extend(topics),
            other => panic!("{other}"),
        }
    }
    back.sort();
    assert_eq!(back, expected);
}

#[test]
fn a_server_that_comes_back_has_no_subscriptions_until_the_program_asks() {
    within(LIMIT, || {
        for continuity in [true, false] {
            let mut server = Server::start();
            let address = server.address();
            let driver = driver(&address);
            let publisher = publisher(&driver);
            let options = SubscriberOptions {
                continuity,
                ..listening()
            };
            let rig = manual(&driver, options);
            let mut topics: Vec<_> = (0..300).map(|number| topic(&format!("tenant{number}"))).collect();
            topics.sort();
            let names: Vec<_> = topics.iter().map(Topic::as_str).collect();
            rig.listen(&names, &address);
            syncs(&rig, &["connected"]);
            for _ in 0..3 {
                server.kill();
                assert_eq!(rig.next_certain_sync().as_str(), "address-lost");
                assert_eq!(rig.peers()[0].1, AddressState::Connecting);
                server.restart();
                assert_eq!(rig.next_certain_sync().as_str(), "reconnected");
                server.await_subscribers("tenant0", 0);
                send(&publisher, "tenant0", "lost");
                register_again(&rig, &address, &topics);
                for name in &names {
                    rig.only(name, || send(&publisher, name, name));
                }
                // The loss may have been too recent to be proven older.
                let more = rig.syncs.try_iter().filter(|reason| reason.as_str() != "unproven");
                assert_eq!(more.collect::<Vec<_>>(), []);
            }
        }
    });
}

/// The connection stays, but its server falls silent.
#[test]
fn a_server_that_hangs_is_a_lost_connection_too() {
    within(LIMIT, || {
        let server = Server::start();
        let address = server.address();
        let rig = manual(&with(&address, hasty()), SubscriberOptions::default());
        rig.listen(&["D"], &address);
        syncs(&rig, &["connected"]);
        server.hang();
        assert_eq!(rig.next_sync().as_str(), "address-lost");
        // A topic registered meanwhile was not cleared.
        assert!(rig.subscriber.register_topic(&topic("new")).unwrap());
        server.resume();
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        register_again(&rig, &address, &[topic("D")]);
        rig.subscriber.wait_live(LONG).unwrap();
        let publisher = publisher(&driver(&address));
        for name in ["D", "new"] {
            rig.only(name, || send(&publisher, name, name));
        }
    });
}
