//! Writes that are stored and published: each store with each driver, and failures of either.

mod announcer;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "zmq")]
mod failed;
#[path = "../common/front.rs"]
mod front;
#[cfg(feature = "bin")]
#[path = "../common/process.rs"]
mod process;
#[cfg(all(feature = "sqlite", feature = "zmq"))]
#[path = "../common/proxy.rs"]
mod proxy;
#[cfg(feature = "bin")]
#[path = "../common/random.rs"]
mod random;
#[path = "../common/rig.rs"]
mod rig;
mod suite;
#[cfg(all(feature = "sqlite", feature = "zmq"))]
mod told;

use std::sync::Arc;

use tablecast::drivers::memory::MemoryDriver;
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{Database, DatabaseOptions, Publisher, PublisherOptions, Store};

use crate::rig::Rig;

/// A store with the folder that it needs.
pub(crate) type Opened = (Arc<dyn Store>, Option<tempfile::TempDir>);

pub(crate) fn memory_store() -> Opened {
    (Arc::new(MemoryStore::new()), None)
}

#[cfg(feature = "sqlite")]
pub(crate) fn sqlite_store() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = tablecast::stores::sqlite::SqliteStore::open(path, StoreOptions::default()).unwrap();
    (Arc::new(store), Some(folder))
}

fn memory_driver() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new("memory://network").unwrap())
}

#[cfg(feature = "zmq")]
fn zmq_driver() -> Arc<dyn Driver> {
    Arc::new(tablecast::drivers::zmq::ZmqDriver::new("tcp://127.0.0.1:0", Default::default()).unwrap())
}

/// A database, its store, and a subscriber.
pub(crate) struct Setup {
    pub(crate) database: Database,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rig: Rig,
    _folder: Option<tempfile::TempDir>,
}

impl Setup {
    pub(crate) fn new((store, _folder): Opened, driver: &Arc<dyn Driver>, topics: &[&str]) -> Setup {
        let publisher = Publisher::new(&**driver, PublisherOptions::default()).unwrap();
        let rig = Rig::new(driver);
        rig.listen(topics, &publisher.address().unwrap());
        let database = Database::new(Arc::clone(&store), publisher, DatabaseOptions::default());
        Setup {
            database,
            store,
            rig,
            _folder,
        }
    }
}

macro_rules! joins {
    ($name:ident, $store:path, $driver:path: $($case:ident)*) => {
        mod $name {
            $(#[test]
            fn $case() {
                crate::common::within(std::time::Duration::from_secs(30), || {
                    crate::suite::$case(crate::Setup::new($store(), &$driver(), &["D", "tenant"]));
                });
            })*
        }
    };
    ($name:ident, $store:path, $driver:path) => {
        joins! { $name, $store, $driver:
            every_change_is_told what_is_put_is_there_whatever_was_before updates_name_the_version_before_theirs
            what_changes_nothing_is_not_told rows_are_typed topics_part_the_rows
            threads_tell_in_the_order_of_the_versions what_cannot_be_sent_is_not_stored
        }
    };
}

joins!(memory_and_memory, crate::memory_store, crate::memory_driver);
#[cfg(feature = "sqlite")]
joins!(sqlite_and_memory, crate::sqlite_store, crate::memory_driver);
#[cfg(feature = "zmq")]
joins!(memory_and_zmq, crate::memory_store, crate::zmq_driver);
#[cfg(all(feature = "sqlite", feature = "zmq"))]
joins!(sqlite_and_zmq, crate::sqlite_store, crate::zmq_driver);
