//! `tablecast publish`: one update, or one for each line of a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use tablecast::{Config, DbUpdate, Error, ErrorKind, Node, Publisher, Result};

use crate::input::{Input, InputArgs};
use crate::metrics::MetricsArgs;
use crate::{args, output, signal};

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
    #[arg(long, value_name = "N")]
    wait_subscribers: Option<usize>,
    /// Seconds to wait for them.
    #[arg(long, value_name = "S", default_value = "30", value_parser = args::seconds)]
    wait_timeout: Duration,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Long enough for the end of a large file.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("linger_ms", "10000")];

/// More than the end takes if everything is sent: with a shorter linger time the two cannot be told apart.
const LEAST_LINGER: Duration = Duration::from_secs(1);

/// Time left after a signal for the update that is being published.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time for which a signal may go unnoticed while the command waits for subscribers.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// The state of publishing, shared by the main thread and the publishing one.
#[derive(Default)]
struct Publishing {
    published: AtomicU64,
    stop: AtomicBool,
}

impl Publishing {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn publish(&self, publisher: &Publisher, update: DbUpdate) -> Result<()> {
        publisher.send_event(&update)?;
        self.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Publishes; a signal ends it.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(2 * PATIENCE)?;
    config.pub_sub_use_multiproc &= !args.no_multiproc;
    if args.wait_subscribers.is_some() && config.pub_sub_use_multiproc {
        let context = "--wait-subscribers needs --no-multiproc: only the process that binds the port sees subscribers";
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    let input = Input::open(&args.input, config.max_message_bytes)?;
    let node = Node::open(&config)?;
    let _metrics = args.metrics.serve(&node)?;
    let publisher = node.publisher()?;
    if let Some(address) = publisher.address() {
        match config.publisher_port {
            0 => output::say(&format!("publishing at {address}")),
            _ => log::info!("publishing at {address}"),
        }
    }
    let linger = config.linger_ms;
    let wait = args.wait_subscribers.map(|count| (count, args.wait_timeout));

    let publishing = Arc::new(Publishing::default());
    let (done, end) = bounded(1);
    let work = Arc::clone(&publishing);
    // Not joined: it may be reading from stdin when a signal comes.
    let body = move || {
        let heard = match wait {
            Some((count, timeout)) => wait_subscribers(&publisher, count, timeout, || work.is_stopped()),
            None => {
                if has_no_subscribers(&publisher) {
                    log::warn!(
                        "no subscribers are connected yet, so this may reach none; --wait-subscribers waits for them"
                    );
                }
                Ok(())
            }
        };
        let result = heard.and_then(|()| input.each(|| work.is_stopped(), |update| work.publish(&publisher, update)));
        // Dropping the node waits until everything is sent, or for the linger time.
        let ending = Instant::now();
        drop((publisher, node));
        let is_late = linger >= LEAST_LINGER && ending.elapsed() >= linger;
        let _ = done.send(result.and_then(|()| if is_late { Err(late(linger)) } else { Ok(()) }));
    };
    let thread = thread::Builder::new().name("publish".into()).spawn(body);
    thread.map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;

    let interrupted = || Err(Error::new(ErrorKind::Stopped, "a signal came"));
    let result = select! {
        recv(end) -> result => result.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panicked, "the publishing thread ended unexpectedly"))
        }),
        recv(signal) -> _ => {
            publishing.stop.store(true, Ordering::Relaxed);
            let _ = end.recv_timeout(PATIENCE);
            interrupted()
        }
    };
    let written = output::result(&format!("published {}", publishing.published.load(Ordering::Relaxed)));
    result.and(written)
}

fn late(linger: Duration) -> Error {
    let context = format!("not everything was sent within linger_ms, {linger:?}: the last updates may be lost");
    Error::new(ErrorKind::Timeout, context)
}

/// Waits for this many subscribers, or until it is stopped.
fn wait_subscribers(
    publisher: &Publisher,
    count: usize,
    timeout: Duration,
    is_stopped: impl Fn() -> bool,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match publisher.wait_subscribers(count, left.min(SLICE)) {
            Err(e) if e.kind() == ErrorKind::Timeout && left > SLICE && !is_stopped() => {}
            Err(e) if e.kind() == ErrorKind::Timeout => {
                let context = format!("fewer than {count} subscribers came within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, context));
            }
            done => return done,
        }
    }
}

/// True if the driver knows that there are no subscribers.
pub(crate) fn has_no_subscribers(publisher: &Publisher) -> bool {
    let nobody = publisher.wait_subscribers(1, Duration::ZERO);
    nobody.is_err_and(|e| e.kind() == ErrorKind::Timeout)
}
