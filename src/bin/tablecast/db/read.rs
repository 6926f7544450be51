//! Rows on stdout.

use std::io::{BufWriter, Write};

use crossbeam_channel::Receiver;
use serde::Serialize;
use tablecast::store::{Listing, Row};
use tablecast::{Config, Error, ErrorKind, Result, Store, Topic};

use super::subject::{RowArgs, about, named_row, open_store, row_name, table_name};
use crate::line::version_text;
use crate::terminal::{Columns, FormatArgs, Kind};
use crate::{output, signal, work};

/// Prints one row.
pub(super) fn get(config: &Config, args: &RowArgs) -> Result<()> {
    let topic = args.topic()?;
    let named = |e| named_row(&args.table, &args.key, e);
    let store = open_store(config).map_err(named)?;
    match store.get(&args.table, &args.key, topic.as_ref()) {
        Ok(row) => output::result(&line(&args.table, &row)?),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let (subject, place) = (row_name(&args.table, &args.key), output::place(config));
            let of_topic = topic.map(|topic| format!(" of topic {:?}", topic.as_str()));
            let hint = match is_unwritten(&*store, &args.table) {
                Ok(true) => "; nothing was ever written to that table: `tablecast db tables` prints the tables",
                _ => "",
            };
            let context = format!("{subject}{} in {place}{hint}", of_topic.unwrap_or_default());
            Err(Error::new(ErrorKind::NotFound, context))
        }
        Err(e) => Err(named(e)),
    }
}

/// True if nothing was ever written to the table, whose name may be misspelled.
fn is_unwritten(store: &dyn Store, table: &str) -> Result<bool> {
    Ok(store.table_version(table)?.is_none_or(|seen| seen.version == 0))
}

/// Prints the rows or the keys of a table.
pub(super) fn list(config: &Config, table: &str, topic: Option<&str>, keys: bool, format: FormatArgs) -> Result<()> {
    let topic = topic.map(Topic::new).transpose()?;
    let signal = signal::channel(signal::GRACE)?;
    let named = |e| about(&table_name(table), e);
    let store = open_store(config).map_err(named)?;
    let mut columns = format.columns();
    let has_printed = if keys {
        let keys = store.keys(table, topic.as_ref());
        print_all(keys, &signal, named, |key| match &mut columns {
            None => json(&**key),
            Some(columns) => Ok(columns.line(Kind::Plain, &[key])),
        })?
    } else {
        let rows = store.entries(table, topic.as_ref());
        match columns {
            None => print_all(rows, &signal, named, |row| line(table, row))?,
            Some(columns) => print_columns(rows, &signal, named, columns)?,
        }
    };
    if has_printed {
        return Ok(());
    }
    let place = output::place(config);
    if is_unwritten(&*store, table).map_err(named)? {
        output::say(&format!(
            "nothing was ever written to table {table:?} in {place}; `tablecast db tables` prints the tables"
        ));
    } else if let Some(topic) = topic {
        let topic = topic.as_str();
        output::say(&format!("no row of table {table:?} with topic {topic:?} in {place}"));
    }
    Ok(())
}

/// Prints the tables of the store.
pub(super) fn tables(config: &Config, format: FormatArgs) -> Result<()> {
    let tables = open_store(config)?.tables()?;
    if tables.is_empty() {
        output::say(&format!("there is no table in {}", output::place(config)));
        return Ok(());
    }
    let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
    match format.columns() {
        None => {
            for table in &tables {
                writeln!(out, "{}", json(table)?).map_err(output::failed)?;
            }
        }
        Some(mut columns) => {
            let has_counts = tables.iter().any(|table| table.rows.is_some());
            let head = ["table", if has_counts { "rows" } else { "" }];
            let counts = tables.iter().map(|table| table.rows.map(|rows| rows.to_string()));
            let counts: Vec<String> = counts.map(Option::unwrap_or_default).collect();
            let lines = || tables.iter().zip(&counts).map(|(table, rows)| [&*table.name, rows]);
            columns.fit(&head);
            lines().for_each(|cells| columns.fit(&cells));
            writeln!(out, "{}", columns.line(Kind::Head, &head)).map_err(output::failed)?;
            for cells in lines() {
                writeln!(out, "{}", columns.line(Kind::Plain, &cells)).map_err(output::failed)?;
            }
        }
    }
    out.flush().map_err(output::failed)
}

/// Number of rows that decide together how wide columns are.
const CHUNK: usize = 256;

/// Prints rows for people, until a signal; true if there was one.
fn print_columns(
    rows: Listing<'_, Row>,
    signal: &Receiver<()>,
    named: impl Fn(Error) -> Error,
    mut columns: Columns,
) -> Result<bool> {
    let head = ["key", "version", "topic", "value"];
    columns.fit(&head);
    let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
    let mut rows = rows.peekable();
    let mut is_first = true;
    while rows.peek().is_some() {
        let chunk: Result<Vec<Row>> = rows.by_ref().take(CHUNK).collect();
        let chunk = chunk.map_err(&named)?;
        let versions: Vec<String> = chunk.iter().map(|row| version_text(Some(row.version))).collect();
        let cells = || {
            let rows = chunk.iter().zip(&versions);
            rows.map(|(row, version)| [&*row.key, version, row.topic.as_str(), &row.value])
        };
        cells().for_each(|cells| columns.fit(&cells));
        if std::mem::take(&mut is_first) {
            writeln!(out, "{}", columns.line(Kind::Head, &head)).map_err(output::failed)?;
        }
        for cells in cells() {
            writeln!(out, "{}", columns.line(Kind::Plain, &cells)).map_err(output::failed)?;
        }
        out.flush().map_err(output::failed)?;
        if signal.try_recv().is_ok() {
            return Err(work::interrupted_before("the last row"));
        }
    }
    Ok(!is_first)
}

/// Prints a line for each item as it comes, until a signal; true if there was one.
fn print_all<T>(
    mut items: Listing<'_, T>,
    signal: &Receiver<()>,
    named: impl Fn(Error) -> Error,
    mut line: impl FnMut(&T) -> Result<String>,
) -> Result<bool> {
    let mut out = BufWriter::with_capacity(1 << 16, output::stdout());
    let mut has_printed = false;
    let printed = items.try_for_each(|item| {
        if signal.try_recv().is_ok() {
            return Err(work::interrupted_before("the last row"));
        }
        has_printed = true;
        writeln!(out, "{}", line(&item.map_err(&named)?)?).map_err(output::failed)
    });
    printed.and(out.flush().map_err(output::failed)).map(|()| has_printed)
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    #[serde(flatten)]
    row: &'a Row,
}

fn line(table: &str, row: &Row) -> Result<String> {
    json(&Line { table, row })
}

fn json(line: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(line).map_err(|e| output::failed(e.into()))
}
