//! The subject of a command: the store, a table or a row, and errors that name it.

use std::sync::Arc;

use tablecast::store::{Write, WriteOp, Written};
use tablecast::{Config, Error, ErrorKind, Result, Store, Stores, Topic};

use crate::output;

/// The row.
#[derive(Debug, clap::Args)]
pub(super) struct RowArgs {
    /// The table.
    #[arg(long)]
    pub(super) table: String,
    /// The row's key.
    #[arg(long, allow_hyphen_values = true)]
    pub(super) key: String,
    /// The row's topic. For create: the topic of the new row [default: D]. Otherwise: a row of another topic
    /// is not found [default: any].
    #[arg(long)]
    pub(super) topic: Option<String>,
}

impl RowArgs {
    pub(super) fn topic(&self) -> Result<Option<Topic>> {
        self.topic.as_deref().map(Topic::new).transpose()
    }
}

pub(super) fn open_store(config: &Config) -> Result<Arc<dyn Store>> {
    Stores::new().open(config)
}

/// Prints the result of a write.
pub(super) fn say(write: &Write<'_>, written: &Written) -> Result<()> {
    let done = match write.op {
        _ if !written.changed => "unchanged",
        WriteOp::Create(_) => "created",
        WriteOp::Set(_) => "set",
        WriteOp::Delete => "deleted",
    };
    output::result(&format!("{done} version {}", written.version))
}

pub(super) fn table_name(table: &str) -> String {
    format!("table {table:?}")
}

pub(super) fn row_name(table: &str, key: &str) -> String {
    format!("{} key {key:?}", table_name(table))
}

/// An error about this row.
pub(super) fn named_row(table: &str, key: &str, e: Error) -> Error {
    about(&row_name(table, key), e)
}

/// The error with the name of its subject, unless it has it already: that of an outage may not.
pub(super) fn about(name: &str, e: Error) -> Error {
    if e.kind() == ErrorKind::Config || e.to_string().contains(name) {
        return e;
    }
    e.context(name)
}
