//! The messages between a command and its children: one JSON object per line, on the child's stdin and stdout.
//!
//! Every order gets one report. A child ends when its stdin does, so none outlives the command.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tablecast::{Error, ErrorKind, Result};

/// Writes a message as a line.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads a message from a line.
pub(crate) fn read<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    serde_json::from_str(line)
        .map_err(|e| Error::new(ErrorKind::Malformed, format!("unexpected line {line:?}")).with_source(e))
}

/// Reports to the command, from a child.
pub(crate) fn report(report: &impl Serialize) -> Result<()> {
    write(&mut crate::output::stdout(), report)
        .map_err(|e| Error::new(ErrorKind::Io, "cannot report to the command that started this").with_source(e))
}

/// The orders of the command to a child, until the command closes the pipe.
pub(crate) fn orders<T: DeserializeOwned>() -> impl Iterator<Item = Result<T>> {
    io::stdin().lines().map(|line| {
        let line = line
            .map_err(|e| Error::new(ErrorKind::Io, "cannot read from the command that started this").with_source(e))?;
        read(&line)
    })
}
