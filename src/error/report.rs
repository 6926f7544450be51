//! Failures in the background: reported to the log and the hook, and counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Error, ErrorKind, Result};
#[cfg(feature = "metrics")]
use crate::counter::Counter;

/// Called with every failure in the background, where no caller waits for a result. Called on the thread that failed,
/// so it must be quick.
pub type ErrorHook = Arc<dyn Fn(&Error) + Send + Sync>;

/// Numbers of errors by kind.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(crate) struct ErrorCounts([Counter; ErrorKind::ALL.len()]);

/// The failures in the background of this process.
#[cfg(feature = "metrics")]
pub(crate) static REPORTED: ErrorCounts = ErrorCounts::new();

#[cfg(feature = "metrics")]
impl ErrorCounts {
    pub(crate) const fn new() -> ErrorCounts {
        ErrorCounts([const { Counter::new() }; ErrorKind::ALL.len()])
    }

    pub(crate) fn add(&self, kind: ErrorKind) {
        if let Some(count) = self.0.get(kind as usize) {
            count.add(1);
        }
    }

    /// The number of each kind.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        let counts = self.0.iter().map(Counter::get);
        ErrorKind::ALL.into_iter().zip(counts)
    }
}

/// The one place where failures in the background go: the log, as of the module that reports, then the hook.
macro_rules! report {
    ($error:expr, $hook:expr $(,)?) => {
        $crate::error::report_as(module_path!(), $error, $hook)
    };
}
pub(crate) use report;

pub(crate) fn report_as(target: &str, error: &Error, hook: Option<&ErrorHook>) {
    log::warn!(target: target, "{error}");
    #[cfg(feature = "metrics")]
    REPORTED.add(error.kind());
    if let Some(hook) = hook
        && let Err(panic) = contain(|| "the error hook".into(), || hook(error))
    {
        log::error!("{panic}");
    }
}

/// Runs code of the program's own; a panic in it becomes an error that says what panicked.
pub(crate) fn contain<T>(what: impl FnOnce() -> String, run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let message = match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload
                .downcast_ref::<&str>()
                .copied()
                .unwrap_or("no message")
                .to_owned(),
        };
        Error::new(ErrorKind::Panicked, what()).with_source(message)
    })
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_as_itself() {
        let counts = ErrorCounts::new();
        for (number, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            (0..number).for_each(|_| counts.add(kind));
        }
        let counted: Vec<u64> = counts.iter().map(|(_, count)| count).collect();
        assert_eq!(counted, (0..18).collect::<Vec<u64>>());
    }
}
