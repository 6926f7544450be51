//! Wakes a thread that polls file descriptors, by a socket pair of which one end is polled together with the data.

use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::poll;
use crate::transport::Wake;

/// The end held by other threads.
pub(super) struct Waker {
    stream: UnixStream,
    pending: AtomicBool,
}

/// The end that is polled.
pub(super) struct Wakeable {
    stream: UnixStream,
    waker: Arc<Waker>,
}

pub(super) fn pair() -> Result<(Wakeable, Arc<Waker>)> {
    let (wakeable, stream) = poll::pair()?;
    let waker = Arc::new(Waker {
        stream,
        pending: AtomicBool::new(false),
    });
    Ok((
        Wakeable {
            stream: wakeable,
            waker: Arc::clone(&waker),
        },
        waker,
    ))
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // One byte into an empty socket pair cannot block. It fails only if the other end is gone, or on a signal,
            // after which it is repeated.
            while (&self.stream).write(&[1]).is_err_and(|e| e.kind() == Io::Interrupted) {}
        }
    }
}

impl AsFd for Wakeable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Wakeable {
    /// True if there was a wake since the last call. Costs one load if there was none.
    pub(super) fn take(&mut self) -> bool {
        if !self.waker.pending.load(Ordering::Relaxed) {
            return false;
        }
        // The byte is taken before the flag is cleared; in the other order a wake in between would be lost. Who finds
        // the flag still set sends no byte, and what it has done before is seen from here on.
        let mut byte = [0; 8];
        let read = self.stream.read(&mut byte);
        // Without the byte the other thread is between its two steps; the next poll returns at once when the byte
        // comes.
        if read.is_ok() {
            self.waker.pending.swap(false, Ordering::AcqRel);
        }
        read.is_ok()
    }
}
