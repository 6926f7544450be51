//! The connections that bound ends have accepted, counted for the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::counter::Counter;

/// The connections of one kind of address.
#[derive(Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code))]
pub(crate) struct Accepted {
    /// The kind, as in a scheme.
    pub(crate) kind: &'static str,
    open: AtomicUsize,
    refused: Counter,
}

pub(crate) static TCP: Accepted = Accepted::new("tcp");
pub(crate) static IPC: Accepted = Accepted::new("ipc");

#[cfg_attr(not(feature = "metrics"), expect(dead_code))]
impl Accepted {
    const fn new(kind: &'static str) -> Accepted {
        Accepted {
            kind,
            open: AtomicUsize::new(0),
            refused: Counter::new(),
        }
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Those that were refused for lack of file descriptors.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, count: usize) {
        self.open.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.add(1);
    }
}
