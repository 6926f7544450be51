//! Connection events of a socket: libzmq reconnects without a word, only its monitor tells.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;

use super::{Context, zmq_error};

/// Receives the connection events of one socket.
pub(super) struct Monitor(pub(super) zmq::Socket);

/// What happened to a connection; the number is its file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// There is a connection, to whomever.
    Opened(u32),
    /// One of them turned out to speak ZeroMQ.
    Greeted,
    Closed(u32),
}

impl Monitor {
    /// Watches `socket`; call it before the socket is bound or connected, so that nothing is missed.
    pub(super) fn of(socket: &zmq::Socket, context: &Context) -> Result<Monitor> {
        let name = unique_name();
        let events = EVENTS.iter().fold(0, |mask, (event, _)| mask | event.to_raw());
        let open = || {
            let pair = context.0.0.socket(zmq::PAIR)?;
            pair.set_linger(0)?;
            // Without a limit: libzmq's I/O thread would block on a full one.
            pair.set_rcvhwm(0)?;
            socket.monitor(&name, i32::from(events))?;
            pair.connect(&name)?;
            Ok(pair)
        };
        open()
            .map(Monitor)
            .map_err(|e| zmq_error(e, "cannot watch a socket's connections".into()))
    }

    /// Ends the watch. Must be called before either end is closed: an event that nobody can take any more blocks
    /// libzmq's I/O thread for ever, and with it every socket of the process.
    pub(super) fn detach(&self, socket: &zmq::Socket) {
        // The `zmq` crate cannot take a monitor away, but a second one replaces the first; this one has no events.
        if let Err(e) = socket.monitor(&unique_name(), 0) {
            log::error!("cannot end watching a socket's connections: {e}");
        }
    }

    /// The next event, if there is one.
    pub(super) fn next(&self) -> Option<Change> {
        loop {
            // An event is two frames: its number (two bytes) and value (four), then the address.
            let event = match self.0.recv_msg(zmq::DONTWAIT) {
                Err(zmq::Error::EINTR) => continue,
                event => event.ok()?,
            };
            while self.0.get_rcvmore().unwrap_or(false) {
                self.0.recv_msg(0).ok()?;
            }
            let (number, value) = event.split_first_chunk::<2>()?;
            let number = u16::from_ne_bytes(*number);
            let value = u32::from_ne_bytes(*value.first_chunk::<4>()?);
            if let Some((_, change)) = EVENTS.iter().find(|(event, _)| event.to_raw() == number) {
                return Some(change(value));
            }
        }
    }
}

/// An event, and what is made of its value.
type Watched = (zmq::SocketEvent, fn(u32) -> Change);

/// What is watched. The value is the file descriptor where it is told; with a handshake it is not.
const EVENTS: [Watched; 4] = [
    (zmq::SocketEvent::ACCEPTED, Change::Opened),
    (zmq::SocketEvent::CONNECTED, Change::Opened),
    (zmq::SocketEvent::HANDSHAKE_SUCCEEDED, |_| Change::Greeted),
    (zmq::SocketEvent::DISCONNECTED, Change::Closed),
];

fn unique_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("inproc://tablecast/monitor/{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
