//! Updates sent in a burst share frames, unless a subscriber reads only one map in a frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tablecast::codec::{Codec, Decoder, Message};
use tablecast::config::JoinFrames;
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::transport::Driver;
use tablecast::{Publisher, PublisherOptions, Service, ServiceOptions, Topic};

use crate::common::{eventually, pass, within};
use crate::rig::{LONG, Rig, update};
use crate::{LIMIT, bare};

const HELLO: &str = "\u{10FFFF}tablecast/hello";

fn driver(join_frames: JoinFrames) -> Arc<ZmqDriver> {
    let options = ZmqOptions {
        join_frames,
        ..ZmqOptions::default()
    };
    Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap())
}

fn publisher(driver: &dyn Driver, codec: Codec) -> Publisher {
    let options = PublisherOptions {
        codec,
        ..PublisherOptions::default()
    };
    Publisher::new(driver, options).unwrap()
}

/// A bare socket with these topics, in this order, and this receive timeout.
fn listener(context: &zmq::Context, address: &str, topics: &[&str], patience: i32) -> zmq::Socket {
    let socket = context.socket(zmq::SUB).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_rcvtimeo(patience).unwrap();
    socket.connect(address).unwrap();
    for topic in topics {
        socket.set_subscribe(topic.as_bytes()).unwrap();
    }
    socket
}

/// The numbers in each frame on topic `D`, until there are this many, or no more come.
fn frames(socket: &zmq::Socket, count: usize) -> Vec<Vec<u64>> {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    let mut left = count;
    while left > 0
        && let Ok(parts) = socket.recv_multipart(0)
    {
        if parts[0] != b"D" {
            continue;
        }
        let mut messages = Vec::new();
        decoder.decode(&Topic::ALL, &parts[1], &mut messages).unwrap();
        let number = |message| match message {
            Message::Update(update) => update.origin.unwrap().seq,
            Message::Control(_) => panic!("a control message"),
        };
        let numbers: Vec<u64> = messages.into_iter().map(number).collect();
        left = left.saturating_sub(numbers.len());
        frames.push(numbers);
    }
    frames
}

fn burst(publisher: &Publisher, count: usize) {
    let update = update("row").value("v".repeat(100));
    (0..count).for_each(|_| publisher.send_event(&update).unwrap());
}

/// A bare socket with the library's own subscriptions sees how many updates a frame has.
#[test]
fn a_burst_shares_frames_and_a_lone_update_has_its_own() {
    within(LIMIT, || {
        for codec in [Codec::Json, Codec::MessagePack] {
            for (join_frames, topics, is_joined) in [
                (JoinFrames::Auto, &[HELLO, "D"][..], true),
                (JoinFrames::Auto, &["D", HELLO], true),
                (JoinFrames::Auto, &["D"], false),
                (JoinFrames::Never, &[HELLO, "D"], false),
                (JoinFrames::Always, &["D"], true),
            ] {
                let driver = driver(join_frames);
                let publisher = publisher(&*driver, codec);
                let context = zmq::Context::new();
                let socket = listener(&context, &publisher.address().unwrap(), topics, 10_000);
                publisher.wait_subscribed(&Topic::ALL, LONG).unwrap();
                let (mut all, mut largest) = (Vec::new(), 1);
                // The kind of a connection is known only after a while.
                for _ in 0..if is_joined { 50 } else { 3 } {
                    burst(&publisher, 1000);
                    let frames = frames(&socket, 1000);
                    largest = frames.iter().map(Vec::len).fold(largest, usize::max);
                    all.extend(frames.concat());
                    if is_joined && largest > 1 {
                        break;
                    }
                    pass(Duration::from_millis(200));
                }
                assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
                assert_eq!(largest > 1, is_joined, "{join_frames} {topics:?}: {largest}");
                assert!(largest <= 256 && all.len() % 1000 == 0 && !all.is_empty());
                // Slower than a burst.
                for _ in 0..20 {
                    std::thread::park_timeout(Duration::from_millis(1));
                    burst(&publisher, 1);
                }
                let (frames, count) = (self::frames(&socket, 20), all.len() as u64);
                assert!(frames.iter().all(|frame| frame.len() == 1));
                assert_eq!(frames.concat(), (count + 1..=count + 20).collect::<Vec<_>>());
            }
        }
    });
}

/// Strangers that come and go during a burst, even on connections with descriptors that tablecast's had before, get
/// whole single maps, while tablecast's subscribers get everything.
fn strangers_come_and_go(publisher: Publisher, address: String) {
    let driver: Arc<dyn Driver> = driver(JoinFrames::Auto);
    let rig = Rig::new(&driver);
    rig.listen(&["D"], &address);
    let is_over = Arc::new(AtomicBool::new(false));
    let sender = {
        let is_over = Arc::clone(&is_over);
        std::thread::Builder::new().spawn(move || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                burst(&publisher, 100);
                count += 100;
                // Not more is sent than this machine can receive.
                eventually(LONG, || rig.subscriber.stats().decoded + 10_000 > count);
            }
            eventually(LONG, || rig.subscriber.stats().decoded == count);
            let stats = rig.subscriber.stats();
            assert_eq!((stats.gaps, stats.malformed, stats.duplicates), (0, 0, 0), "{stats:?}");
            assert_eq!(rig.next_sync().as_str(), "connected");
            assert!(rig.syncs.is_empty(), "{:?}", rig.syncs.try_recv());
        })
    };
    let context = zmq::Context::new();
    let (mut heard, mut joined, mut round) = (0, 0, 0);
    let deadline = Instant::now() + LONG;
    while (round < 60 || joined == 0) && Instant::now() < deadline {
        round += 1;
        let is_stranger = round % 2 == 0;
        let topics: &[&str] = if is_stranger { &["D"] } else { &[HELLO, "D"] };
        let socket = listener(&context, &address, topics, 1000);
        for _ in 0..200 {
            let Ok(parts) = socket.recv_multipart(0) else { break };
            // An array of MessagePack begins with one of these.
            let is_array = matches!(parts[1][0], 0x90..=0x9f | 0xdc | 0xdd);
            assert!(!(is_array && is_stranger), "round {round}");
            joined += usize::from(is_array);
            heard += usize::from(is_stranger);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    sender.unwrap().join().unwrap();
    assert!(
        heard > 1000 && joined > 0,
        "{heard} heard by strangers, {joined} frames joined"
    );
}

#[test]
fn a_stranger_never_gets_an_array_whenever_it_comes() {
    within(LIMIT, || {
        let driver = driver(JoinFrames::Auto);
        let publisher = publisher(&*driver, Codec::MessagePack);
        let address = publisher.address().unwrap();
        strangers_come_and_go(publisher, address);
    });
}

/// The publisher service splits what its writers have joined.
#[test]
fn a_stranger_at_the_service_never_gets_an_array() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("ipc://{}/publisher.sock", folder.path().display());
        let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
        let service = Service::start(
            &multiproc,
            &socket,
            &*driver(JoinFrames::Auto),
            ServiceOptions::default(),
        );
        let service = service.unwrap();
        let address = service.address().unwrap();
        strangers_come_and_go(publisher(&multiproc, Codec::MessagePack), address);
    });
}

/// A writer beside another publisher service sends single maps, if the option says so.
#[test]
fn a_writer_joins_nothing_if_it_is_told_so() {
    within(LIMIT, || {
        for (join_frames, is_joined) in [(JoinFrames::Auto, true), (JoinFrames::Never, false)] {
            let folder = tempfile::tempdir().unwrap();
            let socket = format!("ipc://{}/publisher.sock", folder.path().display());
            let context = zmq::Context::new();
            let service = bare(&context, zmq::PULL, true, &socket);
            service.set_rcvtimeo(10_000).unwrap();
            let options = ZmqOptions {
                join_frames,
                ..ZmqOptions::default()
            };
            let writer = publisher(&ZmqMultiproc::new(&socket, options).unwrap(), Codec::Json);
            burst(&writer, 5000);
            let frames = frames(&service, 5000);
            assert_eq!(frames.concat(), (1..=5000).collect::<Vec<_>>());
            assert_eq!(frames.iter().any(|frame| frame.len() > 1), is_joined, "{join_frames}");
        }
    });
}
