//! A child process that does not outlive its handle.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use tablecast::{Error, ErrorKind, Result};

use super::{Choice, wire};

/// The role of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Service,
    Redis,
    Writer(usize),
    Subscriber(usize),
    Listener(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Redis => f.write_str("the Redis server"),
            Who::Service => f.write_str("the publisher service"),
            Who::Writer(number) => write!(f, "writer {}", number + 1),
            Who::Subscriber(number) => write!(f, "subscriber {}", number + 1),
            Who::Listener(number) => write!(f, "listener {}", number + 1),
        }
    }
}

/// A line of a child's stdout; `None` when it ended.
pub(super) type Heard = (Who, Option<String>);

/// Time limit for a child to end the process that it has started.
const GRACE: Duration = Duration::from_secs(1);

/// A child process; dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Process {
    who: Who,
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    /// Carries nothing; disconnected when the child closes its stdout, as it does on exit.
    ended: Receiver<()>,
    waited: bool,
}

impl Process {
    /// Starts this program with other arguments and with these options as its whole configuration.
    pub(super) fn start(who: Who, arguments: &[String], options: &[Choice], heard: Sender<Heard>) -> Result<Process> {
        let program = env::current_exe().map_err(|e| failed(who, "cannot find this program", e))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its own process group: Ctrl-C reaches only the command, which then ends its children.
        command.process_group(0);
        let inherited = env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("TABLECAST_")) {
            command.env_remove(name);
        }
        command.envs(
            options
                .iter()
                .map(|(name, value)| (format!("TABLECAST_{}", name.to_ascii_uppercase()), value)),
        );
        let mut child = command.spawn().map_err(|e| failed(who, "cannot start", e))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (alive, ended) = crossbeam_channel::bounded(0);
        let mut process = Process {
            who,
            child,
            stdin,
            reader: None,
            ended,
            waited: false,
        };
        let read = move || {
            let _alive = alive;
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            // The receiver is gone only while the command ends.
            lines
                .map_while(io::Result::ok)
                .for_each(|line| drop(heard.send((who, Some(line)))));
            let _ = heard.send((who, None));
        };
        let reader = Builder::new().name("child".into()).spawn(read);
        process.reader = Some(reader.map_err(|e| failed(who, "cannot start a thread", e))?);
        Ok(process)
    }

    /// Sends an order.
    pub(crate) fn order(&mut self, order: &impl Serialize) -> Result<()> {
        let sent = match &mut self.stdin {
            Some(stdin) => wire::write(stdin, order),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|e| failed(self.who, "cannot send it a command", e))
    }

    /// Ends the child, by the end of its stdin.
    pub(crate) fn dismiss(&mut self) {
        self.stdin = None;
    }

    /// Waits for a dismissed child.
    pub(crate) fn wait(mut self, timeout: Duration) -> Result<()> {
        if self.ended.recv_deadline(Instant::now() + timeout) != Err(RecvTimeoutError::Disconnected) {
            let context = format!("{} did not end within {timeout:?} and was killed", self.who);
            return Err(Error::new(ErrorKind::Timeout, context));
        }
        let status = self.child.wait().map_err(|e| failed(self.who, "cannot wait", e))?;
        self.waited = true;
        match status.success() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Io, format!("{} ended with {status}", self.who))),
        }
    }
}

impl Process {
    /// Kills the child's process group, since a killed child cannot end its own processes.
    fn kill_group(&self) {
        // Its process id is not reused before it is waited for.
        if let (false, Ok(pid)) = (self.waited, i32::try_from(self.child.id())) {
            // Fails only if all of them have ended.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        if self.who == Who::Redis {
            // The child ends the server that it has started.
            let _ = self.ended.recv_timeout(GRACE);
            self.kill_group();
        }
        // Both fail only for a child that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn failed(who: Who, what: &str, e: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{who}: {what}")).with_source(e)
}
