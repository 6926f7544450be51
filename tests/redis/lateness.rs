//! The time that a busy machine takes from a test, so that limits of time can be strict on a machine that is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::common::waited;

/// A thread that wakes up every few milliseconds, and notes how late it does, and how long others waited for a processor, or
/// for a disk: also a program that writes nothing does, for parts of it that were not in memory.
pub(crate) struct Lateness {
    noted: Arc<Mutex<Vec<(Instant, Duration)>>>,
    _stop: Sender<()>,
}

const STEP: Duration = Duration::from_millis(5);

impl Lateness {
    pub(crate) fn start() -> Lateness {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = bounded::<()>(0);
        let ours = Arc::clone(&noted);
        let body = move || {
            let mut last = (Instant::now(), waited("cpu"), waited("io"));
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let now = (Instant::now(), waited("cpu"), waited("io"));
                let late = (now.0 - last.0).saturating_sub(STEP);
                let others = now.1.saturating_sub(last.1).max(now.2.saturating_sub(last.2));
                ours.lock().push((now.0, late.max(others)));
                last = now;
            }
        };
        std::thread::Builder::new().spawn(body).unwrap();
        Lateness { noted, _stop: stop }
    }

    /// The time lost between these.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Duration {
        let noted = self.noted.lock();
        let within = noted.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, late)| *late).sum()
    }
}
