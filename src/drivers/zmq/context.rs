//! libzmq's contexts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::Result;

use super::clients::Clients;
use super::zap::{Door, Zap};

/// A context of libzmq. It is closed with the last of its seats, and then waits up to `linger` for unsent messages.
struct Context {
    /// Checks the clients of bound sockets with keys. Dropped first: the context waits for its socket.
    zap: Mutex<Option<Zap>>,
    zmq: zmq::Context,
    /// Number of lines that have a seat.
    lines: AtomicUsize,
}

impl Context {
    fn new() -> Context {
        Context {
            zap: Mutex::default(),
            zmq: zmq::Context::new(),
            lines: AtomicUsize::new(0),
        }
    }
}

/// The place of one line in a context.
pub(super) struct Seat(Arc<Context>);

/// libzmq allows 1,023 sockets in a context, which the `zmq` crate cannot change. A line takes three, for a moment one
/// more, and closed sockets stay for a while.
const LINES: usize = 200;

impl Seat {
    /// Takes a seat in the first context that has one. Lines that send have contexts of their own, so that a stop of a
    /// subscriber does not wait for unsent messages. Addresses within the process are found only in the same context.
    pub(super) fn take(inproc: bool, sends: bool) -> Seat {
        static CONTEXTS: [Mutex<Vec<Weak<Context>>>; 2] = [const { Mutex::new(Vec::new()) }; 2];
        let mut contexts = CONTEXTS[usize::from(sends && !inproc)].lock();
        contexts.retain(|context| context.strong_count() > 0);
        let has_place = |context: &Arc<Context>| inproc || context.lines.load(Ordering::Relaxed) < LINES;
        let context = contexts.iter().filter_map(Weak::upgrade).find(has_place);
        let context = context.unwrap_or_else(|| {
            let context = Arc::new(Context::new());
            contexts.push(Arc::downgrade(&context));
            context
        });
        context.lines.fetch_add(1, Ordering::Relaxed);
        Seat(context)
    }

    /// Takes the only seat of a context.
    pub(super) fn alone() -> Seat {
        let context = Context::new();
        context.lines.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::new(context))
    }

    pub(super) fn socket(&self, kind: zmq::SocketType) -> zmq::Result<zmq::Socket> {
        self.0.zmq.socket(kind)
    }

    /// The check of a bound socket's clients, of which those on the list are let in.
    pub(super) fn door(&self, listed: Option<Arc<Clients>>) -> Result<Door> {
        let mut zap = self.0.zap.lock();
        let zap = match &mut *zap {
            Some(zap) => zap,
            None => zap.insert(Zap::start(&self.0.zmq)?),
        };
        Ok(zap.door(listed))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lines.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_send_have_contexts_of_their_own() {
        let is_shared = |one: Seat, other: Seat| Arc::ptr_eq(&one.0, &other.0);
        assert!(!is_shared(Seat::take(false, true), Seat::take(false, false)));
        assert!(is_shared(Seat::take(true, true), Seat::take(true, false)));
    }
}
