//! Connection events of a socket, which only its monitor reports.

use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Seat;
use super::patiently;

/// Receives the connection events of one socket.
pub(super) struct Monitor(zmq::Socket);

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
    /// Watches `socket`. Call it before the socket is bound or connected, so that nothing is missed.
    pub(super) fn of(socket: &zmq::Socket, seat: &Seat) -> zmq::Result<Monitor> {
        let name = unique_name();
        let events = EVENTS.iter().fold(0, |mask, (event, _)| mask | event.to_raw());
        let pair = seat.socket(zmq::PAIR)?;
        pair.set_linger(0)?;
        // Without a limit, since libzmq's I/O thread would block on a full socket.
        pair.set_rcvhwm(0)?;
        socket.monitor(&name, i32::from(events))?;
        patiently(|| pair.connect(&name))?;
        Ok(Monitor(pair))
    }

    /// Ends the watch. Must be called before either end is closed: an event without a reader blocks libzmq's I/O thread
    /// for ever, and with it every socket of the process.
    pub(super) fn detach(&self, socket: &zmq::Socket) {
        // The `zmq` crate cannot remove a monitor, but a second one replaces the first; this one has no events. Even if
        // there is no room for it, the first is gone.
        let _ = socket.monitor(&unique_name(), 0);
    }

    /// The socket to wait on: libzmq signals there once, and again after [`Monitor::next`] returned `None`.
    pub(super) fn socket(&self) -> &zmq::Socket {
        &self.0
    }

    /// The next event, if any.
    pub(super) fn next(&self) -> Option<Change> {
        loop {
            // An event is two frames: its number (two bytes) and value (four), then the address.
            let event = patiently(|| self.0.recv_msg(zmq::DONTWAIT)).ok()?;
            let mut address = zmq::Message::new();
            while self.0.get_rcvmore().unwrap_or(false) {
                patiently(|| self.0.recv(&mut address, 0)).ok()?;
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
