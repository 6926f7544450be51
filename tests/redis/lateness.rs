//! The time that a busy machine takes from a test, so that limits of time can be strict on a machine that is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

/// A thread that wakes up every few milliseconds, and notes how late it does, and how long others waited for a disk: also a
/// program that writes nothing does, for parts of it that were not in memory.
pub(crate) struct Lateness {
    noted: Arc<Mutex<Vec<(Instant, Duration)>>>,
    _stop: Sender<()>,
}

/// The time in which at least one process waited for a disk, since the system's start; 0 where it does not tell.
fn waited_for_disks() -> Duration {
    let pressure = std::fs::read_to_string("/proc/pressure/io").unwrap_or_default();
    let some = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some ")?.split_once("total="));
    Duration::from_micros(some.and_then(|(_, total)| total.parse().ok()).unwrap_or(0))
}

const STEP: Duration = Duration::from_millis(5);

impl Lateness {
    pub(crate) fn start() -> Lateness {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = bounded::<()>(0);
        let ours = Arc::clone(&noted);
        let body = move || {
            let (mut last, mut waited) = (Instant::now(), waited_for_disks());
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                let (now, total) = (Instant::now(), waited_for_disks());
                let late = (now - last).saturating_sub(STEP);
                ours.lock().push((now, late.max(total.saturating_sub(waited))));
                (last, waited) = (now, total);
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
