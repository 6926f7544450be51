//! One suite for every store. Another store needs one line at the end of this file, and a function that makes a
//! [`Setup`]: every call must give an empty store of its own.

mod anew;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod cost;
mod histories;
#[path = "../common/random.rs"]
mod random;
#[cfg(feature = "sqlite")]
#[path = "../common/reexec.rs"]
mod reexec;
mod registry;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod servers;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_files;
#[cfg(feature = "sqlite")]
mod sqlite_installed;
#[cfg(feature = "sqlite")]
mod sqlite_links;
#[cfg(feature = "sqlite")]
mod sqlite_processes;
mod suite;

use std::sync::Arc;

use tablecast::Store;
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;

use histories::follow;

/// A store, and how to open it again like another program.
pub(crate) struct Setup {
    open: Box<dyn Fn(StoreOptions) -> Arc<dyn Store> + Send + Sync>,
    /// Removed at the end.
    _resource: Option<Box<dyn std::any::Any + Send>>,
}

impl Setup {
    pub(crate) fn open(&self) -> Arc<dyn Store> {
        (self.open)(StoreOptions::default())
    }

    pub(crate) fn with_batches_of(&self, batch_amount: usize) -> Arc<dyn Store> {
        let options = StoreOptions {
            batch_amount,
            ..StoreOptions::default()
        };
        (self.open)(options)
    }
}

macro_rules! conforms {
    ($store:ident, $setup:path: $($module:ident::$case:ident)*) => {
        mod $store {
            $(#[test]
            fn $case() {
                crate::common::within(std::time::Duration::from_secs(60), || crate::$module::$case($setup()));
            })*
        }
    };
    ($store:ident, $setup:path) => {
        conforms! { $store, $setup:
            suite::a_row_lives suite::what_cannot_be_done_changes_nothing suite::versions_rise
            suite::topics_are_exact suite::names_are_literal suite::writes_only_the_version_that_was_read
            suite::creates_again_only_what_it_deleted suite::writes_only_what_differs suite::returns_what_was_before
            suite::lists_in_batches suite::large_rows_make_short_pages suite::lists_what_stays_while_others_write
            suite::tables_come_and_go suite::tables_are_listed suite::tables_have_versions
            suite::unique_numbers_are_unique suite::one_of_many_creates
            suite::no_increment_is_lost suite::large_rows suite::deletes_many_rows
            suite::writes_many_rows
            changes::topics_have_versions changes::changes_are_what_was_written changes::deletes_are_forgotten_in_time
            changes::deleted_tables_have_no_changes changes::tables_that_were_never_written_have_no_changes
            changes::changes_cost_what_they_return
            histories::random_histories_agree follow::readers_miss_no_change cost::costs_what_it_returns
        }
    };
}

fn memory() -> Setup {
    let store = MemoryStore::new();
    let open = move |options| Arc::new(store.clone().with_options(options)) as Arc<dyn Store>;
    Setup {
        open: Box::new(open),
        _resource: None,
    }
}

#[cfg(feature = "sqlite")]
fn sqlite() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let open = move |options| {
        let store = tablecast::stores::sqlite::SqliteStore::open(&path, options).unwrap();
        Arc::new(store) as Arc<dyn Store>
    };
    Setup {
        open: Box::new(open),
        _resource: Some(Box::new(folder)),
    }
}

#[cfg(feature = "redis")]
fn redis_at(address: String, resource: impl std::any::Any + Send) -> Setup {
    let open = move |options| {
        let store = tablecast::stores::redis::RedisStore::new(&address, options, &Default::default()).unwrap();
        Arc::new(store) as Arc<dyn Store>
    };
    Setup {
        open: Box::new(open),
        _resource: Some(Box::new(resource)),
    }
}

#[cfg(feature = "redis")]
fn redis() -> Setup {
    let server = servers::Server::start();
    redis_at(server.address(), server)
}

#[cfg(feature = "redis")]
fn redis_cluster() -> Setup {
    let lease = servers::Lease::new();
    lease.clear();
    redis_at(lease.address(), lease)
}

conforms!(memory_store, crate::memory);
#[cfg(feature = "redis")]
conforms!(redis_store, crate::redis);
#[cfg(feature = "redis")]
conforms!(redis_cluster_store, crate::redis_cluster);
#[cfg(feature = "sqlite")]
conforms!(sqlite_store, crate::sqlite);
