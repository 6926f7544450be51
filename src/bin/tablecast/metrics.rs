//! The flag `--metrics` of commands that run for long.

use tablecast::metrics::MetricsServer;
use tablecast::{Metrics, Node, Result};

use crate::output;

/// Where metrics are served.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct MetricsArgs {
    /// Serve metrics for Prometheus over HTTP at this address, host:port, or a port alone for loopback; prints the URL on
    /// stderr.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
}

impl MetricsArgs {
    /// Serves the metrics of the node until the server is dropped, if that is asked for. To be called before the parts of
    /// the node are asked for.
    pub(crate) fn serve(&self, node: &Node) -> Result<Option<MetricsServer>> {
        let Some(address) = &self.metrics else {
            return Ok(None);
        };
        let server = Metrics::new(node).serve(address);
        let server = server.map_err(|e| e.context("--metrics"))?;
        output::say(&format!("metrics on {}", server.url()));
        Ok(Some(server))
    }
}
