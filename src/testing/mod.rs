//! Unit tests for programs: a network and a store in memory whose faults come by command. With the feature `testing`.
//!
//! A [`Network`] connects the nodes of a test in one process, without sockets, and loses, doubles, delays or cuts
//! updates on command. A [`FaultyStore`] fails, and is emptied, on command. [`eventually`] waits for a condition,
//! [`within`] ends a test that hangs.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use tablecast::testing::{Fate, FaultyStore, Network, eventually};
//! use tablecast::{Result, Table};
//!
//! const PORTS: Table<String> = Table::new("port");
//! const LIMIT: Duration = Duration::from_secs(10);
//!
//! # fn main() -> Result<()> {
//! let (network, store) = (Network::new(), Arc::new(FaultyStore::new()));
//! let writer = network.node(store.clone())?;
//! let reader = network.node(store.clone())?;
//! let replica = reader.replica()?;
//! let ports = replica.table(PORTS)?;
//! replica.wait_synced(LIMIT)?;
//!
//! // The update is lost; the replica finds the row all the same.
//! network.next(1, Fate::Lose);
//! writer.database()?.rows(PORTS).create("port-1", &"host1".to_owned())?;
//! eventually(LIMIT, || ports.len() == 1)?;
//! assert_eq!(network.lost(), 1);
//! # Ok(())
//! # }
//! ```

mod faults;
mod inbound;
mod network;
mod store;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crossbeam_channel::never;

pub use faults::Fate;
pub use network::Network;
pub use store::FaultyStore;

use crate::error::{Error, ErrorKind, Result, contain};
use crate::thread::deadline;

/// Interval of the look at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until the condition holds.
///
/// # Errors
/// [`ErrorKind::Timeout`] if it does not within `limit`.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = deadline(limit);
    while !condition() {
        if Instant::now() >= deadline {
            let context = format!("the condition did not hold within {limit:?}");
            return Err(Error::new(ErrorKind::Timeout, context));
        }
        let _ = never::<()>().recv_timeout(LOOK);
    }
    Ok(())
}

/// Runs a test on a thread of its own and returns its result: a test that hangs fails, rather than hold up all others.
///
/// # Errors
/// [`ErrorKind::Timeout`] if it has not ended within `limit`; its thread is left behind. [`ErrorKind::Panicked`] with
/// the message of its panic.
pub fn within<T: Send + 'static>(limit: Duration, test: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, ended) = mpsc::channel();
    let body = move || drop(sender.send(contain(|| "the test".into(), test)));
    std::thread::Builder::new()
        .name("test".into())
        .spawn(body)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;
    ended.recv_timeout(limit).unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the test has not ended within {limit:?}"),
        ))
    })
}
