//! Metrics of a node for Prometheus, as text or over HTTP; the page [metrics](crate::docs::metrics) names them all.
//!
//! ```
//! use tablecast::{Config, DbUpdate, Metrics, Node};
//!
//! # fn main() -> tablecast::Result<()> {
//! let node = Node::open(&Config::in_memory("front"))?;
//! let metrics = Metrics::new(&node);
//! let _server = metrics.serve("127.0.0.1:0")?; // scraped at http://127.0.0.1:PORT/metrics
//!
//! node.publisher()?.send_event(&DbUpdate::new("lport", "port-1", "set".into()))?;
//! assert!(metrics.encode().contains("\ntablecast_updates_sent_total 1\n"));
//! # Ok(())
//! # }
//! ```
//!
//! Counters that the parts keep anyway are read when metrics are asked for. Three things are counted for metrics alone,
//! from the creation of [`Metrics`] on: the time from send to callback of each update, sync events by reason, and the
//! calls of a store that is opened after that.
//!
//! Labels have a bounded number of values: topics have series of their own only while a node's replicas hold at most
//! 100; beyond that there are aggregates alone.

mod collect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod request;
mod samples;
mod series;
mod server;

use std::fmt;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

pub use series::{Kind, Series, series};
pub use server::MetricsServer;

use crate::error::Result;
use crate::node::{Node, Running};
use collect::{Collector, START};

/// The metrics of a node; cheap to clone. Does not keep the node's parts running: without them the text has only what
/// concerns the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    /// Begins to count for this node. Best called before its parts are asked for.
    pub fn new(node: &Node) -> Metrics {
        let running: Arc<Mutex<Running>> = Arc::clone(node.running());
        running.lock().measure();
        LazyLock::force(&START);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collector(running)));
        Metrics {
            registry: Arc::new(registry),
        }
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }

    /// Serves the metrics at this address over HTTP, on a thread of its own, until the server is dropped. The address
    /// is `host:port`; a port alone, or `:port`, is on loopback. Anyone who can connect can read the metrics.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an address of another form,
    /// [`ErrorKind::AddressInUse`](crate::ErrorKind::AddressInUse), [`ErrorKind::Denied`](crate::ErrorKind::Denied) for
    /// a port that needs rights, and [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn serve(&self, address: &str) -> Result<MetricsServer> {
        let metrics = self.clone();
        MetricsServer::start(move || metrics.encode(), address)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
