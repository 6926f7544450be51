//! Among malformed messages valid ones get through, and nothing else happens.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::{eventually, free_port, within};
use crate::driver;
use crate::junk::{malformed, valid};
use crate::peer::{await_subscription, bound};
use crate::random::Random;
use crate::rig::{LONG, Rig, send, topic, update};
use tablecast::drivers::zmq::{ZmqMultiproc, ZmqOptions};
use tablecast::queue::QueueOptions;
use tablecast::{Publisher, PublisherOptions, Service, ServiceOptions, SubscriberOptions};

const LIMIT: usize = 4096;

fn rig() -> Rig {
    let options = SubscriberOptions {
        max_message_bytes: LIMIT,
        ..SubscriberOptions::default()
    };
    Rig::with(&driver("tcp://127.0.0.1:0"), options, QueueOptions::default())
}

fn interleave(socket: &zmq::Socket, what: &str) -> (usize, u64) {
    let mut random = Random::new(what);
    let (mut good, mut bad) = (0, 0);
    while bad < 10_000 {
        socket.send_multipart(malformed(&mut random, LIMIT), 0).unwrap();
        bad += 1;
        if random.below(10) == 0 {
            socket.send_multipart([b"D".to_vec(), valid(good)], 0).unwrap();
            good += 1;
        }
    }
    socket.send_multipart([b"D".to_vec(), valid(good)], 0).unwrap();
    (good + 1, bad)
}

#[test]
fn a_subscriber_skips_and_counts() {
    within(Duration::from_secs(30), || {
        let context = zmq::Context::new();
        let (xpub, address) = bound(&context, zmq::XPUB);
        let rig = rig();
        rig.subscriber.register_topic(&topic("D")).unwrap();
        rig.subscriber.register_listen_address(&address).unwrap();
        rig.subscriber.daemonize().unwrap();
        await_subscription(&xpub, "D");
        let (good, bad) = interleave(&xpub, "a_subscriber_skips_and_counts");
        for key in 0..good {
            assert_eq!(rig.next_key(), key.to_string());
        }
        eventually(LONG, || rig.subscriber.stats().decoded == good as u64);
        let stats = rig.subscriber.stats();
        assert_eq!((stats.malformed, stats.errors, stats.filtered), (bad, 0, 0));
        assert!(rig.updates.is_empty());
        // A publisher without hellos is reported once.
        assert!(rig.syncs.try_iter().all(|reason| reason.as_str() == "connected"));
    });
}

#[test]
fn a_service_passes_on_what_is_whole() {
    within(Duration::from_secs(30), || {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("ipc://{}/socket", folder.path().display());
        let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
        let options = ServiceOptions {
            max_message_bytes: LIMIT,
            ..ServiceOptions::default()
        };
        let service = Service::start(&multiproc, &socket, &*driver("tcp://127.0.0.1:0"), options).unwrap();
        let rig = rig();
        rig.listen(&["D"], &service.address().unwrap());
        let context = zmq::Context::new();
        let push = context.socket(zmq::PUSH).unwrap();
        push.connect(&socket).unwrap();
        let (good, bad) = interleave(&push, "a_service_passes_on_what_is_whole");
        for key in 0..good {
            assert_eq!(rig.next_key(), key.to_string());
        }
        eventually(LONG, || {
            let stats = service.stats();
            stats.forwarded + stats.malformed == good as u64 + bad
        });
        assert_eq!(service.stats().failed, 0);
        // The two together: the subscriber counts what the service does not.
        eventually(LONG, || {
            rig.subscriber.stats().malformed + service.stats().malformed == bad
        });
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert!(rig.syncs.is_empty());
    });
}

/// Strangers on the port: a port scanner, a browser, noise, a peer that stops in the middle of its greeting.
fn annoy(port: u16, random: &mut Random) {
    for round in 0..40 {
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let noise = match round % 5 {
            0 => Vec::new(),
            1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            2 => random.bytes(5000),
            // The greeting of ZMTP 3, and then noise.
            3 => {
                let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
                greeting.resize(64, 0);
                greeting.extend(random.bytes(500));
                greeting
            }
            _ => b"\xff\0\0\0\0\0\0\0\x01\x7f\x03".to_vec(),
        };
        // The connection may be closed at any time.
        let _ = stranger.write_all(&noise);
    }
}

#[test]
fn strangers_do_not_disturb_a_publisher() {
    within(Duration::from_secs(30), || {
        let port = free_port();
        let address = format!("tcp://127.0.0.1:{port}");
        let publisher = Publisher::new(&*driver(&address), PublisherOptions::default()).unwrap();
        let rig = rig();
        rig.listen(&["D"], &address);
        publisher.wait_subscribers(1, LONG).unwrap();
        let mut random = Random::new("strangers_do_not_disturb_a_publisher");
        for round in 0..5 {
            annoy(port, &mut random);
            let key = round.to_string();
            rig.only(&key, || send(&publisher, "D", &key));
        }
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert!(rig.syncs.is_empty());
        // The one subscriber is still counted, and so is the next.
        publisher.wait_subscribers(1, LONG).unwrap();
        let second = self::rig();
        second.listen(&["D"], &address);
        publisher.wait_subscribers(2, LONG).unwrap();
    });
}

#[test]
fn strangers_do_not_disturb_a_bound_subscriber() {
    within(Duration::from_secs(30), || {
        let port = free_port();
        let address = format!("tcp://127.0.0.1:{port}");
        let publisher = Publisher::new(&*driver(&format!(">{address}")), PublisherOptions::default()).unwrap();
        let rig = rig();
        rig.listen(&["D"], &format!("@{address}"));
        let mut random = Random::new("strangers_do_not_disturb_a_bound_subscriber");
        for round in 0..5 {
            annoy(port, &mut random);
            let key = round.to_string();
            rig.only(&key, || send(&publisher, "D", &key));
        }
        rig.subscriber.wait_live(LONG).unwrap();
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert!(rig.syncs.is_empty());
    });
}

/// libzmq's tree of subscriptions is as deep as the longest subscribed topic. A bare connection, since libzmq's own
/// subscribing end would not survive this.
#[test]
fn huge_subscriptions_do_no_harm() {
    within(Duration::from_secs(30), || {
        let port = free_port();
        let address = format!("tcp://127.0.0.1:{port}");
        let publisher = Publisher::new(&*driver(&address), PublisherOptions::default()).unwrap();
        let rig = rig();
        rig.listen(&["D"], &address);
        for _ in 0..3 {
            let hellos = publisher.stats().hellos;
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let mut bytes = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
            bytes.resize(64, 0);
            bytes.extend(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB");
            stranger.write_all(&bytes).unwrap();
            // Like a real peer, it waits for the other side's greeting and the beginning of its READY.
            stranger.read_exact(&mut [0; 65]).unwrap();
            bytes.clear();
            let mut frame = |body: &[u8]| {
                bytes.push(2);
                bytes.extend((body.len() as u64).to_be_bytes());
                bytes.extend(body);
            };
            let mut long = vec![b'x'; 8 << 10];
            for sign in [1, 0, 1] {
                long[0] = sign;
                frame(&long);
            }
            for other in [
                &b""[..],
                b"\x01",
                b"\0",
                b"\x02",
                b"\x01\xff\xfe",
                b"\x01\xf4\x8f\xbf\xbftablecast/probe/\xff",
            ] {
                frame(other);
            }
            frame(b"\x01\xf4\x8f\xbf\xbftablecast/probe/mine");
            stranger.write_all(&bytes).unwrap();
            eventually(LONG, || publisher.stats().hellos > hellos);
            rig.only("1", || send(&publisher, "D", "1"));
            // A subscription far longer than any topic costs its sender the connection.
            let mut huge = vec![2];
            huge.extend((1_u64 << 20).to_be_bytes());
            huge.resize(1 << 20, b'x');
            let _ = stranger.write_all(&huge);
            stranger.set_read_timeout(Some(LONG)).unwrap();
            let end = stranger.read_to_end(&mut Vec::new()).map_err(|e| e.kind());
            assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
            rig.only("2", || send(&publisher, "D", "2"));
        }
        publisher.send_event(&update("3")).unwrap();
        drop(publisher);
        assert_eq!(rig.next_key(), "3");
    });
}
