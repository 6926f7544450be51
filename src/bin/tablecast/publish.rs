//! `tablecast publish`: one update, or one for each line of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tablecast::registry::Registration;
use tablecast::{Config, DbUpdate, Drivers, Error, ErrorKind, Publisher, Result, Stores};

use crate::{output, row, signal};

/// Publish an update, or one for each line of a file; prints `published N`.
///
/// A line of a file is a JSON object with the fields table, key, action (default: set), value (text, null, or any JSON,
/// which is taken as its text), topic, priority and timestamp (microseconds since 1970, UTC). Blank lines are
/// skipped; a bad one ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The table.
    #[arg(long, required_unless_present = "file", requires = "key")]
    table: Option<String>,
    /// The row's key.
    #[arg(
        long,
        required_unless_present = "file",
        requires = "table",
        allow_hyphen_values = true
    )]
    key: Option<String>,
    /// create, set, delete, or any other word [default: set].
    #[arg(long)]
    action: Option<String>,
    /// The row, usually a JSON document.
    #[arg(long, allow_hyphen_values = true)]
    value: Option<String>,
    /// Who it is for [default: D, everyone].
    #[arg(long)]
    topic: Option<String>,
    /// Lower is more urgent [default: 5].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Read updates from this file, - for stdin.
    #[arg(long, conflicts_with_all = ["table", "key", "action", "value", "topic", "priority"])]
    file: Option<PathBuf>,
    /// Bind the port instead of sending through the publisher service of this host.
    #[arg(long)]
    no_multiproc: bool,
    /// Wait for so many subscribers first; only with --no-multiproc.
    #[arg(long, value_name = "N")]
    wait_subscribers: Option<usize>,
    /// How many seconds to wait for them.
    #[arg(long, value_name = "S", default_value = "30", value_parser = crate::cli::seconds)]
    wait_timeout: Duration,
}

/// A large file must not be cut off at its end.
pub(crate) const DEFAULTS: &[(&str, &str)] = &[("linger_ms", "10000")];

/// How long a signal waits for the update that is being published.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a signal may go unnoticed while subscribers are waited for.
const SLICE: Duration = Duration::from_millis(100);

/// What the main thread and the one that publishes share.
#[derive(Default)]
struct Shared {
    published: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Publishes; a signal ends it.
pub(crate) fn run(mut config: Config, args: &Args) -> Result<()> {
    let signal = signal::channel(2 * PATIENCE)?;
    config.pub_sub_use_multiproc &= !args.no_multiproc;
    if args.wait_subscribers.is_some() && config.pub_sub_use_multiproc {
        let context = "--wait-subscribers needs --no-multiproc: only who binds the port sees subscribers";
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    let input = Input::open(args)?;
    let publisher = Publisher::open(&config, &Drivers::new())?;
    if let Some(address) = publisher.address() {
        match config.publisher_port {
            0 => output::say(&format!("publishing at {address}")),
            _ => log::info!("publishing at {address}"),
        }
    }
    let _registration = Registration::of_publisher(&config, &Stores::new(), publisher.address(), None)?;
    let wait = args.wait_subscribers.map(|count| (count, args.wait_timeout));

    let shared = Arc::new(Shared::default());
    let (done, end) = bounded(1);
    let work = Arc::clone(&shared);
    // Left alone if a signal comes while it reads from stdin.
    let body = move || {
        let result = wait_subscribers(&publisher, wait, &work).and_then(|()| input.publish(&publisher, &work));
        // Waits until all is on its way.
        drop(publisher);
        let _ = done.send(result);
    };
    let thread = thread::Builder::new().name("publish".into()).spawn(body);
    thread.map_err(|e| Error::new(ErrorKind::Io, "cannot start a thread").with_source(e))?;

    let interrupted = || Err(Error::new(ErrorKind::Stopped, "a signal came"));
    let result = select! {
        recv(end) -> result => result.unwrap_or_else(|_| interrupted()),
        recv(signal) -> _ => {
            shared.stop.store(true, Ordering::Relaxed);
            let _ = end.recv_timeout(PATIENCE);
            interrupted()
        }
    };
    let written = output::result(&format!("published {}", shared.published.load(Ordering::Relaxed)));
    result.and(written)
}

/// Waits for as many subscribers as were asked for.
fn wait_subscribers(publisher: &Publisher, wait: Option<(usize, Duration)>, shared: &Shared) -> Result<()> {
    let Some((count, timeout)) = wait else {
        if has_no_subscribers(publisher) {
            log::warn!("there are no subscribers yet, so nobody may hear this; --wait-subscribers waits for them");
        }
        return Ok(());
    };
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match publisher.wait_subscribers(count, left.min(SLICE)) {
            Err(e) if e.kind() == ErrorKind::Timeout && left > SLICE && !shared.is_stopped() => {}
            Err(e) if e.kind() == ErrorKind::Timeout => {
                let context = format!("fewer than {count} subscribers came within {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, context));
            }
            done => return done,
        }
    }
}

/// Whether the driver knows that nobody hears it.
pub(crate) fn has_no_subscribers(publisher: &Publisher) -> bool {
    let nobody = publisher.wait_subscribers(1, Duration::ZERO);
    nobody.is_err_and(|e| e.kind() == ErrorKind::Timeout)
}

/// Where the updates come from.
enum Input {
    One(DbUpdate),
    Lines {
        name: String,
        lines: Box<dyn BufRead + Send>,
    },
}

impl Input {
    fn open(args: &Args) -> Result<Input> {
        let Some(file) = &args.file else {
            let (table, key) = (args.table.as_deref(), args.key.as_deref());
            let (action, topic) = (args.action.as_deref(), args.topic.as_deref());
            let mut update = row::update(table.unwrap_or_default(), key.unwrap_or_default(), action, topic)?;
            update.value.clone_from(&args.value);
            update.priority = args.priority.unwrap_or(update.priority);
            return Ok(Input::One(update));
        };
        if file.as_os_str() == "-" {
            let lines = Box::new(BufReader::new(io::stdin()));
            return Ok(Input::Lines {
                name: "stdin".into(),
                lines,
            });
        }
        let name = file.display().to_string();
        let opened = File::open(file);
        let opened = opened.map_err(|e| Error::new(ErrorKind::Io, format!("cannot open {name}")).with_source(e))?;
        let lines = Box::new(BufReader::with_capacity(1 << 16, opened));
        Ok(Input::Lines { name, lines })
    }

    fn publish(self, publisher: &Publisher, shared: &Shared) -> Result<()> {
        let count = || {
            shared.published.fetch_add(1, Ordering::Relaxed);
        };
        let (name, lines) = match self {
            Input::One(update) => return publisher.send_event(&update).map(|()| count()),
            Input::Lines { name, lines } => (name, lines),
        };
        // Hidden where stderr is no terminal.
        let progress = ProgressBar::new_spinner()
            .with_style(style())
            .with_finish(ProgressFinish::AndClear);
        for (number, line) in (1..).zip(lines.lines()) {
            if shared.is_stopped() {
                break;
            }
            let bad =
                |e: row::Fault| Error::new(ErrorKind::Malformed, format!("line {number} of {name}")).with_source(e);
            let line = line.map_err(|e| match e.kind() {
                io::ErrorKind::InvalidData => bad("not UTF-8".into()),
                _ => Error::new(ErrorKind::Io, format!("cannot read line {number} of {name}")).with_source(e),
            })?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let update = row::parse(&line).map_err(bad)?;
            publisher.send_event(&update).map_err(|e| match e.kind() {
                ErrorKind::InvalidInput | ErrorKind::TooLarge => bad(e.into()),
                _ => e,
            })?;
            count();
            progress.inc(1);
        }
        Ok(())
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {human_pos} published, {per_sec}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}
