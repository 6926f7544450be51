//! Waits on descriptors, and pairs of sockets by which other threads end them.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// Two connected ends, neither of which blocks. Each is readable once the other one has written or was dropped.
pub(crate) fn pair() -> Result<(UnixStream, UnixStream)> {
    let open = || {
        let (one, other) = UnixStream::pair()?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((one, other))
    };
    open().map_err(|e: io::Error| Error::new(ErrorKind::Io, "cannot open a socket pair").with_source(e))
}

/// Waits for one of these, at most for `timeout` (`None`: without limit). May return early, as after a signal.
#[cfg_attr(
    not(any(feature = "metrics", feature = "redis")),
    expect(dead_code, reason = "libzmq has a wait of its own")
)]
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    // Only hundreds of billions of years do not fit.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
