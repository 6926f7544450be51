//! One direction of one connection: a thread that reads and judges, and a thread that writes on time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::zmtp::{Message, Piece, Splitter};
use super::{Fate, Shared, Way};

/// Bytes to pass on, not before this time.
struct Due(Instant, Vec<u8>);

/// Number of messages that may wait to be written before reading stops, so that a fast sender meets backpressure.
const WAITING: usize = 64;

/// Passes on one direction, on two threads, until either end is closed.
pub(super) fn start(shared: &Arc<Shared>, way: Way, from: &TcpStream, to: &TcpStream) {
    let (due, waiting) = bounded(WAITING);
    let (read_from, write_to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let reading = Arc::clone(shared);
    shared.spawn("proxy-read", move || read(&reading, way, read_from, &due));
    let writing = Arc::clone(shared);
    shared.spawn("proxy-write", move || write(&writing, way, write_to, &waiting));
}

fn read(shared: &Shared, way: Way, mut from: TcpStream, due: &Sender<Due>) {
    let mut splitter = Splitter::default();
    let mut held = None;
    let mut buffer = vec![0; 64 << 10];
    while shared.wait_open(way) {
        let Ok(length @ 1..) = from.read(&mut buffer) else {
            return;
        };
        // Bytes that came in before the cut was noticed wait here until its end.
        if !shared.wait_open(way) {
            return;
        }
        let bytes = &buffer[..length];
        let pieces = match shared.has_messages {
            true => splitter.split(bytes),
            false => vec![Piece::Plain(bytes.to_vec())],
        };
        for piece in pieces {
            let due_now = match piece {
                Piece::Message(message) if way == Way::ToSubscriber => judge(shared, &mut held, message),
                Piece::Plain(bytes) | Piece::Message(Message { bytes, .. }) => Some((Duration::ZERO, bytes)),
            };
            if let Some((delay, bytes)) = due_now
                && due.send(Due(Instant::now() + delay, bytes)).is_err()
            {
                return;
            }
        }
    }
}

/// The bytes to write for this message, and their delay.
fn judge(shared: &Shared, held: &mut Option<Vec<u8>>, message: Message) -> Option<(Duration, Vec<u8>)> {
    let fate = shared.judge(&message);
    let bytes = message.bytes;
    let (delay, mut due) = match fate {
        Fate::Pass => (Duration::ZERO, bytes),
        Fate::Drop => return None,
        Fate::Twice => (Duration::ZERO, bytes.repeat(2)),
        Fate::Late(delay) => (delay, bytes),
        Fate::Behind => return held.replace(bytes).map(|earlier| (Duration::ZERO, earlier)),
    };
    // Written together with the message that has overtaken it, so that it is not delayed.
    due.extend(held.take().into_iter().flatten());
    Some((delay, due))
}

fn write(shared: &Shared, way: Way, mut to: TcpStream, waiting: &Receiver<Due>) {
    while let Ok(Due(at, bytes)) = waiting.recv() {
        shared.wait_until(at);
        if !shared.wait_open(way) {
            break;
        }
        // Each byte in a packet of its own.
        let step = if shared.dribbles() { 1 } else { bytes.len().max(1) };
        if bytes.chunks(step).any(|chunk| to.write_all(chunk).is_err()) {
            break;
        }
    }
    // The end of the stream is passed on like a byte, unless the direction is cut.
    if shared.wait_open(way) {
        let _ = to.shutdown(Shutdown::Write);
    }
}
