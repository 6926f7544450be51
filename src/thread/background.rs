//! A thread that works with a store until it is stopped.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use parking_lot::Mutex;

use super::{Thread, spawn_fallible};
use crate::error::{ErrorHook, Result};

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
    use super::*;

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
}
