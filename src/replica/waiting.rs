//! Decoded results of reads on their way to the dispatcher.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::{Base, Read};
use super::part::What;
use super::row::NewRow;
use crate::update::Name;

/// The results that wait to be merged.
pub(super) struct Waiting<T> {
    pub(super) found: VecDeque<(Arc<Read>, News<T>)>,
    pub(super) is_coming_in: bool,
    /// The last read failed, and this was reported.
    pub(super) failed: bool,
}

impl<T> Default for Waiting<T> {
    fn default() -> Waiting<T> {
        Waiting {
            found: VecDeque::new(),
            is_coming_in: false,
            failed: false,
        }
    }
}

impl<T> Waiting<T> {
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }
}

/// A result with decoded rows.
pub(super) enum News<T> {
    Rows(Vec<NewRow<T>>),
    /// Keys and versions, with the rows that exist.
    Changes(Vec<(Name, u64, Option<NewRow<T>>)>),
    Picked(Option<Base>, Vec<(Name, Option<NewRow<T>>)>),
    Other(What),
}
