//! The proxy against bare sockets of libzmq: it does what the scenarios ask of it.

use std::io::{Read, Write};
use std::time::Duration;

use super::*;
use crate::common::within;

const LIMIT: Duration = Duration::from_secs(20);

/// A bare publisher, its proxy, and a bare subscriber connected through it.
fn pair() -> (zmq::Context, zmq::Socket, Proxy, zmq::Socket) {
    let context = zmq::Context::new();
    let publisher = context.socket(zmq::XPUB).unwrap();
    publisher.set_linger(0).unwrap();
    publisher.bind("tcp://127.0.0.1:*").unwrap();
    publisher.set_rcvtimeo(10_000).unwrap();
    let target = publisher.get_last_endpoint().unwrap().unwrap();
    let proxy = Proxy::to(target.trim_end_matches('\0'));
    let subscriber = context.socket(zmq::SUB).unwrap();
    subscriber.set_linger(0).unwrap();
    subscriber.set_rcvtimeo(10_000).unwrap();
    subscriber.set_subscribe(b"").unwrap();
    subscriber.connect(proxy.address()).unwrap();
    assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01");
    (context, publisher, proxy, subscriber)
}

fn send(publisher: &zmq::Socket, texts: &[&str]) {
    for text in texts {
        publisher.send_multipart(["D", text], 0).unwrap();
    }
}

fn receive(subscriber: &zmq::Socket, count: usize) -> Vec<String> {
    let next = |_| {
        let frames = subscriber.recv_multipart(0).unwrap();
        assert_eq!((frames.len(), &*frames[0]), (2, &b"D"[..]));
        String::from_utf8(frames[1].clone()).unwrap()
    };
    (0..count).map(next).collect()
}

#[test]
fn messages_have_the_fate_that_they_are_given() {
    within(LIMIT, || {
        let (_context, publisher, proxy, subscriber) = pair();
        proxy.judge(|message| match message.frames[1][0] {
            b'd' => Fate::Drop,
            b't' => Fate::Twice,
            b'l' => Fate::Late(Duration::from_millis(50)),
            b'b' => Fate::Behind,
            _ => Fate::Pass,
        });
        let start = Instant::now();
        send(&publisher, &["1", "drop", "twice", "behind", "2", "late", "3"]);
        assert_eq!(
            receive(&subscriber, 7),
            ["1", "twice", "twice", "2", "behind", "late", "3"]
        );
        assert!(start.elapsed() >= Duration::from_millis(50));
        proxy.dribble(true);
        let long = "x".repeat(1000);
        send(&publisher, &["4", &long]);
        assert_eq!(receive(&subscriber, 2), ["4", &long]);
    });
}

#[test]
fn a_cut_is_not_told_and_what_waited_goes_on() {
    within(LIMIT, || {
        let (_context, publisher, proxy, subscriber) = pair();
        send(&publisher, &["1"]);
        assert_eq!(receive(&subscriber, 1), ["1"]);
        proxy.cut(&[Way::ToSubscriber]);
        send(&publisher, &["2"]);
        assert_eq!(subscriber.poll(zmq::POLLIN, 100).unwrap(), 0);
        // The other direction is open.
        subscriber.set_subscribe(b"a").unwrap();
        assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01a");
        proxy.cut(BOTH_WAYS);
        subscriber.set_subscribe(b"b").unwrap();
        assert_eq!(publisher.poll(zmq::POLLIN, 100).unwrap(), 0);
        proxy.mend();
        assert_eq!(receive(&subscriber, 1), ["2"]);
        assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01b");
        // It ends although it is cut.
        proxy.cut(BOTH_WAYS);
        drop(proxy);
    });
}

#[test]
fn what_has_no_messages_waits_while_its_way_is_cut() {
    within(LIMIT, || {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::plain(&server.local_addr().unwrap().to_string());
        let mut near = TcpStream::connect(proxy.address().trim_start_matches("tcp://")).unwrap();
        let (mut far, _) = server.accept().unwrap();
        // As long as a greeting, followed by an invalid frame.
        let request = [b'\xFF'; 100];
        near.write_all(&request).unwrap();
        let mut came = [0; 100];
        far.read_exact(&mut came).unwrap();
        assert_eq!(came, request);
        proxy.cut(&[Way::ToSubscriber]);
        near.write_all(b"ask").unwrap();
        far.read_exact(&mut came[..3]).unwrap();
        far.write_all(b"answer").unwrap();
        near.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(near.read(&mut came).is_err());
        proxy.mend();
        near.set_read_timeout(None).unwrap();
        near.read_exact(&mut came[..6]).unwrap();
        assert_eq!(&came[..6], b"answer");
    });
}
