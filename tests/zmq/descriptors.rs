//! The number of addresses that a process can listen to, and its limits.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tablecast::{Error, ErrorKind, Publisher, PublisherOptions};

use crate::common::{eventually, within};
use crate::receiver::{Event, Receiver, frame};
use crate::reexec::Process;
use crate::rig::{LONG, pass};
use crate::{LIMIT, bare, pub_sub, send};

const ADDRESS: &str = "TABLECAST_TEST_ADDRESS";
const DONE: &str = "the test is done";

/// Runs the test of this name in a process with this limit of open files.
fn limited(test: &str, limit: usize, address: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap());
    let mut process = Process::start_with(command, test, &[(ADDRESS, address)]);
    println!("{}", process.until(DONE));
    process.finish();
}

/// A publisher that can be reached at many addresses, and its port.
fn publisher(context: &zmq::Context) -> (zmq::Socket, u16) {
    let publisher = bare(context, zmq::XPUB, true, "tcp://0.0.0.0:*");
    let address = publisher.get_last_endpoint().unwrap().unwrap();
    let port = address.trim_end_matches('\0').rsplit_once(':').unwrap().1.parse();
    (publisher, port.unwrap())
}

fn address(number: usize, port: &str) -> String {
    format!("tcp://127.0.{}.{}:{port}", number / 250, number % 250 + 1)
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Without descriptors an address is refused by a typed error; the others go on, and it is connected once there are
/// some.
#[test]
fn the_limit_of_open_files_is_no_end() {
    within(LIMIT, || {
        if let Ok(port) = std::env::var(ADDRESS) {
            return at_the_limit(&port);
        }
        let context = zmq::Context::new();
        let (publisher, port) = publisher(&context);
        let send = std::thread::Builder::new().spawn(move || {
            limited("descriptors::the_limit_of_open_files_is_no_end", 256, &port.to_string());
        });
        let send = send.unwrap();
        eventually(LIMIT, || {
            crate::send(&publisher, b"x");
            pass(Duration::from_millis(5));
            send.is_finished()
        });
        send.join().unwrap();
    });
}

fn at_the_limit(port: &str) {
    let before = open_files();
    let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[]);
    let refused = (0..1000).find_map(|number| {
        let address = address(number, port);
        let error = receiver.inbound.connect(&address).err()?;
        Some((number, address, error))
    });
    let (count, refused, error) = refused.unwrap();
    println!("{count} addresses with {before} of 256 files open before; then: {error}");
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(text.contains(&refused) && text.contains("ulimit -n"), "{text}");
    // With libzmq's own build: two for each of the three sockets, and the connection.
    assert!(count >= (256 - before - 50) / 7, "{count}");
    // Nothing has ended: connected publishers are received, and once there is room for some, all the others are
    // connected.
    receiver.expect(&frame("x"));
    for number in 0..10 {
        receiver.inbound.disconnect(&address(number, port)).unwrap();
    }
    let mut missing: BTreeSet<_> = (10..count).map(|number| address(number, port)).collect();
    missing.insert(refused.clone());
    for event in std::mem::take(&mut receiver.skipped) {
        is_connected(&mut missing, Some(event));
    }
    eventually(LONG, || receiver.inbound.connect(&refused).is_ok());
    eventually(LONG, || {
        is_connected(&mut missing, receiver.next(LONG));
        missing.is_empty()
    });
    println!("{DONE}");
}

fn is_connected(missing: &mut BTreeSet<String>, event: Option<Event>) {
    if let Some(Event::Connected(address)) = event {
        missing.remove(&address);
    }
}

/// Not a test: a publisher in a process of its own, which counts its reports.
#[test]
fn process_of_the_publisher() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let reports = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reports);
    let options = PublisherOptions {
        hook: Some(Arc::new(move |e: &Error| {
            println!("told {e}");
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::new(&pub_sub(&address), options).unwrap();
    println!("ready {}", publisher.address().unwrap());
    // Until the end of the input; then it sends something to all.
    let _ = std::io::stdin().read(&mut [0]);
    crate::rig::send(&publisher, "D", "last");
    println!("reported {}", reports.load(Ordering::Relaxed));
}

/// A publisher that cannot accept all peers turns some away, reports this once, and goes on. Some come at once, the
/// others one by one: if too many come at once, libzmq is faster.
fn turns_away(address: &str, limit: usize, at_once: usize, one_by_one: usize) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap());
    let test = "descriptors::process_of_the_publisher";
    let mut process = Process::start_with(command, test, &[(ADDRESS, address)]);
    let address = process.said("ready");
    let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
    receiver.expect(&Event::Connected(address.clone()));
    let connect = || -> Box<dyn Any> {
        match address.strip_prefix("tcp://") {
            Some(host) => Box::new(TcpStream::connect(host).unwrap()),
            None => Box::new(UnixStream::connect(address.strip_prefix("ipc://").unwrap()).unwrap()),
        }
    };
    let mut crowd: Vec<_> = (0..at_once).map(|_| connect()).collect();
    for _ in 0..one_by_one {
        pass(Duration::from_millis(2));
        crowd.push(connect());
    }
    // As long as a peer waits and cannot be accepted, libzmq tries again and again.
    let files = format!("/proc/{}/fd", process.id());
    let is_roomy = || fs::read_dir(&files).unwrap().count() < limit - 10;
    let mut since = Instant::now();
    eventually(LONG, || {
        if !is_roomy() {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(500)
    });
    let told = process.said("told");
    assert!(told.contains(&address) && told.contains("ulimit -n"), "{told}");
    drop(crowd);
    let mut second = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
    second.expect(&Event::Connected(address));
    // An answer would show that its subscription has arrived, but bare receivers ask nothing.
    pass(Duration::from_millis(300));
    let rest = process.finish();
    assert!(rest.contains("reported 1"), "{rest}");
    for receiver in [&mut receiver, &mut second] {
        eventually(LONG, || matches!(receiver.next(LONG), Some(Event::Frame(_))));
    }
}

#[test]
fn a_crowd_is_turned_away() {
    within(LIMIT, || {
        turns_away("tcp://127.0.0.1:0", 400, 280, 200);
        let folder = tempfile::tempdir().unwrap();
        turns_away(&format!("ipc://{}/socket", folder.path().display()), 400, 280, 200);
    });
}

/// libzmq allows 1,023 sockets a context, and an address takes three.
#[test]
fn a_process_listens_to_many_addresses() {
    const MANY: usize = 400;
    within(LIMIT, || {
        let context = zmq::Context::new();
        let (publisher, port) = publisher(&context);
        let port = port.to_string();
        let all: Vec<_> = (0..MANY).map(|number| address(number, &port)).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let before = open_files();
        let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &all);
        for _ in 0..MANY {
            eventually(LONG, || matches!(receiver.next(LONG), Some(Event::Connected(_))));
        }
        println!(
            "{} descriptors an address, both ends",
            (open_files() - before) as f64 / MANY as f64
        );
        send(&publisher, b"1");
        for _ in 0..MANY {
            eventually(LONG, || receiver.next(LONG) == Some(frame("1")));
        }
        drop(receiver);
        eventually(LONG, || open_files() < before + 20);
    });
}
