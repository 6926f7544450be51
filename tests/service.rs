//! The publisher service, as a process where that matters.
#![cfg(feature = "zmq")]

mod common;
#[path = "common/reexec.rs"]
mod reexec;
#[path = "common/rig.rs"]
mod rig;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{eventually, free_port, pass, signal, within};
use crossbeam_channel::Sender;
use reexec::Process;
use rig::{LONG, Rig, quickly, send, update};
use tablecast::codec::{Decoder, Message};
use tablecast::config::JoinFrames;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::queue::QueueOptions;
use tablecast::transport::{Driver, Inbound, Outbound, Wake};
use tablecast::{
    Config, ErrorKind, Node, Publisher, PublisherOptions, Service, ServiceOptions, SubscriberOptions, SyncReason,
    Topic, TopicState,
};

const SECOND: Duration = Duration::from_secs(1);

fn network(address: &str) -> Arc<dyn Driver> {
    Arc::new(ZmqDriver::new(address, ZmqOptions::default()).unwrap())
}

fn service(socket: &str, address: &str) -> tablecast::Result<Service> {
    let multiproc = ZmqMultiproc::new(socket, ZmqOptions::default())?;
    Service::start(&multiproc, socket, &*network(address), ServiceOptions::default())
}

fn writer(socket: &str, send_timeout: Duration) -> Publisher {
    let options = PublisherOptions {
        send_timeout,
        ..PublisherOptions::default()
    };
    let driver = ZmqMultiproc::new(socket, ZmqOptions::default()).unwrap();
    Publisher::new(&driver, options).unwrap()
}

/// A socket's address in a folder of its own.
fn socket() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("ipc://{}/publisher.sock", folder.path().display());
    (folder, socket)
}

fn rig(address: &str) -> Rig {
    let rig = Rig::new(&network("tcp://127.0.0.1:0"));
    rig.listen(&["D"], address);
    rig
}

const SOCKET: &str = "TABLECAST_TEST_SOCKET";
const ADDRESS: &str = "TABLECAST_TEST_ADDRESS";

/// Not a test: the body of a process that [`start_process`] starts.
#[test]
fn process_of_the_service() {
    let (Ok(socket), Ok(address)) = (std::env::var(SOCKET), std::env::var(ADDRESS)) else {
        return;
    };
    let service = match service(&socket, &address) {
        Ok(service) => service,
        Err(error) => return println!("refused {}", error.kind()),
    };
    println!("ready {}", service.address().unwrap());
    // Until the starting process is gone.
    let _ = std::io::stdin().read(&mut [0]);
    service.stop();
    println!("forwarded {}", service.stats().forwarded);
}

fn start_process(socket: &str, address: &str) -> Process {
    Process::start("process_of_the_service", &[(SOCKET, socket), (ADDRESS, address)])
}

#[test]
fn many_writers_lose_nothing_and_keep_order() {
    within(Duration::from_secs(30), || {
        let (_folder, socket) = socket();
        let mut process = start_process(&socket, "tcp://127.0.0.1:0");
        let rig = rig(&process.said("ready "));
        let (publishers, threads, rounds) = (3, 2, 500);
        let mut writers = Vec::new();
        for publisher in 0..publishers {
            let writer = Arc::new(self::writer(&socket, LONG));
            for thread in 0..threads {
                let writer = Arc::clone(&writer);
                let key = format!("{publisher}-{thread}");
                let write = move || {
                    for number in 0..rounds {
                        writer.send_event(&update(&key).value(number.to_string())).unwrap();
                    }
                };
                writers.push(std::thread::Builder::new().spawn(write).unwrap());
            }
        }
        let mut next: HashMap<String, usize> = HashMap::new();
        let mut numbers: HashMap<String, u64> = HashMap::new();
        for _ in 0..publishers * threads * rounds {
            let update = rig.next();
            let expected = next.entry(update.key.to_string()).or_default();
            assert_eq!(update.value, Some(expected.to_string()), "key {}", update.key);
            *expected += 1;
            // The numbers of each publisher hold end to end.
            let origin = update.origin.unwrap();
            let highest = numbers.entry(origin.publisher.to_string()).or_default();
            *highest = origin.seq.max(*highest);
        }
        assert!(numbers.values().all(|&highest| highest == (threads * rounds) as u64));
        assert_eq!(numbers.len(), publishers);
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(rig.updates.is_empty());
        assert!(process.end());
    });
}

/// A network on which each message is confirmed, and which takes no joined updates at present. The counts are of the
/// frames that it gets with these.
#[derive(Debug)]
struct Confirming(MemoryDriver, Sender<usize>);

struct ConfirmingEnd(Box<dyn Outbound>, Sender<usize>);

impl Driver for Confirming {
    fn outbound(&self) -> tablecast::Result<Box<dyn Outbound>> {
        Ok(Box::new(ConfirmingEnd(self.0.outbound()?, self.1.clone())))
    }

    fn inbound(&self) -> tablecast::Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        self.0.inbound()
    }

    fn check_address(&self, address: &str) -> tablecast::Result<()> {
        self.0.check_address(address)
    }
}

impl Outbound for ConfirmingEnd {
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> tablecast::Result<()> {
        self.0.send(topic, payload, timeout)
    }

    fn confirms(&self) -> bool {
        true
    }

    fn send_joined(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> tablecast::Result<()> {
        let mut updates = Vec::new();
        Decoder::new().decode(&Topic::ALL, payload, &mut updates)?;
        if let [Message::Update(_), ..] = &updates[..] {
            self.1.send(updates.len()).unwrap();
        }
        self.0.send(topic, payload, timeout)
    }
}

/// Otherwise each would cost a round trip.
#[test]
fn joined_updates_go_whole_to_a_network_that_confirms_each_message() {
    within(LONG, || {
        let (_folder, socket) = socket();
        let (sender, counts) = crossbeam_channel::unbounded();
        let network = Confirming(MemoryDriver::new("memory://confirming").unwrap(), sender);
        let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
        let service = Service::start(&multiproc, &socket, &network, ServiceOptions::default()).unwrap();
        let writer = writer(&socket, LONG);
        writer.send_batch(&Topic::ALL, &vec![update("row"); 100]).unwrap();
        assert_eq!(counts.recv_timeout(LONG), Ok(100));
        drop(writer);
        service.stop();
        assert!(counts.is_empty());
    });
}

#[test]
fn a_killed_service_comes_back() {
    within(Duration::from_secs(40), || {
        let (folder, socket) = socket();
        let address = format!("tcp://127.0.0.1:{}", free_port());
        let mut process = start_process(&socket, &address);
        process.said("ready ");
        let rig = rig(&address);
        let timeout = Duration::from_millis(200);
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for number in 0..3 {
            let (stop, writer) = (Arc::clone(&stop), writer(&socket, timeout));
            let write = move || {
                let (mut longest, mut sent, mut refused) = (Duration::ZERO, 0_u64, 0_u64);
                let mut soonest = Duration::MAX;
                while !stop.load(Ordering::Relaxed) {
                    let update = update(&format!("{number}")).value(sent.to_string());
                    let start = Instant::now();
                    match writer.send_event(&update) {
                        Ok(()) => sent += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Timeout);
                            refused += 1;
                            soonest = soonest.min(start.elapsed());
                        }
                    }
                    longest = longest.max(start.elapsed());
                    if sent % 50 == 0 {
                        pass(Duration::from_millis(1));
                    }
                }
                (longest, soonest, sent, refused)
            };
            writers.push(std::thread::Builder::new().spawn(write).unwrap());
        }
        assert_eq!(rig.next_sync().as_str(), "connected");
        for round in 0..3 {
            rig.next();
            process.kill();
            // Updates sent just before the subscriber was back may be reported once more.
            let lost = std::iter::repeat_with(|| rig.next_sync()).find(|reason| reason.topics().is_none());
            assert_eq!(lost.unwrap().as_str(), "address-lost");
            assert!(
                folder.path().join("publisher.sock").exists(),
                "the stale socket is what is to be reused"
            );
            // Long enough that writers are refused.
            pass(Duration::from_millis(300));
            while rig.updates.try_recv().is_ok() {}
            process = start_process(&socket, &address);
            process.said("ready ");
            rig.subscriber.wait_live(LONG).unwrap();
            assert_eq!(rig.next_sync().as_str(), "reconnected");
            // Updates of every writer arrive again.
            let mut seen = std::collections::HashSet::new();
            while seen.len() < 3 {
                seen.insert(rig.next_key());
            }
            println!("round {round}: every writer is heard again");
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (longest, soonest, sent, refused) = writer.join().unwrap();
            println!("sent {sent}, refused {refused}, the longest send took {longest:?}");
            assert!(refused > 0);
            assert!(
                soonest < timeout + Duration::from_millis(100),
                "each refused send took {soonest:?}"
            );
            // A busy machine may take time from any of them.
            assert!(longest < timeout + 2 * SECOND, "a send took {longest:?}");
        }
        assert!(process.end());
    });
}

#[test]
fn a_stopped_service_holds_up_no_writer_beyond_its_time_limit() {
    within(Duration::from_secs(60), || {
        let (_folder, socket) = socket();
        let mut process = start_process(&socket, "tcp://127.0.0.1:0");
        process.said("ready ");
        signal(process.id(), "STOP");
        let timeout = Duration::from_millis(2);
        let writer = writer(&socket, timeout);
        // More than the connections that a socket keeps until they are accepted.
        for _ in 0..300 {
            let sent = quickly(5 * SECOND, "sending", || writer.send_event(&update("k")));
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::Timeout);
        }
        signal(process.id(), "CONT");
        eventually(LONG, || writer.send_event(&update("k")).is_ok());
        assert!(process.end());
    });
}

/// What a receiver would refuse is not joined: it would refuse the whole frame.
#[test]
fn frames_that_wait_together_are_joined() {
    within(Duration::from_secs(60), || {
        let (_folder, socket) = socket();
        let mut process = start_process(&socket, "tcp://127.0.0.1:0");
        let rig = rig(&process.said("ready "));
        let options = ZmqOptions {
            join_frames: JoinFrames::Never,
            ..ZmqOptions::default()
        };
        let multiproc = ZmqMultiproc::new(&socket, options).unwrap();
        let writers = ["a", "b"].map(|_| Publisher::new(&multiproc, PublisherOptions::default()).unwrap());
        let foreign = zmq::Context::new().socket(zmq::PUSH).unwrap();
        foreign.connect(&socket).unwrap();
        let write = |number: u32| {
            for writer in &writers {
                writer.send_event(&update("k").value(number.to_string())).unwrap();
            }
        };
        // All are connected.
        write(0);
        foreign.send_multipart(["D", "{wrong"], 0).unwrap();
        eventually(LONG, || rig.subscriber.stats().malformed == 1);
        signal(process.id(), "STOP");
        let rounds = 300;
        for number in 1..rounds {
            write(number);
            if number % 100 == 0 {
                foreign.send_multipart(["D", "{wrong"], 0).unwrap();
            }
        }
        signal(process.id(), "CONT");
        let mut next: HashMap<_, u32> = HashMap::new();
        for _ in 0..rounds {
            for _ in &writers {
                let update = rig.next();
                let expected = next.entry(update.origin.unwrap().publisher).or_default();
                assert_eq!(update.value, Some(expected.to_string()));
                *expected += 1;
            }
        }
        eventually(LONG, || rig.subscriber.stats().malformed == 3);
        let stats = rig.subscriber.stats();
        assert!(
            stats.received - stats.hellos < u64::from(rounds) && stats.gaps == 0,
            "{stats:?}"
        );
        assert!(process.end());
    });
}

/// A hello of up to 1 KiB passes whatever the limit is: without it a lost last update does not show.
#[test]
fn hellos_pass_a_service_with_a_small_limit() {
    within(Duration::from_secs(60), || {
        let (_folder, socket) = socket();
        let limit = 400;
        let options = ServiceOptions {
            max_message_bytes: limit,
            ..ServiceOptions::default()
        };
        let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
        let service = Service::start(&multiproc, &socket, &*network("tcp://127.0.0.1:0"), options).unwrap();
        let rig = Rig::new(&network("tcp://127.0.0.1:0"));
        let topics: Vec<_> = (0..20)
            .map(|number| format!("a topic of some length {number}"))
            .collect();
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        rig.listen(&names, &service.address().unwrap());
        let options = PublisherOptions {
            max_message_bytes: limit,
            hello_interval: Duration::from_millis(50),
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&multiproc, options).unwrap();
        for name in &names {
            send(&publisher, name, "k");
        }
        // The hellos name each topic.
        let is_heard = |status: &tablecast::subscriber::TopicStatus| {
            let mut publishers = status.publishers.iter();
            publishers.any(|of| of.state == TopicState::Live)
        };
        eventually(LONG, || rig.subscriber.status().topics.iter().all(is_heard));
        let hellos = publisher.stats().hellos;
        eventually(LONG, || publisher.stats().hellos > hellos + 5);
        assert_eq!(service.stats().malformed, 0);
    });
}

#[test]
fn a_second_service_is_refused() {
    within(Duration::from_secs(20), || {
        let (folder, socket) = socket();
        let mut process = start_process(&socket, "tcp://127.0.0.1:0");
        let rig = rig(&process.said("ready "));
        let writer = writer(&socket, LONG);
        send(&writer, "D", "1");
        assert_eq!(rig.next_key(), "1");
        for _ in 0..3 {
            let error = service(&socket, "tcp://127.0.0.1:0").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddressInUse);
            assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
            assert_eq!(
                start_process(&socket, "tcp://127.0.0.1:0").said("refused "),
                "address in use"
            );
            rig.only("2", || send(&writer, "D", "2"));
        }
        // The same path under another name.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let error = service(&format!("ipc://{}/publisher.sock", link.display()), "tcp://127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        // Even if the lock file is removed.
        fs::remove_file(folder.path().join("publisher.sock.lock")).unwrap();
        let error = service(&socket, "tcp://127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        rig.only("3", || send(&writer, "D", "3"));
        assert!(process.end());
        eventually(LONG, || service(&socket, "tcp://127.0.0.1:0").is_ok());
    });
}

/// Like a server in another language.
#[test]
fn a_foreign_server_keeps_its_socket() {
    within(LONG, || {
        let (_folder, socket) = socket();
        let context = zmq::Context::new();
        let foreign = context.socket(zmq::PULL).unwrap();
        foreign.set_rcvtimeo(5_000).unwrap();
        foreign.bind(&socket).unwrap();
        assert_eq!(
            service(&socket, "tcp://127.0.0.1:0").unwrap_err().kind(),
            ErrorKind::AddressInUse
        );
        let writer = writer(&socket, LONG);
        send(&writer, "D", "1");
        assert_eq!(foreign.recv_multipart(0).unwrap().len(), 2);
    });
}

#[test]
fn a_taken_port_is_refused_and_frees_the_socket() {
    within(LONG, || {
        let (_folder, socket) = socket();
        let taken = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let address = format!("tcp://{}", taken.local_addr().unwrap());
        let error = service(&socket, &address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
        assert!(error.to_string().contains(&address), "{error}");
        drop(taken);
        eventually(LONG, || service(&socket, &address).is_ok());
    });
}

/// The service sends hellos, and answers questions, for writers that number nothing.
#[test]
fn what_writers_without_numbers_send_is_not_proven() {
    within(Duration::from_secs(60), || {
        let (_folder, socket) = socket();
        let service = service(&socket, "tcp://127.0.0.1:0").unwrap();
        let options = SubscriberOptions {
            resync_without_hellos: Duration::from_millis(200),
            ..SubscriberOptions::default()
        };
        let rig = Rig::with(&network("tcp://127.0.0.1:0"), options, QueueOptions::default());
        rig.listen(&["D"], &service.address().unwrap());
        assert_eq!(rig.next_sync().as_str(), "connected");
        assert_eq!(rig.subscriber.status().topics[0].state, TopicState::Live);
        let context = zmq::Context::new();
        let writer = context.socket(zmq::PUSH).unwrap();
        writer.connect(&socket).unwrap();
        let update = r#"{"table": "t", "key": "k", "action": "set", "topic": "D"}"#;
        writer.send_multipart(["D", update], 0).unwrap();
        assert_eq!(rig.next_key(), "k");
        assert_eq!(rig.subscriber.status().topics[0].state, TopicState::Unconfirmed);
        for _ in 0..3 {
            assert_eq!(rig.next_sync(), SyncReason::NoHellos);
        }
    });
}

#[test]
fn a_service_that_is_told_to_stop_forwards_what_it_has() {
    within(Duration::from_secs(20), || {
        for _ in 0..5 {
            let (_folder, socket) = socket();
            let service = service(&socket, "tcp://127.0.0.1:0").unwrap();
            let rig = rig(&service.address().unwrap());
            let writer = writer(&socket, LONG);
            for key in 0..500 {
                send(&writer, "D", &key.to_string());
            }
            // The service has what it had counted in the end; the rest is on its way to it.
            eventually(LONG, || service.stats().forwarded > 0);
            let before = service.stats().forwarded;
            quickly(SECOND, "stop", || service.stop());
            assert!(service.stats().forwarded >= before);
            let forwarded = service.stats().forwarded;
            quickly(SECOND, "drop", || drop(service));
            // The first of them is a hello.
            for key in 0..forwarded - writer.stats().hellos {
                assert_eq!(rig.next_key(), key.to_string());
            }
        }
    });
}

/// A socket closes some time after its drop: the next service must not meet the remains of the last one.
#[test]
fn a_service_restarts_at_once() {
    within(Duration::from_secs(30), || {
        let (_folder, socket) = socket();
        let address = format!("tcp://127.0.0.1:{}", free_port());
        // Keeps libzmq's threads alive, so that closing is left to them.
        let _other = Publisher::new(&*network("tcp://127.0.0.1:0"), PublisherOptions::default()).unwrap();
        // No long pauses between its tries.
        let options = ZmqOptions {
            reconnect_max: Duration::from_millis(100),
            ..ZmqOptions::default()
        };
        let driver = ZmqMultiproc::new(&socket, options).unwrap();
        let options = PublisherOptions {
            send_timeout: LONG,
            ..PublisherOptions::default()
        };
        let writer = Publisher::new(&driver, options).unwrap();
        let mut refused = 0;
        for round in 0..20 {
            let start = Instant::now();
            let service = loop {
                match service(&socket, &address) {
                    Ok(service) => break service,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AddressInUse);
                        assert!(start.elapsed() < LONG, "round {round}: {error}");
                        refused += 1;
                        pass(Duration::from_millis(2));
                    }
                }
            };
            // Messages on the connection to the earlier service, while that closes, are lost.
            eventually(LONG, || {
                writer.send_event(&update(&round.to_string())).unwrap();
                pass(Duration::from_millis(1));
                service.stats().forwarded > 0
            });
            quickly(SECOND, "drop", || drop(service));
        }
        println!("refused {refused} times while the one before was closing");
    });
}

#[test]
fn paths_that_cannot_be() {
    within(LONG, || {
        let (folder, _) = socket();
        let path = |name: &str| format!("ipc://{}/{name}", folder.path().display());
        let error = service(&path(&"x".repeat(120)), "tcp://127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("107"), "{error}");
        let error = service(&path("missing/publisher.sock"), "tcp://127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("missing"), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        let error = service(&path("file/publisher.sock"), "tcp://127.0.0.1:0").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        // A folder in the place of the socket.
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(service(&path("folder"), "tcp://127.0.0.1:0").is_err());
        // A file that is not a socket is not deleted.
        fs::write(folder.path().join("precious"), "data").unwrap();
        let taken = service(&path("precious"), "tcp://127.0.0.1:0");
        assert!(taken.is_err(), "a service replaced a file that is no socket");
        assert_eq!(fs::read_to_string(folder.path().join("precious")).unwrap(), "data");
    });
}

/// Root may write anywhere, so as root this proves nothing.
#[test]
fn a_folder_that_is_not_writable() {
    within(LONG, || {
        let (folder, socket) = socket();
        let lock = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        lock(0o500);
        let writable = fs::write(folder.path().join("probe"), "").is_ok();
        let started = service(&socket, "tcp://127.0.0.1:0");
        lock(0o700);
        match started {
            Ok(_) => assert!(writable),
            Err(error) => assert_eq!((error.kind(), writable), (ErrorKind::Denied, false)),
        }
    });
}

#[test]
fn opens_as_the_options_say() {
    within(LONG, || {
        let (folder, _) = socket();
        let mut config = Config::default();
        config.publisher_multiproc_socket = folder.path().join("new/folder/publisher.sock");
        config.publisher_port = 0;
        config.validate().unwrap();
        let node = Node::open(&config).unwrap();
        let service = node.service().unwrap();
        let mode = fs::metadata(folder.path().join("new/folder"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Node::open(&config).unwrap().service().unwrap_err().to_string();
        assert!(
            second.contains("option publisher_multiproc_socket: ") && !second.contains("publisher_port"),
            "{second}"
        );
        let rig = rig(&service.address().unwrap());
        let publisher = node.publisher().unwrap();
        rig.only("1", || send(&publisher, "D", "1"));
        config.publisher_multiproc_socket = Path::new("/proc/nowhere/publisher.sock").into();
        let error = Node::open(&config).unwrap().service().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Denied), "{error}");
    });
}
