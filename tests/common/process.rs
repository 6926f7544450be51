//! Child processes with deadlines, killed when the test ends.

// Each test crate uses a part of it.
#![allow(dead_code)]

#[path = "program.rs"]
mod program;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

use program::program;

/// The longest wait of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A running child.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// The lines read from stderr so far, for messages.
    said: Vec<String>,
    /// The number of them up to the one that was waited for last.
    awaited: usize,
}

/// How a child ended, and its unread output.
#[derive(Debug)]
pub(crate) struct End {
    /// The exit code; `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<String>,
    /// All of stderr.
    pub(crate) stderr: String,
}

/// `tablecast publish` with these arguments, to which a busy machine is no outage.
pub(crate) fn publish(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = tablecast(["publish"]);
    command.args(args);
    command.envs([("TABLECAST_SEND_TIMEOUT_MS", "20000"), ("TABLECAST_LINGER_MS", "20000")]);
    command
}

/// The tool, without options from the environment of the tests.
pub(crate) fn tablecast<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_tablecast"));
    for (name, _) in std::env::vars_os() {
        if name == "RUST_LOG" || name.to_string_lossy().starts_with("TABLECAST_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// A script for Python.
pub(crate) fn python(script: &str, arg: &str) -> Command {
    let python = std::env::var_os("TABLECAST_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.args(["-u", "-c", script, arg]);
    command
}

impl Process {
    pub(crate) fn start(command: Command) -> Process {
        Process::start_reading(command, Stdio::piped())
    }

    /// As [`Process::start`], with another stdin.
    pub(crate) fn start_reading(mut command: Command, stdin: Stdio) -> Process {
        command.stdin(stdin);
        Process::spawn(command, Stdio::piped())
    }

    /// As [`Process::start`], with another stdout.
    pub(crate) fn start_writing(mut command: Command, stdout: impl Into<Stdio>) -> Process {
        command.stdin(Stdio::null());
        Process::spawn(command, stdout.into())
    }

    /// The command is dropped, which would keep its ends of the pipes open.
    fn spawn(mut command: Command, stdout: Stdio) -> Process {
        let piped = command.stdout(stdout).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Process {
            child,
            stdin,
            stdout: stdout.map_or_else(|| unbounded().1, lines),
            stderr: lines(stderr.unwrap()),
            said: Vec::new(),
            awaited: 0,
        }
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        match self.stdout.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(e) => panic!("no line on stdout: {e}; stderr: {:#?}", self.stderr()),
        }
    }

    /// The next line of stdout, if it comes by then.
    pub(crate) fn line_by(&mut self, deadline: Instant) -> Option<String> {
        self.stdout.recv_deadline(deadline).ok()
    }

    /// Waits for a line on stderr that contains this text: the one that was waited for last, or a later one.
    pub(crate) fn await_stderr(&mut self, text: &str) {
        self.await_from(self.awaited.saturating_sub(1), text);
    }

    /// As [`Process::await_stderr`], for a line that comes later than those waited for so far.
    pub(crate) fn await_next_stderr(&mut self, text: &str) {
        self.await_from(self.awaited, text);
    }

    fn await_from(&mut self, mut at: usize, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.said.get(at) {
                Some(line) if line.contains(text) => break,
                Some(_) => at += 1,
                None => match self.stderr.recv_deadline(deadline) {
                    Ok(line) => self.said.push(line),
                    Err(e) => panic!("no {text:?} on stderr: {e}; but {:#?}", self.said),
                },
            }
        }
        self.awaited = at + 1;
    }

    /// Its stderr up to now.
    pub(crate) fn stderr(&mut self) -> String {
        self.said.extend(self.stderr.try_iter());
        self.said.join("\n")
    }

    /// Writes to its stdin.
    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Closes its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Reads at most one more line of its stdout, then closes the pipe.
    pub(crate) fn ignore_stdout(&mut self) {
        self.stdout = unbounded().1;
    }

    /// Sends a signal, for example `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        crate::common::signal(self.child.id(), signal);
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// False once it has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn end(&mut self) -> End {
        self.stdin = None;
        let deadline = Instant::now() + LIMIT;
        let said = drain(&self.stderr, deadline);
        self.said.extend(said);
        let stdout = drain(&self.stdout, deadline);
        // It may have closed its output before its end.
        while self.is_running() {
            assert!(Instant::now() < deadline, "still running; it wrote {:#?}", self.said);
            crate::common::pass(Duration::from_millis(1));
        }
        let code = self.child.wait().unwrap().code();
        End {
            code,
            stdout,
            stderr: self.said.join("\n"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of the tool with a limit of open files, for example `-n 400`.
pub(crate) fn with_files(limit: &str, tool: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    command.arg(tool.get_program()).args(tool.get_args());
    command
}

/// A command of the tool whose stdout takes nothing, as a full disk.
pub(crate) fn with_full_stdout(tool: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >/dev/full"]);
    command.arg(tool.get_program()).args(tool.get_args());
    command
}

/// Runs it to its end.
pub(crate) fn run(command: Command) -> End {
    Process::start(command).end()
}

/// Runs it to its end, without a reader of its stdout.
pub(crate) fn run_unread(command: Command) -> End {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Process::start_writing(command, writer).end()
}

/// Asserts an exit code, nothing on stdout, and one line on stderr that contains all of `named`.
pub(crate) fn assert_fails(end: &End, code: i32, named: &[&str]) {
    assert_eq!(end.code, Some(code), "{end:?}");
    assert!(end.stdout.is_empty(), "{end:?}");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    assert!(end.stderr.starts_with("tablecast: error: "), "{end:?}");
    for name in named {
        assert!(end.stderr.contains(name), "{name}: {end:?}");
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = unbounded();
    let read = move || {
        for line in BufReader::new(pipe).lines() {
            if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                return;
            }
        }
    };
    std::thread::Builder::new().spawn(read).unwrap();
    lines
}

/// The lines until the pipe is closed, as it is when the child ends.
fn drain(lines: &Receiver<String>, deadline: Instant) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match lines.recv_deadline(deadline) {
            Ok(line) => all.push(line),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => panic!("still running; it wrote {all:#?}"),
        }
    }
}
