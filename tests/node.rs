//! A node: the parts that it opens, shares, and stops.

mod common;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(all(feature = "zmq", feature = "testing"))]
use common::{Stopwatch, pass};
use common::{eventually, within};
use crossbeam_channel::unbounded;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::registry::{Member, PUBLISHERS};
use tablecast::store::Write;
use tablecast::stores::memory::MemoryStore;
#[cfg(all(feature = "zmq", feature = "testing"))]
use tablecast::testing::FaultyStore;
use tablecast::{Action, AddressState, Config, DbUpdate, Error, ErrorKind, Node, Result, Store, Stores, Topic};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn two_nodes_hear_each_other() {
    within(LIMIT, || {
        let mut config = Config::in_memory("node-two");
        config.topics = vec![Topic::ALL];
        let reader = Node::open(&config).unwrap();
        let (updates, received) = unbounded::<DbUpdate>();
        reader.dispatcher().unwrap().on_table("t", updates).detach();
        let store = Arc::new(MemoryStore::new());
        let writer = Node::builder(&config).store(store).open().unwrap();
        let database = writer.database().unwrap();
        reader.subscriber().unwrap().wait_live(LONG).unwrap();
        database.write(&Write::create("t", "k", "v"), 5).unwrap();
        assert_eq!(received.recv_timeout(LONG).unwrap().key, "k");
        // Its parts are the given ones, one of each.
        assert!(writer.store().unwrap().get("t", "k", None).is_ok());
        assert!(reader.store().unwrap().get("t", "k", None).is_err());
        assert!(Arc::ptr_eq(&writer.publisher().unwrap(), &writer.publisher().unwrap()));
        assert!(Arc::ptr_eq(&database, &writer.database().unwrap()));
    });
}

#[test]
fn a_node_that_stops_says_goodbye_and_can_begin_anew() {
    within(LIMIT, || {
        let config = Config::in_memory("node-stops");
        let store = MemoryStore::new();
        store.create("t", "k", "v", &Topic::ALL).unwrap();
        let node = Node::builder(&config).store(Arc::new(store)).open().unwrap();
        assert!(node.store().unwrap().get("t", "k", None).is_ok());
        let subscriber = node.subscriber().unwrap();
        drop(node.publisher().unwrap());
        subscriber.wait_live(LONG).unwrap();
        node.stop();
        assert!(!subscriber.is_running());
        // Another one is made.
        let again = node.subscriber().unwrap();
        assert!(!Arc::ptr_eq(&again, &subscriber));
        assert!(again.is_running());
        // The given store stays.
        assert!(node.store().unwrap().get("t", "k", None).is_ok());
        drop(node);
        assert!(!again.is_running());
        assert_ne!(again.status().addresses[0].state, AddressState::Live);
    });
}

/// A program needs one publisher for rows and status updates.
#[test]
fn status_updates_and_rows_share_what_a_node_has() {
    within(LIMIT, || {
        let mut config = Config::in_memory("node-status");
        config.discover = true;
        config.publisher_port = 1;
        let store = Arc::new(MemoryStore::new());
        let node = Node::builder(&config).store(store).open().unwrap();
        let (statuses, handled) = unbounded();
        let listener = node.listener(move |update: &DbUpdate| drop(statuses.send(update.key.clone())));
        let listener = listener.unwrap();
        listener.wait_registered(LONG).unwrap();
        let notifier = node.notifier().unwrap();
        notifier
            .notify(DbUpdate::new("lport", "port-1", Action::Set).value("up"))
            .unwrap();
        notifier.flush(LONG).unwrap();
        assert_eq!(handled.recv_timeout(LONG).unwrap(), "port-1");
        assert_eq!(node.store().unwrap().keys("publisher", None).count(), 1);
    });
}

/// The lock of the parts is not held while a factory of the program runs.
#[test]
fn a_factory_may_ask_the_node_for_other_parts() {
    within(LIMIT, || {
        let node: Arc<OnceLock<Node>> = Arc::default();
        let seen = Arc::downgrade(&node);
        let factory = move |_: &Config| -> Result<Arc<dyn Store>> {
            let node = seen.upgrade().unwrap();
            node.get().unwrap().publisher()?;
            Ok(Arc::new(MemoryStore::new()))
        };
        let mut stores = Stores::new();
        stores.register("own", factory).unwrap();
        let mut config = Config::in_memory("node-factory");
        config.nb_db_class = "own".into();
        let opened = Node::builder(&config).stores(stores).open().unwrap();
        assert!(node.set(opened).is_ok());
        let node = node.get().unwrap();
        let database = node.database().unwrap();
        assert!(Arc::ptr_eq(&database, &node.database().unwrap()));
        assert!(std::ptr::eq(database.publisher(), &*node.publisher().unwrap()));
    });
}

#[test]
fn a_hook_hears_every_part_and_a_wrong_option_is_named() {
    within(LIMIT, || {
        let (errors, heard) = unbounded();
        let config = Config::in_memory("node-hook");
        let hook = move |e: &Error| _ = errors.send(e.kind());
        let node = Node::builder(&config).hook(hook).open().unwrap();
        let panics = |_: &DbUpdate| panic!("a callback");
        node.dispatcher().unwrap().on_table("t", panics).detach();
        node.subscriber().unwrap().register_topic(&Topic::ALL).unwrap();
        let publisher = node.publisher().unwrap();
        node.subscriber().unwrap().wait_live(LONG).unwrap();
        publisher.send_event(&DbUpdate::new("t", "k", Action::Delete)).unwrap();
        assert_eq!(heard.recv_timeout(LONG).unwrap(), ErrorKind::Panicked);

        let mut wrong = config.clone();
        wrong.batch_amount = 0;
        let error = Node::open(&wrong).unwrap_err();
        assert!(error.to_string().contains("batch_amount"), "{error}");
        let mut unknown = config;
        unknown.nb_db_class = "etcd".into();
        let error = Node::open(&unknown).unwrap().store().unwrap_err();
        assert!(error.to_string().contains("etcd"), "{error}");
    });
}

/// The ids in the registry.
fn registered(store: &MemoryStore) -> Vec<String> {
    let members = store.entries(PUBLISHERS, None);
    let members = members.map(|row| Member::from_row(&row.unwrap()).unwrap());
    members
        .filter(|member| !member.leaving)
        .map(|member| member.id)
        .collect()
}

/// A publisher and a service of one node are two publishers, also if they have one id.
#[cfg(feature = "zmq")]
#[test]
fn a_publisher_and_a_service_of_one_node_are_both_registered() {
    within(LIMIT, || {
        for id in ["", "same"] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            (config.discover, config.pub_sub_use_multiproc, config.publisher_port) = (true, false, 0);
            config.publisher_bind_address = "127.0.0.1".into();
            config.publisher_multiproc_socket = folder.path().join("socket");
            config.publisher_id = id.into();
            let store = Arc::new(MemoryStore::new());
            let node = Node::builder(&config).store(Arc::clone(&store) as _).open().unwrap();
            let (_publisher, service) = (node.publisher().unwrap(), node.service().unwrap());
            eventually(LONG, || registered(&store).len() == 2);
            if !id.is_empty() {
                let other = format!("{id} {}", service.address().unwrap());
                assert_eq!(registered(&store), [id, &other]);
            }
        }
    });
}

/// The option `pub_sub_driver` says nothing about a network that the program gives.
#[test]
fn a_publisher_on_a_network_of_the_program_is_registered() {
    within(LIMIT, || {
        let mut config = Config::in_memory("node-network");
        (config.discover, config.pub_sub_driver) = (true, "redis".into());
        let (network, store) = (
            MemoryDriver::new("memory://node").unwrap(),
            Arc::new(MemoryStore::new()),
        );
        let node = Node::builder(&config).network(Arc::new(network));
        let node = node.store(Arc::clone(&store) as _).open().unwrap();
        let _publisher = node.publisher().unwrap();
        eventually(LONG, || registered(&store).len() == 1);
    });
}

/// All parts that wait for a silent store end in the time of two, and so does a registration that the program holds.
#[cfg(all(feature = "zmq", feature = "testing"))]
#[test]
fn a_node_stops_within_a_second_while_its_store_is_silent() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        (config.discover, config.pub_sub_use_multiproc, config.publisher_port) = (true, false, 0);
        config.publisher_bind_address = "127.0.0.1".into();
        config.publisher_multiproc_socket = folder.path().join("socket");
        config.monitor_tables = vec!["t".into()];
        let soon = Duration::from_millis(100);
        (config.reconnect_max_ms, config.hello_interval_ms) = (soon, soon);
        (config.reconnect_interval_ms, config.monitor_interval_ms) = (soon, soon);
        (config.discover_interval_ms, config.publisher_timeout_ms) = (soon, soon);
        let store = Arc::new(FaultyStore::new());
        let node = Node::builder(&config).store(Arc::clone(&store) as _).open().unwrap();
        drop((
            node.publisher().unwrap(),
            node.service().unwrap(),
            node.subscriber().unwrap(),
        ));
        let registered = || store.keys(PUBLISHERS, None).count() == 2;
        eventually(LONG, registered);
        let registration = node.registration().unwrap();
        store.lock(LONG);
        // Each looks at the store within this time.
        pass(8 * soon);
        let stopwatch = Stopwatch::start();
        node.stop();
        stopwatch.assert_within(Duration::from_secs(1), "the stop of a node");
        store.mend();
        eventually(LONG, || store.keys(PUBLISHERS, None).count() == 0);
        drop(registration);
    });
}
