//! The base of commands that start processes, `demo` and `storm`: servers, children, and the messages to them.

mod process;
pub(crate) mod progress;
mod redis;
mod setup;
pub(crate) mod wire;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};
use tablecast::{Error, ErrorKind, Result};
use tempfile::TempDir;

use crate::work::interrupted;
use process::Heard;
pub(crate) use process::{Process, Who};
pub(crate) use redis::{RedisArgs, run as run_redis};
pub(crate) use setup::{Choice, Driver, Flags, Redis, Setup, Store, config_of};

/// Time limits for a child to begin, and to end.
pub(crate) const START: Duration = Duration::from_secs(20);
pub(crate) const END: Duration = Duration::from_secs(10);

/// Time that a command may take to end after a signal.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// Starts processes and receives their output; dropping it removes their folder.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: TempDir,
    heard: Receiver<Heard>,
    sender: Sender<Heard>,
    signals: Receiver<()>,
}

impl Stage {
    pub(crate) fn new(signals: &Receiver<()>) -> Result<Stage> {
        let (sender, heard) = crossbeam_channel::unbounded();
        Ok(Stage {
            folder: folder()?,
            heard,
            sender,
            signals: signals.clone(),
        })
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts this program with other arguments and with these options as its whole configuration.
    pub(crate) fn start(&self, who: Who, arguments: &[String], options: &[Choice]) -> Result<Process> {
        Process::start(who, arguments, options, self.sender.clone())
    }

    /// Starts a Redis server if the run needs its own; returns the options that lead to it.
    pub(crate) fn start_redis(&self, setup: &Setup, deadline: Instant) -> Result<(Option<Process>, Vec<Choice>)> {
        match &setup.redis {
            None => Ok((None, Vec::new())),
            Some(Redis::Running(options)) => Ok((None, options.clone())),
            Some(Redis::Own(program)) => {
                let arguments = RedisArgs::command_line(program, self.folder.path());
                let process = self.start(Who::Redis, &arguments, &[])?;
                let address = self.ready(Who::Redis, deadline)?;
                Ok((Some(process), vec![("remote_db_hosts", address)]))
            }
        }
    }

    /// The options that lead to the store, if there is one.
    pub(crate) fn store(&self, setup: &Setup) -> Vec<Choice> {
        match setup.store {
            None => Vec::new(),
            Some(Store::Redis) => vec![("nb_db_class", "redis".into())],
            Some(Store::Sqlite) => vec![("nb_db_class", "sqlite".into()), ("sqlite_path", self.path("rows.db"))],
        }
    }

    /// The next line of a child; `None` if there is none by `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] if a child ended, or the user wants to end.
    pub(crate) fn hear(&self, deadline: Instant) -> Result<Option<(Who, String)>> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        select! {
            recv(self.heard) -> heard => match heard {
                Ok((who, Some(line))) => Ok(Some((who, line))),
                Ok((who, None)) => Err(Error::new(ErrorKind::Stopped, format!("{who} ended too early"))),
                Err(_) => Err(Error::new(ErrorKind::Stopped, "every child ended too early")),
            },
            recv(self.signals) -> _ => Err(interrupted()),
            default(timeout) => Ok(None),
        }
    }

    /// Waits for the first line of `who`, `ready <address> ...`; returns the address.
    pub(crate) fn ready(&self, who: Who, deadline: Instant) -> Result<String> {
        let Some((of, line)) = self.hear(deadline)? else {
            return Err(late(&format!("{who} is not ready")));
        };
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("ready"), Some(address)) if of == who => Ok(address.to_owned()),
            _ => Err(Error::new(ErrorKind::Malformed, format!("{of} said {line:?}"))),
        }
    }

    /// Pauses, unless a signal comes.
    pub(crate) fn rest(&self, time: Duration) -> Result<()> {
        match self.signals.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(interrupted()),
        }
    }
}

/// Lets processes end by themselves.
///
/// # Errors
/// The first failure of a process, or [`ErrorKind::Timeout`] if one had to be killed.
pub(crate) fn end(mut processes: Vec<Process>) -> Result<()> {
    processes.iter_mut().for_each(Process::dismiss);
    processes.into_iter().try_for_each(|process| process.wait(END))
}

pub(crate) fn unexpected(who: Who, report: &impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::Malformed, format!("{who} said {report:?} at the wrong time"))
}

pub(crate) fn late(what: &str) -> Error {
    Error::new(ErrorKind::Timeout, what)
}

/// A private folder with a path short enough for a socket in it.
fn folder() -> Result<TempDir> {
    let usual = std::env::temp_dir();
    let short = usual.as_os_str().len() < 60;
    let place = if short { usual } else { "/tmp".into() };
    let made = tempfile::Builder::new().prefix("tablecast-").tempdir_in(&place);
    made.map_err(|e| {
        let context = format!("cannot make a folder in {}", place.display());
        Error::new(ErrorKind::Io, context).with_source(e)
    })
}
