//! `tablecast top`: a deployment as a subscriber sees it, live.

mod row;
mod screen;
mod sources;
mod tally;

use std::io::IsTerminal;
use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, after, select, tick};
use serde::Serialize;
use tablecast::{Config, ErrorKind, Node, Result};

use crate::terminal::{FormatArgs, Kind};
use crate::{args, output, signal};
use row::{HEAD, Row, Sort, arrange};
use screen::Screen;
use sources::Sources;

/// Show addresses, topics, publishers, replicas and listeners, with rates and lags, again and again.
///
/// On a terminal, keys sort: k kind, n name, r rate, l lag, w waiting, t staleness, s seen; / filters by the text that
/// follows, up to Enter, and Escape shows all again; q ends. Elsewhere each look is a number of lines, one JSON object each.
/// Rates and lags of topics are those of the updates that this command receives. Rates of publishers and listeners, and the
/// staleness of replicas, are as of the last renewals of their registrations. The lag compares the clocks of both hosts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    listen: args::Listen,
    /// Seconds between two looks.
    #[arg(long, value_name = "S", value_parser = args::seconds, default_value = "1")]
    interval: Duration,
    /// Print one look, and end: after everything is live, or 3 s, and one interval.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    format: FormatArgs,
}

const GRACE: Duration = Duration::from_millis(900);

/// The time within which everything should be live.
const LIVE: Duration = Duration::from_secs(3);

/// The time for which a signal may go unnoticed meanwhile.
const SLICE: Duration = Duration::from_millis(50);

/// Shows the deployment until a key or a signal.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(GRACE)?;
    args.listen.apply(&mut config)?;
    let node = Node::open(&config)?;
    let sources = Sources::open(&node)?;
    let interval = args.interval.max(Duration::from_millis(100));
    let is_screen = !args.once && std::io::stdout().is_terminal() && args.format.columns().is_some();
    match is_screen {
        true => show(sources, args, interval, &signal),
        false => print(sources, args, interval, &signal),
    }
}

/// Prints looks one after the other.
fn print(mut sources: Sources, args: &Args, interval: Duration, signal: &Receiver<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        match sources.subscriber().wait_live(SLICE) {
            Err(e) if e.kind() == ErrorKind::Timeout && start.elapsed() < LIVE => {}
            _ => break,
        }
        if signal.try_recv().is_ok() {
            return Ok(());
        }
    }
    // Rates are of the time since the look before.
    sources.rows();
    loop {
        select! {
            recv(after(interval)) -> _ => {}
            recv(signal) -> _ => return Ok(()),
        }
        let rows = sources.rows();
        output::result(&text(&rows, args)?)?;
        if args.once {
            return Ok(());
        }
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
    if args.format.columns().is_some() {
        return Ok(table(rows, args).join("\n"));
    }
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let lines = rows.iter().map(|row| serde_json::to_string(&Line { time, row }));
    let lines: Vec<String> = lines.collect::<Result<_, _>>().map_err(|e| output::failed(e.into()))?;
    Ok(lines.join("\n"))
}

fn table(rows: &[Row], args: &Args) -> Vec<String> {
    let Some(mut columns) = args.format.columns() else {
        return Vec::new();
    };
    let cells: Vec<[String; 9]> = rows.iter().map(Row::cells).collect();
    let cells: Vec<[&str; 9]> = cells.iter().map(|cells| cells.each_ref().map(String::as_str)).collect();
    columns.fit(&HEAD);
    cells.iter().for_each(|cells| columns.fit(cells));
    let mut lines = vec![columns.line(Kind::Head, &HEAD)];
    lines.extend(
        rows.iter()
            .zip(&cells)
            .map(|(row, cells)| columns.line(row.look(), cells)),
    );
    lines
}

/// Draws looks on the terminal.
fn show(mut sources: Sources, args: &Args, interval: Duration, signal: &Receiver<()>) -> Result<()> {
    let screen = Screen::take()?;
    let (looks, keys) = (tick(interval), screen.keys());
    let mut view = View::default();
    let mut rows = sources.rows();
    loop {
        screen.draw(&view.lines(&rows, args, screen.height()))?;
        select! {
            recv(looks) -> _ => rows = sources.rows(),
            recv(keys) -> key => match key {
                Ok(key) if view.take(key) => {}
                _ => return Ok(()),
            },
            recv(signal) -> _ => return Ok(()),
        }
    }
}

/// The order and the choice of rows.
#[derive(Debug, Default)]
struct View {
    sort: Sort,
    filter: String,
    /// Keys are text of the filter.
    is_typing: bool,
}

impl View {
    /// Takes a key; false if it ends the command.
    fn take(&mut self, key: u8) -> bool {
        const ESCAPE: u8 = 0x1b;
        const ERASE: [u8; 2] = [0x08, 0x7f];
        match key {
            ESCAPE => {
                *self = View {
                    sort: self.sort,
                    ..View::default()
                }
            }
            b'\r' | b'\n' => self.is_typing = false,
            key if self.is_typing && ERASE.contains(&key) => drop(self.filter.pop()),
            key if self.is_typing && (b' '..=b'~').contains(&key) => self.filter.push(char::from(key)),
            b'/' => self.is_typing = true,
            b'q' => return false,
            key => self.sort = Sort::of_key(key).unwrap_or(self.sort),
        }
        true
    }

    fn lines(&self, rows: &[Row], args: &Args, height: usize) -> Vec<String> {
        let chosen = arrange(rows, self.sort, &self.filter);
        let summary = self.summary(rows);
        // A line that wraps would push the others off the screen.
        let columns = args.format.columns();
        let fitting = columns.map(|mut columns| columns.line(Kind::Plain, &[&summary]));
        let mut lines = vec![fitting.unwrap_or(summary)];
        lines.extend(table(&chosen, args));
        let left = lines.len().saturating_sub(height);
        if left > 0 {
            lines.truncate(height - 1);
            lines.push(format!("{} more", left + 1));
        }
        lines
    }

    fn summary(&self, rows: &[Row]) -> String {
        let of = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
        let topics = rows.iter().filter(|row| row.kind == "topic");
        // The sum of no numbers would be -0.0.
        let rate = topics.filter_map(|row| row.rate).fold(0.0, f64::add);
        let filter = match (self.is_typing, self.filter.as_str()) {
            (true, filter) => format!("filter: {filter}_"),
            (false, "") => "/ filters, q ends".into(),
            (false, filter) => format!("filter: {filter}"),
        };
        let sort = format!("{:?}", self.sort).to_lowercase();
        format!(
            "addresses: {}, publishers: {}, replicas: {}, listeners: {}, updates/s: {rate:.1}; by {sort}; {filter}",
            of("address"),
            of("publisher"),
            of("replica"),
            of("listener"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_filter_and_end() {
        let mut view = View::default();
        let mut press = |keys: &str| keys.bytes().all(|key| view.take(key));
        assert!(press("r/quiet\x7f\r"));
        assert_eq!(
            (view.sort, view.filter.as_str(), view.is_typing),
            (Sort::Rate, "quie", false)
        );
        assert!(view.take(0x1b));
        assert_eq!((view.sort, view.filter.as_str()), (Sort::Rate, ""));
        assert!(!view.take(b'q'));
    }
}
