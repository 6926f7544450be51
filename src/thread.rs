//! Threads that are named, joined on drop, never join themselves, and do not end unnoticed.

use std::hash::{BuildHasher, RandomState};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;

use crate::clock;
use crate::counter::Counter;
use crate::error::{Error, ErrorHook, ErrorKind, Result, contain, report};

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

/// A failure that repeats: reported once, and tried again after a pause, so that it keeps no processor busy.
#[derive(Debug, Default)]
pub(crate) struct Failures(u64);

/// The pause after a failure.
const RETRY: Duration = Duration::from_millis(100);

impl Failures {
    /// Reports the first of failures in a row, and pauses after each.
    pub(crate) fn add(&mut self, error: &Error, hook: Option<&ErrorHook>) {
        self.0 += 1;
        if self.0 == 1 {
            report!(error, hook);
        }
        pause(RETRY);
    }

    /// It succeeded.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.0 > 0 {
            let count = std::mem::take(&mut self.0);
            log::info!("works again after {count} failures");
        }
    }
}

/// A thread that works with a store again and again, until it is stopped; dropping this stops it.
pub(crate) struct Background {
    /// Its name, for the log.
    what: String,
    life: Mutex<Life>,
    thread: Mutex<Option<Thread>>,
}

enum Life {
    /// [`Stop`] is disconnected when this is gone.
    On(Sender<()>),
    /// It was told to stop, at this time.
    Told(Instant),
}

/// The sign for a [`Background`] thread to stop.
pub(crate) struct Stop(Receiver<()>);

/// How long a stop waits for the thread. One that waits for a store which does not answer ends when it has its answer.
const PATIENCE: Duration = Duration::from_millis(300);

impl Background {
    /// Starts a thread of this name; a panic of it goes to the hook.
    pub(crate) fn spawn(
        name: &str,
        what: String,
        hook: Option<ErrorHook>,
        body: impl FnOnce(Stop) + Send + 'static,
    ) -> Result<Background> {
        let (alive, stop) = crossbeam_channel::bounded(1);
        let body = move || {
            body(Stop(stop));
            Ok(())
        };
        let thread = spawn_fallible(name, hook, body)?;
        Ok(Background {
            what,
            life: Mutex::new(Life::On(alive)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the thread's present or next [`Stop::within`] early.
    pub(crate) fn wake(&self) {
        if let Life::On(alive) = &*self.life.lock() {
            // If the channel is full, it is woken already.
            let _ = alive.try_send(());
        }
    }

    /// Tells the thread to stop, and does not wait: several that are told first take no longer to stop than one.
    pub(crate) fn tell(&self) {
        self.told();
    }

    /// Tells the thread to stop, unless it was told. Returns when.
    fn told(&self) -> Instant {
        let mut life = self.life.lock();
        if let Life::Told(at) = *life {
            return at;
        }
        let now = Instant::now();
        *life = Life::Told(now);
        now
    }

    /// Tells the thread to stop, unless it was told. Returns until when that waits for its end.
    fn deadline(&self) -> Instant {
        self.told() + PATIENCE
    }

    /// Stops the thread. Waits until at most 300 ms after it was told.
    pub(crate) fn stop(&self) {
        let deadline = self.deadline();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && !thread.is_current()
            && !thread.join_by(deadline)
        {
            log::warn!("{} still waits for the store", self.what);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stop {
    /// Lets `time` pass, or less if it is woken: true if it is to stop, at once then.
    pub(crate) fn within(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    /// Channel that is disconnected when it is to stop.
    pub(crate) fn channel(&self) -> &Receiver<()> {
        &self.0
    }

    /// True if it is to stop.
    pub(crate) fn is_told(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
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
    fn those_that_are_told_first_stop_in_the_time_of_one() {
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let all = [(); 4].map(|()| {
            let held = held.clone();
            Background::spawn("held", "a test".into(), None, move |_| _ = held.recv()).unwrap()
        });
        let start = Instant::now();
        all.iter().for_each(Background::tell);
        let [others @ .., last] = &all;
        last.stop();
        let stopped = Instant::now();
        assert!(stopped >= start + PATIENCE);
        assert!(others.iter().all(|other| other.deadline() <= stopped));
        drop((release, all));
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
