//! `tablecast db`: rows of the database, written and read.

mod lines;
mod read;
mod subject;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded, select};
use tablecast::store::{Write, Written};
use tablecast::{Config, Database, DbUpdate, Error, ErrorKind, Result, Store};

use crate::input::Stdin;
use crate::metrics::MetricsArgs;
use crate::outgoing::Outgoing;
use crate::terminal::FormatArgs;
use crate::{args, output, publish, signal, work};
use subject::{RowArgs, about, named_row, open_store, say, table_name};

/// Write and read rows of the database; subscribers are notified of each change.
///
/// The option --store chooses the database: by default sqlite, in the file --sqlite-path, which the processes of this
/// host share. A change is stored and then published, by default through the publisher service of this host. If it
/// cannot be published, it is undone, and the exit code is 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a row; prints `created version N`. Fails if the key is taken.
    Create {
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        value: Value,
    },
    /// Print a row as a JSON object on one line.
    ///
    /// The line is {"table":..,"key":..,"value":..,"topic":..,"version":..}, with the value as a string.
    Get(RowArgs),
    /// Set the value of an existing row; prints `set version N`, or `unchanged version N` if it already has this value.
    /// Fails if there is no row with this key.
    Set {
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        value: Value,
        /// Write only if the row still has this version.
        #[arg(long, value_name = "N", value_parser = args::number::<u64, 0, { u64::MAX }>)]
        if_version: Option<u64>,
    },
    /// Delete a row; prints `deleted version N`. Fails if there is no row with this key.
    Delete {
        #[command(flatten)]
        change: ChangeArgs,
        /// Write only if the row still has this version.
        #[arg(long, value_name = "N", value_parser = args::number::<u64, 0, { u64::MAX }>)]
        if_version: Option<u64>,
    },
    /// Make writes, one for each line of a file, in order; prints the result of each.
    ///
    /// A line is a JSON object with the fields of publish: table, key, action (create, set or delete; default: set),
    /// value, topic (missing or null: D) and priority; a set or delete finds only a row of this topic. A
    /// result is that of create, set or delete, or `failed: ERROR`; after a failed write the command goes on with the
    /// next line, and fails at the end. A malformed line ends the command at once, and so does a closed stdout: the
    /// command fails, and reports how many writes failed before.
    Write {
        /// The file, - for stdin.
        #[arg(long, value_parser = args::path())]
        file: PathBuf,
        #[command(flatten)]
        metrics: MetricsArgs,
    },
    /// Print all rows of a table, one per line, as get does, sorted by the bytes of their keys.
    List {
        /// The table; one that does not exist has no rows.
        #[arg(long)]
        table: String,
        /// Only the rows of this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Print only the keys.
        #[arg(long)]
        keys: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Print the tables of the store, one per line, sorted by the bytes of their names.
    ///
    /// A line is {"table":..,"rows":N}, without the number of rows if the store would have to count them, as sqlite
    /// does.
    Tables {
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Create or delete a whole table; nothing is published.
    #[command(subcommand)]
    Table(TableCommand),
    /// Print a number that is unique within this table; numbers count from 1.
    ///
    /// The table need not exist.
    Unique(TableArgs),
}

#[derive(Debug, clap::Subcommand)]
enum TableCommand {
    /// Create an empty table; prints `created`. Creating a row also creates its table.
    Create(TableArgs),
    /// Delete a table with all its rows; prints `deleted`.
    Delete(TableArgs),
}

/// The table, as an argument or, as for rows, by a flag.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct TableArgs {
    /// The table.
    table: Option<String>,
    /// The table.
    #[arg(long = "table", value_name = "TABLE", id = "named_table")]
    flag: Option<String>,
}

impl TableArgs {
    fn name(&self) -> &str {
        self.table.as_deref().or(self.flag.as_deref()).unwrap_or_default()
    }
}

/// The row, and the publication of its change.
#[derive(Debug, clap::Args)]
struct ChangeArgs {
    #[command(flatten)]
    row: RowArgs,
    /// Only store the change; publish nothing.
    #[arg(long)]
    no_publish: bool,
    /// Wait at most this long until the registered replicas have applied the change; prints `applied by N of M
    /// replicas`, and fails if some have not answered so.
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = args::seconds,
        conflicts_with = "no_publish"
    )]
    wait: Option<Duration>,
    /// Priority of the update; a lower number is more urgent.
    #[arg(long, value_name = "N", default_value_t = DbUpdate::DEFAULT_PRIORITY)]
    priority: i32,
}

#[derive(Debug, clap::Args)]
struct Value {
    /// The row, usually a JSON document; - reads it from stdin, unchanged.
    #[arg(long, allow_hyphen_values = true)]
    value: String,
}

/// The update must not be cut off when the command ends.
pub(crate) const DEFAULTS: &[(&str, &str)] = publish::DEFAULTS;

/// Runs the command.
pub(crate) fn run(config: &Config, args: &Args) -> Result<()> {
    if config.nb_db_class == "memory" {
        log::warn!("the store memory ends with this command: choose sqlite or redis");
    }
    match &args.command {
        Command::Create { change, value } => {
            let value = value.read(config)?;
            change.make(config, Write::create(&change.row.table, &change.row.key, &value))
        }
        Command::Set {
            change,
            value,
            if_version,
        } => {
            let value = value.read(config)?;
            let mut write = Write::set(&change.row.table, &change.row.key, &value).unless_equal();
            write.if_version = *if_version;
            change.make(config, write)
        }
        Command::Delete { change, if_version } => {
            let mut write = Write::delete(&change.row.table, &change.row.key);
            write.if_version = *if_version;
            change.make(config, write)
        }
        Command::Write { file, metrics } => lines::write(config, file, metrics, longest_write(config)),
        Command::Get(row) => read::get(config, row),
        Command::List {
            table,
            topic,
            keys,
            format,
        } => read::list(config, table, topic.as_deref(), *keys, *format),
        Command::Tables { format } => read::tables(config, *format),
        Command::Table(TableCommand::Create(table)) => {
            let table = table.name();
            let is_new = in_table(config, table, |store| store.create_table(table))?;
            expect(is_new, ErrorKind::AlreadyExists, table)?;
            output::result("created")
        }
        Command::Table(TableCommand::Delete(table)) => {
            let table = table.name();
            let was_there = in_table(config, table, |store| store.delete_table(table))?;
            expect(was_there, ErrorKind::NotFound, table)?;
            output::result("deleted")
        }
        Command::Unique(table) => {
            let table = table.name();
            let number = in_table(config, table, |store| store.allocate_unique_key(table))?;
            output::result(&number.to_string())
        }
    }
}

impl Value {
    fn read(&self, config: &Config) -> Result<String> {
        if self.value != "-" {
            return Ok(self.value.clone());
        }
        let fail = |kind| Error::new(kind, "cannot read the value from stdin");
        // A larger value could not be published.
        let limit = config.max_message_bytes;
        let mut value = Vec::new();
        let read = Stdin.take(limit as u64 + 1).read_to_end(&mut value);
        read.map_err(|e| fail(ErrorKind::Io).with_source(e))?;
        if value.len() > limit {
            return Err(fail(ErrorKind::TooLarge).with_source(format!("max_message_bytes is {limit}")));
        }
        String::from_utf8(value).map_err(|e| fail(ErrorKind::Io).with_source(e))
    }
}

impl ChangeArgs {
    /// Makes a write of this row, and prints its result.
    fn make(&self, config: &Config, write: Write<'_>) -> Result<()> {
        let topic = self.row.topic()?;
        // This one can borrow the topic.
        let mut write = write;
        write.topic = topic.as_ref();
        // A signal must not interrupt between storing and publishing, or before an unpublished change is undone.
        let signal = signal::channel(longest_write(config))?;
        let named = |e| named_row(write.table, write.key, e);
        if self.no_publish {
            let written = open_store(config).and_then(|store| store.write(&write));
            return say(&write, &written.map_err(named)?);
        }
        let node = Outgoing::open(config)?;
        let database = node.database().map_err(named)?;
        if publish::has_no_subscribers(database.publisher()) {
            log::warn!(
                "no subscribers are connected yet, so this may reach none; the publisher service keeps them connected"
            );
        }
        let written = database.write(&write, self.priority).map_err(named)?;
        let said = say(&write, &written);
        // Whether the replicas have applied it does not depend on a reader of the result.
        let applied = match self.wait {
            Some(wait) => wait_for(&database, write.table, written, wait, &signal).and(said),
            None => said,
        };
        drop(database);
        node.end().map_err(named).and(applied)
    }
}

/// Waits for the replicas, and prints how many have applied the write.
fn wait_for(
    database: &Arc<Database>,
    table: &str,
    written: Written,
    wait: Duration,
    signal: &Receiver<()>,
) -> Result<()> {
    let (database, table) = (Arc::clone(database), table.to_owned());
    let (sender, answered) = bounded(1);
    let (running, go_on) = bounded::<()>(0);
    let ask = move || {
        let is_running = || go_on.try_recv() == Err(TryRecvError::Empty);
        let barrier = database.barrier_while(&table, &written.topic, written.version, wait, is_running);
        // The publisher's end is waited for elsewhere.
        drop(database);
        let _ = sender.send(barrier);
    };
    work::start("barrier", ask)?;
    let barrier = select! {
        recv(answered) -> barrier => barrier.map_err(|_| work::interrupted())??,
        recv(signal) -> _ => {
            drop(running);
            // Unless the store is silent.
            let _ = answered.recv_timeout(signal::GRACE);
            return Err(work::interrupted_before("all replicas had answered"));
        }
    };
    let said = output::result(&format!(
        "applied by {} of {} replicas",
        barrier.applied,
        barrier.replicas()
    ));
    if barrier.missing.is_empty() {
        return said;
    }
    let missing: Vec<_> = barrier.missing.iter().map(|id| id.as_str()).collect();
    let context = format!("no answer within {wait:?} from {}", missing.join(", "));
    Err(Error::new(ErrorKind::Timeout, context))
}

/// The longest time from storing a change to the undo of it.
fn longest_write(config: &Config) -> Duration {
    2 * config.store_timeout_ms + config.send_timeout_ms
}

fn in_table<T>(config: &Config, table: &str, act: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
    let result = open_store(config).and_then(|store| act(&*store));
    result.map_err(|e| about(&table_name(table), e))
}

/// Turns a store's `false` into a failure.
fn expect(done: bool, otherwise: ErrorKind, table: &str) -> Result<()> {
    if done {
        return Ok(());
    }
    Err(Error::new(otherwise, table_name(table)))
}
