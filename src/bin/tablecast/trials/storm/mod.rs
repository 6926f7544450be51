//! `tablecast storm`: all nodes of a deployment come online at once, and their listeners take the status updates.

mod listener;
mod round;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tablecast::{Config, Result};

use crate::trials::stage::progress::Progress;
use crate::trials::stage::{Flags, Setup, Stage};
use crate::{args, output};
use round::Round;

pub(crate) use listener::{ListenerArgs, run as run_listener};

/// Measure the load on listeners when all nodes come online at once, and how it grows with nodes and listeners.
///
/// Each listener is a process; each node is a notifier in this one. There is one storm for each number of listeners,
/// with the most nodes; one for each other number of nodes, with the most listeners; and one for each other number of
/// workers, with the fewest listeners. Exits with 1 if an update was lost, or processed twice.
///
/// --driver zmq (the default) uses a port for each process, found through the store, which is --store sqlite (the
/// default) or redis; --driver redis has --store redis by default. For redis, the storm starts its own redis-server.
/// The options codec, ack_timeout_ms and listener_timeout_ms also apply.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "250,500,1000",
          value_parser = args::number::<usize, 1, 10_000>)]
    nodes: Vec<usize>,
    /// Number of ports of each node; each has a status to report.
    #[arg(long, value_name = "N", default_value = "20", value_parser = args::number::<usize, 1, 1_000>)]
    ports: usize,
    /// Number of listeners.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8", value_parser = args::number::<usize, 1, 64>)]
    listeners: Vec<usize>,
    /// Number of each listener's worker threads; 0: its dispatcher's thread processes updates.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0,4", value_parser = args::number::<usize, 0, 256>)]
    workers: Vec<usize>,
    /// Microseconds of computing for each update.
    #[arg(long, value_name = "US", default_value = "100", value_parser = args::number::<u64, 0, 1_000_000>)]
    work: u64,
    /// Give up when nothing was acknowledged for this many seconds.
    #[arg(long, value_name = "S", default_value = "10", value_parser = args::count)]
    timeout: u64,
}

impl Args {
    /// The storms, in order.
    fn rounds(&self) -> Vec<Round> {
        let most = |numbers: &[usize]| numbers.iter().copied().max().unwrap_or(1);
        let fewest = self.listeners.iter().copied().min().unwrap_or(1);
        let round = |nodes, listeners, workers| Round {
            nodes,
            ports: self.ports,
            listeners,
            workers,
            work: self.work,
        };
        let (nodes, listeners) = (most(&self.nodes), most(&self.listeners));
        let workers = self.workers.first().copied().unwrap_or(0);
        let by_listeners = self.listeners.iter().map(|listeners| round(nodes, *listeners, workers));
        let by_nodes = self.nodes.iter().map(|nodes| round(*nodes, listeners, workers));
        let by_workers = self.workers.iter().map(|workers| round(nodes, fewest, *workers));
        let mut rounds: Vec<Round> = Vec::new();
        for round in by_listeners.chain(by_nodes).chain(by_workers) {
            if !rounds.contains(&round) {
                rounds.push(round);
            }
        }
        rounds
    }
}

/// Runs the storms. They succeed if every update was processed once.
///
/// # Errors
/// If a process cannot be started or ends too early, or if a signal came.
pub(crate) fn run(config: &Config, args: &Args, flags: Flags<'_>, signals: &Receiver<()>) -> Result<ExitCode> {
    let store = match flags.driver {
        Some("redis") => "redis",
        _ => "sqlite",
    };
    let flags = Flags {
        store: flags.store.or(Some(store)),
        ..flags
    };
    let mut setup = Setup::new(config, flags, None)?;
    let times = [
        ("ack_timeout_ms", config.ack_timeout_ms),
        ("listener_timeout_ms", config.listener_timeout_ms),
    ];
    let times = times.map(|(name, time)| (name, time.as_millis().to_string()));
    setup.common.extend(times);
    let rounds = args.rounds();
    let mut outcomes = Vec::new();
    for (number, round) in (1..).zip(&rounds) {
        let mut progress = Progress::new(round.updates() as u64, "acknowledged");
        progress.say(&format!(
            "storm {number} of {}: nodes: {}, updates: {}, listeners: {}, workers of each: {}",
            rounds.len(),
            round.nodes,
            round.updates(),
            round.listeners,
            round.workers
        ));
        let stage = Stage::new(signals)?;
        let outcome = round.play(&stage, &setup, Duration::from_secs(args.timeout), &mut progress);
        progress.end();
        outcomes.push(outcome?);
    }
    let is_good = outcomes.iter().all(round::Outcome::is_good);
    let verdict = match is_good {
        true => "Every update was processed, and acknowledged, once.",
        false => "NOT every update was processed once.",
    };
    let said = output::result(&format!("{}\n{verdict}", table::text(&outcomes)));
    match is_good {
        true => said.map(|()| ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
