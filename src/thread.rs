//! Threads that are named, joined on drop, and never join themselves.

use std::thread::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// A running thread. Dropping it joins it, unless the thread itself does the dropping.
///
/// Whoever owns one must first have told the thread to end.
#[derive(Debug)]
pub(crate) struct Thread(Option<JoinHandle<()>>);

/// Starts a thread of this name.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    let handle = thread.map_err(|e| Error::new(ErrorKind::Io, format!("cannot start thread {name}")).with_source(e))?;
    Ok(Thread(Some(handle)))
}

impl Thread {
    /// True on the thread itself.
    pub(crate) fn is_current(&self) -> bool {
        let current = std::thread::current().id();
        self.0.as_ref().is_some_and(|handle| handle.thread().id() == current)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let is_current = self.is_current();
        if let Some(handle) = self.0.take()
            && !is_current
            && handle.join().is_err()
        {
            log::error!("a thread of the library panicked: this is a bug");
        }
    }
}
