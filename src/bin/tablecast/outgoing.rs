//! The node of a command that sends updates: lost ones are a failure.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tablecast::{Config, Error, ErrorKind, Node, Result};

/// A node that notes the losses of its publisher's bursts.
pub(crate) struct Outgoing {
    node: Node,
    /// The number of lost updates, by the last error about them.
    lost: Arc<AtomicU64>,
}

/// More than the end takes if everything is sent: with a shorter linger time the two cannot be told apart.
const LEAST_LINGER: Duration = Duration::from_secs(1);

impl Outgoing {
    pub(crate) fn open(config: &Config) -> Result<Outgoing> {
        let lost = Arc::<AtomicU64>::default();
        let noted = Arc::clone(&lost);
        // Failures of other parts, such as a registration, lose no update.
        let hook = move |e: &Error| _ = noted.fetch_max(e.lost().unwrap_or(0), Ordering::Relaxed);
        let node = Node::builder(config).hook(hook).open()?;
        Ok(Outgoing { node, lost })
    }

    /// Ends the node, whose publisher the command no longer holds: waits until everything is sent, or for the linger
    /// time.
    ///
    /// # Errors
    /// If updates that were accepted are lost, or may be.
    pub(crate) fn end(self) -> Result<()> {
        let linger = self.node.config().linger_ms;
        let counted = self.node.publisher()?.stats().lost;
        let start = Instant::now();
        drop(self.node);
        // The last updates of a burst are sent, or given up, at the end.
        let lost = self.lost.load(Ordering::Relaxed).max(counted);
        let (kind, context) = if lost > 0 {
            let context = format!("{lost} updates that were accepted could not be sent, and are lost");
            (ErrorKind::Transport, context)
        } else if linger >= LEAST_LINGER && start.elapsed() >= linger {
            let context = format!("not everything was sent within linger_ms, {linger:?}: the last updates may be lost");
            (ErrorKind::Timeout, context)
        } else {
            return Ok(());
        };
        Err(Error::new(kind, context))
    }
}

impl Deref for Outgoing {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}
