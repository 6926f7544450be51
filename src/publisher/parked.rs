//! The waiter of a keeper that has no probes to answer.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::error::Result;
use crate::transport::{Waiter, WaiterAndWake, Wake};

pub(super) fn parked() -> WaiterAndWake {
    let (token, tokens) = crossbeam_channel::bounded(1);
    (Box::new(Parked(tokens)), Arc::new(Unpark(token)))
}

struct Parked(Receiver<()>);

impl Waiter for Parked {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let _ = self.0.recv_timeout(timeout.unwrap_or(Duration::MAX));
        Ok(())
    }
}

struct Unpark(crossbeam_channel::Sender<()>);

impl Wake for Unpark {
    fn wake(&self) {
        // A full channel means that it is already woken.
        let _ = self.0.try_send(());
    }
}
