//! No ZeroMQ address dies for good: however a connection ended, it is begun anew. Every kind of socket, bound and
//! connected.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{Config, ErrorKind, Topic};

use crate::common::{eventually, free_port, pass, within};
use crate::receiver::{Event, Receiver, frame};
use crate::rig::LONG;
use crate::zmtp::Zmtp;
use crate::{LIMIT, SECOND, bare, multiproc, pub_sub, send};

/// The limit of every socket here, see [`crate::options`].
const LARGEST: usize = 100_000;

/// Messages over the limit: before and after each, others come.
fn survives_large_messages(driver: &dyn Driver, kind: zmq::SocketType, binds: bool) {
    let context = zmq::Context::new();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let sign = if binds { '>' } else { '@' };
    let sender = bare(&context, kind, binds, &address);
    let ours = format!("{sign}{address}");
    let mut receiver = Receiver::connect(driver, &[&ours]);
    receiver.await_while(&frame("first"), || send(&sender, b"first"));
    for round in 0..3 {
        send(&sender, &vec![b'x'; LARGEST + 1]);
        let next = format!("next {round}");
        receiver.await_while(&frame(&next), || send(&sender, next.as_bytes()));
    }
    // Receivers that report connections reported each.
    let lost = receiver
        .skipped
        .iter()
        .filter(|event| matches!(event, Event::Disconnected(_)))
        .count();
    let is_told = binds || kind == zmq::XPUB;
    assert_eq!(lost, if is_told { 3 } else { 0 }, "{:?}", receiver.skipped);
    if binds {
        let failures = receiver.failures();
        assert!(!failures.is_empty(), "{:?}", receiver.skipped);
        for failure in failures {
            assert!(
                failure.contains(&address) && failure.contains("100000 bytes"),
                "{failure}"
            );
        }
    }
}

#[test]
fn a_subscriber_survives_large_messages() {
    within(LIMIT, || {
        survives_large_messages(&pub_sub("tcp://127.0.0.1:0"), zmq::XPUB, true);
    });
}

#[test]
fn a_bound_subscriber_survives_large_messages() {
    within(LIMIT, || {
        survives_large_messages(&pub_sub("tcp://127.0.0.1:0"), zmq::XPUB, false);
    });
}

#[test]
fn a_service_survives_large_messages() {
    within(LIMIT, || {
        survives_large_messages(&multiproc("ipc:///none"), zmq::PUSH, false);
    });
}

#[test]
fn a_connecting_service_survives_large_messages() {
    within(LIMIT, || {
        survives_large_messages(&multiproc("ipc:///none"), zmq::PUSH, true);
    });
}

/// A subscription of 20 kB is over a publisher's limit.
fn publisher_survives_large_subscriptions(binds: bool) {
    let context = zmq::Context::new();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let sign = if binds { '@' } else { '>' };
    let mut publisher = pub_sub(&format!("{sign}{address}")).outbound().unwrap();
    let subscriber = bare(&context, zmq::SUB, !binds, &address);
    subscriber.set_subscribe(b"D").unwrap();
    let mut is_served = || {
        eventually(LONG, || {
            publisher.probes().unwrap_or_default();
            publisher.send(b"D", b"x", LONG).unwrap();
            subscriber.recv_msg(zmq::DONTWAIT).is_ok()
        });
    };
    is_served();
    let large = vec![b'l'; 20_000];
    subscriber.set_subscribe(&large).unwrap();
    // Messages sent before the connection was closed.
    pass(Duration::from_millis(200));
    while subscriber.recv_msg(zmq::DONTWAIT).is_ok() {}
    subscriber.set_unsubscribe(&large).unwrap();
    is_served();
}

#[test]
fn a_publisher_survives_large_subscriptions() {
    within(LIMIT, || publisher_survives_large_subscriptions(true));
}

#[test]
fn a_connecting_publisher_survives_large_subscriptions() {
    within(LIMIT, || publisher_survives_large_subscriptions(false));
}

/// A program that listens where a peer of tablecast belongs.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    Zeros,
    Text,
    HangsUp,
    Silent,
}

/// Plays a stranger until it is dropped, and counts the connections.
struct Strange {
    over: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Strange {
    fn listen(port: u16, stranger: Stranger) -> Strange {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (over, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_over, count) = (Arc::clone(&over), Arc::clone(&came));
        let play = move || {
            let mut streams = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    count.fetch_add(1, Ordering::Relaxed);
                    streams.push(stream);
                }
                streams.retain_mut(|stream| misbehave(stream, stranger));
                pass(Duration::from_millis(2));
            }
        };
        let thread = std::thread::Builder::new().spawn(play).unwrap();
        Strange {
            over,
            came,
            thread: Some(thread),
        }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

/// Returns false if the connection is to be closed.
fn misbehave(stream: &mut TcpStream, stranger: Stranger) -> bool {
    stream.set_nonblocking(true).unwrap();
    // The other end closes last, so that the port is free afterwards.
    let heard = stream.read(&mut [0; 4096]);
    match stranger {
        Stranger::Zeros => stream.write(&[0; 100]).is_ok(),
        Stranger::Text => stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_ok() && !matches!(heard, Ok(0)),
        Stranger::HangsUp => false,
        Stranger::Silent => !matches!(heard, Ok(0)),
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A stranger listens for a while, and then the right peer.
fn outlives_strangers(driver: &dyn Driver, kind: zmq::SocketType) {
    let context = zmq::Context::new();
    for stranger in [Stranger::Zeros, Stranger::HangsUp, Stranger::Text, Stranger::Silent] {
        let port = free_port();
        let address = format!("tcp://127.0.0.1:{port}");
        let strange = Strange::listen(port, stranger);
        let mut receiver = Receiver::connect(driver, &[&format!(">{address}")]);
        // A silent peer is tolerated for longer than this.
        let several = if matches!(stranger, Stranger::Zeros | Stranger::HangsUp) {
            6
        } else {
            1
        };
        let deadline = Instant::now() + LONG;
        while strange.came() < several {
            assert!(
                Instant::now() < deadline,
                "{stranger:?} was tried {} times",
                strange.came()
            );
            let came = receiver.next(Duration::from_millis(20));
            receiver.skipped.extend(came);
        }
        drop(strange);
        let sender = bare(&context, kind, true, &address);
        receiver.await_while(&frame("true"), || send(&sender, b"true"));
        if several > 1 {
            let failures = receiver.failures();
            assert_eq!(failures.len(), 1, "{stranger:?}: {failures:?}");
            assert!(failures[0].contains(&address), "{failures:?}");
        }
    }
}

#[test]
fn a_subscriber_outlives_strangers() {
    within(LIMIT, || outlives_strangers(&pub_sub("tcp://127.0.0.1:0"), zmq::XPUB));
}

#[test]
fn a_connecting_service_outlives_strangers() {
    within(LIMIT, || outlives_strangers(&multiproc("ipc:///none"), zmq::PUSH));
}

#[test]
fn a_connecting_publisher_outlives_strangers() {
    within(LIMIT, || {
        let context = zmq::Context::new();
        for stranger in [Stranger::Zeros, Stranger::HangsUp] {
            let port = free_port();
            let address = format!("tcp://127.0.0.1:{port}");
            let strange = Strange::listen(port, stranger);
            let mut publisher = pub_sub(&format!(">{address}")).outbound().unwrap();
            let mut failures = Vec::new();
            eventually(LONG, || {
                failures.extend(publisher.probes().err().map(|e| e.to_string()));
                strange.came() >= 6 && !failures.is_empty()
            });
            drop(strange);
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert!(failures[0].contains(&address), "{failures:?}");
            let subscriber = bare(&context, zmq::SUB, true, &address);
            subscriber.set_subscribe(b"D").unwrap();
            eventually(LONG, || {
                publisher.probes().unwrap_or_default();
                publisher.send(b"D", b"x", LONG).unwrap();
                subscriber.recv_msg(zmq::DONTWAIT).is_ok()
            });
        }
    });
}

/// A writer finds another program's publisher at the path of its service, and then the service.
fn writer_outlives(stranger: impl FnOnce(&zmq::Context, &str) -> zmq::Socket) {
    let context = zmq::Context::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/socket", folder.path().display());
    let strange = stranger(&context, &socket);
    let mut writer = multiproc(&socket).outbound().unwrap();
    for _ in 0..3 {
        let error = writer.send(b"D", b"x", Duration::from_secs(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(
            // Which of these is noticed first depends on which end is faster.
            text.contains(&socket) && (text.contains("does not speak ZeroMQ") || text.contains("before it greets")),
            "{text}"
        );
    }
    drop(strange);
    let service = bare(&context, zmq::PULL, true, &socket);
    writer.send(b"D", b"x", LONG).unwrap();
    service.set_rcvtimeo(10_000).unwrap();
    assert_eq!(service.recv_multipart(0).unwrap(), [b"D", b"x"]);
}

#[test]
fn a_writer_outlives_a_foreign_publisher_at_its_services_path() {
    within(LIMIT, || {
        writer_outlives(|context, socket| bare(context, zmq::PUB, true, socket));
    });
}

/// The service goes and comes back, and the next message finds it.
#[test]
fn a_writer_finds_the_next_service() {
    within(LIMIT, || {
        let context = zmq::Context::new();
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("ipc://{}/socket", folder.path().display());
        let mut writer = multiproc(&socket).outbound().unwrap();
        for round in 0..5 {
            let service = bare(&context, zmq::PULL, true, &socket);
            service.set_rcvtimeo(10_000).unwrap();
            let payload = round.to_string();
            // The first may still go to the service that has just gone.
            eventually(LONG, || {
                writer.send(b"D", payload.as_bytes(), LONG).unwrap();
                service.recv_multipart(zmq::DONTWAIT).is_ok()
            });
        }
    });
}

/// Failing tries become ever rarer.
#[test]
fn tries_have_their_pauses() {
    within(LIMIT, || {
        let port = free_port();
        let strange = Strange::listen(port, Stranger::HangsUp);
        let driver = ZmqDriver::new(
            "tcp://127.0.0.1:0",
            ZmqOptions {
                reconnect_interval: Duration::from_millis(50),
                reconnect_max: Duration::from_millis(400),
                ..ZmqOptions::default()
            },
        )
        .unwrap();
        let mut receiver = Receiver::connect(&driver, &[&format!("tcp://127.0.0.1:{port}")]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) || strange.came() < 3 {
            receiver.next(Duration::from_millis(100));
        }
        // Each pause is at least half of 50, 100, 200, 400, 400, ... ms.
        let came = strange.came();
        let most = 4 + start.elapsed().as_millis() as usize / 200;
        assert!(came <= most, "{came} tries");
    });
}

/// A publisher without the handshake of ZMTP 3 is connected once something comes from it, and is not given up before.
#[test]
fn a_publisher_of_an_old_version_is_connected() {
    within(LIMIT, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
        let old = std::thread::Builder::new().spawn(move || {
            let mut old = Zmtp::greet_2(listener.accept().unwrap().0).unwrap();
            old.subscription(b"D").unwrap();
            old.send(b"D", b"1").unwrap();
            old
        });
        receiver.expect(&frame("1"));
        receiver.expect(&Event::Connected(address.clone()));
        let mut old = old.unwrap().join().unwrap();
        old.send(b"D", b"2").unwrap();
        receiver.expect(&frame("2"));
        drop(old);
        receiver.expect(&Event::Disconnected(address));
    });
}

/// Messages that came before a connection was lost are handed out before the loss, and before the next connection is
/// made.
#[test]
fn what_came_before_the_end_comes_first() {
    within(LIMIT, || {
        let context = zmq::Context::new();
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let mut sender = bare(&context, zmq::XPUB, true, &address);
        let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
        receiver.expect(&Event::Connected(address.clone()));
        for round in 0..5 {
            let first = format!("{round} first");
            receiver.await_while(&frame(&first), || send(&sender, first.as_bytes()));
            for number in 0..1000 {
                send(&sender, format!("{round} {number}").as_bytes());
            }
            send(&sender, &vec![b'x'; LARGEST + 1]);
            // Nothing is read until everything has arrived and the connection is gone, and its subscription with it.
            eventually(LONG, || {
                sender.recv_bytes(zmq::DONTWAIT).is_ok_and(|topic| topic == b"\0D")
            });
            drop(sender);
            sender = bare(&context, zmq::XPUB, true, &address);
            receiver.skipped.clear();
            receiver.expect(&Event::Disconnected(address.clone()));
            let came = receiver
                .skipped
                .iter()
                .filter(|event| matches!(event, Event::Frame(text) if *text != first));
            assert_eq!(came.count(), 1000);
            receiver.expect(&Event::Connected(address.clone()));
        }
    });
}

/// A connection counted as a publisher's is one: messages of a closed connection that are read late say nothing about
/// the next connection with its descriptor.
#[test]
fn a_late_answer_proves_nothing_about_the_next_connection() {
    within(LIMIT, || {
        let port = free_port();
        let address = format!("@tcp://127.0.0.1:{port}");
        let (mut inbound, _wake) = pub_sub("tcp://127.0.0.1:0").inbound().unwrap();
        // Prefixes match, so this also subscribes to the answers to probes.
        inbound.subscribe(&Topic::new("\u{10FFFF}").unwrap()).unwrap();
        inbound.connect(&address).unwrap();
        let mut receiver = Receiver {
            inbound,
            skipped: Default::default(),
        };
        let dial = || TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut first = Zmtp::greet(dial(), "XPUB").unwrap();
        receiver.expect(&Event::Connected(address.clone()));
        let mut second = Zmtp::greet(dial(), "XPUB").unwrap();
        receiver.expect(&Event::Connected(address.clone()));
        // An answer, the end, and a stranger all come before any of it is read.
        assert_eq!(receiver.next(Duration::from_millis(50)), None);
        first.send("\u{10FFFF}tablecast/probe/0/1".as_bytes(), b"").unwrap();
        drop(first);
        pass(SECOND);
        let stranger = dial();
        pass(SECOND);
        assert_eq!(receiver.next(Duration::from_millis(50)), None);
        drop(stranger);
        pass(Duration::from_millis(100));
        second.send("\u{10FFFF}".as_bytes(), b"1").unwrap();
        receiver.expect(&frame("1"));
        assert!(receiver.skipped.is_empty(), "{:?}", receiver.skipped);
        drop(second);
        receiver.expect(&Event::Disconnected(address));
    });
}

/// Small messages do not make hellos and topics too large.
#[test]
fn the_least_limit_leaves_room_for_hellos_and_topics() {
    let mut config = Config::default();
    config.max_message_bytes = 64;
    config.validate().unwrap();
    let options = ZmqOptions::from(&config);
    assert!(options.max_frame_bytes >= 2 << 20, "{}", options.max_frame_bytes);
    assert_eq!(ZmqOptions::from(&Config::default()).max_frame_bytes, 64 << 20);
}

/// However late libzmq's threads run, which close sockets; they go on as long as there is another one.
#[test]
fn an_address_within_the_process_is_free_once_its_publisher_is_gone() {
    within(LIMIT, || {
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let again = || {
                let _other = pub_sub("inproc://another").outbound().unwrap();
                let driver = pub_sub("inproc://free-again");
                (0..500).try_for_each(|_| driver.outbound().map(drop))
            };
            let bound = again();
            is_done.store(true, Ordering::Relaxed);
            bound.unwrap();
        });
    });
}
