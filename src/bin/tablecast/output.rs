//! Output to stdout and stderr, without a panic if the other end is closed.

use std::error::Error as _;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use env_logger::Target;
use log::{Level, LevelFilter};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tablecast::{Config, Error, ErrorKind, Result};

use crate::held_log;
use crate::terminal;

/// Behind the state of a connection or publisher that proves who it is.
pub(crate) const AUTHENTICATED: &str = ", authenticated";

/// Writes a line to stdout at once.
pub(crate) fn result(line: &str) -> Result<()> {
    stdout().write_all(format!("{line}\n").as_bytes()).map_err(failed)
}

/// Writes lines to stdout at once, if there are any.
pub(crate) fn lines(text: &str) -> Result<()> {
    match text.is_empty() {
        true => Ok(()),
        false => result(text),
    }
}

/// Stdout, for one at a time, without a buffer. If it takes no more for now, as a pipe that does not block, it is waited for.
pub(crate) fn stdout() -> impl Write {
    Patient(io::stdout().lock())
}

/// Writes the help, the version, or what is wrong with the command line, to where that belongs.
pub(crate) fn usage(usage: &clap::Error) -> Result<()> {
    let text = usage.render();
    let write = |is_terminal: bool, mut out: Box<dyn Write>| {
        let text = match terminal::is_coloured(is_terminal) {
            true => text.ansi().to_string(),
            false => text.to_string(),
        };
        out.write_all(text.as_bytes())
    };
    if usage.use_stderr() {
        // There is nowhere to report a failure.
        let _ = write(io::stderr().is_terminal(), Box::new(Patient(io::stderr().lock())));
        return Ok(());
    }
    write(io::stdout().is_terminal(), Box::new(stdout())).map_err(failed)
}

/// An output that is waited for.
struct Patient<T>(T);

impl<T: AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.0.as_fd(), bytes) {
                Err(Errno::AGAIN) => wait(self.0.as_fd(), PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for this event; may return early.
pub(crate) fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The error of a write to stdout.
pub(crate) fn failed(e: io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot write the result").with_source(ResultError(e))
}

/// Marks a failed write to stdout.
#[derive(Debug)]
struct ResultError(io::Error);

impl fmt::Display for ResultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ResultError {}

/// True for a write to stdout whose reader is gone.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<ResultError>());
    cause.is_some_and(|cause| cause.0.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes one line to stderr, at once: other processes may write there too.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", text.replace('\n', " ")).as_bytes());
}

/// Sends the log to stderr; `verbose` is how often `-v` was given. It can be held back if `may_hold`, and has no colours then.
pub(crate) fn init_log(verbose: u8, may_hold: bool) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut log = env_logger::Builder::new();
    log.filter_level(level).parse_default_env();
    if verbose == 0 {
        log.format(|out, record| {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                _ => "note",
            };
            writeln!(out, "tablecast: {level}: {}", record.args())
        });
    }
    if may_hold {
        log.target(Target::Pipe(Box::new(held_log::Log)));
    }
    log.init();
}

/// The store, as people look for it.
pub(crate) fn place(config: &Config) -> String {
    match &*config.nb_db_class {
        "sqlite" => format!("the file {}", config.sqlite_path.display()),
        "redis" => {
            let hosts = config.get("remote_db_hosts").unwrap_or_default();
            format!("Redis at {hosts}, where keys begin with \"tablecast{{\"")
        }
        other => format!("the store {other}"),
    }
}

/// The error of a server that does not answer, with the option that names it.
pub(crate) fn about_store(config: &Config, e: Error) -> Error {
    let is_outage = matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Unavailable);
    match is_outage && config.nb_db_class == "redis" && e.to_string().contains("Redis at ") {
        true => e.context("option remote_db_hosts"),
        false => e,
    }
}
