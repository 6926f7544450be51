//! The store: a file, a Redis server, or a cluster.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tablecast::{Config, Store, Stores};

use super::history::{Change, Row};

/// Beginning of the names of the writers' files.
pub(crate) const WRITER: &str = "writer-";

/// The options of a store, given as a file or the address of a Redis server, with this time limit for a call.
pub(crate) fn config(store: &str, patience: Duration) -> Config {
    let mut config = Config::default();
    match store.strip_prefix("redis://") {
        Some(host) => {
            config.nb_db_class = "redis".into();
            config.remote_db_hosts = vec![host.into()];
        }
        None => config.sqlite_path = store.into(),
    }
    config.store_timeout_ms = patience;
    config
}

pub(crate) fn open(store: &str, patience: Duration) -> Arc<dyn Store> {
    Stores::new().open(&config(store, patience)).unwrap()
}

/// The rows of these tables.
pub(crate) fn rows<'a>(store: &dyn Store, tables: impl IntoIterator<Item = &'a String>) -> BTreeMap<Row, Change> {
    let mut rows = BTreeMap::new();
    for table in tables {
        for row in store.entries(table, None) {
            let row = row.unwrap();
            let change = Change {
                topic: row.topic.to_string(),
                table: table.clone(),
                key: row.key.to_string(),
                version: row.version,
                deleted: false,
            };
            rows.insert(change.row(), change);
        }
    }
    rows
}

/// A number for the content of these rows, whatever their order.
pub(crate) fn digest<'a>(rows: impl IntoIterator<Item = &'a Change>) -> u64 {
    let rows = rows.into_iter().map(|change| {
        let mut hasher = DefaultHasher::new();
        change.hash(&mut hasher);
        hasher.finish()
    });
    rows.fold(0, u64::wrapping_add)
}
