//! The number of addresses that a process can listen to, and its limits.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use tablecast::ErrorKind;

use crate::common::{eventually, pass, within};
use crate::receiver::{Event, Receiver, frame};
use crate::reexec::Process;
use crate::rig::LONG;
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

/// libzmq allows 1,023 sockets a context, and an address takes three. In a process of its own, whose open files no other
/// test changes.
#[test]
fn a_process_listens_to_many_addresses() {
    within(LIMIT, || {
        if std::env::var(ADDRESS).is_ok() {
            return at_many_addresses();
        }
        let mut process = Process::start("descriptors::a_process_listens_to_many_addresses", &[(ADDRESS, "many")]);
        println!("{}", process.until(DONE));
        process.finish();
    });
}

fn at_many_addresses() {
    const MANY: usize = 400;
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
    let each = (open_files() - before) as f64 / MANY as f64;
    println!("{each} descriptors an address, both ends");
    send(&publisher, b"1");
    for _ in 0..MANY {
        eventually(LONG, || receiver.next(LONG) == Some(frame("1")));
    }
    drop(receiver);
    eventually(LONG, || open_files() < before + 20);
    println!("{DONE}");
}
