//! The updates given to a command: one by flags, or one per line of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use rustix::event::PollFlags;
use rustix::io::Errno;
use tablecast::{DbUpdate, Error, ErrorKind, Result};

use crate::{args, output, row, work};

/// An update, or a file of them.
#[derive(Debug, clap::Args)]
pub(crate) struct InputArgs {
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
    /// Topic of the update [default: D].
    #[arg(long)]
    topic: Option<String>,
    /// Priority of the update; a lower number is more urgent [default: 5].
    #[arg(long, value_name = "N")]
    priority: Option<i32>,
    /// Read updates from this file, - for stdin.
    #[arg(long, conflicts_with_all = ["table", "key", "action", "value", "topic", "priority"], value_parser = args::path())]
    file: Option<PathBuf>,
}

/// The mark that some editors put at the beginning of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A character of a text may take this many in JSON.
const ESCAPED: usize = 6;

/// Stdin, without a buffer. If it has nothing for now, as a pipe that does not block, it is waited for.
pub(crate) struct Stdin;

impl Read for Stdin {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            match rustix::io::read(&stdin, &mut *into) {
                Err(Errno::AGAIN) => output::wait(stdin.as_fd(), PollFlags::IN)?,
                Err(Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

/// The source of the updates.
pub(crate) enum Input {
    One(DbUpdate),
    Lines(Lines),
}

/// A file of updates.
pub(crate) struct Lines {
    name: String,
    file: BufReader<Box<dyn Read + Send>>,
    /// A line has fewer bytes.
    limit: usize,
    parse: Parse,
}

/// The form of a line.
type Parse = fn(&str) -> std::result::Result<DbUpdate, row::Fault>;

impl Input {
    /// Reads one update from the flags, or opens the file. A message has at most `max_message_bytes`.
    pub(crate) fn open(args: &InputArgs, max_message_bytes: usize) -> Result<Input> {
        let Some(file) = &args.file else {
            let (table, key) = (args.table.as_deref(), args.key.as_deref());
            let (action, topic) = (args.action.as_deref(), args.topic.as_deref());
            let mut update = row::update(table.unwrap_or_default(), key.unwrap_or_default(), action, topic)?;
            update.value.clone_from(&args.value);
            update.priority = args.priority.unwrap_or(update.priority);
            return row::checked(update).map(Input::One);
        };
        Lines::open(file, max_message_bytes, row::parse).map(Input::Lines)
    }

    /// Passes updates to `take` one by one, until it fails or a signal comes; shows the progress on a terminal.
    pub(crate) fn each(self, signal: &Receiver<()>, mut take: impl FnMut(DbUpdate) -> Result<()>) -> Result<()> {
        match self {
            Input::One(update) => take(update),
            Input::Lines(lines) => lines.each(signal, take),
        }
    }
}

impl Lines {
    /// Opens a file, or stdin if it is `-`. A message has at most `max_message_bytes`.
    pub(crate) fn open(file: &Path, max_message_bytes: usize, parse: Parse) -> Result<Lines> {
        let limit = max_message_bytes.saturating_mul(ESCAPED).saturating_add(1 << 10);
        let (name, opened): (_, Box<dyn Read + Send>) = if file.as_os_str() == "-" {
            ("stdin".to_owned(), Box::new(Stdin))
        } else {
            let name = file.display().to_string();
            let opened = File::open(file);
            let opened = opened.map_err(|e| Error::new(ErrorKind::Io, format!("cannot open {name}")).with_source(e))?;
            (name, Box::new(opened))
        };
        let file = BufReader::with_capacity(1 << 16, opened);
        Ok(Lines {
            name,
            file,
            limit,
            parse,
        })
    }

    /// As [`Input::each`].
    pub(crate) fn each(self, signal: &Receiver<()>, mut take: impl FnMut(DbUpdate) -> Result<()>) -> Result<()> {
        let Lines {
            name,
            file,
            limit,
            parse,
        } = self;
        let (sender, parts) = bounded(1);
        // Joined only at the end: it may wait for stdin when a signal comes.
        let reader = work::start("lines", move || read(file, limit, &sender))?;
        // Hidden where stderr is no terminal.
        let progress = ProgressBar::new_spinner()
            .with_style(style())
            .with_finish(ProgressFinish::AndClear);
        let interrupted = || work::interrupted_before("the last line");
        let mut number = 0_u64;
        loop {
            let part = select! {
                recv(parts) -> part => part,
                recv(signal) -> _ => return Err(interrupted()),
            };
            // The end of the file.
            let Ok(part) = part else { break };
            let place = |number| format!("line {number} of {name}");
            let part = part.map_err(|e| {
                let context = format!("cannot read {}", place(number + 1));
                Error::new(ErrorKind::Io, context).with_source(e)
            })?;
            for line in part.split_inclusive(|byte| *byte == b'\n') {
                if signal.try_recv().is_ok() {
                    return Err(interrupted());
                }
                number += 1;
                let bad = |e: row::Fault| Error::new(ErrorKind::Malformed, place(number)).with_source(e);
                let line = text(line, number == 1, limit).map_err(bad)?;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let update = parse(line).map_err(bad)?;
                take(update).map_err(|e| match e.kind() {
                    ErrorKind::InvalidInput | ErrorKind::TooLarge => bad(e.into()),
                    _ => e,
                })?;
                progress.inc(1);
            }
        }
        let ended = |_| Error::new(ErrorKind::Panicked, "the reading thread ended unexpectedly");
        reader.join().map_err(ended)
    }
}

/// Passes on whole lines, as many at once as are there without waiting, until the file ends or fails.
fn read(mut file: BufReader<impl Read>, limit: usize, parts: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut part = Vec::new();
        let read = file.by_ref().take(limit as u64).read_until(b'\n', &mut part);
        if part.ends_with(b"\n") {
            let end = file.buffer().iter().rposition(|byte| *byte == b'\n');
            let end = end.map_or(0, |last| last + 1);
            part.extend_from_slice(&file.buffer()[..end]);
            file.consume(end);
        }
        let read = match read {
            Ok(0) => return,
            read => read.map(|_| part),
        };
        let is_failed = read.is_err();
        if parts.send(read).is_err() || is_failed {
            return;
        }
    }
}

/// The text of a line without its end.
fn text(line: &[u8], is_first: bool, limit: usize) -> std::result::Result<&str, row::Fault> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() >= limit {
        return Err(format!("longer than {limit} bytes, and so than any message of max_message_bytes").into());
    }
    let line = str::from_utf8(line).map_err(|_| "not UTF-8")?;
    Ok(line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line))
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {human_pos} lines, {per_sec}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}
