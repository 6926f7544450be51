//! A `tablecast watch` at the other end of the cable, whose output is held against the promises.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::network::{Cable, THERE};
use crate::process::{LIMIT, Process, tablecast};

/// The group of all tests: each has a network of its own.
pub(crate) const GROUP: &str = "239.192.1.1:8866";
/// The topic that is watched. Its updates have their numbers as keys, from 1, and the time of sending as values.
pub(crate) const TOPIC: &str = "tenant";
/// The table of the updates that say that there are no more.
pub(crate) const END: &str = "end";

pub(crate) struct Watch {
    process: Process,
    /// Number of updates that came.
    came: usize,
    /// The last number.
    last: u64,
    /// How long each update took, in microseconds, if it was read at once.
    pub(crate) took: Vec<u64>,
    missing: Vec<RangeInclusive<u64>>,
    /// Numbers that were reported missing.
    gaps: Vec<RangeInclusive<u64>>,
    /// Other sync events.
    syncs: Vec<String>,
    has_ended: bool,
}

impl Watch {
    /// Starts it with these options, and waits until it is live.
    pub(crate) fn live(cable: &Cable, options: &[&str]) -> Watch {
        let mut watch = Watch::start(cable, options);
        watch.await_stderr("ready");
        watch.expect("connected");
        watch
    }

    pub(crate) fn start(cable: &Cable, options: &[&str]) -> Watch {
        let address = format!("epgm://{THERE};{GROUP}");
        let mut command = tablecast(["watch", "--topic", TOPIC, "--publisher", &address]);
        command.args(options).env("RUST_LOG", "info");
        Watch {
            process: Process::start(cable.there(&command)),
            came: 0,
            last: 0,
            took: Vec::new(),
            missing: Vec::new(),
            gaps: Vec::new(),
            syncs: Vec::new(),
            has_ended: false,
        }
    }

    pub(crate) fn await_stderr(&mut self, text: &str) {
        self.process.await_next_stderr(text);
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Reads what has come, and waits for more until the deadline.
    pub(crate) fn read_by(&mut self, deadline: Instant) {
        while let Some(line) = self.process.line_by(deadline) {
            self.note(&line);
        }
    }

    /// Checks the topic, the order, and that no update comes twice.
    fn note(&mut self, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap();
        let number = |field: &str| line[field].as_u64().unwrap();
        let text = |field: &str| line[field].as_str().unwrap();
        if line["event"] == "update" {
            assert_eq!(text("topic"), TOPIC, "{line}");
            let key: u64 = text("key").parse().unwrap();
            assert!(key > self.last, "{key} after {}", self.last);
            if key > self.last + 1 {
                self.missing.push(self.last + 1..=key - 1);
            }
            self.took.push(micros().saturating_sub(text("value").parse().unwrap()));
            (self.last, self.came) = (key, self.came + 1);
            self.has_ended |= text("table") == END;
        } else if text("reason") == "gap" {
            assert_eq!(text("topic"), TOPIC, "{line}");
            self.gaps.push(number("from")..=number("to"));
        } else {
            self.syncs.push(text("reason").to_owned());
        }
    }

    /// True once the last update has come, and every missing one was reported. Events other than gaps, which a starved
    /// process may have, are for all updates.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.read_by(Instant::now());
        let is_told = |number| !self.syncs.is_empty() || self.gaps.iter().any(|gap| gap.contains(&number));
        self.has_ended && self.missing.iter().cloned().flatten().all(is_told)
    }

    /// Number of missing updates.
    pub(crate) fn missed(&self) -> usize {
        self.missing.iter().cloned().flatten().count()
    }

    /// What came, and what was missed.
    pub(crate) fn report(&self) -> String {
        let (missed, gaps) = (self.missed(), self.gaps.len());
        format!(
            "{} came, {missed} missed, {gaps} gaps reported, {:?}",
            self.came, self.syncs
        )
    }

    /// The reason of the next sync event other than a gap.
    pub(crate) fn next_sync(&mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        while self.syncs.is_empty() {
            let now = Instant::now();
            assert!(now < deadline, "no sync event: {}", self.process.stderr());
            self.read_by(now + Duration::from_millis(10));
        }
        self.syncs.remove(0)
    }

    /// Waits for a sync event other than a gap; the next one must be for this reason.
    pub(crate) fn expect(&mut self, reason: &str) {
        assert_eq!(self.next_sync(), reason);
    }
}

/// The time by the system's clock, which both ends have.
pub(crate) fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros().try_into().unwrap()
}
