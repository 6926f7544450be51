//! Subscribers that want more topics than a publisher remembers.

use std::net::TcpStream;
use std::time::Duration;

use tablecast::{ErrorKind, Publisher, PublisherOptions, Topic};

use crate::common::{eventually, hook, within};
use crate::receiver::{Event, Receiver};
use crate::rig::{LONG, send};
use crate::zmtp::Zmtp;
use crate::{LIMIT, pub_sub};

fn check(address: &str) {
    let (hook, told) = hook();
    let options = PublisherOptions {
        hook,
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&pub_sub(address), options).unwrap();
    let address = publisher.address().unwrap();
    let mut other = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
    other.expect(&Event::Connected(address.clone()));
    eventually(LONG, || publisher.stats().subscribers == Some(1));

    let context = zmq::Context::new();
    let greedy = context.socket(zmq::SUB).unwrap();
    greedy.set_linger(0).unwrap();
    greedy.set_sndhwm(0).unwrap();
    greedy.set_reconnect_ivl(-1).unwrap();
    greedy.connect(&address).unwrap();
    let mut wanted = 0;
    // At a rate that the publisher reads.
    eventually(LONG, || {
        for _ in 0..1000 {
            greedy.set_subscribe(format!("{wanted:01000}").as_bytes()).unwrap();
            wanted += 1;
        }
        !told.is_empty()
    });
    eventually(LONG, || publisher.stats().subscribers == Some(1));
    assert!(wanted > 16_000, "{wanted}");
    let (kind, text) = told.recv_timeout(LONG).unwrap();
    assert_eq!(kind, ErrorKind::TooLarge);
    assert!(text.contains(&address) && text.contains("16 MiB"), "{text}");

    send(&publisher, "D", "k");
    eventually(LONG, || matches!(other.next(LONG), Some(Event::Frame(_))));
    assert!(
        !other.skipped.contains(&Event::Disconnected(address)),
        "{:?}",
        other.skipped
    );
    assert!(told.is_empty(), "{:?}", told.try_recv());
}

#[test]
fn a_subscriber_of_too_many_topics_is_cut_off_and_others_are_not() {
    within(LIMIT, || {
        check("tcp://127.0.0.1:0");
        let folder = tempfile::tempdir().unwrap();
        check(&format!("ipc://{}/socket", folder.path().display()));
    });
}

/// libzmq passes on that a peer gives up a topic also if the peer never had it.
#[test]
fn nobody_gives_up_the_topics_of_others() {
    within(LIMIT, || {
        let publisher = Publisher::new(&pub_sub("tcp://127.0.0.1:0"), PublisherOptions::default()).unwrap();
        let address = publisher.address().unwrap();
        let mut other = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
        other.expect(&Event::Connected(address.clone()));
        publisher.wait_subscribed(&Topic::ALL, LONG).unwrap();
        let dial = || TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
        for round in 0..3 {
            let mut stranger = Zmtp::greet(dial(), "SUB").unwrap();
            stranger.frame(0, b"\0D").unwrap();
            let read = format!("read {round}");
            stranger.frame(0, format!("\x01{read}").as_bytes()).unwrap();
            publisher.wait_subscribed(&Topic::new(&*read).unwrap(), LONG).unwrap();
            publisher.wait_subscribed(&Topic::ALL, Duration::ZERO).unwrap();
        }
        send(&publisher, "D", "k");
        eventually(LONG, || matches!(other.next(LONG), Some(Event::Frame(_))));
        // Its own end is noticed.
        drop(other);
        eventually(LONG, || publisher.wait_subscribed(&Topic::ALL, Duration::ZERO).is_err());
    });
}
