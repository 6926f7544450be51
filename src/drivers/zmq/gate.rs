//! Admits peers at a bound socket before they may greet: messages that a peer sends before it is refused would be lost
//! without its knowledge.

use std::os::fd::RawFd;

use super::calls::patiently;
use super::context::Seat;

/// The handler that libzmq asks before it lets a peer greet (ZAP). It serves all bound sockets of its context, so that
/// the context must be the socket's own. libzmq then refuses peers of ZMTP 1 and 2, which cannot wait for the answer.
pub(super) struct Gate {
    socket: zmq::Socket,
    /// The number of the request that is not yet answered.
    asked: Option<Vec<u8>>,
}

impl Gate {
    /// Makes `socket`, which is not yet bound, ask.
    pub(super) fn of(socket: &zmq::Socket, seat: &Seat) -> zmq::Result<Gate> {
        let handler = seat.socket(zmq::REP)?;
        handler.set_linger(0)?;
        handler.bind("inproc://zeromq.zap.01")?;
        // Without a domain libzmq would not ask.
        socket.set_zap_domain("tablecast")?;
        Ok(Gate {
            socket: handler,
            asked: None,
        })
    }

    /// The descriptor to wait on: libzmq signals there once, and again after [`Gate::step`] returned `false`.
    pub(super) fn signal(&self) -> zmq::Result<RawFd> {
        self.socket.get_fd()
    }

    /// Takes a request, or answers the one that was taken, if that may be. Between the two the owner reads the monitor,
    /// where the peer was reported before it asked, and refuses the peer or not. Returns false if there is nothing to
    /// do.
    pub(super) fn step(&mut self, may_answer: bool) -> bool {
        if self.asked.is_none() {
            let request = patiently(|| self.socket.recv_multipart(zmq::DONTWAIT));
            self.asked = request.ok().and_then(|request| request.into_iter().nth(1));
            return self.asked.is_some();
        }
        let Some(number) = self.asked.take_if(|_| may_answer) else {
            return false;
        };
        let reply: [&[u8]; 6] = [b"1.0", &number, b"200", b"OK", b"", b""];
        patiently(|| self.socket.send_multipart(reply, 0)).is_ok()
    }
}
