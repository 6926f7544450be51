//! What all tests share: deadlines, ports, folders, hooks and signals.
#![allow(dead_code)] // Each test target uses what it needs.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, never, unbounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tablecast::{Error, ErrorHook, ErrorKind};
use tempfile::TempDir;

/// Says that a test, or a part of it, is skipped, and why, past the test runner, which hides what tests print.
pub(crate) fn skip(why: impl Display) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Runs `body` on a thread of its own and fails the test if it takes longer than `limit`.
pub(crate) fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = bounded::<()>(0);
    let run = move || {
        let _done = done;
        body()
    };
    let thread = std::thread::Builder::new().name("test".into()).spawn(run).unwrap();
    if finished.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        panic!("took longer than {limit:?}; the threads wait in {:#?}", waits());
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `body` for all of these at once, as most of it is waiting.
pub(crate) fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, body: impl Fn(T) + Sync) {
    let body = &body;
    scope(|scope| {
        for case in cases {
            scope.spawn(move || body(case));
        }
    });
}

/// The threads of this process, and the calls of the system that they wait in.
fn waits() -> Vec<String> {
    let read = |path: &Path, file: &str| {
        fs::read_to_string(path.join(file))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .map_while(Result::ok);
    let wait = |path: PathBuf| ["comm", "wchan", "syscall"].map(|file| read(&path, file)).join(" ");
    tasks.map(|task| wait(task.path())).collect()
}

/// The time in which some process has waited for this (`cpu`, `io`) since the system's start; none where it does not tell.
pub(crate) fn waited(what: &str) -> Duration {
    let pressure = fs::read_to_string(Path::new("/proc/pressure").join(what)).unwrap_or_default();
    let mut some = pressure
        .lines()
        .filter_map(|line| line.strip_prefix("some ")?.split_once("total="));
    let micros = some.next().and_then(|(_, total)| total.parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}

/// Measures a time that has a limit on an idle machine.
pub(crate) struct Stopwatch(Instant, Duration);

impl Stopwatch {
    /// The most that a busy machine adds to a limit.
    const MOST_LOST: Duration = Duration::from_secs(4);

    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now(), waited("cpu"))
    }

    #[track_caller]
    pub(crate) fn assert_within(&self, limit: Duration, what: &str) {
        self.check(limit, what).unwrap_or_else(|late| panic!("{late}"));
    }

    /// As [`Stopwatch::assert_within`], for a callback, whose panics are caught.
    pub(crate) fn check(&self, limit: Duration, what: &str) -> Result<(), String> {
        let took = self.0.elapsed();
        let most = Stopwatch::MOST_LOST.min(4 * limit);
        let lost = waited("cpu").saturating_sub(self.1).min(most);
        let late = || format!("{what} took {took:?}; a busy machine may have taken {lost:?}");
        if took <= limit + lost { Ok(()) } else { Err(late()) }
    }
}

/// Waits until `condition` holds and fails the test if it does not within `limit`.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not true within {limit:?}");
        pass(Duration::from_millis(1));
    }
}

/// Sleeps, where passing time is what is tested.
pub(crate) fn pass(time: Duration) {
    let _ = never::<()>().recv_timeout(time);
}

/// A hook, and the errors that it is called with.
pub(crate) fn hook() -> (Option<ErrorHook>, Receiver<(ErrorKind, String)>) {
    let (sender, heard) = unbounded();
    let hook = move |e: &Error| drop(sender.send((e.kind(), e.to_string())));
    (Some(Arc::new(hook)), heard)
}

/// A port that is free together with that of a Redis cluster's bus, ten thousand above; neither is in the range that the
/// system gives to connections and to port 0, so nobody comes before the caller.
pub(crate) fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    if *next == 0 {
        // Processes that start together are far from each other.
        *next = (std::process::id().wrapping_mul(199) % 10_000) as u16;
    }
    loop {
        *next = (*next + 1) % 10_000;
        let port = 11_000 + *next;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// Nobody listens there. This does not listen either: a process that another test starts at this moment would have the
/// listener too until it becomes its program, and hold up the caller.
fn is_free(port: u16) -> bool {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A folder in memory, where a disk would set the pace of the writers, or hold one up for longer than the timeouts of a
/// test.
pub(crate) fn folder_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A folder that is not below /dev, for a system that has devices of its own.
pub(crate) fn folder_for_system() -> TempDir {
    tempfile::tempdir_in("/tmp").unwrap()
}

/// Sends the signal of this name, for example `TERM`. All threads have stopped when this returns from `STOP`, which a
/// busy system takes a while for.
pub(crate) fn signal(process: u32, name: &str) {
    // It may still ignore signals, before it becomes the program that the test has started through it.
    let is_env = |path: PathBuf| path.file_name().is_some_and(|name| name == "env");
    let has_begun = || !fs::read_link(format!("/proc/{process}/exe")).is_ok_and(is_env);
    eventually(Duration::from_secs(30), has_begun);
    let signal = format!("SIG{name}").parse::<Signal>().unwrap();
    kill(Pid::from_raw(process.cast_signed()), signal).unwrap();
    if signal == Signal::SIGSTOP {
        eventually(Duration::from_secs(30), || is_stopped(process));
    }
}

fn is_stopped(process: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return true;
    };
    tasks.map_while(Result::ok).all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // After the name, in parentheses, comes the state.
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}
