//! Writes from a file, one for each line.

use std::path::Path;
use std::time::Duration;

use tablecast::store::Write;
use tablecast::{Action, Config, Database, DbUpdate, Error, ErrorKind, Result};

use super::subject::{named_row, say};
use crate::input::Lines;
use crate::metrics::MetricsArgs;
use crate::outgoing::Outgoing;
use crate::{output, row, signal};

/// Makes the writes of the file, and prints the result of each. `grace` is the longest time of one.
pub(super) fn write(config: &Config, file: &Path, metrics: &MetricsArgs, grace: Duration) -> Result<()> {
    let signal = signal::channel(grace)?;
    let lines = Lines::open(file, config.max_message_bytes, row::parse_write)?;
    let node = Outgoing::open(config)?;
    let _metrics = metrics.serve(&node)?;
    let database = node.database()?;
    let mut failures = Failures::default();
    let made = lines.each(&signal, |update| make(&database, &update, &mut failures));
    drop(database);
    failures.told(made.and(node.end()))
}

/// The writes that failed.
#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<Error>,
}

impl Failures {
    fn add(&mut self, failure: Error) {
        self.count += 1;
        self.last = Some(failure);
    }

    /// The result of the command: how its lines ended, and how many writes failed before.
    fn told(self, made: Result<()>) -> Result<()> {
        let Some(last) = self.last else { return made };
        let count = match self.count {
            1 => "1 write failed".to_owned(),
            count => format!("{count} writes failed"),
        };
        match made {
            Ok(()) if self.count == 1 => Err(Error::new(blamed(&last), count).with_source(last)),
            Ok(()) => Err(Error::new(blamed(&last), format!("{count}; the last one")).with_source(last)),
            Err(end) => Err(end.context(format!("{count}, and then"))),
        }
    }
}

/// The kind of a failed write, whose line, rather than the usage of the command, may be wrong.
fn blamed(failure: &Error) -> ErrorKind {
    match failure.kind() {
        ErrorKind::InvalidInput => ErrorKind::Malformed,
        kind => kind,
    }
}

/// Makes a write, and prints its result. Without a reader of results there are no more writes.
fn make(database: &Database, update: &DbUpdate, failures: &mut Failures) -> Result<()> {
    let (table, key) = (&*update.table, &*update.key);
    let value = update.value.as_deref().unwrap_or_default();
    let mut write = match update.action {
        Action::Create => Write::create(table, key, value),
        Action::Delete => Write::delete(table, key),
        _ => Write::set(table, key, value).unless_equal(),
    };
    write.topic = Some(&update.topic);
    let said = match database.write(&write, update.priority) {
        Ok(written) => say(&write, &written),
        Err(e) => {
            let e = named_row(table, key, e);
            let said = output::result(&format!("failed: {e}").replace('\n', " "));
            failures.add(e);
            said
        }
    };
    said.map_err(|e| e.context("the lines after this write are not made"))
}
