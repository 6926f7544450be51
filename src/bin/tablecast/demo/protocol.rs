//! What the demo and its children say to each other: one JSON object a line, on the child's stdin and stdout.
//!
//! Every order is answered by one report. A child ends when its stdin does, so none outlives the demo.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use tablecast::{Error, ErrorKind, Result};

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

/// Writes a message as a line.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a message from a line.
pub(super) fn read<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    serde_json::from_str(line)
        .map_err(|e| Error::new(ErrorKind::Malformed, format!("what is this: {line:?}")).with_source(e))
}

/// A child's: reports to the demo.
pub(super) fn report(report: &Report) -> Result<()> {
    write(&mut io::stdout().lock(), report)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot report to the demo").with_source(e))
}

/// A child's: the orders of the demo, until it wants no more.
pub(super) fn orders() -> impl Iterator<Item = Result<Order>> {
    io::stdin().lines().map(|line| {
        let line = line.map_err(|e| Error::new(ErrorKind::Io, "cannot hear the demo").with_source(e))?;
        read(&line)
    })
}

/// A child's: what an order is that is not for it.
pub(super) fn not_for_me(order: &Order) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("this child cannot do {order:?}"))
}
