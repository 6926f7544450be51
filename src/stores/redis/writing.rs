//! Writes: scripts that run once, even if they are repeated.

use std::time::{Duration, Instant};

use ::redis::Value;

use super::answer::{arguments, is_without_table, nonsense, read_answer, undecided, unsigned};
use super::script::{self, Script};
use super::{Inner, PARTS, command, key_of};
use crate::clock;
use crate::error::{ErrorKind, Result};
use crate::redis::Request;
use crate::store::{Announcement, PAGE_BYTES, Write, WriteOp, Written};
use crate::thread;

/// The most writes in one script, which blocks the server while it runs; [`PAGE_BYTES`] of values end it early.
const TOGETHER: usize = 256;

/// The server's clock may be set forward by this meanwhile.
const CLOCK_STEP: Duration = Duration::from_secs(60);

impl Inner {
    /// Runs a script that begins with `recall.lua`, so that it runs once even if repeated; it gets the arguments of
    /// each write.
    fn run_once<A: AsRef<[u8]>, const N: usize>(
        &self,
        script: &Script,
        (table, parts): (&str, &[&str]),
        writes: &[[A; N]],
    ) -> Result<Value> {
        let sessions: Vec<_> = writes.iter().map(|_| self.sessions.take()).collect();
        let keys: Vec<_> = parts.iter().map(|part| key_of(table, part)).collect();
        let begun = |within: &str| {
            let mut command = command(script, &keys);
            for (session, args) in sessions.iter().zip(writes) {
                command.arg(&session.field()).arg(session.number()).arg(within);
                args.iter().for_each(|arg| _ = command.arg(arg.as_ref()));
            }
            command
        };
        let first = clock::now();
        let again = || begun(&within(first, clock::now(), self.options.timeout));
        let request = Request {
            key: keys.first().map(Vec::as_slice).unwrap_or_default(),
            command: &begun(""),
            script: Some(script.text()),
            again: Some(&again),
            writes: true,
        };
        self.client.call(&request, self.options.timeout)
    }

    pub(super) fn write(&self, write: &Write<'_>, announcement: Option<&Announcement<'_>>) -> Result<Written> {
        let parts = match write.op {
            WriteOp::Set(_) => &PARTS[..2],
            WriteOp::Create(_) | WriteOp::Delete => &PARTS[..],
        };
        let arguments = arguments(write, &self.remembered, announcement);
        let deadline = thread::deadline(self.options.timeout);
        let answer = self.run_once(&script::WRITE, (write.table, parts), &[arguments])?;
        if is_without_table(&answer) {
            self.check_whole(write.table, deadline)?;
        }
        read_answer(answer, write)
    }

    /// Makes writes of one table in one script.
    pub(super) fn write_together(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        let Some(Write { table, .. }) = writes.first() else {
            return Ok(Vec::new());
        };
        let arguments: Vec<_> = writes
            .iter()
            .map(|write| arguments(write, &self.remembered, None))
            .collect();
        let answers = self.run_once(&script::WRITE_EACH, (table, &PARTS), &arguments)?;
        let answers = answers.into_sequence().map_err(|_| nonsense())?;
        if answers.len() != writes.len() {
            return Err(nonsense());
        }
        let read = |(answer, write)| match read_answer(answer, write) {
            Err(e) if e.kind() == ErrorKind::Malformed => Err(e),
            result => Ok(result),
        };
        answers.into_iter().zip(writes).map(read).collect()
    }

    /// Creates or deletes a table.
    pub(super) fn change_table(&self, script: &Script, table: &str) -> Result<bool> {
        match self.run_once(script, (table, &PARTS), &[[b""; 0]])? {
            Value::Int(done) => Ok(done == 1),
            answer => {
                let mut answer = answer.into_sequence().map_err(|_| nonsense())?.into_iter();
                match unsigned(answer.next())? {
                    4 => Ok(true),
                    outcome => Err(undecided(outcome, table)),
                }
            }
        }
    }
}

/// The number of these writes, at least one, that one script makes.
pub(super) fn together(writes: &[Write<'_>]) -> usize {
    let mut bytes = 0;
    let ends = |write: &Write<'_>| {
        bytes += match write.op {
            WriteOp::Create(value) | WriteOp::Set(value) => value.len(),
            WriteOp::Delete => 0,
        };
        bytes >= PAGE_BYTES
    };
    let few = &writes[..writes.len().min(TOGETHER)];
    few.iter().position(ends).map_or(few.len(), |at| at + 1)
}

/// The milliseconds within which the first try of a write was made, when the server gets this one. A limit of time
/// stands still while the host sleeps.
fn within(first: Instant, now: Instant, timeout: Duration) -> String {
    let time = now.saturating_duration_since(first).saturating_add(timeout);
    time.saturating_add(CLOCK_STEP).as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_write_says_how_long_ago_the_first_try_was() {
        let (first, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(within(first, first, 4 * second), "64000");
        assert_eq!(within(first, first + 3600 * second, 4 * second), "3664000");
        within(first, first, Duration::MAX).parse::<u128>().unwrap();
    }
}
