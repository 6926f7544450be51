//! The part of the suite for `zmq-multiproc`, which has no topics and no subscribers.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::zmq::{ZmqMultiproc, ZmqOptions};
use tablecast::transport::{Driver, Received};
use tablecast::{ErrorKind, Publisher, PublisherOptions};

use crate::rig::{LONG, quickly, topic, update};
use crate::suite::shared;

struct Host {
    folder: tempfile::TempDir,
    driver: Arc<dyn Driver>,
    socket: String,
}

/// `role` goes before the receiving end's address, its opposite before the sending end's.
fn host(sender: &str, receiver: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/socket", folder.path().display());
    let driver = ZmqMultiproc::new(&format!("{sender}{socket}"), ZmqOptions::default()).unwrap();
    Host {
        folder,
        driver: Arc::new(driver),
        socket: format!("{receiver}{socket}"),
    }
}

fn publisher(host: &Host, send_timeout: Duration) -> Publisher {
    let options = PublisherOptions {
        send_timeout,
        ..PublisherOptions::default()
    };
    Publisher::new(&*host.driver, options).unwrap()
}

fn moves_frames(host: &Host) {
    let publisher = publisher(host, LONG);
    let (mut inbound, _wake) = host.driver.inbound().unwrap();
    inbound.connect(&host.socket).unwrap();
    let sender = std::thread::Builder::new().spawn(move || {
        for number in 0..1000 {
            let name = if number == 500 {
                "x".repeat(65_536)
            } else {
                number.to_string()
            };
            publisher.send_event_to(&topic(&name), &update("k")).unwrap();
        }
        publisher
    });
    let mut expected = 0;
    while expected < 1000 {
        match inbound.recv(Some(LONG)).unwrap() {
            // A hello precedes the first update.
            Received::Frame { topic, .. } if topic.starts_with("\u{10FFFF}".as_bytes()) => {}
            Received::Frame { topic, payload, .. } => {
                let name = if expected == 500 {
                    "x".repeat(65_536)
                } else {
                    expected.to_string()
                };
                assert_eq!(topic, name.as_bytes());
                let message: serde_json::Value = rmp_serde::from_slice(payload).unwrap();
                assert_eq!(message["key"], "k");
                expected += 1;
            }
            Received::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    drop(sender.unwrap().join().unwrap());
}

#[test]
fn keeps_order_and_every_topic() {
    shared(|| moves_frames(&host("", "")));
}

#[test]
fn works_the_other_way_round() {
    shared(|| moves_frames(&host("@", ">")));
}

/// The end that binds holds the path for as long as it exists.
#[test]
fn a_bound_sender_holds_its_path() {
    shared(|| {
        let host = host("@", ">");
        let (mut inbound, wake) = host.driver.inbound().unwrap();
        inbound.connect(&host.socket).unwrap();
        // A driver continues to connect while it is received from.
        let receiver =
            std::thread::Builder::new().spawn(move || while !matches!(inbound.recv(None).unwrap(), Received::Woken) {});
        let first = publisher(&host, LONG);
        first.send_event(&update("k")).unwrap();
        let second = publisher(&host, Duration::from_millis(50));
        assert_eq!(
            second.send_event(&update("k")).unwrap_err().kind(),
            ErrorKind::AddressInUse
        );
        assert!(host.folder.path().join("socket").exists());
        first.send_event(&update("k")).unwrap();
        wake.wake();
        receiver.unwrap().join().unwrap();
    });
}

#[test]
fn a_send_to_nobody_is_refused_in_time() {
    shared(|| {
        let host = host("", "");
        let publisher = publisher(&host, Duration::from_millis(100));
        for _ in 0..3 {
            let sent = quickly(Duration::from_millis(300), "send", || {
                publisher.send_event(&update("k"))
            });
            let error = sent.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().contains(&host.socket), "{error}");
        }
        assert_eq!(publisher.stats().failed, 3);
    });
}

#[test]
fn a_wake_ends_the_wait() {
    shared(|| {
        let host = host("", "");
        let (mut inbound, wake) = host.driver.inbound().unwrap();
        inbound.connect(&host.socket).unwrap();
        while !matches!(inbound.recv(Some(Duration::ZERO)).unwrap(), Received::Idle) {}
        wake.wake();
        wake.wake();
        assert!(matches!(inbound.recv(None).unwrap(), Received::Woken));
        assert!(matches!(inbound.recv(Some(Duration::ZERO)).unwrap(), Received::Idle));
        let waker = std::thread::Builder::new().spawn(move || wake.wake());
        assert!(matches!(inbound.recv(None).unwrap(), Received::Woken));
        waker.unwrap().join().unwrap();
    });
}
