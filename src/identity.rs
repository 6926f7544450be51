//! The identity of what runs: an id, the number of the run, and the name of its host.

use std::fs;
use std::hash::{BuildHasher, RandomState};

use crate::update::{Name, now_micros};

/// An id that differs from those of other processes on this host, and of the same process in another container.
pub(crate) fn unique_id() -> Name {
    let host = host_name();
    let random = RandomState::new().hash_one(now_micros());
    format!("{host}-{}-{random:08x}", std::process::id(), random = random as u32).into()
}

/// The host's name.
pub(crate) fn host_name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => "host".to_owned(),
        host => host.to_owned(),
    }
}

/// The number of a new run; later runs have higher ones.
pub(crate) fn new_epoch() -> u64 {
    u64::try_from(now_micros()).unwrap_or(0)
}
