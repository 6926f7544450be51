//! Load alone is never taken for death: slow links with a backlog, and crowds of subscribers on a small machine.
//!
//! `TABLECAST_TEST_FAULTS=long` plays it as large as in the field.
#![cfg(all(feature = "zmq", feature = "bin"))]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/proxy.rs"]
mod proxy;
#[cfg(feature = "redis")]
#[path = "common/redis.rs"]
mod redis_server;
#[path = "common/rig.rs"]
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{eventually, free_port, within};
use crossbeam_channel::{Receiver, unbounded};
use process::{Process, tablecast};
use proxy::{Fault, Proxy};
use rig::{Rig, send, topic, update};
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::queue::QueueOptions;
use tablecast::transport::Driver;
use tablecast::{Config, DbUpdate, Node, Publisher, PublisherOptions, Subscriber, SubscriberOptions, SyncReason};

/// The rate of a slow link, in bytes a second.
const RATE: usize = 1_000_000;

fn is_long() -> bool {
    std::env::var("TABLECAST_TEST_FAULTS").is_ok_and(|form| form == "long")
}

fn hello() -> Duration {
    Duration::from_millis(if is_long() { 1000 } else { 200 })
}

fn publisher(address: &str) -> Publisher {
    let options = PublisherOptions {
        hello_interval: hello(),
        ..PublisherOptions::default()
    };
    Publisher::new(&ZmqDriver::new(address, ZmqOptions::default()).unwrap(), options).unwrap()
}

fn options() -> SubscriberOptions {
    SubscriberOptions {
        hello_interval: hello(),
        live_timeout: hello() * 2,
        ..SubscriberOptions::default()
    }
}

/// A publisher, and a subscriber on the topic D behind a link.
fn behind_a_link() -> (Publisher, Proxy, Rig) {
    let publisher = publisher("tcp://127.0.0.1:0");
    let address = publisher.address().unwrap();
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let driver = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
    let (proxy, rig) = link_to(port, "tcp", |_| driver);
    (publisher, proxy, rig)
}

/// A subscriber that listens through a link to this port.
fn link_to(port: u16, scheme: &str, driver: impl FnOnce(&str) -> Arc<dyn Driver>) -> (Proxy, Rig) {
    let proxy = Proxy::to(port);
    let address = format!("{scheme}://{}", proxy.host());
    let rig = Rig::with(&driver(&address), options(), QueueOptions::default());
    rig.listen(&["D"], &address);
    assert_eq!(rig.next_sync().as_str(), "connected");
    (proxy, rig)
}

/// Receives exactly this many updates. Returns their keys.
fn receive(rig: &Rig, count: usize, limit: Duration) -> Vec<String> {
    let deadline = Instant::now() + limit;
    let keys: Vec<String> = (0..count)
        .map_while(|_| rig.updates.recv_deadline(deadline).ok())
        .map(|update| update.key.to_string())
        .collect();
    assert_eq!(
        keys.len(),
        count,
        "{:?} {:?}",
        rig.syncs.try_iter().collect::<Vec<_>>(),
        rig.peers()
    );
    keys
}

/// Queues twenty times what a link of this rate carries in a hello period; a new topic and the answers stand behind it.
fn backlog(publisher: &Publisher, (proxy, rig): &(Proxy, Rig), rate: usize) {
    /// Approximate size of an update of 400 bytes on the wire.
    const UPDATE: f64 = 550.0;
    proxy.set(Fault::Rate(rate));
    let count = (20.0 * hello().as_secs_f64() * rate as f64 / UPDATE) as usize;
    for number in 0..count {
        let update = update(&number.to_string()).value("v".repeat(400));
        publisher.send_event(&update).unwrap();
    }
    let begun = Instant::now();
    rig.subscriber.register_topic(&topic("new")).unwrap();
    let keys = receive(rig, count, Duration::from_secs(150));
    let took = begun.elapsed();
    assert!(keys.iter().enumerate().all(|(number, key)| *key == number.to_string()));
    assert!(took > 10 * hello(), "no backlog: {took:?}");
    rig.subscriber.wait_live(Duration::from_secs(60)).unwrap();
    rig.only("last", || send(publisher, "new", "last"));
    assert_eq!(rig.syncs.try_iter().collect::<Vec<_>>(), []);
    assert_eq!(proxy.accepted(), 1, "nothing was torn down");
    eprintln!("{count} updates at {rate} bytes a second in {took:.1?}");
}

#[test]
fn a_backlog_on_a_slow_link_arrives_whole_and_nothing_is_told() {
    within(Duration::from_secs(200), || {
        let (publisher, proxy, rig) = behind_a_link();
        backlog(&publisher, &(proxy, rig), RATE);
    });
}

#[test]
fn a_backlog_on_a_very_slow_link_arrives_whole_and_nothing_is_told() {
    within(Duration::from_secs(200), || {
        let (publisher, proxy, rig) = behind_a_link();
        backlog(&publisher, &(proxy, rig), RATE / 10);
    });
}

/// Otherwise the server would cut off a subscriber that is so far behind.
#[cfg(feature = "redis")]
#[test]
fn a_backlog_on_a_slow_link_to_redis_arrives_whole_and_nothing_is_told() {
    use tablecast::drivers::redis::{RedisDriver, RedisOptions};
    within(Duration::from_secs(200), || {
        for rate in [RATE, RATE / 10] {
            let server = redis_server::Server::with(&["--client-output-buffer-limit", "pubsub 0 0 0"]);
            let driver = |address: &str| Arc::new(RedisDriver::new(address, RedisOptions::default()).unwrap());
            let options = PublisherOptions {
                hello_interval: hello(),
                ..PublisherOptions::default()
            };
            let publisher = Publisher::new(&*driver(&server.address()), options).unwrap();
            let link = link_to(server.port(), "redis", |address| driver(address));
            backlog(&publisher, &link, rate);
        }
    });
}

/// While one large update arrives, only its bytes show life for many hello periods.
#[test]
fn a_large_update_on_a_slow_link_arrives_and_nothing_is_told() {
    within(Duration::from_secs(100), || {
        let (publisher, proxy, rig) = behind_a_link();
        proxy.set(Fault::Rate(RATE));
        let size = if is_long() { 12 << 20 } else { 3 << 20 };
        let large = update("large").value("v".repeat(size));
        publisher.send_event(&large).unwrap();
        assert_eq!(receive(&rig, 1, Duration::from_secs(60)), ["large"]);
        rig.only("small", || send(&publisher, "D", "small"));
        assert_eq!(rig.syncs.try_iter().collect::<Vec<_>>(), []);
        assert_eq!(proxy.accepted(), 1, "nothing was torn down");
    });
}

/// Subscribers of one publisher, each with its own dispatcher, as separate programs have.
struct Crowd {
    subscribers: Vec<Arc<Subscriber>>,
    _nodes: Vec<Node>,
    updates: Arc<AtomicUsize>,
    syncs: Receiver<(Instant, SyncReason)>,
}

impl Crowd {
    fn new(count: usize, address: &str) -> Crowd {
        let config = Config::default().loaded(None, [("publishers", address)]).unwrap();
        let updates = Arc::new(AtomicUsize::new(0));
        let (told, syncs) = unbounded();
        let (mut subscribers, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let node = Node::open(&config).unwrap();
            let dispatcher = node.dispatcher().unwrap();
            let (seen, told) = (Arc::clone(&updates), told.clone());
            dispatcher
                .on_update(move |_: &DbUpdate| _ = seen.fetch_add(1, Ordering::Relaxed))
                .detach();
            dispatcher
                .on_sync(move |reason: &SyncReason| told.send((Instant::now(), reason.clone())).unwrap_or(()))
                .detach();
            subscribers.push(node.subscriber().unwrap());
            nodes.push(node);
        }
        let crowd = Crowd {
            subscribers,
            _nodes: nodes,
            updates,
            syncs,
        };
        crowd.wait_live();
        crowd
    }

    fn wait_live(&self) {
        for subscriber in &self.subscribers {
            subscriber.wait_live(Duration::from_secs(60)).unwrap();
        }
    }

    /// Waits until each has received `each` updates. Returns how often each kind of sync event came, and in how many
    /// slices of 20 ms.
    fn receive(&self, each: usize) -> BTreeMap<&'static str, (usize, usize)> {
        let all = each * self.subscribers.len();
        eventually(Duration::from_secs(60), || self.updates.load(Ordering::Relaxed) >= all);
        self.updates.fetch_sub(all, Ordering::Relaxed);
        let mut told: BTreeMap<_, (usize, BTreeSet<_>)> = BTreeMap::new();
        let begun = Instant::now() - Duration::from_secs(100);
        for (at, reason) in self.syncs.try_iter() {
            let (count, times) = told.entry(reason.as_str()).or_default();
            *count += 1;
            times.insert(at.duration_since(begun).as_millis() / 20);
        }
        told.into_iter()
            .map(|(reason, (count, times))| (reason, (count, times.len())))
            .collect()
    }
}

fn service(port: u16, socket: &str) -> Process {
    let mut command = tablecast(["service"]);
    command.env("TABLECAST_PUBLISHER_PORT", port.to_string());
    command.env("TABLECAST_PUBLISHER_MULTIPROC_SOCKET", socket);
    let mut service = Process::start(command);
    assert!(service.line().starts_with("ready"));
    service
}

/// A burst to many subscribers on two cores; then the publisher is killed and comes back.
#[test]
fn a_crowd_hears_everything_and_comes_back_without_a_stampede() {
    within(Duration::from_secs(200), || {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket").display().to_string();
        let port = free_port();
        let (count, burst) = if is_long() { (1_000, 2_000) } else { (100, 500) };
        let mut first = service(port, &socket);
        let crowd = Crowd::new(count, &format!("tcp://127.0.0.1:{port}"));
        let values = [("publisher_multiproc_socket", socket.as_str())];
        let config = Config::default().loaded(None, values).unwrap();
        let writer = Node::open(&config).unwrap().publisher().unwrap();
        let send_burst = || {
            for number in 0..burst {
                writer
                    .send_event(&update(&number.to_string()).value("v".repeat(200)))
                    .unwrap();
            }
        };
        send_burst();
        let told = crowd.receive(burst);
        assert_eq!(told.keys().collect::<Vec<_>>(), [&"connected"], "{told:?}");

        first.kill();
        let killed = Instant::now();
        let is_lost = || {
            crowd
                .subscribers
                .iter()
                .all(|one| one.wait_live(Duration::ZERO).is_err())
        };
        eventually(Duration::from_secs(10), is_lost);
        let _second = service(port, &socket);
        crowd.wait_live();
        let took = killed.elapsed();
        send_burst();
        let told = crowd.receive(burst);
        eprintln!("{count} are live again {took:.1?} after the kill; told, in pieces of 20 ms: {told:?}");
        assert_eq!(
            told.keys().collect::<Vec<_>>(),
            [&"address-lost", &"reconnected"],
            "{told:?}"
        );
        for (times, pieces) in told.values() {
            assert_eq!(*times, count, "{told:?}");
            assert!(*pieces >= 5, "all at once: {told:?}");
        }
    });
}
