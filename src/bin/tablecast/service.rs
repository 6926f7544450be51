//! `tablecast service`: the publisher service of this host.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select, tick};
use tablecast::registry::Load;
use tablecast::{Config, Error, ErrorKind, Node, Result};

use crate::input::Stdin;
use crate::metrics::MetricsArgs;
use crate::supervisor::Supervisor;
use crate::{output, shared, signal, work};

/// Run the publisher service of this host: pass on to the network what its processes publish.
///
/// Prints `ready <network address> <socket>` once both ends are bound.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Time that the service needs to stop, besides its linger time.
const GRACE: Duration = Duration::from_millis(700);

/// Interval at which the service notes how much it has sent, for its next renewal.
const LOAD: Duration = Duration::from_secs(1);

/// Runs the service until a signal comes.
pub(crate) fn run(config: &Config, args: &Args) -> Result<()> {
    let signal = signal::channel(GRACE + config.linger_ms)?;
    shared::network(config)?;
    shared::multiproc(config)?;
    serve(config, &args.metrics, &signal)
}

/// Runs the service until stdin ends, as it does with the command that started this process, however that ends.
pub(crate) fn run_for_command(config: &Config) -> Result<()> {
    let (alive, ended) = bounded(0);
    work::start("stdin", move || {
        let _alive = alive;
        let _ = io::copy(&mut Stdin, &mut io::sink());
    })?;
    serve(config, &MetricsArgs::default(), &ended)
}

/// Serves until there is a message, or none can come any more.
fn serve(config: &Config, metrics: &MetricsArgs, end: &Receiver<()>) -> Result<()> {
    let node = Node::open(config)?;
    let _metrics = metrics.serve(&node)?;
    let (service, registration) = (node.service()?, node.registration());
    let network = service.address().map_or_else(|| config.publish_address(), Ok)?;
    output::result(&format!("ready {network} {}", config.multiproc_address()))?;
    let supervisor = Supervisor::find();
    supervisor.ready();
    let (signs, look) = (supervisor.ticks(), tick(LOAD));
    loop {
        select! {
            recv(end) -> _ => break,
            recv(signs) -> _ => {
                if service.is_responsive() {
                    supervisor.alive();
                }
            }
            recv(look) -> _ => {
                if !service.is_running() {
                    let context = "the service can no longer forward updates; see the log for the reason";
                    return Err(Error::new(ErrorKind::Stopped, context));
                }
                if let Some(registration) = &registration {
                    registration.set_load(Load {
                        handled: service.stats().forwarded,
                        waiting: 0,
                    });
                }
            }
        }
    }
    drop((supervisor, registration));
    node.stop();
    log::info!("stopped: {:?}", service.stats());
    Ok(())
}
