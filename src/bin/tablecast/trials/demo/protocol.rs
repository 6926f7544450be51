//! The messages between the demo and its children.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tablecast::{Error, ErrorKind};

use super::ledger::History;

/// An order of the demo to a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// To a writer: send until there are this many updates in all.
    Send { up_to: u64 },
    /// To a subscriber: report the number of updates received.
    Count,
    /// To a subscriber: report the history.
    Tell,
}

/// A child's report to the demo.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// From a subscriber: it is live.
    Live,
    /// From a writer: the updates sent so far on each topic, and true if that was all.
    Sent { topics: BTreeMap<String, u64>, done: bool },
    /// From a subscriber: the number of different updates received.
    Delivered(u64),
    /// From a subscriber: its history.
    History(History),
}

/// A child's error for an order to another kind of child.
pub(super) fn not_for_me(order: &Order) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("this child cannot do {order:?}"))
}
