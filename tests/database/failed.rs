//! A publisher without a receiver: processes of a host without their publisher service.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::memory::MemoryDriver;
use tablecast::drivers::zmq::ZmqMultiproc;
use tablecast::store::{Row, Write};
use tablecast::{
    Database, DatabaseOptions, ErrorKind, Publisher, PublisherOptions, Service, ServiceOptions, Store, Topic,
};

use crate::common::{eventually, side_by_side, within};
use crate::rig::topic;
use crate::suite::assert_kind;
use crate::{Opened, memory_store};

/// Within it the test sees the write, and lets others write.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

struct Alone {
    database: Arc<Database>,
    store: Arc<dyn Store>,
    folders: (tempfile::TempDir, Option<tempfile::TempDir>),
}

impl Alone {
    fn new((store, folder): Opened) -> Alone {
        let sockets = tempfile::tempdir().unwrap();
        Alone {
            database: Alone::database(&store, &sockets),
            store,
            folders: (sockets, folder),
        }
    }

    fn database(store: &Arc<dyn Store>, sockets: &tempfile::TempDir) -> Arc<Database> {
        let address = format!("ipc://{}", sockets.path().join("publisher.sock").display());
        let driver = ZmqMultiproc::new(&address, Default::default()).unwrap();
        let options = PublisherOptions {
            send_timeout: SEND_TIMEOUT,
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&driver, options).unwrap();
        Arc::new(Database::new(Arc::clone(store), publisher, DatabaseOptions::default()))
    }

    fn row(&self) -> Option<Row> {
        match self.store.get("t", "k", None) {
            Ok(row) => Some(row),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NotFound);
                None
            }
        }
    }

    /// Makes a write, and runs another writer while the write waits to be published.
    fn while_it_waits(&self, write: Write<'static>, somebody_else: impl FnOnce()) -> tablecast::Error {
        let before = self.row();
        let database = Arc::clone(&self.database);
        let writer = std::thread::Builder::new()
            .spawn(move || database.write(&write, 5))
            .unwrap();
        eventually(SEND_TIMEOUT, || self.row() != before);
        somebody_else();
        assert!(!writer.is_finished(), "it had been undone before");
        let error = writer.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
        error
    }
}

fn for_each_store(body: fn(&Alone)) {
    within(Duration::from_secs(90), move || {
        let stores = [
            memory_store(),
            #[cfg(feature = "sqlite")]
            crate::sqlite_store(),
        ];
        side_by_side(stores, |opened| body(&Alone::new(opened)));
    });
}

#[test]
fn a_failed_publish_undoes_the_write() {
    for_each_store(|alone| {
        let tenant = topic("tenant");
        assert_kind(
            alone.database.write(&Write::create("t", "k", "one"), 5),
            ErrorKind::Timeout,
        );
        assert_eq!(alone.row(), None);

        let version = alone.store.create("t", "k", "one", &tenant).unwrap();
        let error = alone.database.write(&Write::set("t", "k", "two"), 5).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Timeout && error.to_string().contains("undone"),
            "{error}"
        );
        let row = alone.row().unwrap();
        assert_eq!((row.value.as_str(), &row.topic), ("one", &tenant));
        // A writer that read the other value in between must not be able to overwrite this one.
        assert!(row.version > version);

        assert_kind(alone.database.write(&Write::delete("t", "k"), 5), ErrorKind::Timeout);
        let again = alone.row().unwrap();
        assert_eq!((again.value.as_str(), &again.topic), ("one", &tenant));
        assert_eq!(alone.store.keys("t", Some(&tenant)).count(), 1);
        let stats = alone.database.publisher().stats();
        assert_eq!((stats.sent, stats.failed), (0, 3));
    });
}

#[test]
fn what_somebody_else_made_of_a_row_that_was_set_stays() {
    for_each_store(|alone| {
        let store = &alone.store;
        store.create("t", "k", "theirs", &Topic::ALL).unwrap();
        // Another writer sets it to its earlier value, or to the same.
        for value in ["theirs", "mine"] {
            let error = alone.while_it_waits(Write::set("t", "k", "mine"), || _ = store.set("t", "k", value).unwrap());
            assert!(error.to_string().contains("another writer"), "{error}");
            assert_eq!(alone.row().unwrap().value, value);
            store.set("t", "k", "theirs").unwrap();
        }
        alone.while_it_waits(Write::set("t", "k", "mine"), || _ = store.delete("t", "k").unwrap());
        assert_eq!(alone.row(), None);
    });
}

#[test]
fn what_somebody_else_made_of_a_new_or_deleted_row_stays() {
    for_each_store(|alone| {
        let store = &alone.store;
        alone.while_it_waits(Write::create("t", "k", "mine"), || {
            store.set("t", "k", "theirs").unwrap();
        });
        assert_eq!(alone.row().unwrap().value, "theirs");
        alone.while_it_waits(Write::delete("t", "k"), || {
            store.create("t", "k", "again", &Topic::ALL).unwrap();
        });
        assert_eq!(alone.row().unwrap().value, "again");
        store.delete("t", "k").unwrap();
        // With the same value.
        alone.while_it_waits(Write::create("t", "k", "mine"), || {
            store.delete("t", "k").unwrap();
            store.create("t", "k", "mine", &Topic::ALL).unwrap();
        });
        assert_eq!(alone.row().unwrap().value, "mine");
    });
}

/// The write of another process fails as well, and its undo restores this one.
#[test]
fn a_write_that_anothers_undo_restores_is_not_told_as_undone() {
    for_each_store(|alone| {
        alone.store.create("t", "k", "before", &Topic::ALL).unwrap();
        let other = Alone::database(&alone.store, &alone.folders.0);
        let mut theirs = None;
        alone.while_it_waits(Write::set("t", "k", "mine"), || {
            let write = move || other.write(&Write::set("t", "k", "theirs"), 5);
            theirs = Some(std::thread::Builder::new().spawn(write).unwrap());
            eventually(SEND_TIMEOUT, || alone.row().unwrap().value == "theirs");
        });
        assert_kind(theirs.unwrap().join().unwrap(), ErrorKind::Timeout);
        assert_eq!(alone.row().unwrap().value, "mine");
    });
}

/// It finds a value that another process takes back.
#[test]
fn a_write_that_changes_nothing_is_not_answered_while_nothing_can_be_published() {
    for_each_store(|alone| {
        alone.store.create("t", "k", "before", &Topic::ALL).unwrap();
        let other = Alone::database(&alone.store, &alone.folders.0);
        let database = Arc::clone(&alone.database);
        let write = move || database.write(&Write::set("t", "k", "value"), 5);
        let writer = std::thread::Builder::new().spawn(write).unwrap();
        eventually(SEND_TIMEOUT, || alone.row().unwrap().value == "value");
        let same = other.write(&Write::set("t", "k", "value").unless_equal(), 5);
        assert_kind(writer.join().unwrap(), ErrorKind::Timeout);
        let error = same.unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::Timeout, Some(("t", "k"))));
        assert_eq!(alone.row().unwrap().value, "before");
    });
}

#[test]
fn a_write_that_changes_nothing_fails_soon_after_the_service_has_gone() {
    within(Duration::from_secs(60), || {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("ipc://{}", folder.path().join("publisher.sock").display());
        let driver = ZmqMultiproc::new(&address, Default::default()).unwrap();
        let network = MemoryDriver::new("memory://network").unwrap();
        let service = Service::start(&driver, &address, &network, ServiceOptions::default()).unwrap();
        let options = PublisherOptions {
            send_timeout: Duration::from_millis(250),
            hello_interval: Duration::from_millis(50),
            ..PublisherOptions::default()
        };
        let publisher = Publisher::new(&driver, options).unwrap();
        let database = Database::new(memory_store().0, publisher, DatabaseOptions::default());
        let same = Write::set("t", "k", "v").unless_equal();
        eventually(Duration::from_secs(20), || {
            database.write(&Write::create("t", "k", "v"), 5).is_ok()
        });
        assert!(!database.write(&same, 5).unwrap().changed);
        drop(service);
        eventually(Duration::from_secs(20), || match database.write(&same, 5) {
            Ok(written) => written.changed,
            Err(e) => e.kind() == ErrorKind::Timeout,
        });
    });
}

#[test]
fn a_delete_is_not_undone_over_another_one() {
    for_each_store(|alone| {
        alone.store.create("t", "k", "mine", &Topic::ALL).unwrap();
        let (database, store) = (Arc::clone(&alone.database), &alone.store);
        let write = move || database.write(&Write::delete("t", "k"), 5);
        let writer = std::thread::Builder::new().spawn(write).unwrap();
        eventually(SEND_TIMEOUT, || alone.row().is_none());
        store.create("t", "k", "theirs", &Topic::ALL).unwrap();
        store.delete("t", "k").unwrap();
        assert!(!writer.is_finished());
        assert_kind(writer.join().unwrap(), ErrorKind::Unconfirmed);
        assert_eq!(alone.row(), None);
    });
}

#[test]
fn a_write_that_was_not_made_is_not_published() {
    for_each_store(|alone| {
        let failed = alone.database.write(&Write::set("t", "k", "x"), 5).unwrap_err();
        assert_eq!((failed.kind(), failed.row()), (ErrorKind::NotFound, Some(("t", "k"))));
        assert_eq!(alone.database.publisher().stats().failed, 0);
    });
}
