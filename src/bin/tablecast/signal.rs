//! Signals as messages on channels: those that end a command, and those of a terminal.

use std::fs;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, raise};
use signal_hook::iterator::Signals;
use tablecast::{Error, ErrorKind, Result};

/// What most commands leave to the end after a signal: output that is not read, and threads that wait for a silent store.
pub(crate) const GRACE: Duration = Duration::from_millis(1200);

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

/// Returns a channel of the signals of a terminal: it is to be left (SIGTSTP, SIGQUIT), the command continues, or the size is
/// another.
/// To be called before other threads start, which take over from this one that they are blocked.
pub(crate) fn of_terminal() -> Result<Receiver<Signal>> {
    let failed = |e| Error::new(ErrorKind::Io, "cannot wait for the signals of the terminal").with_source(e);
    let signals = SigSet::from_iter([Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGQUIT]);
    signals.thread_block().map_err(|e| failed(std::io::Error::from(e)))?;
    let (sender, receiver) = bounded(1);
    let wait = move || while signals.wait().is_ok_and(|signal| sender.send(signal).is_ok()) {};
    thread::Builder::new()
        .name("terminal".into())
        .spawn(wait)
        .map_err(failed)?;
    Ok(receiver)
}

/// Stops this process as SIGTSTP does by default, until it continues: not at all if no shell could continue it.
pub(crate) fn stop() -> Result<()> {
    let failed = |e: Errno| Error::new(ErrorKind::Io, "cannot stop").with_source(std::io::Error::from(e));
    let signal = SigSet::from(Signal::SIGTSTP);
    raise(Signal::SIGTSTP).map_err(failed)?;
    // It has its effect now.
    signal.thread_unblock().map_err(failed)?;
    signal.thread_block().map_err(failed)
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
