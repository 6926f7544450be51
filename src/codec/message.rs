//! The messages of a payload.

use crate::update::{DbUpdate, Name};

/// One map of a payload.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A changed row.
    Update(DbUpdate),
    /// A message between publisher and subscriber.
    Control(Control),
}

/// A message without a table: the library's own hello and goodbye, and messages of other senders, for example
/// Dragonflow's `sync`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its subject, in one word.
    pub action: Name,
    /// The content that belongs to the action.
    pub value: Option<String>,
    /// The sender's id.
    pub publisher: Option<Name>,
    /// Identifies the run of the sender.
    pub epoch: Option<u64>,
}
