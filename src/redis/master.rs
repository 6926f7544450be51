//! The master that Sentinels name, and the signal that it is another server now.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::poll::pair;

use super::node::Node;
use super::stream::Limit;

/// A server for as long as it is the master.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) node: Node,
    /// Readable once the other end is dropped: it is not the master any more.
    signal: UnixStream,
    other: Mutex<Option<UnixStream>>,
}

impl Master {
    pub(super) fn new(node: Node) -> Result<Arc<Master>> {
        let (signal, other) = pair()?;
        Ok(Arc::new(Master {
            node,
            signal,
            other: Mutex::new(Some(other)),
        }))
    }

    pub(super) fn end(&self) {
        *self.other.lock() = None;
    }

    /// True if another server is the master now.
    pub(crate) fn is_over(&self) -> bool {
        self.other.lock().is_none()
    }

    /// Fails if another server is the master now.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_over() {
            true => Err(over(&self.node)),
            false => Ok(()),
        }
    }

    /// The same limit, but waits are cancelled when another server becomes the master.
    pub(crate) fn limit<'a>(&'a self, limit: Limit<'a>) -> Limit<'a> {
        limit.or_cancelled_by(&self.signal)
    }

    /// Waits for `time`, or until another server is the master; returns false if cancelled.
    pub(crate) fn pause(&self, limit: Limit<'_>, time: Duration) -> bool {
        let waited = limit.wait_any(vec![self.news()], clock::after(Instant::now(), time));
        waited.is_ok() || limit.is_over()
    }

    /// The event to wait for: another server is the master.
    pub(crate) fn news(&self) -> PollFd<'_> {
        PollFd::new(&self.signal, PollFlags::IN)
    }
}

/// The error for a server that was the master.
pub(super) fn over(node: &Node) -> Error {
    let context = format!("Redis at {node}: it is not the master any more");
    Error::new(ErrorKind::Transport, context)
}
