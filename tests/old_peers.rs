//! Subscribers that speak ZMTP 1 and 2, as JeroMQ 0.3 does: libzmq reports less about them, but they are counted.
#![cfg(all(feature = "zmq", feature = "bin"))]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/rig.rs"]
mod rig;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::{eventually, free_port, within};
use process::{Process, tablecast};
use rig::{LONG, Rig, topic, update};
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{ErrorKind, Publisher, PublisherOptions};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Version {
    /// Without a greeting.
    One,
    /// With a revision in the greeting.
    Two,
}

/// A subscriber with an old protocol.
struct OldPeer(TcpStream);

impl OldPeer {
    fn connect(version: Version, address: &str, topics: &[&str]) -> OldPeer {
        let mut stream = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&hello(version)).unwrap();
        for topic in topics {
            stream.write_all(&subscription(version, topic)).unwrap();
        }
        OldPeer(stream)
    }

    /// Reads until this text has come.
    fn await_text(&mut self, text: &str) {
        let mut read = Vec::new();
        while !read.windows(text.len()).any(|window| window == text.as_bytes()) {
            let mut bytes = [0; 1024];
            let length = self.0.read(&mut bytes).unwrap();
            assert!(length > 0, "the publisher has closed the connection");
            read.extend_from_slice(&bytes[..length]);
        }
    }
}

/// Its first bytes: in version 2 a signature, the revision and its type, SUB; then in both an identity without a name.
fn hello(version: Version) -> Vec<u8> {
    match version {
        Version::One => vec![1, 0],
        Version::Two => vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1, 2, 0, 0],
    }
}

/// A frame of a byte 1 and the topic: in version 1 the flags count as part of the length, and follow it.
fn subscription(version: Version, topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len() + 1).unwrap();
    let head = match version {
        Version::One => [length + 1, 0],
        Version::Two => [0, length],
    };
    [&head[..], &[1], topic.as_bytes()].concat()
}

fn driver() -> Arc<dyn Driver> {
    Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap())
}

#[track_caller]
fn counts(publisher: &Publisher, count: usize) {
    publisher.wait_subscribers(count, LONG).unwrap();
    let is_more = || publisher.wait_subscribers(count + 1, Duration::ZERO).is_ok();
    eventually(LONG, || !is_more());
}

#[test]
fn they_are_counted_as_long_as_they_are_there() {
    within(LIMIT, || {
        for version in [Version::One, Version::Two] {
            let driver = driver();
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            let address = publisher.address().unwrap();
            let mut first = OldPeer::connect(version, &address, &["D", "other", "third"]);
            counts(&publisher, 1);
            publisher.wait_subscribed(&topic("D"), LONG).unwrap();
            publisher.wait_subscribed(&topic("third"), LONG).unwrap();
            let missing = publisher
                .wait_subscribed(&topic("Dx"), Duration::from_millis(50))
                .unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::Timeout);
            publisher.send_event(&update("for the first")).unwrap();
            first.await_text("for the first");
            let second = OldPeer::connect(version, &address, &["D"]);
            counts(&publisher, 2);
            // Beside a subscriber of the current protocol.
            let rig = Rig::new(&driver);
            rig.listen(&["D"], &address);
            counts(&publisher, 3);
            drop(first);
            counts(&publisher, 2);
            drop(second);
            counts(&publisher, 1);
            let mut again = OldPeer::connect(version, &address, &["D"]);
            counts(&publisher, 2);
            publisher.send_event(&update("again")).unwrap();
            again.await_text("again");
            assert_eq!(rig.next_key(), "again");
            drop((rig, again));
            counts(&publisher, 0);
            let gone = || publisher.wait_subscribed(&topic("D"), Duration::ZERO).is_err();
            eventually(LONG, gone);
        }
    });
}

#[test]
fn the_tool_waits_for_them() {
    within(LIMIT, || {
        for version in [Version::One, Version::Two] {
            let port = free_port().to_string();
            let args = [
                "publish",
                "--no-multiproc",
                "--wait-subscribers",
                "1",
                "--table",
                "row",
                "--key",
                "from the tool",
            ];
            let mut process = Process::start(tablecast(args.iter().chain(&["--publisher-port", &port])));
            let address = format!("tcp://127.0.0.1:{port}");
            eventually(LONG, || {
                TcpStream::connect(address.strip_prefix("tcp://").unwrap()).is_ok()
            });
            let mut peer = OldPeer::connect(version, &address, &["D"]);
            peer.await_text("from the tool");
            assert_eq!(process.line(), "published 1");
            assert_eq!(process.end().code, Some(0));
        }
    });
}
