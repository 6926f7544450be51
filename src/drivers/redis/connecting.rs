//! Connects on a thread of its own, repeatedly until it succeeds or is dropped: names, handshakes and nodes that hang
//! must not hold up input from other addresses.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, Result};
use crate::poll::pair;
use crate::redis::{Conn, Finder, Health, Limit, RedisOptions};
use crate::thread::{self, Thread};

/// Outcome of an attempt.
pub(super) enum Outcome {
    /// The attempt has failed and goes on; reported once.
    Failed(Error),
    Connected(Box<Found>),
}

/// A connection, and the finder that made it.
pub(super) struct Found {
    pub(super) conn: Conn,
    /// For questions about the server's health, if `conn` will take none.
    pub(super) side: Option<Conn>,
    pub(super) health: Option<Health>,
    pub(super) finder: Finder,
}

/// The thread that connects.
pub(super) struct Connecting {
    /// Readable when there is an outcome; dropping it makes the thread give up.
    signal: Option<UnixStream>,
    outcomes: Receiver<Outcome>,
    thread: Option<Thread>,
}

/// How long dropping waits for the thread. A thread that takes longer ends by itself.
const PATIENCE: Duration = Duration::from_millis(200);

impl Connecting {
    /// Starts the thread, which connects after `wait`.
    pub(super) fn start(finder: Finder, options: &RedisOptions, wait: Duration) -> Result<Connecting> {
        let (signal, theirs) = pair()?;
        let (results, outcomes) = crossbeam_channel::unbounded();
        let options = options.clone();
        let body = move || run(finder, &theirs, &results, wait, &options);
        let thread = thread::spawn("tc-connect", None, body)?;
        Ok(Connecting {
            signal: Some(signal),
            outcomes,
            thread: Some(thread),
        })
    }

    /// Descriptor to wait on.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.signal.as_ref().map(UnixStream::as_fd)
    }

    /// True if the thread has ended unasked, so that there is no further outcome.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(Thread::has_ended) && self.outcomes.is_empty()
    }

    /// The outcome since the last call, if any.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        if let Some(signal) = &mut self.signal {
            // The result is in the channel. Once the thread has ended, the descriptor stays readable.
            let _ = signal.read(&mut [0; 8]);
        }
        self.outcomes.try_recv().ok()
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.signal = None;
        if let Some(thread) = self.thread.take() {
            thread.join_by(Instant::now() + PATIENCE);
        }
    }
}

fn run(
    mut finder: Finder,
    mut signal: &UnixStream,
    results: &Sender<Outcome>,
    mut wait: Duration,
    options: &RedisOptions,
) {
    let limit = Limit::cancelled_by(signal);
    let mut told = false;
    while finder.pause(limit, wait) {
        let connected = finder.connect(limit);
        let connected = connected.and_then(|(conn, health)| Ok((finder.ask_beside(&conn, limit)?, conn, health)));
        let outcome = match connected {
            Ok((side, conn, health)) => {
                let found = Found {
                    conn,
                    side,
                    health,
                    finder,
                };
                let _ = results.send(Outcome::Connected(Box::new(found)));
                return;
            }
            Err(e) => Outcome::Failed(e),
        };
        if !std::mem::replace(&mut told, true) {
            // Fails only if the receiver is gone; the next pause then ends the thread.
            let _ = results.send(outcome);
            let _ = signal.write(&[1]);
        }
        wait = options.next_wait(wait);
    }
}
