//! A publisher service at its limit of open files.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tablecast::drivers::zmq::{ZmqMultiproc, ZmqOptions};
use tablecast::{Action, DbUpdate, Publisher, PublisherOptions, Result};

use crate::common::{eventually, pass, within};
use crate::host::{Host, json, service, socket};
use crate::process::{Process, assert_fails, run, tablecast, with_files};

const LIMIT: Duration = Duration::from_secs(120);

/// More than a writer waits on a busy machine, and less than until idle connections are closed.
const ROOM: Duration = Duration::from_secs(5);

/// A service that may have this many open files at first (`-Sn`), or ever (`-n`).
fn limited(socket: &Path, option: &str, files: usize) -> (Process, String) {
    let mut service = Process::start(with_files(&format!("{option} {files}"), &service(socket)));
    let ready = service.line();
    let network = ready.split(' ').nth(1).unwrap_or_else(|| panic!("{ready}"));
    (service, network.to_owned())
}

fn host(files: usize) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let (service, network) = limited(&socket(folder.path()), "-n", files);
    Host {
        service,
        folder,
        network,
    }
}

/// Publishes one update as a process does that ends then.
fn publish(socket: &Path, key: &str) -> Result<()> {
    let options = PublisherOptions {
        send_timeout: Duration::from_millis(300),
        ..PublisherOptions::default()
    };
    let zmq = ZmqOptions {
        linger: LIMIT,
        ..ZmqOptions::default()
    };
    let driver = ZmqMultiproc::new(&format!("ipc://{}", socket.display()), zmq)?;
    let publisher = Publisher::new(&driver, options)?;
    publisher.send_event(&DbUpdate::new("t", key, Action::Delete))
}

/// Connects and never speaks, and notes when it is hung up on.
fn idle(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn is_refused(mut stream: &UnixStream) -> bool {
    loop {
        // The service greets first.
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_writer_is_heard_or_told_that_it_is_refused() {
    within(LIMIT, || {
        let host = host(400);
        let socket = socket(host.folder.path());
        let mut watch = host.live_watch(&[]);
        let mut crowd: Vec<_> = (0..250).map(|_| idle(&socket)).collect();
        eventually(LIMIT, || crowd.iter().any(is_refused));

        let is_over = AtomicBool::new(false);
        let published: Vec<_> = thread::scope(|scope| {
            // Now there is room for one, and now there is none.
            let crowd = &mut crowd;
            let (path, over) = (&socket, &is_over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    crowd.retain(|stream| !is_refused(stream));
                    drop(crowd.pop());
                    pass(Duration::from_millis(1));
                    crowd.push(idle(path));
                    crowd.push(idle(path));
                }
            });
            let writers = (0..4).map(|writer| {
                scope.spawn(move || {
                    let keys = (0..40).map(|number| format!("{writer}-{number}"));
                    keys.filter(|key| publish(path, key).is_ok()).collect::<Vec<_>>()
                })
            });
            let writers: Vec<_> = writers.collect();
            let keys = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
            is_over.store(true, Ordering::Relaxed);
            keys
        });
        println!("published {}", published.len());
        drop(crowd);
        eventually(LIMIT, || publish(&socket, "last").is_ok());
        let mut missing: BTreeSet<_> = published.into_iter().chain(["last".to_owned()]).collect();
        let deadline = Instant::now() + LIMIT / 4;
        while !missing.is_empty()
            && let Some(line) = watch.line_by(deadline)
        {
            let line = json(&line);
            line["key"].as_str().map(|key| missing.remove(key));
        }
        assert_eq!(missing, BTreeSet::new());
    });
}

#[test]
fn subscribers_leave_room_for_writers() {
    within(LIMIT, || {
        let host = host(400);
        let path = socket(host.folder.path());
        let network = host.network.strip_prefix("tcp://").unwrap();
        let mut crowd = Vec::new();
        let mut is_full = false;
        eventually(LIMIT, || {
            let stream = TcpStream::connect(network).unwrap();
            stream.set_nonblocking(true).unwrap();
            crowd.push(stream);
            is_full |= crowd
                .iter()
                .any(|mut stream| matches!(stream.read(&mut [0; 64]), Ok(0)));
            is_full || crowd.len() > 400
        });
        assert!(is_full);
        eventually(ROOM, || publish(&path, "k").is_ok());
    });
}

#[test]
fn a_service_that_could_accept_no_connection_ends_with_an_error() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = socket(folder.path());
        for files in [54, 70, 100, 120] {
            let end = run(with_files(&format!("-n {files}"), &service(&path)));
            assert_fails(&end, 1, &["ulimit -n"]);
        }
        let host = host(256);
        let mut watch = host.live_watch(&["--count", "1"]);
        eventually(ROOM, || publish(&socket(host.folder.path()), "k").is_ok());
        assert_eq!(watch.end().code, Some(0));
    });
}

#[test]
fn an_address_that_cannot_be_connected_is_reported_once() {
    within(LIMIT, || {
        let hosts: Vec<_> = (0..6).map(|_| Host::start()).collect();
        let mut tool = tablecast(["watch"]);
        for host in &hosts {
            tool.args(["--publisher", &host.network]);
        }
        let mut watch = Process::start(with_files("-n 60", &tool));
        watch.await_stderr("no file descriptors are left");
        let refused = |watch: &mut Process| -> Vec<usize> {
            let said = watch.stderr();
            let lines: Vec<&str> = said.lines().filter(|line| line.contains("no file descr")).collect();
            hosts
                .iter()
                .map(|host| lines.iter().filter(|line| line.contains(&host.network)).count())
                .collect()
        };
        // Time for several tries.
        pass(Duration::from_secs(4));
        let refused = refused(&mut watch);
        assert!(refused.iter().all(|count| *count <= 1), "{refused:?}");
        watch.signal("TERM");
        assert_eq!(watch.end().code, Some(0));
    });
}

#[test]
fn the_limit_of_open_files_is_as_high_as_it_may_be() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let (service, _) = limited(&socket(folder.path()), "-Sn", 128);
        let limits = fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
        let files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .unwrap();
        let files: Vec<_> = files.split_whitespace().collect();
        assert_eq!(files[0], files[1], "{limits}");
        assert_ne!(files[0], "128");
    });
}
