//! The progress of a run: a bar on a terminal, otherwise a line on stderr at intervals.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// The interval of printed lines.
const OFTEN: Duration = Duration::from_secs(5);

pub(crate) struct Progress {
    bar: ProgressBar,
    done: &'static str,
    said: Instant,
}

impl Progress {
    /// Shows how many of `total` things are `done`.
    pub(crate) fn new(total: u64, done: &'static str) -> Progress {
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template(&format!("{{bar:40}} {{human_pos}} of {{human_len}} {done}"));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress {
            bar,
            done,
            said: Instant::now(),
        }
    }

    pub(crate) fn say(&self, what: &str) {
        match self.bar.is_hidden() {
            true => output::say(what),
            false => self.bar.println(what),
        }
    }

    pub(crate) fn at(&mut self, position: u64) {
        self.bar.set_position(position);
        if self.bar.is_hidden() && self.said.elapsed() > OFTEN {
            self.said = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            output::say(&format!("{position} of {total} {}", self.done));
        }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
