//! Closing all connections of a bound address, since libzmq cannot close one: they are begun anew by the other ends.

use super::calls::patiently;
use super::monitor::Change;

/// How far this is.
#[derive(Debug, Default)]
pub(super) enum Cut {
    #[default]
    None,
    Wanted,
    /// The address is being unbound.
    Begun,
    /// Everything is closed; these connections are still to be reported, since libzmq does not.
    Done(Vec<u32>),
}

impl Cut {
    /// Has them closed, unless that is under way.
    pub(super) fn want(&mut self) {
        if self.is_none() {
            *self = Cut::Wanted;
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Cut::None)
    }

    /// Unbinding closes the connections of the address, also those that still have messages to send: the socket does not
    /// [linger](super::line::Line::linger).
    pub(super) fn begin(&mut self, socket: &zmq::Socket, uri: &str) -> zmq::Result<()> {
        patiently(|| socket.unbind(uri))?;
        *self = Cut::Begun;
        Ok(())
    }

    /// The address is unbound; these are the connections that it had, all accepted before.
    pub(super) fn unbound(&mut self, open: impl Iterator<Item = u32>) {
        if matches!(self, Cut::Begun) {
            *self = Cut::Done(open.collect());
        }
    }

    /// The end of one of these connections.
    pub(super) fn next(&mut self) -> Option<Change> {
        match self {
            Cut::Done(left) => left.pop().map(Change::Closed),
            _ => None,
        }
    }
}
