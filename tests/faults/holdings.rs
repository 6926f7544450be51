//! The resources of a process: threads, open files, memory.

use std::fs;
use std::time::{Duration, Instant};

use super::common::pass;

use super::history::Held;

/// The resources of this process.
pub(crate) fn now() -> Held {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count() as u64;
    Held {
        threads: count("/proc/self/task"),
        files: count("/proc/self/fd"),
        kib: memory("self"),
    }
}

/// Waits a short while until this process holds no more than before, since libzmq closes sockets after their drop.
pub(crate) fn come_back(before: Held) -> Held {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let held = now();
        let is_back = held.threads <= before.threads && held.files <= before.files;
        if is_back || Instant::now() >= deadline {
            return held;
        }
        pass(Duration::from_millis(5));
    }
}

/// The memory that a process has in use, in KiB.
pub(crate) fn memory(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}
