//! Connection events of a socket, which only its monitor reports.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::thread;

use super::calls::{patiently, poll};
use super::context::Seat;

/// Receives the connection events of one socket.
pub(super) struct Monitor {
    socket: zmq::Socket,
    is_paced: bool,
    /// Read by [`Monitor::reading`].
    early: VecDeque<Change>,
}

/// With a pace, libzmq's I/O thread waits after this many unread events until they are read. There is no smaller
/// number: the sending end has a limit of 1,000, and the reader confirms what it has read each half of the sum of both
/// limits.
pub(super) const PACE: i32 = 501;

/// How often a reader beside a call looks whether the call has returned.
const READ: Duration = Duration::from_millis(1);

/// Event of a connection; the number is its file descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Connected to a peer of any kind. The text is the address of the end to which connections are made.
    Opened(u32, String),
    /// An opened connection speaks ZeroMQ.
    Greeted,
    /// An opened connection does not, or refuses; it closes next.
    Failed(Failure),
    Closed(u32),
    /// A connection could not be made, or was lost through the network or the other end, and libzmq would wait.
    Retried,
    /// A bound socket has stopped listening.
    Unbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection was closed during the handshake.
    Closed,
    /// The other end speaks another protocol, or its kind of socket does not match.
    Protocol,
    /// One of the two ends denies access to the other.
    Denied,
}

impl Monitor {
    /// Watches `socket`. Call it before the socket is bound or connected, so that nothing is missed. With a pace, the
    /// watched socket accepts no more connections than [`PACE`] before they are read here; no socket of the process
    /// gets or sends anything meanwhile.
    pub(super) fn of(socket: &zmq::Socket, seat: &Seat, is_paced: bool) -> zmq::Result<Monitor> {
        let name = unique_name();
        let events = EVENTS.iter().fold(0, |mask, (event, _)| mask | event.to_raw());
        let pair = seat.socket(zmq::PAIR)?;
        pair.set_linger(0)?;
        // Without a limit, libzmq's I/O thread never blocks on a full socket.
        pair.set_rcvhwm(if is_paced { PACE - 1 } else { 0 })?;
        socket.monitor(&name, i32::from(events))?;
        patiently(|| pair.connect(&name))?;
        if is_paced {
            // Replaces the sending end's own limit, and is added to the one at the time of connecting.
            pair.set_rcvhwm(1)?;
        }
        Ok(Monitor {
            socket: pair,
            is_paced,
            early: VecDeque::new(),
        })
    }

    /// Calls what needs the lock under which libzmq's I/O thread waits for the reader of a full monitor, and reads
    /// meanwhile.
    pub(super) fn reading<T>(&mut self, call: impl FnOnce() -> T) -> Result<T> {
        if !self.is_paced {
            return Ok(call());
        }
        let is_done = AtomicBool::new(false);
        let (monitor, done) = (self, &is_done);
        let read = move || {
            while !done.load(Ordering::Acquire) {
                while let Some(change) = monitor.read() {
                    monitor.early.push_back(change);
                }
                let mut items = [monitor.socket.as_poll_item(zmq::POLLIN)];
                let now = Instant::now();
                let _ = poll(&mut items, Some(now + READ), now);
            }
        };
        thread::beside("tc-zmq-reader", read, || {
            let result = call();
            is_done.store(true, Ordering::Release);
            result
        })
    }

    /// Ends the watch. Must be called before either end is closed: an event without a reader blocks libzmq's I/O thread
    /// for ever, and with it every socket of the process.
    pub(super) fn detach(&mut self, socket: &zmq::Socket) {
        // The `zmq` crate cannot remove a monitor, but a second one replaces the first; this one has no events. Even if
        // there is no room for it, the first is gone.
        let remove = || _ = socket.monitor(&unique_name(), 0);
        if self.reading(remove).is_err() {
            // Without a thread beside, what was there is read first.
            while self.read().is_some() {}
            remove();
        }
    }

    /// The socket to wait on: libzmq signals there once, and again after [`Monitor::next`] returned `None`.
    pub(super) fn socket(&self) -> &zmq::Socket {
        &self.socket
    }

    /// The next event, if any.
    pub(super) fn next(&mut self) -> Option<Change> {
        self.early.pop_front().or_else(|| self.read())
    }

    fn read(&self) -> Option<Change> {
        loop {
            // An event is two frames: its number (two bytes) and value (four), then the address.
            let event = patiently(|| self.socket.recv_msg(zmq::DONTWAIT)).ok()?;
            let mut address = zmq::Message::new();
            while self.socket.get_rcvmore().unwrap_or(false) {
                patiently(|| self.socket.recv(&mut address, 0)).ok()?;
            }
            let (number, value) = event.split_first_chunk::<2>()?;
            let number = u16::from_ne_bytes(*number);
            let value = u32::from_ne_bytes(*value.first_chunk::<4>()?);
            if let Some((_, change)) = EVENTS.iter().find(|(event, _)| event.to_raw() == number) {
                return Some(change(value, &address));
            }
        }
    }
}

/// An event, and the change made from its value and address.
type Watched = (zmq::SocketEvent, fn(u32, &[u8]) -> Change);

/// The watched events. The value is the file descriptor, except for a handshake.
const EVENTS: [Watched; 9] = [
    (zmq::SocketEvent::ACCEPTED, opened),
    (zmq::SocketEvent::CONNECTED, opened),
    (zmq::SocketEvent::HANDSHAKE_SUCCEEDED, |_, _| Change::Greeted),
    (zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL, |_, _| {
        Change::Failed(Failure::Closed)
    }),
    (zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL, |_, _| {
        Change::Failed(Failure::Protocol)
    }),
    (zmq::SocketEvent::HANDSHAKE_FAILED_AUTH, |_, _| {
        Change::Failed(Failure::Denied)
    }),
    (zmq::SocketEvent::DISCONNECTED, |fd, _| Change::Closed(fd)),
    (zmq::SocketEvent::CLOSED, |_, _| Change::Unbound),
    (zmq::SocketEvent::CONNECT_RETRIED, |_, _| Change::Retried),
];

fn opened(fd: u32, address: &[u8]) -> Change {
    Change::Opened(fd, String::from_utf8_lossy(address).into_owned())
}

fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("inproc://tablecast/monitor/{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixStream;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn open_files() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// A bound socket whose monitor is full, so that libzmq waits for its reader. More peers connect than are read.
    fn fill(seat: &Seat, path: &str) -> (zmq::Socket, Monitor, Vec<UnixStream>) {
        let mine = getrlimit(Resource::Nofile);
        let current = mine.maximum.map(|hard| hard.min(10_000));
        setrlimit(Resource::Nofile, Rlimit { current, ..mine }).unwrap();
        let socket = seat.socket(zmq::PULL).unwrap();
        let monitor = Monitor::of(&socket, seat, true).unwrap();
        socket.bind(&format!("ipc://{path}")).unwrap();
        let (before, peers) = (open_files(), PACE.unsigned_abs() as usize + 50);
        let crowd = (0..peers).map(|_| UnixStream::connect(path).unwrap()).collect();
        let end = Instant::now() + LIMIT;
        // Other tests close files meanwhile.
        while open_files() < before + peers + PACE.unsigned_abs() as usize - 100 {
            assert!(Instant::now() < end);
            thread::pause(READ);
        }
        (socket, monitor, crowd)
    }

    #[test]
    fn a_full_monitor_is_read_beside_a_call_and_can_be_removed() {
        let (done, is_done) = crossbeam_channel::bounded(1);
        let body = move || {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            let seat = Seat::take(false, false);
            let (socket, mut monitor, crowd) = fill(&seat, &path("first"));
            let bind = || socket.bind(&format!("ipc://{}", path("second")));
            monitor.reading(bind).unwrap().unwrap();
            let mut opened = 0;
            while opened < crowd.len() {
                opened += usize::from(matches!(monitor.next(), Some(Change::Opened(..))));
            }
            monitor.detach(&socket);

            let (socket, mut monitor, _crowd) = fill(&seat, &path("third"));
            monitor.detach(&socket);
            done.send(()).unwrap();
        };
        thread::spawn("full", None, body).unwrap().detach();
        is_done.recv_timeout(LIMIT).expect("an end, without a panic");
    }
}
