//! The types that can be registered as callbacks.

use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};

use crate::error::{Error, ErrorKind, Result};

/// How long to wait for room in a full channel.
const CHANNEL_PATIENCE: Duration = Duration::from_millis(250);

/// A receiver of events: a closure, or the sending end of a channel.
///
/// It is `Sync` because several workers may call it at the same time. A closure that changes what it captured needs a
/// mutex, or sends into a channel.
///
/// A closure's argument needs its type: `|update: &DbUpdate| ...`.
///
/// A [`Sender`] gets a clone of each event. If its channel is full, the dispatcher waits for up to 250 ms, as for a
/// slow callback. After that the event is dropped, counted and reported as [`ErrorKind::Timeout`]. Prefer an unbounded
/// channel, or one whose receiver keeps up. A channel without a receiver is ignored.
pub trait Handler<E>: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    /// Why the event was not taken. The error is counted and reported, and has no other effect.
    fn handle(&self, event: &E) -> Result<()>;
}

impl<E, F: Fn(&E) + Send + Sync + 'static> Handler<E> for F {
    fn handle(&self, event: &E) -> Result<()> {
        self(event);
        Ok(())
    }
}

impl<E: Clone + Send + 'static> Handler<E> for Sender<E> {
    fn handle(&self, event: &E) -> Result<()> {
        let Err(TrySendError::Full(event)) = self.try_send(event.clone()) else {
            return Ok(());
        };
        match self.send_timeout(event, CHANNEL_PATIENCE) {
            Err(refused) if refused.is_timeout() => Err(Error::new(
                ErrorKind::Timeout,
                format!("a registered channel was full for {CHANNEL_PATIENCE:?}, an event was dropped"),
            )),
            _ => Ok(()),
        }
    }
}
