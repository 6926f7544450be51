//! The outcome of an attempt to connect, and its meaning.

use crate::error::{Error, ErrorKind};

use super::endpoint::Endpoint;
use super::monitor::Failure;
use super::settings::Settings;

/// History of the connection that a line has tried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Story {
    pub(super) opened: bool,
    pub(super) greeted: bool,
    pub(super) failure: Option<Failure>,
    /// The connection could not be made, or ended through the network or the other end, not by a protocol error.
    pub(super) retried: bool,
}

/// A service that is being stopped hangs up too; a peer that hangs up more often is not a service.
const HANG_UPS: u32 = 3;

impl Story {
    /// True if the other end has closed the connection before its greeting.
    pub(super) fn is_hang_up(&self) -> bool {
        !self.greeted && self.retried && self.failure != Some(Failure::Denied)
    }

    /// Why the connection ended, if not through the network or a normal end of the other side. `hang_ups` is how often
    /// this one has hung up on end.
    pub(super) fn verdict(&self, address: &Endpoint, options: &Settings, sends: bool, hang_ups: u32) -> Option<Error> {
        if (self.greeted && self.retried) || (self.is_hang_up() && hang_ups < HANG_UPS) {
            return None;
        }
        let is_secured = options.curve.secures(address);
        let (kind, what) = match (self.greeted, self.failure) {
            (true, _) => {
                let limit = options.max_frame_bytes;
                let what = format!("{address} sent a message of more than {limit} bytes: the connection was closed");
                (ErrorKind::TooLarge, what)
            }
            (false, Some(Failure::Denied)) if is_secured => (
                ErrorKind::Denied,
                format!("{address} does not let in this process's key"),
            ),
            (false, Some(Failure::Denied)) => (ErrorKind::Denied, format!("{address} denies access")),
            (false, _) if self.retried => {
                let question = match is_secured {
                    true => "has it another key",
                    false if sends => "is it a publisher service",
                    // Either end may be the first to see that the other one has keys.
                    false => "is it a ZeroMQ publisher that expects no keys",
                };
                let what = format!(
                    "{address} closes the connection before it greets: {question}, and below its limit of open files?"
                );
                (ErrorKind::Malformed, what)
            }
            (false, _) => {
                let without = if is_secured { "has no keys" } else { "expects keys" };
                let what = format!("{address} does not speak ZeroMQ, is a socket of another kind, or {without}");
                (ErrorKind::Malformed, what)
            }
        };
        Some(Error::new(kind, what))
    }
}
