//! A failure that repeats.

use std::time::Duration;

use super::pause;
use crate::error::{Error, ErrorHook, report};

/// A failure that repeats: reported once, and tried again with pauses, so that it keeps no processor busy.
#[derive(Debug, Default)]
pub(crate) struct Failures(u64);

/// The pause after a failure that repeats.
const RETRY: Duration = Duration::from_millis(100);

impl Failures {
    /// Reports the first of failures in a row, and pauses after each later one.
    pub(crate) fn add(&mut self, error: &Error, hook: Option<&ErrorHook>) {
        self.0 += 1;
        if self.0 == 1 {
            report!(error, hook);
        } else {
            pause(RETRY);
        }
    }

    /// It succeeded.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.0 > 0 {
            let count = std::mem::take(&mut self.0);
            log::info!("works again after {count} failures");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::error::ErrorKind;

    /// Others of the thread's work would wait for the report of something that has passed.
    #[test]
    fn failures_pause_once_they_repeat() {
        let error = Error::new(ErrorKind::Io, "it does not work");
        let first = || {
            let (mut failures, start) = (Failures::default(), Instant::now());
            failures.add(&error, None);
            (failures, start.elapsed())
        };
        // The machine may take as long.
        let mut failures = (0..20).map(|_| first()).find(|(_, took)| *took < RETRY).unwrap().0;
        let start = Instant::now();
        failures.add(&error, None);
        assert!(start.elapsed() >= RETRY);
    }
}
