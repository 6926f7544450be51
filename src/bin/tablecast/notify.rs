//! `tablecast notify`: a node that sends status updates to listeners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tablecast::{Config, DbUpdate, Delivery, ErrorKind, Notifier, NotifierOptions, Publisher, Result, Topic};

use crate::input::{Input, InputArgs};
use crate::seat::SeatArgs;
use crate::{args, output, signal, work};

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

/// Time to wait in silence for a listener.
const SILENCE: Duration = Duration::from_secs(2);

/// The longest time left after a signal for the update that is being sent.
const SENDING: Duration = Duration::from_secs(1);

/// Notifies; a signal ends it.
pub(crate) fn run(config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE + config.send_timeout_ms.min(SENDING))?;
    let input = Input::open(&args.input, config.max_message_bytes)?;
    let options = NotifierOptions {
        delivery: match args.at_most_once {
            true => Delivery::AtMostOnce,
            false => Delivery::ExactlyOnce,
        },
        // A longer wait is repeated.
        notify_timeout: work::SLICE,
        ..NotifierOptions::from(&config)
    };
    let place = output::place(&config);
    let (node, _metrics) = args.seat.open(config)?;
    let notifier = node.notifier_with(options)?;
    let unheard = args.at_most_once.then(|| node.publisher()).transpose()?;
    let work = Work {
        notifier: &notifier,
        signal: &signal,
        timeout: args.timeout,
    };
    let result = work.run(input, unheard, &place);
    let left = notifier.stop();
    for update in left.iter().take(NAMED) {
        output::say(&format!("not acknowledged: {update}"));
    }
    if left.len() > NAMED {
        output::say(&format!("not acknowledged: {} more", left.len() - NAMED));
    }
    result.and(summary(&notifier, args.at_most_once))?;
    drop(notifier);
    match args.at_most_once {
        true => node.end(),
        // Only confirmations may be left.
        false => Ok(()),
    }
}

struct Work<'a> {
    notifier: &'a Notifier,
    signal: &'a Receiver<()>,
    timeout: Duration,
}

impl Work<'_> {
    /// Sends all updates, and waits until they are acknowledged. With a publisher it waits for listeners to hear that,
    /// before the first update, since none is repeated.
    fn run(&self, input: Input, unheard: Option<Arc<Publisher>>, place: &str) -> Result<()> {
        // No listener is known at first; without acknowledgements one must be known before sending.
        let mut patience = Some(Instant::now() + SILENCE);
        self.wait(
            |slice| {
                let waited = self.notifier.wait_listeners(1, slice);
                if waited.is_err() && patience.take_if(|end| *end <= Instant::now()).is_some() {
                    log::warn!("no listener is registered in {place}; still looking");
                }
                waited
            },
            |timeout| {
                format!(
                    "no listener is alive in {place} after {timeout:?} (--timeout): start one with tablecast listen, \
                     in the same store"
                )
            },
        )?;
        if let Some(publisher) = &unheard {
            self.await_ears(publisher)?;
        }
        let given = input.each(self.signal, |update| self.notify(&update));
        // The updates before a bad line count.
        let is_read = match &given {
            Ok(()) => true,
            Err(e) => matches!(e.kind(), ErrorKind::Malformed | ErrorKind::Io),
        };
        match unheard {
            None if is_read => given.and(self.flush()),
            _ => given,
        }
    }

    /// Waits until every listener hears the publisher, where the driver knows.
    fn await_ears(&self, publisher: &Publisher) -> Result<()> {
        let start = Instant::now();
        for listener in self.notifier.listeners() {
            let topic = Topic::new(&*listener.address)?;
            let left = self.timeout.saturating_sub(start.elapsed());
            match work::wait(left, self.signal, |slice| publisher.wait_subscribed(&topic, slice)) {
                Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Timeout => {
                    let (id, timeout) = (&listener.id, self.timeout);
                    output::say(&format!(
                        "listener {id:?} does not hear this publisher within {timeout:?}: it gets no updates"
                    ));
                }
                heard => heard?,
            }
        }
        Ok(())
    }

    /// Sends an update, when there is room for it.
    fn notify(&self, update: &DbUpdate) -> Result<()> {
        work::wait(self.timeout, self.signal, |_| self.notifier.notify(update.clone()))
    }

    fn flush(&self) -> Result<()> {
        let pending = |timeout| {
            let pending = self.notifier.stats().pending;
            format!("after {timeout:?} (--timeout): {pending} status updates are not acknowledged")
        };
        self.wait(|slice| self.notifier.flush(slice), pending)
    }

    fn wait(&self, wait: impl FnMut(Duration) -> Result<()>, late: impl FnOnce(Duration) -> String) -> Result<()> {
        let waited = work::wait(self.timeout, self.signal, wait);
        waited.map_err(|e| work::late(e, || late(self.timeout)))
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
