//! Rows on stdout.

use std::io::{BufWriter, Write};
use std::time::Duration;

use crossbeam_channel::Receiver;
use serde::Serialize;
use tablecast::store::{Listing, Row};
use tablecast::{Config, Error, ErrorKind, Result, Topic};

use super::{RowArgs, about, open_store, table_name};
use crate::{output, signal};

/// Time that a signal leaves for printing the rest.
const GRACE: Duration = Duration::from_millis(900);

/// Prints one row.
pub(super) fn get(config: &Config, args: &RowArgs) -> Result<()> {
    let topic = args.topic()?;
    let row = open_store(config).and_then(|store| store.get(&args.table, &args.key, topic.as_ref()));
    let row = row.map_err(|e| about(&args.name(), e))?;
    output::result(&line(&args.table, &row)?)
}

/// Prints the rows or the keys of a table.
pub(super) fn list(config: &Config, table: &str, topic: Option<&str>, keys: bool) -> Result<()> {
    let topic = topic.map(Topic::new).transpose()?;
    let signal = signal::channel(GRACE)?;
    let named = |e| about(&table_name(table), e);
    let store = open_store(config).map_err(named)?;
    if keys {
        let keys = store.keys(table, topic.as_ref());
        print_all(keys, &signal, named, |key| json(&**key))
    } else {
        let rows = store.entries(table, topic.as_ref());
        print_all(rows, &signal, named, |row| line(table, row))
    }
}

/// Prints a line for each item as it comes, until a signal.
fn print_all<T>(
    mut items: Listing<'_, T>,
    signal: &Receiver<()>,
    named: impl Fn(Error) -> Error,
    line: impl Fn(&T) -> Result<String>,
) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
    let printed = items.try_for_each(|item| {
        if signal.try_recv().is_ok() {
            return Err(Error::new(ErrorKind::Stopped, "a signal came before the last row"));
        }
        writeln!(out, "{}", line(&item.map_err(&named)?)?).map_err(output::failed)
    });
    printed.and(out.flush().map_err(output::failed))
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    key: &'a str,
    value: &'a str,
    topic: &'a str,
    version: u64,
}

fn line(table: &str, row: &Row) -> Result<String> {
    json(&Line {
        table,
        key: &row.key,
        value: &row.value,
        topic: row.topic.as_str(),
        version: row.version,
    })
}

fn json(line: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(line).map_err(|e| output::failed(e.into()))
}
