//! Calls of libzmq, and their errors.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Returns libzmq's version and the features of this build of it, for example `4.3.4 (ipc curve)`.
#[doc(hidden)]
pub fn libzmq() -> String {
    let (major, minor, patch) = zmq::version();
    let abilities = ["ipc", "pgm", "tipc", "norm", "curve", "gssapi", "draft"];
    let has: Vec<_> = abilities
        .into_iter()
        .filter(|ability| zmq::has(ability) == Some(true))
        .collect();
    format!("{major}.{minor}.{patch} ({})", has.join(" "))
}

pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Converts an error of libzmq.
pub(super) fn zmq_error(e: zmq::Error, context: String) -> Error {
    let kind = match e {
        zmq::Error::EADDRINUSE => ErrorKind::AddressInUse,
        zmq::Error::EINVAL | zmq::Error::ENODEV | zmq::Error::ENAMETOOLONG => ErrorKind::InvalidInput,
        zmq::Error::EPROTONOSUPPORT | zmq::Error::ENOTSUP | zmq::Error::ENOCOMPATPROTO => ErrorKind::Unsupported,
        zmq::Error::EACCES => ErrorKind::Denied,
        zmq::Error::ENOENT => ErrorKind::Io,
        zmq::Error::EMSGSIZE => ErrorKind::TooLarge,
        _ => ErrorKind::Transport,
    };
    Error::new(kind, context).with_source(e)
}

/// Repeats a call of libzmq until no signal interrupts it before it begins.
pub(super) fn patiently<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            done => return done,
        }
    }
}

/// Waits until one of `items` is ready, or `until` has passed (`None`: never). `now` is the time of the call. A signal
/// does not end the wait. Returns true if an item is ready.
pub(super) fn poll(items: &mut [zmq::PollItem<'_>], until: Option<Instant>, mut now: Instant) -> zmq::Result<bool> {
    loop {
        let left = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(now);
            // Rounded up, since a wait of less than a millisecond must not become a busy loop.
            i64::from(millis(left.saturating_add(Duration::from_micros(999))))
        });
        match zmq::poll(items, left) {
            Err(zmq::Error::EINTR) => now = Instant::now(),
            done => return done.map(|ready| ready > 0),
        }
    }
}
