//! Threads that nothing joins, and waits that a signal ends.

use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tablecast::{Error, ErrorKind, Result};

/// Time for which a signal may go unnoticed during a wait.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Starts a thread of this name.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))
}

/// Repeats a wait, of at most the time that it gets, until it succeeds.
///
/// # Errors
/// [`ErrorKind::Timeout`] after `timeout`, [`ErrorKind::Stopped`] after a signal, and the other errors of the wait.
pub(crate) fn wait(
    timeout: Duration,
    signal: &Receiver<()>,
    mut wait: impl FnMut(Duration) -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match wait(left.min(SLICE)) {
            Err(e) if e.kind() == ErrorKind::Timeout => {
                if signal.try_recv().is_ok() {
                    return Err(interrupted());
                }
                if left <= SLICE {
                    return Err(e);
                }
            }
            done => return done,
        }
    }
}

/// The error of a wait, with another text if its time has passed.
pub(crate) fn late(e: Error, what: impl FnOnce() -> String) -> Error {
    match e.kind() {
        ErrorKind::Timeout => Error::new(ErrorKind::Timeout, what()),
        _ => e,
    }
}

/// The error of work that a signal ends.
pub(crate) fn interrupted() -> Error {
    Error::new(ErrorKind::Stopped, "a signal came")
}

/// The same, for work of which this was still to come.
pub(crate) fn interrupted_before(what: &str) -> Error {
    Error::new(ErrorKind::Stopped, format!("a signal came before {what}"))
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, never};

    use super::*;

    fn nothing(_: Duration) -> Result<()> {
        Err(Error::new(ErrorKind::Timeout, "nothing came"))
    }

    #[test]
    fn a_wait_ends_with_its_time_or_a_signal() {
        let mut slices = Vec::new();
        let timeout = Duration::from_secs(3600);
        let third = |slice: Duration| {
            slices.push(slice);
            if slices.len() == 3 { Ok(()) } else { nothing(slice) }
        };
        assert!(wait(timeout, &never(), third).is_ok());
        assert_eq!(slices, [SLICE; 3]);
        let kind = |ended: Result<()>| ended.unwrap_err().kind();
        assert_eq!(kind(wait(Duration::ZERO, &never(), nothing)), ErrorKind::Timeout);
        let (sender, signal) = bounded(1);
        sender.send(()).unwrap();
        assert_eq!(kind(wait(timeout, &signal, nothing)), ErrorKind::Stopped);
    }
}
