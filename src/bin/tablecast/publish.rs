//! `tablecast publish`: one update, or one for each line of a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use tablecast::{Config, Error, ErrorKind, Publisher, Result};

use crate::input::{Input, InputArgs};
use crate::metrics::MetricsArgs;
use crate::outgoing::Outgoing;
use crate::{args, output, shared, signal, work};

/// Publish an update, or one for each line of a file; prints `published N`.
///
/// A line of a file is a JSON object with the fields table, key, action (default: set), value (text, null, or any JSON,
/// which is taken as its text), topic (missing or null: D), priority and timestamp (microseconds since 1970,
/// UTC). Blank lines are skipped; the first bad line ends the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Bind the port instead of sending through the publisher service of this host.
    #[arg(long)]
    no_multiproc: bool,
    /// Wait for this many subscribers first; only with --no-multiproc.
    #[arg(long, value_name = "N", value_parser = args::number::<usize, 0, { u64::MAX }>)]
    wait_subscribers: Option<usize>,
    /// Seconds to wait for them.
    #[arg(long, value_name = "S", default_value = "30", value_parser = args::seconds)]
    wait_timeout: Duration,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Long enough for the end of a large file.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("linger_ms", "10000")];

/// Time left after a signal for the update that is being published, and the goodbye.
const PATIENCE: Duration = Duration::from_secs(1);

/// Publishes; a signal ends it.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(2 * PATIENCE)?;
    config.pub_sub_use_multiproc &= !args.no_multiproc;
    shared::publisher(&config)?;
    if args.wait_subscribers.is_some() && config.pub_sub_use_multiproc {
        let context = "--wait-subscribers needs --no-multiproc: only the process that binds the port sees subscribers";
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    let input = Input::open(&args.input, config.max_message_bytes)?;
    let node = Outgoing::open(&config)?;
    let _metrics = args.metrics.serve(&node)?;
    let publisher = node.publisher()?;
    if let Some(address) = publisher.address() {
        match config.publisher_port {
            0 => output::say(&format!("publishing at {address}")),
            _ => log::info!("publishing at {address}"),
        }
    }
    let wait = args.wait_subscribers.map(|count| (count, args.wait_timeout));
    let published = Arc::<AtomicU64>::default();
    let ((stop, stopped), (done, end)) = (bounded(1), bounded(1));
    let count = Arc::clone(&published);
    // Not joined: an update may be under way for long.
    work::start("publish", move || {
        let result = wait_subscribers(&publisher, wait, &stopped).and_then(|()| {
            input.each(&stopped, |update| {
                publisher.send_event(&update)?;
                count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        });
        drop(publisher);
        let ended = node.end();
        let _ = done.send(result.and(ended));
    })?;
    let result = select! {
        recv(end) -> result => result.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panicked, "the publishing thread ended unexpectedly"))
        }),
        recv(signal) -> _ => {
            let _ = stop.send(());
            let _ = end.recv_timeout(PATIENCE);
            Err(work::interrupted())
        }
    };
    let written = output::result(&format!("published {}", published.load(Ordering::Relaxed)));
    result.and(written)
}

/// Waits for this many subscribers for this time; if none are asked for, it only warns.
fn wait_subscribers(publisher: &Publisher, wait: Option<(usize, Duration)>, signal: &Receiver<()>) -> Result<()> {
    let Some((count, timeout)) = wait else {
        if has_no_subscribers(publisher) {
            log::warn!("no subscribers are connected yet, so this may reach none; --wait-subscribers waits for them");
        }
        return Ok(());
    };
    let waited = work::wait(timeout, signal, |slice| publisher.wait_subscribers(count, slice));
    waited.map_err(|e| work::late(e, || format!("fewer than {count} subscribers came within {timeout:?}")))
}

/// True if the driver knows that there are no subscribers.
pub(crate) fn has_no_subscribers(publisher: &Publisher) -> bool {
    let nobody = publisher.wait_subscribers(1, Duration::ZERO);
    nobody.is_err_and(|e| e.kind() == ErrorKind::Timeout)
}
