//! `tablecast replica`: a copy of tables, held and printed.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, bounded, never, select, tick};
use serde::Serialize;
use tablecast::database::Entry;
use tablecast::replica::{Difference, Replica, ReplicaOptions, ReplicaTable, RowChange};
use tablecast::{Config, Error, ErrorKind, Name, Node, Result, Store, Topic};

use crate::line::version_text;
use crate::metrics::MetricsArgs;
use crate::supervisor::Supervisor;
use crate::terminal::{Columns, FormatArgs, Kind};
use crate::{args, output, shared, signal, work};

/// Hold a copy of tables, and print what changes.
///
/// On a terminal the output is columns: event, table, key, version, topic, value. Elsewhere it is one JSON object per
/// line: {"event":"added"|"changed"|"removed","table":..,"key":..,"value":..,"old":..,"version":..,"topic":..}, first
/// for all existing rows, and {"event":"synced","rows":N} once all of them are read, and again when they are read anew
/// because the store went back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Hold this table; may be repeated.
    #[arg(long, value_name = "TABLE", required = true)]
    table: Vec<String>,
    #[command(flatten)]
    listen: args::Listen,
    /// The id by which writers wait for this replica, unique among the running ones [default: made from the host, the
    /// process and a random number].
    #[arg(long)]
    id: Option<String>,
    /// Print the rows once all are there, and end.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Once all rows are there, compare them with the store, print {"event":"difference",..} for each that differs, and end; fails
    /// if there is one.
    #[arg(long, conflicts_with_all = ["count", "once"])]
    check: bool,
    /// End after this many printed changes.
    #[arg(long, value_name = "N", value_parser = args::count)]
    count: Option<u64>,
    /// End after this many seconds; with --count, --once or --check this is a failure.
    #[arg(long, value_name = "S", value_parser = args::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Maximum of changes that wait to be printed.
const CAPACITY: usize = 1024;

/// Interval of the look for missing rows.
const LOOK: Duration = Duration::from_millis(20);

/// Time limit of a comparison.
const COMPARISON: Duration = Duration::from_secs(3600);

/// A change, and the table.
type Change = (Name, RowChange<String>);

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Added(RowLine<'a>),
    Changed(RowLine<'a>),
    Removed(RowLine<'a>),
    Synced { rows: usize },
    Difference(&'a Difference),
}

#[derive(Serialize)]
struct RowLine<'a> {
    table: &'a str,
    key: &'a str,
    value: Option<&'a str>,
    old: Option<&'a str>,
    version: u64,
    topic: Option<&'a str>,
}

/// Prints until the count, the timeout or a signal.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(signal::GRACE)?;
    // Workers would only change the order.
    config.dispatcher_workers = 0;
    args.listen.apply(&mut config)?;
    shared::network(&config)?;
    shared::store(&config)?;
    let node = Node::open(&config)?;
    let _metrics = args.metrics.serve(&node)?;
    let deadline = args.timeout.map_or_else(never, after);
    let end = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    select! {
        recv(look(node.store()?, args)?) -> looked => match looked.unwrap_or(Ok(())) {
            // The replica goes on trying.
            Err(e) if e.is_transient() && !args.once && !args.check => log::warn!("no rows yet: {e}; still trying"),
            looked => looked?,
        },
        recv(signal) -> _ => return interrupted(args, 0),
        recv(deadline) -> _ => return timed_out(args, 0),
    }
    let replica = node.replica_with(ReplicaOptions {
        id: Some(args.id.as_deref().map_or_else(own_id, Name::from)),
        registry: (&config).into(),
        ..ReplicaOptions::default()
    })?;
    let (sender, changes) = bounded(CAPACITY);
    let mut tables = Vec::new();
    let mut names = BTreeSet::new();
    for name in args.table.iter().filter(|name| names.insert(*name)) {
        let table = replica.raw_table(name.as_str())?;
        // A comparison prints no changes, and nothing would receive them meanwhile.
        if !args.check {
            let (sender, name) = (sender.clone(), table.name().clone());
            // Waits for the printing: nothing may be lost. It is refused only at the end.
            let change = move |change: &RowChange<String>| drop(sender.send((name.clone(), change.clone())));
            table.on_change(change).detach();
        }
        tables.push(table);
    }
    // Only now, so that the handlers are there before the first row.
    for topic in &config.topics {
        replica.add_topic(topic)?;
    }
    let watch = Watch {
        args,
        place: output::place(&config),
        topics: topics_text(&config.topics),
        replica: &replica,
        end,
        tables,
        changes,
        printed: 0,
        rows: 0,
        synced: None,
        supervisor: Supervisor::find(),
        columns: args.format.columns(),
    };
    let watched = watch.run(&signal, &deadline);
    log::info!("{:?}", replica.stats());
    watched
}

/// Looks at the store on another thread, for its first error: a signal need not wait for a silent one.
fn look(store: Arc<dyn Store>, args: &Args) -> Result<Receiver<Result<()>>> {
    let (sender, looked) = bounded(1);
    let table = args.table.first().cloned().unwrap_or_default();
    // Nobody waits for it at the end.
    let look = move || drop(sender.send(store.table_version(&table).map(drop)));
    work::start("first-look", look)?;
    Ok(looked)
}

/// An id that no other replica has.
fn own_id() -> Name {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = RandomState::new().hash_one(Instant::now()) as u32;
    format!("{}-{}-{random:08x}", host.trim(), std::process::id()).into()
}

struct Watch<'a> {
    args: &'a Args,
    /// The store, as people look for it.
    place: String,
    /// The held topics, likewise.
    topics: String,
    replica: &'a Replica,
    /// The end of the option `--timeout`.
    end: Option<Instant>,
    tables: Vec<ReplicaTable<String>>,
    changes: Receiver<Change>,
    printed: u64,
    /// The rows that are there by what was printed.
    rows: usize,
    /// How often the store had gone back when the rows were last there.
    synced: Option<u64>,
    supervisor: Supervisor,
    /// Where lines are for people.
    columns: Option<Columns>,
}

impl Watch<'_> {
    fn run(mut self, signal: &Receiver<()>, deadline: &Receiver<Instant>) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
        let (look, signs) = (tick(LOOK), self.supervisor.ticks());
        loop {
            select! {
                recv(self.changes) -> change => {
                    let change = change.map_err(|_| Error::new(ErrorKind::Stopped, "the replica ended"))?;
                    if self.print(change, &mut out).map_err(output::failed)? {
                        return Ok(());
                    }
                }
                recv(look) -> _ => {
                    let went_back = Some(self.replica.stats().went_back);
                    let is_synced = self.replica.is_synced();
                    // Changes from before the sync are printed first: there are no more than are printed at once.
                    if let Ok(change) = self.changes.try_recv()
                        && self.print(change, &mut out).map_err(output::failed)?
                    {
                        return Ok(());
                    }
                    if is_synced
                        && std::mem::replace(&mut self.synced, went_back) != went_back
                        && self.synced(&mut out, signal)?
                    {
                        return Ok(());
                    }
                }
                recv(signs) -> _ => self.supervisor.alive(),
                recv(signal) -> _ => return interrupted(self.args, self.printed),
                recv(deadline) -> _ => return timed_out(self.args, self.printed),
            }
        }
    }

    /// Prints this change and those that wait; true if that was enough.
    fn print(&mut self, first: Change, out: &mut impl Write) -> io::Result<bool> {
        for (table, change) in iter::once(first).chain(self.changes.try_iter()).take(CAPACITY) {
            line(&mut self.columns, out, &Line::of(&table, &change))?;
            self.printed += 1;
            match change {
                RowChange::Added { .. } => self.rows += 1,
                RowChange::Removed { .. } => self.rows = self.rows.saturating_sub(1),
                _ => {}
            }
            if Some(self.printed) == self.args.count {
                out.flush()?;
                return Ok(true);
            }
        }
        out.flush()?;
        Ok(false)
    }

    /// All rows are there; true if that was enough.
    fn synced(&mut self, out: &mut impl Write, signal: &Receiver<()>) -> Result<bool> {
        if self.args.check {
            self.name_empty_tables();
            return self.compare(out, signal).map(|()| true);
        }
        let rows = self.rows;
        let printed = line(&mut self.columns, out, &Line::Synced { rows }).and_then(|()| out.flush());
        printed.map_err(output::failed)?;
        self.supervisor.ready();
        self.name_empty_tables();
        Ok(self.args.once)
    }

    /// A table without rows may be another one, misspelled.
    fn name_empty_tables(&self) {
        let empty = self.tables.iter().filter(|table| table.is_empty());
        let names: Vec<_> = empty.map(|table| format!("table {:?}", table.name())).collect();
        if !names.is_empty() {
            let (names, topics) = (names.join(" or "), &self.topics);
            output::say(&format!("there is no row of {names} with {topics} in {}", self.place));
        }
    }

    /// Compares on another thread: a signal need not wait for it.
    fn compare(&mut self, out: &mut impl Write, signal: &Receiver<()>) -> Result<()> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        let (verify, timeout) = (self.replica.verifier(), left.unwrap_or(COMPARISON));
        let (sender, compared) = bounded(1);
        // Nobody waits for it at the end.
        work::start("comparison", move || drop(sender.send(verify(timeout))))?;
        let differences = select! {
            recv(compared) -> differences => differences.map_err(|_| work::interrupted())??,
            recv(signal) -> _ => return interrupted(self.args, self.printed),
        };
        let mut differing = differences.iter();
        let printed = differing.try_for_each(|row| line(&mut self.columns, out, &Line::Difference(row)));
        let printed = printed.and_then(|()| out.flush()).map_err(output::failed);
        // That rows differ does not depend on a reader.
        match differences.len() {
            0 => printed,
            count => Err(Error::new(
                ErrorKind::Conflict,
                format!("rows that differ from the store: {count}"),
            )),
        }
    }
}

fn topics_text(topics: &[Topic]) -> String {
    let names: Vec<String> = topics.iter().map(|topic| format!("{:?}", topic.as_str())).collect();
    match names.len() {
        0 => "no topic".into(),
        1..=4 => format!("topic {}", names.join(" or ")),
        count => format!("one of {count} topics"),
    }
}

fn interrupted(args: &Args, printed: u64) -> Result<()> {
    end(args, printed, ErrorKind::Stopped, "a signal came")
}

fn timed_out(args: &Args, printed: u64) -> Result<()> {
    end(args, printed, ErrorKind::Timeout, "--timeout passed")
}

/// The end, maybe without what was asked for.
fn end(args: &Args, printed: u64, kind: ErrorKind, why: &str) -> Result<()> {
    let wanted = match args {
        Args { once: true, .. } | Args { check: true, .. } => "all rows were read".to_owned(),
        Args { count: Some(count), .. } => format!("{count} changes; there were {printed}"),
        _ => return Ok(()),
    };
    Err(Error::new(kind, format!("{why} before {wanted}")))
}

fn line(columns: &mut Option<Columns>, out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    if let Some(columns) = columns {
        return writeln!(out, "{}", line.text(columns));
    }
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

impl<'a> Line<'a> {
    fn text(&self, columns: &mut Columns) -> String {
        let (kind, event, row) = match self {
            Line::Added(row) => (Kind::Good, "added", row),
            Line::Changed(row) => (Kind::Changed, "changed", row),
            Line::Removed(row) => (Kind::Bad, "removed", row),
            Line::Synced { rows } => return columns.line(Kind::Event, &["synced", &format!("{rows} rows")]),
            Line::Difference(row) => {
                let version = |version: Option<u64>| version.map_or("no row".into(), |version| format!("v{version}"));
                let versions = format!("held {}, stored {}", version(row.held), version(row.stored));
                return columns.line(Kind::Bad, &["difference", &row.table, &row.key, &versions]);
            }
        };
        let version = version_text(Some(row.version));
        let (topic, value) = (row.topic.unwrap_or_default(), row.value.unwrap_or_default());
        let old = row.old.map_or(String::new(), |old| format!("  was {old}"));
        columns.line(
            kind,
            &[event, row.table, row.key, &version, topic, &format!("{value}{old}")],
        )
    }

    fn of(table: &'a str, change: &'a RowChange<String>) -> Line<'a> {
        let row = |row: &'a Entry<String>, old: Option<&'a Entry<String>>| RowLine {
            table,
            key: &row.key,
            value: Some(&row.row),
            old: old.map(|old| old.row.as_str()),
            version: row.version,
            topic: Some(row.topic.as_str()),
        };
        match change {
            RowChange::Added { new } => Line::Added(row(new, None)),
            RowChange::Changed { old, new } => Line::Changed(row(new, Some(old))),
            RowChange::Removed { key, old, version } => Line::Removed(RowLine {
                table,
                key,
                value: None,
                old: old.as_ref().map(|old| old.row.as_str()),
                version: *version,
                topic: old.as_ref().map(|old| old.topic.as_str()),
            }),
            // A text is never none.
            RowChange::Malformed { new, .. } => Line::Changed(RowLine {
                table,
                key: &new.key,
                value: Some(&new.text),
                old: None,
                version: new.version,
                topic: Some(new.topic.as_str()),
            }),
        }
    }
}
