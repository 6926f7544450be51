//! SIGINT, SIGTERM and SIGHUP as a message.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never};
use tablecast::{Error, ErrorKind, Result};

/// A channel that gets a message when the first signal comes.
///
/// A process that is still there `grace` later, for example because nobody takes what it prints, ends with exit code 1.
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

/// Leaves signals to the process that started this one and will end it.
pub(crate) fn ignore() -> Result<()> {
    set(|| {})
}

fn set(handler: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(handler).map_err(|e| Error::new(ErrorKind::Io, "cannot wait for signals").with_source(e))
}
