//! Threads that are named, joined on drop, and never join themselves.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// When `timeout` from now is over. One that no clock can tell, such as [`Duration::MAX`], means in a century.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + CENTURY)
}

/// Lets `time` pass, where there is nothing to wait on: another process has to get on first.
#[cfg(feature = "sqlite")]
pub(crate) fn pause(time: Duration) {
    let _ = crossbeam_channel::never::<()>().recv_timeout(time);
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A running thread. Dropping it joins it, unless the thread itself does the dropping.
///
/// Whoever owns one must first have told the thread to end.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Option<JoinHandle<()>>,
    /// Carries nothing; it is disconnected when the thread's body has ended.
    ended: Receiver<()>,
}

/// Starts a thread of this name.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let (alive, ended) = crossbeam_channel::bounded(0);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _alive = alive;
        body();
    });
    let handle = thread.map_err(|e| Error::new(ErrorKind::Io, format!("cannot start thread {name}")).with_source(e))?;
    Ok(Thread {
        handle: Some(handle),
        ended,
    })
}

impl Thread {
    /// True on the thread itself.
    pub(crate) fn is_current(&self) -> bool {
        let current = std::thread::current().id();
        self.handle
            .as_ref()
            .is_some_and(|handle| handle.thread().id() == current)
    }

    /// Joins the thread if it ends by `deadline`; otherwise leaves it alone and returns false.
    pub(crate) fn join_by(mut self, deadline: Instant) -> bool {
        let ended = self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected);
        if !ended {
            self.handle = None;
        }
        ended
    }

    /// Leaves the thread alone: it ends by itself.
    #[cfg(any(feature = "redis", feature = "zmq"))]
    pub(crate) fn detach(mut self) {
        self.handle = None;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let is_current = self.is_current();
        if let Some(handle) = self.handle.take()
            && !is_current
            && handle.join().is_err()
        {
            log::error!("a thread of the library panicked: this is a bug");
        }
    }
}

/// A thread that works with a store again and again, until it is told to stop; dropping this tells it.
pub(crate) struct Background {
    /// What it is, for the log.
    what: String,
    /// [`Stop`] is told when this is gone.
    alive: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<Thread>>,
}

/// Tells a [`Background`] thread to stop.
pub(crate) struct Stop(Receiver<()>);

/// How long a stop waits for the thread. One that waits for a store which does not answer ends when it has its answer.
const PATIENCE: Duration = Duration::from_millis(300);

impl Background {
    /// Starts a thread of this name.
    pub(crate) fn spawn(name: &str, what: String, body: impl FnOnce(Stop) + Send + 'static) -> Result<Background> {
        let (alive, stop) = crossbeam_channel::bounded(0);
        let thread = spawn(name, move || body(Stop(stop)))?;
        Ok(Background {
            what,
            alive: Mutex::new(Some(alive)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Stops the thread. Waits for at most 300 ms.
    pub(crate) fn stop(&self) {
        Background::stop_all([self]);
    }

    /// Stops them all, and takes no longer than for one.
    pub(crate) fn stop_all<'a>(all: impl IntoIterator<Item = &'a Background> + Clone) {
        all.clone().into_iter().for_each(|it| drop(it.alive.lock().take()));
        let deadline = Instant::now() + PATIENCE;
        for it in all {
            let thread = it.thread.lock().take();
            if let Some(thread) = thread
                && !thread.is_current()
                && !thread.join_by(deadline)
            {
                log::warn!("{} still waits for the store", it.what);
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stop {
    /// Lets `time` pass: true if it is to stop, at once then.
    pub(crate) fn within(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }

    /// True if it is to stop.
    pub(crate) fn is_told(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }
}
