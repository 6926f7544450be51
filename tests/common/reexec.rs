//! This test program as another process.

// Each test crate uses a part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls `write` with 0, 1, .. until the input of this process is closed. The body of a process that writes.
pub(crate) fn until_input_ends(mut write: impl FnMut(u64)) {
    let ended = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&ended);
    let wait = move || {
        let _ = std::io::stdin().read(&mut [0]);
        set.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().spawn(wait).unwrap();
    for number in 0.. {
        write(number);
        if ended.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Runs the test of this name alone, with these variables.
    pub(crate) fn start(test: &str, variables: &[(&str, &str)]) -> Process {
        Process::start_with(Command::new(std::env::current_exe().unwrap()), test, variables)
    }

    /// As [`Process::start`], with a command that runs this program with the added arguments.
    pub(crate) fn start_with(mut command: Command, test: &str, variables: &[(&str, &str)]) -> Process {
        command
            .args(["--exact", test, "--nocapture"])
            .envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes this to its input.
    pub(crate) fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Waits for a line with this word, and returns what follows the word.
    pub(crate) fn said(&mut self, word: &str) -> String {
        let lines = self.until(word);
        let line = lines.lines().last().unwrap();
        line.split_once(word).unwrap().1.trim().to_owned()
    }

    /// Waits for a line with this word, and returns all lines up to it.
    pub(crate) fn until(&mut self, word: &str) -> String {
        let mut lines = String::new();
        loop {
            let start = lines.len();
            let length = self.output.read_line(&mut lines).unwrap();
            assert!(length > 0, "it ended without saying {word:?}");
            if lines[start..].contains(word) {
                return lines;
            }
        }
    }

    /// Sends SIGKILL. Returns the unread output.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.rest()
    }

    /// Ends it by closing its input. Returns the rest of its output; it must end well.
    pub(crate) fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        let rest = self.rest();
        assert!(self.child.wait().unwrap().success(), "it failed: {rest}");
        rest
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }

    /// Ends it by closing its input, and waits.
    pub(crate) fn end(mut self) -> bool {
        let _ = self.child.stdin.take().map(|mut input| input.flush());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
