//! What the demo and its children say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tablecast::{Error, ErrorKind};

use super::ledger::History;

/// What the demo tells a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// A writer: send on until it is so many updates in all.
    Send { up_to: u64 },
    /// A subscriber: say how many updates came.
    Count,
    /// A subscriber: say all about what came.
    Tell,
}

/// What a child tells the demo.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// A subscriber misses nothing from now on.
    Live,
    /// A writer: what it has sent so far on each topic, and whether that was all.
    Sent { topics: BTreeMap<String, u64>, done: bool },
    /// A subscriber: so many different updates came.
    Delivered(u64),
    /// A subscriber: what came.
    History(History),
}

/// A child's: what an order is that is not for it.
pub(super) fn not_for_me(order: &Order) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("this child cannot do {order:?}"))
}
