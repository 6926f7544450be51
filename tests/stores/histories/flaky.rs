//! A driver whose sends fail on command.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tablecast::transport::{Driver, Inbound, Outbound, Wake};
use tablecast::{Error, ErrorKind, Result};

/// Sends to nobody; fails with this kind if there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Flaky(pub(super) Arc<Mutex<Option<ErrorKind>>>);

impl Driver for Flaky {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(self.clone()))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        Err(Error::new(ErrorKind::Unsupported, "it only sends"))
    }

    fn check_address(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Outbound for Flaky {
    fn send(&mut self, _: &[u8], _: &[u8], _: Duration) -> Result<()> {
        self.0.lock().map_or(Ok(()), |kind| Err(Error::new(kind, "on command")))
    }
}
