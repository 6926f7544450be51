//! The option `resubscribe`: with `manual` the program registers its topics again after a connection was lost.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{eventually, free_port, within};
use crate::rig::{LONG, Rig, send, topic};
use crate::{driver, publisher};
use tablecast::config::Resubscribe;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{AddressState, Publisher, PublisherOptions, SubscriberOptions, SyncReason, Topic};

const LIMIT: Duration = Duration::from_secs(30);

fn manual(driver: &Arc<dyn Driver>) -> Rig {
    let options = SubscriberOptions {
        resubscribe: Resubscribe::Manual,
        ..SubscriberOptions::default()
    };
    Rig::with(driver, options, QueueOptions::default())
}

fn address() -> String {
    format!("tcp://127.0.0.1:{}", free_port())
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| topic(name)).collect()
}

fn cleared(address: &str, names: &[&str]) -> SyncReason {
    SyncReason::Cleared {
        address: address.into(),
        topics: topics(names),
    }
}

fn resubscribed(names: &[&str]) -> SyncReason {
    SyncReason::Resubscribed { topics: topics(names) }
}

/// Registers topics that were cleared again.
#[track_caller]
fn register(rig: &Rig, names: &[&str]) {
    for topic in topics(names) {
        assert!(rig.subscriber.register_topic(&topic).unwrap(), "{topic}");
    }
}

/// Topics may come into force one after the other, each reported once.
#[track_caller]
fn await_resubscribed(rig: &Rig, names: &[&str]) {
    let mut all = Vec::new();
    while all.len() < names.len() {
        match rig.next_sync() {
            SyncReason::Resubscribed { topics } => all.extend(topics),
            other => panic!("{other}"),
        }
    }
    all.sort();
    assert_eq!(all, topics(names));
}

#[test]
fn a_publisher_that_comes_back_is_heard_on_what_is_registered_again() {
    within(LIMIT, || {
        let address = address();
        let mut current = publisher(&address);
        let rig = manual(&driver("tcp://127.0.0.1:0"));
        rig.listen(&["a", "b", "c"], &address);
        assert_eq!(rig.next_sync().as_str(), "connected");
        for _ in 0..3 {
            drop(current);
            eventually(LONG, || rig.peers()[0].1 == AddressState::Connecting);
            // It said goodbye, so there is no loss; the topics are cleared nevertheless, and that is reported only when
            // it is back.
            assert!(rig.syncs.is_empty());
            current = publisher(&address);
            assert_eq!(rig.next_sync().as_str(), "reconnected");
            assert_eq!(rig.next_sync(), cleared(&address, &["a", "b", "c"]));
            send(&current, "a", "lost");
            register(&rig, &["a", "b", "c"]);
            assert!(!rig.subscriber.register_topic(&topic("a")).unwrap());
            await_resubscribed(&rig, &["a", "b", "c"]);
            // From here on nothing is missed.
            for name in ["a", "b", "c"] {
                rig.only(name, || send(&current, name, name));
            }
            rig.subscriber.wait_live(LONG).unwrap();
            assert!(rig.syncs.is_empty());
        }
    });
}

#[test]
fn only_what_is_registered_again_comes() {
    within(LIMIT, || {
        let address = address();
        let first = publisher(&address);
        let rig = manual(&driver("tcp://127.0.0.1:0"));
        rig.listen(&["a", "b", "c"], &address);
        assert_eq!(rig.next_sync().as_str(), "connected");
        drop(first);
        eventually(LONG, || rig.peers()[0].1 == AddressState::Connecting);
        // Topics registered or unregistered while no publisher is there are not reported.
        register(&rig, &["b", "new"]);
        assert!(!rig.subscriber.unregister_topic(&topic("c")));
        let second = publisher(&address);
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        assert_eq!(rig.next_sync(), cleared(&address, &["a"]));
        for name in ["a", "c"] {
            send(&second, name, "lost");
        }
        rig.only("1", || send(&second, "b", "1"));
        rig.only("2", || send(&second, "new", "2"));
        register(&rig, &["a"]);
        assert_eq!(rig.next_sync(), resubscribed(&["a"]));
        rig.only("3", || send(&second, "a", "3"));
        assert!(rig.syncs.is_empty());
    });
}

/// Topics belong to the subscriber, not to an address: those at the other addresses are cleared too, and reported at
/// once.
#[test]
fn all_addresses_are_cleared_together() {
    within(LIMIT, || {
        let addresses = [address(), address()];
        let [first, second] = addresses.each_ref().map(|address| publisher(address));
        let rig = manual(&driver("tcp://127.0.0.1:0"));
        rig.subscriber.register_listen_address(&addresses[0]).unwrap();
        rig.listen(&["a", "b"], &addresses[1]);
        assert_eq!(
            [rig.next_sync(), rig.next_sync()].map(|sync| sync.as_str()),
            ["connected"; 2]
        );
        drop(first);
        assert_eq!(rig.next_sync(), cleared(&addresses[0], &["a", "b"]));
        register(&rig, &["a", "b"]);
        await_resubscribed(&rig, &["a", "b"]);
        rig.only("1", || send(&second, "a", "1"));
        // When it is back they are in force there, and nothing is cleared again.
        let first = publisher(&addresses[0]);
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        rig.only("2", || send(&first, "b", "2"));
        rig.only("3", || send(&second, "b", "3"));
        assert!(rig.syncs.is_empty());
    });
}

/// Cleared topics not yet reported are reported when the subscriber runs again.
#[test]
fn stopping_forgets_nothing() {
    within(LIMIT, || {
        let address = address();
        let first = publisher(&address);
        let rig = manual(&driver("tcp://127.0.0.1:0"));
        rig.listen(&["a"], &address);
        assert_eq!(rig.next_sync().as_str(), "connected");
        drop(first);
        eventually(LONG, || rig.peers()[0].1 == AddressState::Connecting);
        rig.subscriber.stop();
        let second = publisher(&address);
        rig.subscriber.daemonize().unwrap();
        assert_eq!(rig.next_sync().as_str(), "reconnected");
        assert_eq!(rig.next_sync(), cleared(&address, &["a"]));
        register(&rig, &["a"]);
        assert_eq!(rig.next_sync(), resubscribed(&["a"]));
        rig.only("1", || send(&second, "a", "1"));
    });
}

/// The command registers its topics again, as any program does.
#[cfg(feature = "bin")]
#[test]
fn watch_shows_what_was_cleared() {
    use crate::process::{Process, tablecast};
    let json = |line: String| serde_json::from_str::<serde_json::Value>(&line).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.sock");
    let address = format!("ipc://{}", path.display());
    let publisher = || {
        let flags = [
            "publish",
            "--no-multiproc",
            "--publisher-transport",
            "ipc",
            "--file",
            "-",
        ];
        let mut command = tablecast(flags);
        command.arg("--publisher-bind-address").arg(&path);
        Process::start(command)
    };
    let mut watch = Process::start(tablecast([
        "watch",
        "--publisher",
        &address,
        "--topic",
        "a",
        "--topic",
        "b",
        "--count",
        "1",
        "--resubscribe",
        "manual",
    ]));
    let mut first = publisher();
    assert_eq!(json(watch.line())["reason"], "connected");
    first.close_stdin();
    assert_eq!(first.end().code, Some(0));
    let mut second = publisher();
    assert_eq!(json(watch.line())["reason"], "reconnected");
    let cleared = format!(r#"{{"event":"sync","reason":"cleared","address":"{address}","topics":["a","b"]}}"#);
    assert_eq!(watch.line(), cleared);
    let mut topics = Vec::new();
    while topics.len() < 2 {
        let line = json(watch.line());
        assert_eq!(line["reason"], "resubscribed");
        topics.extend(line["topics"].as_array().unwrap().clone());
    }
    second.write("{\"table\":\"t\",\"key\":\"1\",\"topic\":\"b\"}\n");
    assert_eq!(json(watch.line())["topic"], "b");
    assert_eq!(watch.end().code, Some(0));
    second.close_stdin();
    assert_eq!(second.end().code, Some(0));
}

/// A driver that loses no connections clears nothing.
#[test]
fn memory_loses_nothing() {
    within(LIMIT, || {
        let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new("memory://network").unwrap());
        let open = || Publisher::new(&*driver, PublisherOptions::default()).unwrap();
        let rig = manual(&driver);
        rig.listen(&["a"], "memory://network");
        for _ in 0..3 {
            let publisher = open();
            rig.only("1", || send(&publisher, "a", "1"));
        }
        assert!(!rig.subscriber.register_topic(&topic("a")).unwrap());
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert!(rig.syncs.is_empty());
    });
}
