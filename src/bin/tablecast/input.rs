//! The updates given to a command: one by flags, or one per line of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use rustix::event::PollFlags;
use rustix::io::Errno;
use tablecast::{DbUpdate, Error, ErrorKind, Result};

use crate::{args, output, row};

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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    Lines {
        name: String,
        lines: Box<dyn BufRead + Send>,
        /// The length of the longest line.
        limit: usize,
    },
}

impl Input {
    /// Reads one update from the flags, or opens the file. A message has at most `max_message_bytes`.
    pub(crate) fn open(args: &InputArgs, max_message_bytes: usize) -> Result<Input> {
        let Some(file) = &args.file else {
            let (table, key) = (args.table.as_deref(), args.key.as_deref());
            let (action, topic) = (args.action.as_deref(), args.topic.as_deref());
            let mut update = row::update(table.unwrap_or_default(), key.unwrap_or_default(), action, topic)?;
            update.value.clone_from(&args.value);
            update.priority = args.priority.unwrap_or(update.priority);
            return Ok(Input::One(update));
        };
        Input::lines(file, max_message_bytes)
    }

    /// Opens a file, or stdin if it is `-`. A message has at most `max_message_bytes`.
    pub(crate) fn lines(file: &Path, max_message_bytes: usize) -> Result<Input> {
        let limit = max_message_bytes.saturating_mul(ESCAPED).saturating_add(1 << 10);
        if file.as_os_str() == "-" {
            let lines = Box::new(BufReader::new(Stdin));
            return Ok(Input::Lines {
                name: "stdin".into(),
                lines,
                limit,
            });
        }
        let name = file.display().to_string();
        let opened = File::open(file);
        let opened = opened.map_err(|e| Error::new(ErrorKind::Io, format!("cannot open {name}")).with_source(e))?;
        let lines = Box::new(BufReader::with_capacity(1 << 16, opened));
        Ok(Input::Lines { name, lines, limit })
    }

    /// Passes updates to `take` one by one, until it fails or `is_stopped`; shows the progress on a terminal.
    pub(crate) fn each(
        self,
        is_stopped: impl Fn() -> bool,
        mut take: impl FnMut(DbUpdate) -> Result<()>,
    ) -> Result<()> {
        let (name, mut lines, limit) = match self {
            Input::One(update) => return take(update),
            Input::Lines { name, lines, limit } => (name, lines, limit),
        };
        // Hidden where stderr is no terminal.
        let progress = ProgressBar::new_spinner()
            .with_style(style())
            .with_finish(ProgressFinish::AndClear);
        for number in 1_u64.. {
            if is_stopped() {
                break;
            }
            let bad =
                |e: row::Fault| Error::new(ErrorKind::Malformed, format!("line {number} of {name}")).with_source(e);
            let mut line = Vec::new();
            let read = (&mut lines).take(limit as u64).read_until(b'\n', &mut line);
            read.map_err(|e| Error::new(ErrorKind::Io, format!("cannot read line {number} of {name}")).with_source(e))?;
            if line.is_empty() {
                break;
            }
            if line.len() == limit && !line.ends_with(b"\n") {
                return Err(bad(format!(
                    "longer than {limit} bytes, and so than any message of max_message_bytes"
                )
                .into()));
            }
            let mut line = String::from_utf8(line).map_err(|_| bad("not UTF-8".into()))?;
            if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.remove(0);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            take(row::parse(&line).map_err(bad)?).map_err(|e| match e.kind() {
                ErrorKind::InvalidInput | ErrorKind::TooLarge => bad(e.into()),
                _ => e,
            })?;
            progress.inc(1);
        }
        Ok(())
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {human_pos} lines, {per_sec}");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}
