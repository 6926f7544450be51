//! `tablecast top`: a deployment as a subscriber sees it, live.

mod keys;
mod row;
mod screen;
mod sources;
mod tally;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, after, select, tick};
use nix::sys::signal::Signal;
use serde::Serialize;
use tablecast::{Config, Node, Result};

use crate::held_log::Hold;
use crate::metrics::MetricsArgs;
use crate::terminal::{Columns, FormatArgs};
use crate::{args, output, signal, terminal, work};
use row::Row;
use screen::Screen;
use sources::Sources;
use view::View;

/// Show addresses, the topics listened to, publishers, replicas and listeners, with rates and lags, live.
///
/// On a terminal, keys sort: k kind, n name, r rate, l lag, w waiting, t staleness, s seen; arrows, PgUp, PgDn, Home
/// and End scroll; / filters by the text that follows, up to Enter, and Escape shows all again; q ends. Elsewhere each
/// refresh prints one line for each row, a JSON object. Rates and lags of topics are those of the updates that this
/// command receives. Rates of publishers and listeners, and the staleness of replicas, are as of the last renewals of
/// their registrations. The lag compares the clocks of both hosts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: args::Listen,
    /// Seconds between two refreshes, at least 0.1.
    #[arg(long, value_name = "S", value_parser = interval, default_value = "1")]
    interval: Duration,
    /// Print the table once and end, one interval after all states are known or --timeout has passed. The exit code is
    /// 1 if the store cannot be read.
    #[arg(long)]
    once: bool,
    /// Longest time in seconds that --once waits for all states, before the interval. Addresses get at most 3 s of it; a
    /// replica or listener is known once it renews its registration, by default every 10 s or 3 s.
    #[arg(long, value_name = "S", value_parser = args::seconds, default_value = "15")]
    timeout: Duration,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// The shortest time between two refreshes.
const LEAST: f64 = 0.1;

fn interval(text: &str) -> std::result::Result<Duration, String> {
    args::seconds_from(LEAST, text)
}

/// The time within which everything should be live.
const LIVE: Duration = Duration::from_secs(3);

/// Interval of the looks at what is known.
const SLICE: Duration = Duration::from_millis(50);

/// Shows the deployment until a key or a signal.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let columns = args.format.columns();
    let is_screen = !args.once && std::io::stdout().is_terminal() && columns.is_some();
    let jobs = is_screen.then(signal::of_terminal).transpose()?;
    let signal = signal::channel(signal::GRACE)?;
    args.listen.apply(&mut config)?;
    let node = Node::open(&config)?;
    let _metrics = args.metrics.serve(&node)?;
    let interval = args.interval;
    // Warnings would stand in the table, or above it.
    let log = (args.once || is_screen).then(Hold::new);
    let sources = Sources::open(&node, args.once)?;
    match (jobs, log) {
        (Some(jobs), Some(log)) => show(sources, interval, &signal, &jobs, &log),
        _ => print(sources, args, interval, &signal),
    }
}

/// Prints looks one after the other.
fn print(mut sources: Sources, args: &Args, interval: Duration, signal: &Receiver<()>) -> Result<()> {
    let ended = || match args.once {
        true => Err(work::interrupted_before("the look")),
        false => Ok(()),
    };
    let start = Instant::now();
    loop {
        let time = start.elapsed();
        let is_over = args.once && time >= args.timeout;
        let is_heard = is_over || time >= LIVE || sources.is_heard();
        if is_heard && (!args.once || is_over || sources.is_known()) {
            break;
        }
        select! {
            recv(after(SLICE)) -> _ => {}
            recv(signal) -> _ => return ended(),
        }
    }
    // Rates are of the time since the look before.
    sources.rows();
    loop {
        select! {
            recv(after(interval)) -> _ => {}
            recv(signal) -> _ => return ended(),
        }
        let rows = sources.rows();
        let said = output::lines(&text(&rows, args)?);
        if args.once {
            return sources.check().and(said);
        }
        said?;
    }
}

/// A row, and the time of the look in seconds since 1970.
#[derive(Serialize)]
struct Line<'a> {
    time: u64,
    #[serde(flatten)]
    row: &'a Row,
}

fn text(rows: &[Row], args: &Args) -> Result<String> {
    if let Some(columns) = args.format.columns() {
        return Ok(view::table(rows, columns, 0..rows.len()).join("\n"));
    }
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let lines = rows.iter().map(|row| serde_json::to_string(&Line { time, row }));
    let lines: Vec<String> = lines.collect::<Result<_, _>>().map_err(|e| output::failed(e.into()))?;
    Ok(lines.join("\n"))
}

/// Draws looks on the terminal.
fn show(
    mut sources: Sources,
    interval: Duration,
    signal: &Receiver<()>,
    jobs: &Receiver<Signal>,
    log: &Hold,
) -> Result<()> {
    let screen = Screen::take()?;
    let looks = tick(interval);
    let mut view = View::default();
    let mut rows = sources.rows();
    loop {
        let (_, height) = terminal::size();
        screen.draw(&view.lines(&rows, || Columns::on(true), height, log.news().as_deref()))?;
        select! {
            recv(looks) -> _ => rows = sources.rows(),
            recv(screen.keys()) -> key => match key {
                Ok(key) if view.take(key) => {}
                _ => return Ok(()),
            },
            recv(jobs) -> signal => match signal {
                Ok(Signal::SIGTSTP) => screen.suspend()?,
                Ok(Signal::SIGCONT) => screen.enter()?,
                Ok(Signal::SIGQUIT) => return Ok(()),
                // Another size.
                Ok(_) => {}
                Err(_) => return Ok(()),
            },
            recv(signal) -> _ => return Ok(()),
        }
    }
}
