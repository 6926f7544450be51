//! The log of a command that draws on the terminal, held back meanwhile.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

static HELD: Mutex<Option<Lines>> = Mutex::new(None);

/// The number of lines that are kept, each once.
const KEPT: usize = 20;

/// The age up to which a line is news.
const NEWS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Lines {
    lines: VecDeque<String>,
    /// The time of the last one.
    at: Option<Instant>,
}

impl Lines {
    fn add(&mut self, line: String) {
        self.lines.retain(|other| *other != line);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.at = Some(Instant::now());
    }
}

/// Where log lines go: to stderr, unless they are held back.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *HELD.lock() {
            Some(held) => held.add(String::from_utf8_lossy(line).into_owned()),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds the log back until it is dropped; then the lines go to stderr.
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> Hold {
        *HELD.lock() = Some(Lines::default());
        Hold(())
    }

    /// The last line, while it is new.
    pub(crate) fn news(&self) -> Option<String> {
        let held = HELD.lock();
        let held = held
            .as_ref()
            .filter(|held| held.at.is_some_and(|at| at.elapsed() < NEWS))?;
        held.lines.back().map(|line| line.trim_end().to_owned())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = HELD.lock().take().unwrap_or_default();
        for line in held.lines {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}
