//! Looks from time to time whether another server has become a master beside the one that is connected to, on a thread
//! of its own: servers that hang must not hold up input.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::poll::pair;
use crate::redis::{Conn, Finder, Limit, Node, RedisOptions};
use crate::thread::{self, Thread};

/// The thread that looks.
pub(super) struct Lookout {
    /// Readable once the thread has ended; dropping it ends the thread.
    signal: Option<UnixStream>,
    found: Receiver<Error>,
    thread: Option<Thread>,
}

/// How long dropping waits for the thread. A thread that takes longer ends by itself.
const PATIENCE: Duration = Duration::from_millis(200);

impl Lookout {
    /// Starts the thread, if there is another server to look at.
    pub(super) fn start(finder: &Finder, conn: &Conn, options: &RedisOptions) -> Result<Option<Lookout>> {
        if conn.in_cluster || !finder.has_others() {
            return Ok(None);
        }
        let (signal, theirs) = pair()?;
        let (result, found) = crossbeam_channel::bounded(1);
        let (finder, node, options) = (finder.clone(), conn.node().clone(), options.clone());
        let body = move || run(&finder, &node, &theirs, &result, &options);
        let thread = thread::spawn("tc-lookout", None, body)?;
        Ok(Some(Lookout {
            signal: Some(signal),
            found,
            thread: Some(thread),
        }))
    }

    /// The event to wait for: the thread has ended.
    pub(super) fn news(&self) -> Option<PollFd<'_>> {
        let signal = self.signal.as_ref()?;
        Some(PollFd::new(signal, PollFlags::IN))
    }

    /// Fails once the thread has found another master, or has ended unasked.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with the names of both masters, or [`ErrorKind::Stopped`].
    pub(super) fn check(&self) -> Result<()> {
        let has_ended = self.thread.as_ref().is_some_and(Thread::has_ended);
        match self.found.try_recv() {
            Ok(e) => Err(e),
            Err(_) if has_ended => {
                let context = "the thread that looks for a second master has ended";
                Err(Error::new(ErrorKind::Stopped, context))
            }
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.signal = None;
        if let Some(thread) = self.thread.take() {
            thread.join_by(Instant::now() + PATIENCE);
        }
    }
}

fn run(finder: &Finder, node: &Node, signal: &UnixStream, result: &Sender<Error>, options: &RedisOptions) {
    let limit = Limit::cancelled_by(signal);
    let (mut own, mut wait) = (None, options.heartbeat_interval);
    while limit.pause(wait) {
        let start = Instant::now();
        match finder.look_beside(node, &mut own, limit.share(options.heartbeat_timeout)) {
            Err(e) if e.kind() == ErrorKind::Unavailable => {
                // Fails only if the receiver is gone.
                let _ = result.send(e);
                return;
            }
            Ok(()) => {}
            // Says nothing about two masters.
            Err(_) => own = None,
        }
        // Servers that do not answer take a tenth of the time at most.
        wait = options.heartbeat_interval.max(10 * start.elapsed());
    }
}
