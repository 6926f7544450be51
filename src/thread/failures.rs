//! A failure that repeats.

use std::time::Duration;

use super::pause;
use crate::error::{Error, ErrorHook, report};

/// A failure that repeats: reported once, and tried again after a pause, so that it keeps no processor busy.
#[derive(Debug, Default)]
pub(crate) struct Failures(u64);

/// The pause after a failure.
const RETRY: Duration = Duration::from_millis(100);

impl Failures {
    /// Reports the first of failures in a row, and pauses after each.
    pub(crate) fn add(&mut self, error: &Error, hook: Option<&ErrorHook>) {
        self.0 += 1;
        if self.0 == 1 {
            report!(error, hook);
        }
        pause(RETRY);
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
