//! The node of a command that both publishes and subscribes.

use tablecast::metrics::MetricsServer;
use tablecast::{Config, Node, Result};

use crate::metrics::MetricsArgs;
use crate::outgoing::Outgoing;
use crate::{args, output, shared};

/// The arguments of that node.
#[derive(Debug, clap::Args)]
pub(crate) struct SeatArgs {
    /// Subscribe to the publisher at this address; may be repeated [default: the option publishers, and with discover
    /// all registered ones].
    #[arg(long, value_name = "URI")]
    publisher: Vec<String>,
    /// Bind the port instead of sending through the publisher service of this host.
    #[arg(long)]
    no_multiproc: bool,
    #[command(flatten)]
    metrics: MetricsArgs,
}

impl SeatArgs {
    /// Opens the node for the options and the arguments, and serves its metrics if that is asked for; prints a port
    /// chosen by the system.
    pub(crate) fn open(&self, mut config: Config) -> Result<(Outgoing, Option<MetricsServer>)> {
        config.pub_sub_use_multiproc &= !self.no_multiproc;
        args::listen_to(&self.publisher, &mut config)?;
        let node = Outgoing::open(&checked(config)?)?;
        let metrics = self.metrics.serve(&node)?;
        open_parts(&node)?;
        if let Some(address) = node.publisher()?.address()
            && node.config().publisher_port == 0
        {
            output::say(&format!("publishing at {address}"));
        }
        Ok((node, metrics))
    }
}

/// Opens the node for the options, without topics except its own.
pub(crate) fn open(config: Config) -> Result<Node> {
    let node = Node::open(&checked(config)?)?;
    open_parts(&node)?;
    Ok(node)
}

/// The options without topics: the parts register their own.
fn checked(mut config: Config) -> Result<Config> {
    config.topics.clear();
    shared::network(&config)?;
    shared::publisher(&config)?;
    shared::store(&config)?;
    Ok(config)
}

fn open_parts(node: &Node) -> Result<()> {
    node.publisher()?;
    node.subscriber().map(drop)
}
