//! `tablecast notify`: a node that sends status updates to listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use tablecast::{Config, DbUpdate, Delivery, Error, ErrorKind, Notifier, NotifierOptions, Publisher, Result, Topic};

use crate::input::{Input, InputArgs};
use crate::publish::SLICE;
use crate::seat::SeatArgs;
use crate::{args, output, signal};

/// Have each status update processed by one of the listeners, chosen at random; prints `acknowledged N of M`.
///
/// Waits until every update is acknowledged; prints those that are not in time on stderr, and then exits with 1. Files
/// have the format of `publish`. On ZeroMQ the command must be connected to the listeners' publishers, and the
/// listeners to its own publisher: `--discover true` is the easiest way.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    seat: SeatArgs,
    /// Seconds to wait for acknowledgements, and before that for a listener and a connection from it.
    #[arg(long, value_name = "S", default_value = "30", value_parser = args::seconds)]
    timeout: Duration,
    /// Publish each to one listener without waiting for acknowledgements; prints `sent N`. With a port of its own, the
    /// command first waits until all listeners hear it.
    #[arg(long)]
    at_most_once: bool,
}

/// The most unacknowledged updates that are named.
const NAMED: usize = 10;

/// Notifies; a signal ends it.
pub(crate) fn run(config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
    let input = Input::open(&args.input, config.max_message_bytes)?;
    let options = NotifierOptions {
        delivery: match args.at_most_once {
            true => Delivery::AtMostOnce,
            false => Delivery::ExactlyOnce,
        },
        ..NotifierOptions::from(&config)
    };
    let (node, _metrics) = args.seat.open(config)?;
    let notifier = Arc::new(node.notifier_with(options)?);
    let stop = Arc::new(AtomicBool::new(false));
    let (done, end) = bounded(1);
    let work = Work {
        notifier: Arc::clone(&notifier),
        unheard: args.at_most_once.then(|| node.publisher()).transpose()?,
        timeout: args.timeout,
        stop: Arc::clone(&stop),
    };
    // Not joined: it may be reading from stdin when a signal comes.
    let work = move || drop(done.send(work.run(input)));
    let thread = thread::Builder::new().name("notify".into()).spawn(work);
    thread.map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;
    let interrupted = || Err(Error::new(ErrorKind::Stopped, "a signal came"));
    let result = select! {
        recv(end) -> result => result.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panicked, "the notifying thread ended unexpectedly"))
        }),
        recv(signal) -> _ => {
            stop.store(true, Ordering::Relaxed);
            let _ = end.recv_timeout(2 * SLICE);
            interrupted()
        }
    };
    let left = notifier.stop();
    for update in left.iter().take(NAMED) {
        output::say(&format!("not acknowledged: {update}"));
    }
    if left.len() > NAMED {
        output::say(&format!("not acknowledged: {} more", left.len() - NAMED));
    }
    result.and(summary(&notifier, args.at_most_once))
}

struct Work {
    notifier: Arc<Notifier>,
    /// The publisher that listeners have to hear before the first update, since none is repeated.
    unheard: Option<Arc<Publisher>>,
    timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl Work {
    /// Sends all updates, and waits until they are acknowledged.
    fn run(mut self, input: Input) -> Result<()> {
        // No listener is known at first; without acknowledgements one must be known before sending.
        self.notifier.wait_listeners(1, self.timeout)?;
        let unheard = self.unheard.take();
        let is_once = unheard.is_some();
        if let Some(publisher) = unheard {
            self.await_ears(&publisher)?;
        }
        input.each(|| self.is_stopped(), |update| self.notify(&update))?;
        match is_once {
            true => Ok(()),
            false => self.notifier.flush(self.timeout),
        }
    }

    /// Waits until every listener hears the publisher, where the driver knows.
    fn await_ears(&self, publisher: &Publisher) -> Result<()> {
        let start = Instant::now();
        for listener in self.notifier.listeners() {
            let topic = Topic::new(&*listener.address)?;
            loop {
                let left = self.timeout.saturating_sub(start.elapsed());
                match publisher.wait_subscribed(&topic, left.min(SLICE)) {
                    Ok(()) => break,
                    Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(()),
                    Err(e) if e.kind() != ErrorKind::Timeout => return Err(e),
                    Err(_) if self.is_stopped() => return Ok(()),
                    Err(_) if left <= SLICE => {
                        let (id, timeout) = (&listener.id, self.timeout);
                        output::say(&format!(
                            "listener {id:?} does not hear this publisher within {timeout:?}: it gets no updates"
                        ));
                        break;
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn notify(&self, update: &DbUpdate) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.notifier.notify(update.clone()) {
                // The window is full; tries again.
                Err(e) if e.kind() == ErrorKind::Timeout && start.elapsed() < self.timeout && !self.is_stopped() => {}
                done => return done,
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn summary(notifier: &Notifier, is_once: bool) -> Result<()> {
    let stats = notifier.stats();
    if is_once {
        return output::result(&format!("sent {}", stats.sent));
    }
    output::result(&format!("acknowledged {} of {}", stats.acknowledged, stats.notified))?;
    let latency = notifier.latency();
    let ms = |micros: u64| micros as f64 / 1000.0;
    log::info!(
        "{} sent again, {} failed in the listener; acknowledged after {:.1} ms (median), {:.1} ms (p99), {:.1} ms at most",
        stats.retried,
        stats.failed,
        ms(latency.quantile(0.5)),
        ms(latency.quantile(0.99)),
        ms(latency.max())
    );
    Ok(())
}
