//! Threads that are named, joined on drop, never join themselves, and do not end unnoticed.

mod background;
mod failures;

use std::hash::{BuildHasher, RandomState};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::clock;
use crate::counter::Counter;
use crate::error::{Error, ErrorHook, ErrorKind, Result, contain, report};

pub(crate) use background::{Background, Stop};
pub(crate) use failures::Failures;

/// Returns how many threads of the library have ended unasked in this process, because they panicked or could not go
/// on: 0 unless something is broken. Each was logged, and reported to the [`ErrorHook`] of its object.
pub fn failed_threads() -> u64 {
    FAILED.get()
}

static FAILED: Counter = Counter::new();

/// The end of `timeout` from now. One beyond the range of the clock, such as [`Duration::MAX`], means in a century.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    clock::after(Instant::now(), timeout)
}

/// Up to a fifth less, so that threads that started together do not act together.
pub(crate) fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    time.saturating_sub(time.mul_f64(0.2 * f64::from(random) / f64::from(u32::MAX)))
}

/// Lets `time` pass, where there is nothing to wait on.
pub(crate) fn pause(time: Duration) {
    let _ = crossbeam_channel::never::<()>().recv_timeout(time);
}

/// A running thread. Dropping it joins it, unless the thread itself does the dropping.
///
/// Its owner must first have ended the thread.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Option<JoinHandle<()>>,
    /// Carries nothing; it is disconnected when the thread's body has ended.
    ended: Receiver<()>,
}

/// Starts a thread of this name, whose body returns only when it was asked to end. A panic is reported as by
/// [`spawn_fallible`].
pub(crate) fn spawn(name: &str, hook: Option<ErrorHook>, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let body = || {
        body();
        Ok(())
    };
    spawn_fallible(name, hook, body)
}

/// Starts a thread of this name, whose body returns an error if it ends unasked. That, and a panic, is logged, counted,
/// and goes to the hook.
pub(crate) fn spawn_fallible(
    name: &str,
    hook: Option<ErrorHook>,
    body: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<Thread> {
    let (alive, ended) = crossbeam_channel::bounded(0);
    let what = format!("thread {name} has ended unasked");
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _alive = alive;
        if let Err(e) = contain(|| "a panic".into(), body).flatten() {
            FAILED.add(1);
            report!(&e.context(what), hook.as_ref());
        }
    });
    let handle = thread.map_err(|e| unstarted(name, e))?;
    Ok(Thread {
        handle: Some(handle),
        ended,
    })
}

/// Runs `other` on a thread of this name while `body` runs here. Returns when both have ended.
#[cfg(feature = "zmq")]
pub(crate) fn beside<T>(name: &str, other: impl FnOnce() + Send, body: impl FnOnce() -> T) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn_scoped(scope, other).map_err(|e| unstarted(name, e))?;
        Ok(body())
    })
}

fn unstarted(name: &str, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot start thread {name}")).with_source(e)
}

impl Thread {
    /// True on the thread itself.
    pub(crate) fn is_current(&self) -> bool {
        let current = std::thread::current().id();
        self.handle
            .as_ref()
            .is_some_and(|handle| handle.thread().id() == current)
    }

    /// True once its body has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits for the end of its body; returns false if it has not ended by `deadline`.
    pub(crate) fn ends_by(&self, deadline: Instant) -> bool {
        self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected)
    }

    /// Joins the thread if it ends by `deadline`; otherwise leaves it alone and returns false.
    pub(crate) fn join_by(mut self, deadline: Instant) -> bool {
        let ended = self.ends_by(deadline);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// The hook, and its calls.
    fn hook() -> (Option<ErrorHook>, Receiver<(ErrorKind, String)>) {
        let (sender, told) = crossbeam_channel::unbounded();
        let hook = move |e: &Error| drop(sender.send((e.kind(), e.to_string())));
        (Some(Arc::new(hook)), told)
    }

    #[test]
    fn a_thread_that_ends_unasked_is_reported() {
        let (hook, told) = hook();
        let before = failed_threads();
        let thread = spawn_fallible("told", hook.clone(), || Ok(())).unwrap();
        assert!(thread.join_by(deadline(LIMIT)));
        let panicking = spawn_fallible("panicking", hook.clone(), || panic!("boom")).unwrap();
        let (kind, text) = told.recv_timeout(LIMIT).unwrap();
        assert_eq!(kind, ErrorKind::Panicked);
        assert_eq!(text, "panic: thread panicking has ended unasked: a panic: boom");
        assert!(panicking.join_by(deadline(LIMIT)));
        let body = || Err(Error::new(ErrorKind::Stopped, "the transport is gone"));
        let failing = spawn_fallible("failing", hook, body).unwrap();
        let (kind, text) = told.recv_timeout(LIMIT).unwrap();
        assert_eq!(kind, ErrorKind::Stopped);
        assert_eq!(text, "stopped: thread failing has ended unasked: the transport is gone");
        while !failing.has_ended() {
            pause(Duration::from_millis(1));
        }
        assert!(told.is_empty());
        assert_eq!(failed_threads() - before, 2);
    }

    #[test]
    fn times_of_every_length() {
        for time in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(1),
            Duration::MAX,
        ] {
            let jittered = jittered(time);
            assert!(jittered <= time && jittered >= time / 10 * 7, "{jittered:?}");
        }
    }
}
