//! `tablecast listen`: a server that takes its share of the status updates.

use std::time::Duration;

use crossbeam_channel::{Receiver, never, select, unbounded};
use tablecast::{Config, DbUpdate, Error, ErrorKind, Listener, ListenerOptions, Result};

use crate::args::Until;
use crate::line::Line;
use crate::seat::SeatArgs;
use crate::supervisor::Supervisor;
use crate::{output, signal, work};

/// Take a share of the status updates, as one of any number of servers, and print each, one JSON object per line.
///
/// Prints `ready` on stderr once it is registered. On a signal the other servers take over; the update being printed is
/// finished. An update that cannot be printed ends the command, and another server takes it over. With --count a few
/// more updates may be printed. On ZeroMQ the listener must be connected to the nodes' publishers, and the nodes to its
/// own publisher: `--discover true` is the easiest way.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    seat: SeatArgs,
    /// Its id, unique among the running listeners [default: made from the host, the process and a random number].
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    until: Until,
}

const STOP: Duration = Duration::from_millis(800);

/// Prints until the count, the timeout or a signal.
pub(crate) fn run(config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
    let options = ListenerOptions {
        id: args.id.as_deref().map(Into::into),
        ..ListenerOptions::from(&config)
    };
    let (node, _metrics) = args.seat.open(config)?;
    let (sender, printed) = unbounded();
    let handler = move |update: &DbUpdate| {
        let line = serde_json::to_string(&Line::from(update)).map_err(|e| output::failed(e.into()));
        let printed = line.and_then(|line| output::result(&line));
        let is_failed = printed.is_err();
        // Fails only when the command is ending.
        let _ = sender.send(printed);
        if is_failed {
            // With its return the update would count as processed: another server is to take it over.
            let _ = never::<()>().recv();
        }
    };
    let listener = node.listener_with(options, handler)?;
    let ended = listen(&listener, &printed, args.until, &signal);
    let stopped = listener.stop_within(STOP);
    log::info!("{:?}", listener.stats());
    if ended.is_err() && stopped.is_err() {
        // The handler that could not print keeps its thread, of which there is no need to warn.
        log::set_max_level(log::LevelFilter::Error);
    }
    ended.and(stopped)
}

fn listen(listener: &Listener, printed: &Receiver<Result<()>>, until: Until, signal: &Receiver<()>) -> Result<()> {
    let deadline = until.deadline();
    while listener.wait_registered(work::SLICE).is_err() {
        if signal.try_recv().is_ok() {
            return until.interrupted(0);
        }
        if deadline.try_recv().is_ok() {
            let late = || Error::new(ErrorKind::Timeout, "the listener was not registered in time");
            return until.timed_out(0).and_then(|()| Err(late()));
        }
    }
    output::say("ready");
    let supervisor = Supervisor::find();
    supervisor.ready();
    let signs = supervisor.ticks();
    let mut count = 0;
    loop {
        select! {
            recv(printed) -> line => {
                line.map_err(|_| Error::new(ErrorKind::Stopped, "the listener ended"))??;
                count += 1;
                if until.is_enough(count) {
                    return Ok(());
                }
            }
            recv(signs) -> _ => supervisor.alive(),
            recv(signal) -> _ => return until.interrupted(count),
            recv(deadline) -> _ => return until.timed_out(count),
        }
    }
}
