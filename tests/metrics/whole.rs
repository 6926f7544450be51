//! Two nodes that have every part together.

use std::sync::Arc;

use tablecast::listener::{Listener, Notifier};
use tablecast::replica::Replica;
use tablecast::store::Write;
use tablecast::stores::Stores;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Config, Database, DbUpdate, ErrorKind, Metrics, Node, Topic};

use crate::LONG;

pub(crate) struct Whole {
    // Dropped in this order.
    listener: Listener,
    notifier: Notifier,
    database: Arc<Database>,
    replica: Replica,
    pub(crate) node: Metrics,
    pub(crate) service: Metrics,
    node_itself: Node,
    service_itself: Node,
    _folder: tempfile::TempDir,
}

impl Whole {
    /// Starts a node with a service, and one with all other parts.
    pub(crate) fn start() -> Whole {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.topics = vec![Topic::ALL];
        config.publisher_port = 0;
        config.publisher_multiproc_socket = folder.path().join("publisher.sock");
        config.monitor_tables = vec!["lport".into()];
        config.nb_db_class = "own".into();
        let store = Arc::new(MemoryStore::new());
        let mut stores = Stores::new();
        stores.register("own", move |_| Ok(Arc::clone(&store) as _)).unwrap();
        let service_itself = Node::builder(&config).stores(stores.clone()).open().unwrap();
        let service = Metrics::new(&service_itself);

        config.publishers = vec![service_itself.service().unwrap().address().unwrap()];
        let node_itself = Node::builder(&config).stores(stores).open().unwrap();
        let node = Metrics::new(&node_itself);
        let replica = node_itself.replica().unwrap();
        replica.raw_table("lport").unwrap();
        node_itself.subscriber().unwrap().wait_live(LONG).unwrap();
        Whole {
            listener: node_itself.listener(|_| panic!("of the handler")).unwrap(),
            notifier: node_itself.notifier().unwrap(),
            database: node_itself.database().unwrap(),
            replica,
            node,
            service,
            node_itself,
            service_itself,
            _folder: folder,
        }
    }

    /// Lets every part do something, and some fail.
    pub(crate) fn work(&self) {
        self.notifier
            .notify(DbUpdate::new("status", "k", "set".into()))
            .unwrap();
        self.notifier.flush(LONG).unwrap();
        let write = Write::create("lport", "port-1", "{}");
        let written = self.database.write(&write, 5);
        assert!(written.is_ok() || written.as_ref().is_err_and(|e| e.kind() == ErrorKind::AlreadyExists));
        assert!(self.database.write(&write, 5).is_err());
        self.replica.wait_current(LONG).unwrap();
    }

    pub(crate) fn stop(self) {
        drop((self.listener, self.notifier, self.database, self.replica));
        self.node_itself.stop();
        self.service_itself.stop();
    }
}
