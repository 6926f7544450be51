//! Deadlines for tests.
#![allow(dead_code)] // Each test target uses what it needs.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded, never};

/// Runs `body` on a thread of its own and fails the test if it takes longer than `limit`.
pub(crate) fn within<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = bounded::<()>(0);
    let run = move || {
        let _done = done;
        body()
    };
    let thread = std::thread::Builder::new().name("test".into()).spawn(run).unwrap();
    if finished.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        panic!("took longer than {limit:?}");
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until `condition` holds and fails the test if it does not within `limit`.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not true within {limit:?}");
        let _ = never::<()>().recv_timeout(Duration::from_millis(1));
    }
}
