//! A program's parts, over one of the drivers and stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use tablecast::drivers::memory::MemoryDriver;
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{
    Action, Config, DbUpdate, Delivery, DispatcherHandle, Listener, ListenerOptions, Node, Notifier, NotifierOptions,
    Publisher, Store, Stores, Subscriber,
};

use crate::LONG;
use crate::common::{eventually, folder_in_memory, free_port, pass};
use crate::servers::Server;

/// How programs reach each other.
pub(crate) enum World {
    /// In one process.
    Memory(Arc<dyn Driver>, String, Arc<dyn Store>),
    /// As these options say; the resources they name last as long as this.
    Config {
        config: Box<Config>,
        _folder: tempfile::TempDir,
        _server: Option<Server>,
        /// The publisher service's node.
        host: Option<Box<Node>>,
    },
}

impl World {
    pub(crate) fn memory() -> World {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let address = format!("memory://listener-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let driver = Arc::new(MemoryDriver::shared(&address).unwrap());
        World::Memory(driver, address, Arc::new(MemoryStore::new()))
    }

    /// Every program publishes over ipc to the publisher service, which publishes over tcp; rows are in a file.
    pub(crate) fn service() -> World {
        let folder = folder_in_memory();
        let mut config = base(&folder);
        config.publisher_multiproc_socket = folder.path().join("publisher.sock");
        config.publisher_port = free_port();
        let host = Node::open(&config).unwrap();
        config.publishers = vec![host.service().unwrap().address().unwrap()];
        World::Config {
            config: Box::new(config),
            _folder: folder,
            _server: None,
            host: Some(Box::new(host)),
        }
    }

    /// Every program binds a tcp port of its own, and they find each other in the store.
    pub(crate) fn direct() -> World {
        let folder = folder_in_memory();
        let mut config = base(&folder);
        config.pub_sub_use_multiproc = false;
        config.publisher_port = 0;
        config.discover = true;
        World::Config {
            config: Box::new(config),
            _folder: folder,
            _server: None,
            host: None,
        }
    }

    /// Ends the publisher service, as its process would.
    pub(crate) fn end_service(&mut self) {
        if let World::Config { config, host, .. } = self {
            let address = host.as_ref().unwrap().service().unwrap().address().unwrap();
            config.publisher_port = address.rsplit(':').next().unwrap().parse().unwrap();
            *host = None;
        }
    }

    /// Starts it again at the same place.
    pub(crate) fn begin_service(&mut self) {
        if let World::Config { config, host, .. } = self {
            let node = Node::open(config).unwrap();
            eventually(LONG, || node.service().is_ok());
            *host = Some(Box::new(node));
        }
    }

    pub(crate) fn redis() -> World {
        let folder = folder_in_memory();
        let server = Server::start();
        let mut config = base(&folder);
        config.pub_sub_driver = "redis".into();
        config.pub_sub_use_multiproc = false;
        config.nb_db_class = "redis".into();
        config.remote_db_hosts = vec![server.host()];
        World::Config {
            config: Box::new(config),
            _folder: folder,
            _server: Some(server),
            host: None,
        }
    }

    pub(crate) fn program(&self, workers: usize) -> Program {
        match self {
            World::Memory(driver, address, store) => Program::in_memory(driver, address, store, workers),
            World::Config { config, .. } => {
                let mut config = config.clone();
                config.dispatcher_workers = workers;
                Program::open(&config)
            }
        }
    }

    pub(crate) fn config(&self) -> &Config {
        match self {
            World::Memory(..) => panic!("no other process can share it"),
            World::Config { config, .. } => config,
        }
    }
}

fn base(folder: &tempfile::TempDir) -> Config {
    let mut config = Config::default();
    config.sqlite_path = folder.path().join("rows.db");
    config.discover_interval_ms = Duration::from_millis(100);
    config.topics = Vec::new();
    config
}

/// The options that differ from the defaults, for another process.
pub(crate) fn to_toml(config: &Config) -> String {
    let quoted = |texts: &[String]| {
        texts
            .iter()
            .map(|text| format!("{text:?}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    format!(
        "topics = []\npub_sub_driver = {:?}\npub_sub_use_multiproc = {}\npublisher_port = {}\npublisher_multiproc_socket = {:?}\n\
         publishers = [{}]\ndiscover = {}\ndiscover_interval_ms = {}\nnb_db_class = {:?}\nremote_db_hosts = [{}]\n\
         sqlite_path = {:?}\nlistener_timeout_ms = {}\nack_timeout_ms = {}\n",
        config.pub_sub_driver,
        config.pub_sub_use_multiproc,
        config.publisher_port,
        config.publisher_multiproc_socket,
        quoted(&config.publishers),
        config.discover,
        config.discover_interval_ms.as_millis(),
        config.nb_db_class,
        quoted(&config.remote_db_hosts),
        config.sqlite_path,
        config.listener_timeout_ms.as_millis(),
        config.ack_timeout_ms.as_millis(),
    )
}

/// A subscriber, a dispatcher, a publisher and a store: a program, though others may be in the same process.
pub(crate) struct Program {
    // Dropped first: it stops the others.
    _node: Node,
    pub(crate) dispatcher: DispatcherHandle,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) store: Arc<dyn Store>,
}

impl Program {
    fn in_memory(driver: &Arc<dyn Driver>, address: &str, store: &Arc<dyn Store>, workers: usize) -> Program {
        let mut config = Config::in_memory(address);
        config.topics = Vec::new();
        config.publishers = vec![address.to_owned()];
        config.dispatcher_workers = workers;
        Program::over(&config, driver, store)
    }

    pub(crate) fn over(config: &Config, driver: &Arc<dyn Driver>, store: &Arc<dyn Store>) -> Program {
        let node = Node::builder(config)
            .network(Arc::clone(driver))
            .store(Arc::clone(store));
        Program::of(node.open().unwrap())
    }

    pub(crate) fn open(config: &Config) -> Program {
        Program::of(Node::open(config).unwrap())
    }

    fn of(node: Node) -> Program {
        Program {
            dispatcher: node.dispatcher().unwrap(),
            subscriber: node.subscriber().unwrap(),
            publisher: node.publisher().unwrap(),
            store: node.store().unwrap(),
            _node: node,
        }
    }

    /// A registered listener.
    pub(crate) fn listener(
        &self,
        options: ListenerOptions,
        handler: impl Fn(&DbUpdate) + Send + Sync + 'static,
    ) -> Listener {
        let store = Arc::clone(&self.store);
        let (subscriber, publisher) = (&self.subscriber, &self.publisher);
        let listener = Listener::new(store, subscriber, &self.dispatcher, publisher, options, handler).unwrap();
        listener.wait_registered(LONG).unwrap();
        listener
    }

    pub(crate) fn notifier(&self, options: NotifierOptions) -> Notifier {
        let store = Arc::clone(&self.store);
        Notifier::new(store, &self.subscriber, &self.dispatcher, &self.publisher, options).unwrap()
    }
}

/// A listener in a program of its own, and the keys that it was given.
pub(crate) struct Serving {
    pub(crate) listener: Listener,
    pub(crate) seen: Receiver<DbUpdate>,
    pub(crate) program: Program,
}

pub(crate) fn server(world: &World) -> Serving {
    server_with(world, listening(), |_| ())
}

pub(crate) fn server_with(
    world: &World,
    options: ListenerOptions,
    also: impl Fn(&DbUpdate) + Send + Sync + 'static,
) -> Serving {
    let program = world.program(0);
    let (sender, seen) = unbounded();
    let listener = program.listener(options, move |update| {
        sender.send(update.clone()).unwrap();
        also(update);
    });
    Serving {
        listener,
        seen,
        program,
    }
}

impl Serving {
    pub(crate) fn keys(&self) -> Vec<String> {
        self.seen.try_iter().map(|update| update.key.to_string()).collect()
    }
}

/// No listener is taken for dead within a test.
pub(crate) fn listening() -> ListenerOptions {
    ListenerOptions {
        timeout: Duration::from_secs(600),
        interval: Duration::from_millis(20),
        ..ListenerOptions::default()
    }
}

pub(crate) fn notifying() -> NotifierOptions {
    NotifierOptions {
        timeout: Duration::from_secs(600),
        interval: Duration::from_millis(20),
        ..NotifierOptions::default()
    }
}

pub(crate) fn at_most_once() -> NotifierOptions {
    NotifierOptions {
        delivery: Delivery::AtMostOnce,
        ..notifying()
    }
}

pub(crate) fn status(key: impl ToString) -> DbUpdate {
    DbUpdate::new("lport", key.to_string(), Action::Set).value(r#"{"status":"up"}"#)
}

/// Waits until the table of claims has no rows.
pub(crate) fn no_claims_are_left(store: &Arc<dyn Store>) {
    no_claims_are_left_but_of(store, "none");
}

/// Waits until the table of claims has no rows, but for what this run has done.
pub(crate) fn no_claims_are_left_but_of(store: &Arc<dyn Store>, run: &str) {
    let done = serde_json::json!({"owner": run, "done": true});
    let mut left: Vec<String> = Vec::new();
    let is_done = |value: &String| serde_json::from_str::<serde_json::Value>(value).unwrap() == done;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        let rows = store.entries(tablecast::listener::CLAIMS, None);
        left = rows.map(|row| row.unwrap().value.to_string()).collect();
        if left.iter().all(is_done) {
            return;
        }
        pass(Duration::from_millis(10));
    }
    panic!("claims are left: {left:#?}");
}

/// Number of times that each key occurs.
pub(crate) fn counted(keys: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// A Redis server as a store whose calls have this time limit.
pub(crate) fn redis_store(server: &Server, timeout: Duration) -> Arc<dyn Store> {
    let mut config = Config::default();
    config.nb_db_class = "redis".into();
    config.remote_db_hosts = vec![server.host()];
    config.store_timeout_ms = timeout;
    Stores::new().open(&config).unwrap()
}
