//! Networks that are cut silently: the systems of both ends go on, and nothing passes between them.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use tablecast::Topic;
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::transport::Driver;

use crate::common::{eventually, pass, within};
use crate::net::{alone, ip};
use crate::receiver::{Event, Receiver, frame};
use crate::rig::LONG;
use crate::zmtp::Zmtp;
use crate::{LIMIT, SECOND, bare, pub_sub, send};

/// The address of both ends, until it is removed: then nothing passes between them, without an error.
const PLACE: &str = "10.9.9.1";

fn add_place() {
    ip(&format!("address add {PLACE}/32 dev lo"));
}

fn cut() {
    ip(&format!("address del {PLACE}/32 dev lo"));
}

/// The time promised by the heartbeat's options, plus what a busy machine adds.
const PROMISED: Duration = Duration::from_secs(12);

fn is_noticed(driver: &dyn Driver, kind: zmq::SocketType, sign: &str, says_something: bool) {
    add_place();
    let context = zmq::Context::new();
    let address = format!("tcp://{PLACE}:8866");
    let sender = bare(&context, kind, sign != "@", &address);
    let ours = format!("{sign}{address}");
    let mut receiver = Receiver::connect(driver, &[&ours]);
    receiver.await_while(&frame("1"), || send(&sender, b"1"));
    // A quiet connection is not a dead one.
    let end = Instant::now() + 4 * SECOND;
    while Instant::now() < end {
        let came = receiver.next(SECOND);
        assert!(!matches!(came, Some(Event::Disconnected(_))), "{came:?}");
    }
    cut();
    let start = Instant::now();
    if says_something {
        // Unacknowledged data suspends the checks of a quiet connection.
        receiver.inbound.subscribe(&Topic::new("another").unwrap()).unwrap();
    }
    receiver.expect(&Event::Disconnected(ours.clone()));
    println!("{ours}: noticed after {:?}", start.elapsed());
    assert!(start.elapsed() < PROMISED, "noticed after {:?}", start.elapsed());
    // And the connection comes back.
    add_place();
    receiver.await_while(&frame("2"), || send(&sender, b"2"));
    cut();
}

/// Drivers with a program's options.
fn subscribers() -> ZmqDriver {
    ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap()
}

#[test]
fn a_subscriber_notices() {
    let test = || is_noticed(&subscribers(), zmq::XPUB, "", false);
    within(LIMIT, move || alone("cut::a_subscriber_notices", "", |_| test()));
}

#[test]
fn a_subscriber_notices_though_it_has_something_to_say() {
    let test = || is_noticed(&subscribers(), zmq::XPUB, "", true);
    within(LIMIT, move || {
        alone("cut::a_subscriber_notices_though_it_has_something_to_say", "", |_| {
            test();
        });
    });
}

#[test]
fn a_bound_subscriber_notices() {
    let test = || is_noticed(&subscribers(), zmq::XPUB, "@", false);
    within(LIMIT, move || alone("cut::a_bound_subscriber_notices", "", |_| test()));
}

#[test]
fn a_connecting_service_notices() {
    let driver = || ZmqMultiproc::new("ipc:///none", ZmqOptions::default()).unwrap();
    let test = move || is_noticed(&driver(), zmq::PUSH, ">", false);
    within(LIMIT, move || {
        alone("cut::a_connecting_service_notices", "", |_| test());
    });
}

/// The number of connection ends that the system checks, and of all ends.
pub(crate) fn checked() -> (usize, usize) {
    let ends = Command::new("ss")
        .args(["-tnoH", "state", "established"])
        .output()
        .unwrap();
    let ends = String::from_utf8(ends.stdout).unwrap();
    let checked = ends.lines().filter(|end| end.contains("timer:(keepalive"));
    (checked.count(), ends.lines().count())
}

/// Sending ends are checked too, whichever end has connected.
#[test]
fn every_end_is_checked() {
    let test = || {
        let pub_sub = |address: &str| ZmqDriver::new(address, ZmqOptions::default()).unwrap();
        let multiproc = |address: &str| ZmqMultiproc::new(address, ZmqOptions::default()).unwrap();
        let address = |port| format!("tcp://127.0.0.1:{port}");
        let mut both = vec![];
        for (port, signs) in [(7001, ["@", ">"]), (7002, [">", "@"])] {
            let [sends, receives] = signs.map(|sign| format!("{sign}{}", address(port)));
            let publisher = pub_sub(&sends).outbound().unwrap();
            both.push((
                publisher,
                Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&receives]),
            ));
            let [sends, receives] = signs.map(|sign| format!("{sign}{}", address(port + 10)));
            let writer = multiproc(&sends).outbound().unwrap();
            both.push((writer, Receiver::connect(&multiproc("ipc:///none"), &[&receives])));
        }
        eventually(LONG, || {
            for (sender, receiver) in &mut both {
                let _ = sender.probes();
                let _ = sender.send(b"D", b"x", Duration::ZERO);
                receiver.next(Duration::from_millis(10));
            }
            // Data not yet acknowledged has another timer.
            pass(Duration::from_millis(50));
            checked() == (8, 8)
        });
    };
    within(LIMIT, move || alone("cut::every_end_is_checked", "", |_| test()));
}

/// A message that takes long to arrive shows that the connection is alive before it is complete.
#[test]
fn bytes_count_before_a_message_is_whole() {
    within(LIMIT, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
        let publisher = std::thread::Builder::new().spawn(move || {
            let mut publisher = Zmtp::greet(listener.accept().unwrap().0, "XPUB").unwrap();
            publisher.subscription(b"D").unwrap();
            publisher
        });
        receiver.expect(&Event::Connected(address.clone()));
        let mut publisher = publisher.unwrap().join().unwrap();
        // The topic, and a payload of 60,000 bytes.
        publisher.0.write_all(b"\x01\x01D\x02\0\0\0\0\0\0\xea\x60").unwrap();
        let mut before = receiver.inbound.received_bytes(&address).unwrap();
        for _ in 0..60 {
            publisher.0.write_all(&[b'x'; 1000]).unwrap();
            eventually(LONG, || {
                receiver.inbound.received_bytes(&address).unwrap() >= before + 1000
            });
            before = receiver.inbound.received_bytes(&address).unwrap();
        }
        assert!(before >= 60_000, "{before}");
        receiver.expect(&frame(&"x".repeat(20)));
        drop(publisher);
        receiver.expect(&Event::Disconnected(address.clone()));
        assert_eq!(receiver.inbound.received_bytes(&address), None);
        assert_eq!(receiver.inbound.received_bytes("tcp://127.0.0.1:1"), None);
    });
}
