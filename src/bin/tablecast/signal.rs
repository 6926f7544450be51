//! SIGINT, SIGTERM and SIGHUP as messages on a channel.

use std::fs;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never};
use nix::sys::signal::Signal;
use signal_hook::iterator::Signals;
use tablecast::{Error, ErrorKind, Result};

/// Returns a channel that receives a message at the first signal.
///
/// A process that still runs `grace` later, for example because its output is not read, ends with exit code 1.
pub(crate) fn channel(grace: Duration) -> Result<Receiver<()>> {
    let (sender, receiver) = bounded(1);
    let handler = move || {
        let _ = sender.try_send(());
        let _ = never::<()>().recv_timeout(grace);
        std::process::exit(1);
    };
    set(handler)?;
    Ok(receiver)
}

/// Ignores signals, since the process that started this one ends it.
pub(crate) fn ignore() -> Result<()> {
    set(|| {})
}

fn set(mut handler: impl FnMut() + Send + 'static) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Io, "cannot wait for signals").with_source(e);
    let ignored = ignored();
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(|signal| signal as i32);
    let wanted = signals.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let wait = move || signals.forever().for_each(|_| handler());
    let thread = thread::Builder::new().name("signals".into()).spawn(wait);
    thread.map(drop).map_err(failed)
}

/// The signals that this process inherited as ignored, as from `nohup` or a shell's background job: they stay so.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
