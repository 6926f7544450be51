//! Publishers to which more peers connect than they may have open files.

use std::any::Any;
use std::fs;
use std::hint;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tablecast::{Error, Publisher, PublisherOptions};

use crate::common::{eventually, pass, within};
use crate::process::python;
use crate::receiver::{Event, Receiver};
use crate::reexec::Process;
use crate::rig::LONG;
use crate::{LIMIT, pub_sub};

const ADDRESS: &str = "TABLECAST_TEST_ADDRESS";

/// Runs the command that follows without `pidfd_getfd`, which many containers forbid.
const FORBID: &str = r#"
import ctypes, os, struct, sys
load, equal, result = 0x20, 0x15, 0x06
denied, allowed, pidfd_getfd = 0x50001, 0x7fff0000, 438
rules = [(load, 0, 0, 0), (equal, 0, 1, pidfd_getfd), (result, 0, 0, denied), (result, 0, 0, allowed)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = Program(len(rules), ctypes.addressof(packed))
system = ctypes.CDLL(None, use_errno=True)
no_new_privileges, seccomp, filtered = 38, 22, 2
assert system.prctl(no_new_privileges, 1, 0, 0, 0) == 0
assert system.prctl(seccomp, filtered, ctypes.byref(program), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

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
    // The second one may be slow.
    let _ = publisher.wait_subscribers(2, LONG);
    crate::rig::send(&publisher, "D", "last");
    println!("reported {}", reports.load(Ordering::Relaxed));
}

/// A publisher with a limit of open files, and a subscriber that is connected to it.
struct Crowded {
    limit: usize,
    process: Process,
    address: String,
    receiver: Receiver,
}

impl Crowded {
    fn new(address: &str, limit: usize) -> Crowded {
        Crowded::start(Command::new("sh"), address, limit)
    }

    /// It cannot refuse connections.
    fn helpless(address: &str, limit: usize) -> Crowded {
        Crowded::start(python(FORBID, "sh"), address, limit)
    }

    fn start(mut shell: Command, address: &str, limit: usize) -> Crowded {
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        shell.arg(std::env::current_exe().unwrap());
        let mut process = Process::start_with(shell, "crowd::process_of_the_publisher", &[(ADDRESS, address)]);
        let address = process.said("ready");
        let mut receiver = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&address]);
        receiver.expect(&Event::Connected(address.clone()));
        Crowded {
            limit,
            process,
            address,
            receiver,
        }
    }

    /// Waits until connections can be accepted for half a second on end: as long as a peer waits and cannot be
    /// accepted, libzmq tries again and again.
    fn becomes_roomy(&self) {
        let files = format!("/proc/{}/fd", self.process.id());
        let is_roomy = || fs::read_dir(&files).unwrap().count() < self.limit - 10;
        let mut since = Instant::now();
        eventually(LONG, || {
            if !is_roomy() {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(500)
        });
    }

    /// The publisher has reported the crowd once, and serves old and new subscribers.
    fn recovers(mut self) {
        let told = self.process.said("told");
        assert!(told.contains(&self.address) && told.contains("ulimit -n"), "{told}");
        let mut second = Receiver::connect(&pub_sub("tcp://127.0.0.1:0"), &[&self.address]);
        second.expect(&Event::Connected(self.address));
        // An answer would show that its subscription has arrived, but bare receivers ask nothing.
        pass(Duration::from_millis(300));
        let rest = self.process.finish();
        assert!(rest.contains("reported 1"), "{rest}");
        for receiver in [&mut self.receiver, &mut second] {
            eventually(LONG, || matches!(receiver.next(LONG), Some(Event::Frame(_))));
        }
    }
}

/// Some come at once, the others one by one. Those that find nobody listening are turned away too.
fn come(address: &str, at_once: usize, one_by_one: usize) -> Vec<Box<dyn Any + Send>> {
    let mut crowd: Vec<_> = (0..at_once).map(|_| connect(address)).collect();
    for _ in 0..one_by_one {
        pass(Duration::from_millis(2));
        crowd.push(connect(address));
    }
    crowd.into_iter().flatten().collect()
}

fn connect(address: &str) -> io::Result<Box<dyn Any + Send>> {
    Ok(match address.strip_prefix("tcp://") {
        Some(host) => Box::new(TcpStream::connect(host)?),
        None => Box::new(UnixStream::connect(address.strip_prefix("ipc://").unwrap())?),
    })
}

/// At an address over TCP, and at one of a Unix socket.
fn at_each(check: impl Fn(&str)) {
    check("tcp://127.0.0.1:0");
    let folder = tempfile::tempdir().unwrap();
    check(&format!("ipc://{}/socket", folder.path().display()));
}

#[test]
fn a_crowd_is_turned_away() {
    within(LIMIT, || {
        at_each(|address| {
            let publisher = Crowded::new(address, 400);
            let crowd = come(&publisher.address, 280, 200);
            publisher.becomes_roomy();
            drop(crowd);
            publisher.recovers();
        });
    });
}

/// All connections are closed then, since one alone cannot be.
#[test]
fn a_crowd_is_turned_away_where_connections_cannot_be_refused() {
    within(LIMIT, || {
        at_each(|address| {
            let mut publisher = Crowded::helpless(address, 400);
            let crowd = come(&publisher.address, 200, 200);
            publisher.becomes_roomy();
            drop(crowd);
            let connected = Event::Connected(publisher.address.clone());
            eventually(LONG, || publisher.receiver.next(LONG) == Some(connected.clone()));
            publisher.recovers();
        });
    });
}

/// libzmq accepts faster than a busy process can refuse, and would end it.
#[test]
fn a_burst_of_local_connections_is_turned_away() {
    const LIMIT_OF_FILES: usize = 1_300;
    const BURST: usize = 2 * LIMIT_OF_FILES;
    within(LIMIT, || {
        let mine = getrlimit(Resource::Nofile);
        let current = mine.maximum.map(|hard| hard.min(10_000));
        setrlimit(Resource::Nofile, Rlimit { current, ..mine }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let address = format!("ipc://{}/socket", folder.path().display());
        let publisher = Crowded::new(&address, LIMIT_OF_FILES);
        let is_done = AtomicBool::new(false);
        let address = &publisher.address;
        let crowd: Vec<_> = thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        hint::spin_loop();
                    }
                });
            }
            let halves = [(); 2].map(|()| scope.spawn(|| come(address, BURST / 2, 0)));
            let crowd = halves.into_iter().flat_map(|half| half.join().unwrap()).collect();
            is_done.store(true, Ordering::Relaxed);
            crowd
        });
        publisher.becomes_roomy();
        drop(crowd);
        publisher.recovers();
    });
}
