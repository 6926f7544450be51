//! Times and sizes of every length: no part panics or keeps a processor busy, and what makes no sense is refused.
#![cfg(all(feature = "zmq", feature = "redis", feature = "sqlite", feature = "bin"))]

mod common;
#[path = "common/rig.rs"]
mod rig;
#[path = "common/redis.rs"]
mod servers;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{eventually, within};
use nix::time::{ClockId, clock_gettime};
use rig::{LONG, Rig, pass, send, update};
use tablecast::codec::{MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_UPDATES};
use tablecast::config::Source;
use tablecast::drivers::memory::MemoryPubSub;
use tablecast::drivers::redis::{RedisOptions, RedisPubSub};
use tablecast::drivers::zmq::{ZmqMultiproc, ZmqOptions, ZmqPubSub};
use tablecast::monitor::{Monitor, MonitorOptions};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::registry::{Member, Registration, RegistryOptions, Watch};
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;
use tablecast::stores::redis::RedisStore;
use tablecast::stores::sqlite::SqliteStore;
use tablecast::transport::PubSub;
use tablecast::{
    Config, Dispatcher, DispatcherOptions, Drivers, ErrorKind, Listener, ListenerOptions, Notifier, NotifierOptions,
    Publisher, PublisherOptions, Service, ServiceOptions, Store, Stores, Subscriber, Topic, failed_threads,
};

const LIMIT: Duration = Duration::from_secs(60);

const TIMES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::MAX,
];

const SIZES: [usize; 3] = [0, 1, usize::MAX];

/// Runs the tests one after the other, since the processor time of the process is measured, and sees to it that no thread has
/// ended unasked.
fn alone(body: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
    within(LIMIT, body);
    assert_eq!(failed_threads(), 0);
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// With nothing to do, this keeps no processor busy.
fn rests(what: &str) {
    rests_at(what, || 0);
}

/// Nor does what it counts happen more often than every millisecond.
fn rests_at(what: &str, count: impl Fn() -> u64) {
    let (start, used, counted) = (Instant::now(), processor_time(), count());
    pass(Duration::from_millis(200));
    let (counted, used, passed) = (count() - counted, processor_time() - used, start.elapsed());
    assert!(
        used < passed / 2,
        "{what} uses {used:?} of the processor within {passed:?}"
    );
    assert!(
        u128::from(counted) <= passed.as_millis() + 2,
        "{what}: {counted} times within {passed:?}"
    );
}

/// One update goes all the way.
fn exchange(publisher: &Publisher, rig: &Rig) {
    publisher.send_event(&update("key")).unwrap();
    assert_eq!(rig.next_key(), "key");
}

#[test]
fn publishers() {
    alone(|| {
        let server = servers::Server::start();
        let drivers: [Arc<dyn PubSub>; 3] = [
            Arc::new(MemoryPubSub::new("memory://a").unwrap()),
            Arc::new(ZmqPubSub::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap()),
            Arc::new(RedisPubSub::new(&server.address(), RedisOptions::default()).unwrap()),
        ];
        for (driver, time) in drivers.iter().flat_map(|driver| TIMES.map(|time| (driver, time))) {
            let options = PublisherOptions {
                send_timeout: time,
                hello_interval: time,
                max_message_bytes: usize::MAX,
                max_topic_bytes: usize::MAX,
                max_key_bytes: usize::MAX,
                ..PublisherOptions::default()
            };
            let publisher = Publisher::new(&**driver, options).unwrap();
            let rig = Rig::new(driver);
            rig.listen(&["D"], &publisher.address().unwrap());
            let is_hurried = !time.is_zero() && time <= Duration::from_millis(1);
            match publisher.send_event(&update("early")) {
                // Redis has to answer in time.
                Err(e) if is_hurried => assert_eq!(e.kind(), ErrorKind::Timeout),
                sent => {
                    sent.unwrap();
                    assert_eq!(rig.next_key(), "early");
                }
            }
            let hellos = || publisher.stats().hellos;
            rests_at(&format!("a publisher of {driver:?} with {time:?}"), hellos);
        }
        for size in [0, 1] {
            let options = PublisherOptions {
                max_message_bytes: size,
                max_topic_bytes: 1,
                max_key_bytes: size,
                ..PublisherOptions::default()
            };
            let publisher = Publisher::new(&*drivers[0], options).unwrap();
            assert_eq!(
                publisher.send_event(&update("")).unwrap_err().kind(),
                ErrorKind::TooLarge
            );
            let long = publisher.send_event(&update("two")).unwrap_err();
            assert_eq!(long.kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn what_receivers_would_refuse_is_refused_by_the_sender() {
    alone(|| {
        let driver = MemoryPubSub::new("memory://a").unwrap();
        let publisher = |id: usize| {
            let options = PublisherOptions {
                id: Some("i".repeat(id).into()),
                ..PublisherOptions::default()
            };
            Publisher::new(&driver, options)
        };
        let error = publisher(MAX_ID_BYTES + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(
            text.contains("publisher_id") && text.contains("255") && text.contains("iii"),
            "{text}"
        );

        let publisher = publisher(MAX_ID_BYTES).unwrap();
        let rig = Rig::new(&(Arc::new(driver) as Arc<dyn PubSub>));
        rig.listen(&["D"], "memory://a");
        let mut batch = vec![update("key"); MAX_UPDATES + 1];
        let error = publisher.send_batch(&Topic::ALL, &batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains(&MAX_UPDATES.to_string()), "{error}");
        let mut long = update("long");
        long.action = "a".repeat(MAX_ACTION_BYTES + 1).as_str().into();
        assert_eq!(publisher.send_event(&long).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(
            publisher.send_batch(&Topic::ALL, &[long]).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        // What is just allowed arrives.
        batch.truncate(MAX_UPDATES);
        publisher.send_batch(&Topic::ALL, &batch).unwrap();
        (0..MAX_UPDATES).for_each(|_| assert_eq!(rig.next_key(), "key"));
        let mut longest = update("longest");
        longest.action = "a".repeat(MAX_ACTION_BYTES).as_str().into();
        publisher.send_event(&longest).unwrap();
        assert_eq!(rig.next().origin.unwrap().publisher.len(), MAX_ID_BYTES);
        assert_eq!(rig.subscriber.stats().malformed, 0);
    });
}

#[test]
fn services() {
    alone(|| {
        for (time, size) in TIMES.into_iter().zip([usize::MAX, 1 << 20, usize::MAX, 0]) {
            let folder = tempfile::tempdir().unwrap();
            let socket = format!("ipc://{}/publisher.sock", folder.path().display());
            let options = ServiceOptions {
                send_timeout: time,
                hello_interval: time,
                max_message_bytes: size,
                ..ServiceOptions::default()
            };
            let multiproc = ZmqMultiproc::new(&socket, ZmqOptions::default()).unwrap();
            let network: Arc<dyn PubSub> =
                Arc::new(ZmqPubSub::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
            let service = Service::start(&multiproc, &socket, &*network, options).unwrap();
            let rig = Rig::new(&network);
            rig.listen(&["D"], &service.address().unwrap());
            let publisher = Publisher::new(&multiproc, PublisherOptions::default()).unwrap();
            if size > 0 {
                exchange(&publisher, &rig);
            } else {
                send(&publisher, "D", "key");
                eventually(LONG, || service.stats().malformed > 0);
            }
            rests(&format!("a service with {time:?}"));
        }
    });
}

#[test]
fn dispatchers() {
    alone(|| {
        for (capacity, time) in SIZES.into_iter().flat_map(|size| TIMES.map(|time| (size, time))) {
            for overflow in [Overflow::Coalesce, Overflow::Block, Overflow::DropAndSync] {
                let queue = QueueOptions {
                    capacity,
                    overflow,
                    max_overtake: time,
                };
                let options = DispatcherOptions {
                    queue,
                    workers: 1,
                    ..DispatcherOptions::default()
                };
                let dispatcher = Dispatcher::new(options).unwrap();
                let (sender, updates) = crossbeam_channel::unbounded();
                dispatcher.on_update(sender).detach();
                let push = |key: &str| {
                    let never = crossbeam_channel::never();
                    dispatcher.queue().push(&mut vec![update(key)], &never).unwrap();
                };
                push("key");
                assert_eq!(updates.recv_timeout(LONG).unwrap().key, "key");
            }
        }
        let with_workers = |workers| {
            Dispatcher::new(DispatcherOptions {
                workers,
                ..DispatcherOptions::default()
            })
        };
        for workers in [1025, usize::MAX] {
            let error = with_workers(workers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(
                text.contains("dispatcher_workers") && text.contains(&workers.to_string()),
                "{text}"
            );
        }
        let dispatcher = with_workers(2).unwrap();
        rests("a dispatcher");
        dispatcher.stop();
    });
}

#[test]
fn monitors() {
    alone(|| {
        for time in TIMES {
            let driver = MemoryPubSub::new("memory://a").unwrap();
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            store.create("table", "key", "-", &Topic::ALL).unwrap();
            let publisher = Arc::new(Publisher::new(&driver, PublisherOptions::default()).unwrap());
            let begin = |interval, delay| {
                let options = MonitorOptions {
                    interval,
                    delay,
                    ..MonitorOptions::default()
                };
                Monitor::new(Arc::clone(&store), Arc::clone(&publisher), "table", "id", options).unwrap()
            };
            let monitor = begin(time, Duration::ZERO);
            eventually(LONG, || monitor.stats().created == 1);
            let late = begin(Duration::MAX, time);
            rests_at(&format!("a monitor with {time:?}"), || monitor.stats().polls);
            assert!(late.stats().polls <= 1);
        }
    });
}

#[test]
fn registries() {
    alone(|| {
        let member = || Member {
            id: "id".into(),
            ..Member::default()
        };
        for (timeout, interval) in TIMES
            .into_iter()
            .flat_map(|timeout| TIMES.map(|interval| (timeout, interval)))
        {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let options = RegistryOptions {
                timeout,
                interval,
                hook: None,
            };
            let registered = Registration::new(Arc::clone(&store), "table", member(), options.clone());
            let (sender, seen) = crossbeam_channel::unbounded();
            let tell = move |present: &[_]| {
                let _ = sender.send(present.len());
            };
            let watched = Watch::new(store, "table", options, true, tell);
            if timeout < Duration::from_millis(10) {
                for error in [registered.unwrap_err(), watched.unwrap_err()] {
                    assert_eq!(error.kind(), ErrorKind::Config);
                    assert!(error.to_string().contains(&format!("{timeout:?}")), "{error}");
                }
                continue;
            }
            let (registration, _watch) = (registered.unwrap(), watched.unwrap());
            registration.wait_registered(Duration::MAX).unwrap();
            seen.recv_timeout(LONG).unwrap();
            let looks = || seen.len() as u64;
            rests_at(&format!("a registry with {timeout:?} and {interval:?}"), looks);
        }
        // The shortest that there may be.
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let options = RegistryOptions {
            timeout: Duration::from_millis(10),
            interval: Duration::ZERO,
            hook: None,
        };
        let registration = Registration::new(Arc::clone(&store), "table", member(), options.clone()).unwrap();
        let _watch = Watch::new(store, "table", options, true, |_| ()).unwrap();
        registration.wait_registered(LONG).unwrap();
        rests("a registry with the shortest timeout");
    });
}

#[test]
fn listeners_and_notifiers() {
    alone(|| {
        for (number, time) in TIMES.into_iter().enumerate() {
            let address = format!("memory://status-{number}");
            let driver: Arc<dyn PubSub> = Arc::new(MemoryPubSub::new(&address).unwrap());
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let rig = Rig::new(&driver);
            rig.listen(&[], &address);
            let publisher = Arc::new(Publisher::new(&*driver, PublisherOptions::default()).unwrap());
            let handle = rig.dispatcher.handle();
            let options = ListenerOptions {
                interval: time,
                retention: time,
                ..ListenerOptions::default()
            };
            let (sender, seen) = crossbeam_channel::unbounded();
            let handler = move |update: &tablecast::DbUpdate| drop(sender.send(update.key.clone()));
            let listen = |options| {
                Listener::new(
                    Arc::clone(&store),
                    &rig.subscriber,
                    &handle,
                    &publisher,
                    options,
                    handler.clone(),
                )
            };
            let notify = |options| Notifier::new(Arc::clone(&store), &rig.subscriber, &handle, &publisher, options);
            let short = ListenerOptions {
                timeout: Duration::from_nanos(1),
                ..ListenerOptions::default()
            };
            assert_eq!(listen(short).unwrap_err().kind(), ErrorKind::Config);
            let short = NotifierOptions {
                timeout: Duration::ZERO,
                ..NotifierOptions::default()
            };
            assert_eq!(notify(short).unwrap_err().kind(), ErrorKind::Config);
            let listener = listen(options).unwrap();
            listener.wait_registered(Duration::MAX).unwrap();
            let options = NotifierOptions {
                ack_timeout: time,
                window: SIZES[number % 3],
                capacity: SIZES[number % 3],
                notify_timeout: Duration::MAX,
                interval: time,
                timeout: Duration::from_secs(10).max(time),
                ..NotifierOptions::default()
            };
            let notifier = notify(options).unwrap();
            notifier.wait_listeners(1, Duration::MAX).unwrap();
            for key in 0..3 {
                notifier.notify(update(&key.to_string())).unwrap();
            }
            notifier.flush(Duration::MAX).unwrap();
            assert!(seen.len() >= 3);
            rests(&format!("status updates with {time:?}"));
            listener.stop_within(Duration::MAX).unwrap();
        }
    });
}

#[test]
fn stores() {
    alone(|| {
        let server = servers::Server::start();
        let folder = tempfile::tempdir().unwrap();
        for (batch_amount, timeout) in SIZES.into_iter().flat_map(|size| TIMES.map(|time| (size, time))) {
            let options = StoreOptions { batch_amount, timeout };
            let path = folder.path().join("rows.db");
            let stores: [Arc<dyn Store>; 3] = [
                Arc::new(MemoryStore::new().with_options(options.clone())),
                match SqliteStore::open(&path, options.clone()) {
                    Ok(store) => Arc::new(store),
                    Err(e) => panic!("{e}"),
                },
                Arc::new(RedisStore::new(&server.address(), options, &RedisOptions::default()).unwrap()),
            ];
            for store in stores {
                let written =
                    (0..3).try_for_each(|key| match store.create("table", &key.to_string(), "-", &Topic::ALL) {
                        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                        created => created.map(drop),
                    });
                let keys: tablecast::Result<Vec<_>> = store.keys("table", None).collect();
                match timeout {
                    Duration::MAX => {
                        written.unwrap();
                        assert_eq!(keys.unwrap().len(), 3);
                    }
                    // There may be no time for it, which is said.
                    _ => {
                        let allowed = [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Unconfirmed];
                        let errors = [written.err(), keys.err()].into_iter().flatten();
                        errors.for_each(|e| assert!(allowed.contains(&e.kind()), "{e}"));
                    }
                }
            }
        }
    });
}

#[test]
fn options_of_zmq() {
    alone(|| {
        for time in TIMES {
            let options = ZmqOptions {
                // The end of the process would wait for it.
                linger: time.min(Duration::from_secs(1)),
                heartbeat_interval: time,
                heartbeat_timeout: time,
                reconnect_interval: time,
                reconnect_max: time,
                ..ZmqOptions::default()
            };
            let driver: Arc<dyn PubSub> = Arc::new(ZmqPubSub::new("tcp://127.0.0.1:0", options).unwrap());
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            let rig = Rig::new(&driver);
            rig.listen(&["D"], &publisher.address().unwrap());
            // Nobody is there: it is tried again and again.
            let nobody = format!("tcp://127.0.0.1:{}", rig::free_port());
            rig.subscriber.register_listen_address(&nobody).unwrap();
            exchange(&publisher, &rig);
            rests(&format!("ZeroMQ with {time:?}"));
        }
    });
}

#[test]
fn options_of_redis() {
    alone(|| {
        let server = servers::Server::start();
        let nobody = format!("redis://127.0.0.1:{}", rig::free_port());
        let mut cases: Vec<_> = TIMES.map(|time| (time, time, time, time)).to_vec();
        let (short, long) = (Duration::from_nanos(1), Duration::MAX);
        cases.extend([(short, long, long, short), (long, short, short, long)]);
        for (number, case) in cases.into_iter().enumerate() {
            let (heartbeat_interval, heartbeat_timeout, reconnect_interval, reconnect_max) = case;
            let options = RedisOptions {
                heartbeat_interval,
                heartbeat_timeout,
                reconnect_interval,
                reconnect_max,
                max_frame_bytes: usize::MAX,
                retries: if number % 2 == 0 { u32::MAX } else { 0 },
                ..RedisOptions::default()
            };
            let driver: Arc<dyn PubSub> = Arc::new(RedisPubSub::new(&server.address(), options.clone()).unwrap());
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            let rig = Rig::new(&driver);
            rig.subscriber.register_topic(&Topic::ALL).unwrap();
            rig.subscriber.register_listen_address(&server.address()).unwrap();
            rig.subscriber.register_listen_address(&nobody).unwrap();
            rig.subscriber.daemonize().unwrap();
            // On a busy machine a server may need longer than it has.
            let arrives = || {
                let _ = publisher.send_event(&update("key"));
                rig.updates.recv_timeout(Duration::from_millis(20)).is_ok()
            };
            eventually(LONG, arrives);
            rests(&format!("Redis with {case:?}"));
            let store_options = StoreOptions {
                timeout: Duration::from_millis(100),
                ..StoreOptions::default()
            };
            let store = RedisStore::new(&nobody, store_options, &options).unwrap();
            let before = processor_time();
            store.get("table", "key", None).unwrap_err();
            assert!(processor_time() - before < Duration::from_millis(100), "{case:?}");
        }
    });
}

/// The least and the most that every option of the configuration takes.
fn bounds() -> Vec<(&'static str, u64, u64)> {
    let bounds = Config::options().iter().filter_map(|option| {
        let (low, high) = option
            .accepts
            .strip_prefix("a whole number from ")?
            .split_once(" to ")?;
        Some((option.name, low.parse().ok()?, high.parse().ok()?))
    });
    bounds.collect()
}

#[test]
fn options_of_the_configuration() {
    alone(|| {
        assert!(bounds().len() > 20);
        for (name, low, high) in bounds() {
            let mut config = Config::default();
            for good in [low, high] {
                config.set(name, &good.to_string(), Source::Program).unwrap();
            }
            let mut bad = vec![high + 1, u64::MAX];
            bad.extend(low.checked_sub(1));
            for bad in bad {
                let error = config.set(name, &bad.to_string(), Source::Program).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config);
                let text = error.to_string();
                assert!(text.contains(name) && text.contains(&bad.to_string()), "{text}");
            }
        }
        let mut config = Config::default();
        config.hello_interval_ms = Duration::MAX;
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains("hello_interval_ms"), "{text}");

        // All parts, with the least and with the most of everything.
        for is_least in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            for (name, low, high) in bounds() {
                // Nothing is as small as the least of these, or as patient as the most of that.
                if name.starts_with("max_") && is_least || name == "linger_ms" {
                    continue;
                }
                let value = if is_least { low } else { high };
                config.set(name, &value.to_string(), Source::Program).unwrap();
            }
            if is_least {
                config.send_timeout_ms = Duration::from_secs(5);
                config.store_timeout_ms = Duration::from_secs(5);
                config.publisher_timeout_ms = Duration::from_secs(5);
                config.listener_timeout_ms = Duration::from_secs(5);
            }
            config.heartbeat_interval_ms = config.heartbeat_interval_ms.min(config.heartbeat_timeout_ms / 2);
            config.publisher_port = 0;
            config.publisher_multiproc_socket = folder.path().join("publisher.sock");
            config.sqlite_path = folder.path().join("rows.db");
            config.validate().unwrap();
            all_parts(&mut config);
        }
    });
}

fn all_parts(config: &mut Config) {
    let (drivers, stores) = (Drivers::new(), Stores::new());
    let service = Service::open(config, &drivers).unwrap();
    config.publishers = vec![service.address().unwrap()];
    let store = stores.open(config).unwrap();
    let dispatcher = Dispatcher::new((&*config).into()).unwrap();
    let (sender, updates) = crossbeam_channel::unbounded();
    dispatcher.on_table("row", sender).detach();
    let subscriber = Arc::new(Subscriber::open(config, &drivers, dispatcher.queue()).unwrap());
    subscriber.daemonize().unwrap();
    let publisher = Arc::new(Publisher::open(config, &drivers).unwrap());
    let handle = dispatcher.handle();
    let (sender, seen) = crossbeam_channel::unbounded();
    let handler = move |update: &tablecast::DbUpdate| drop(sender.send(update.key.clone()));
    let options = ListenerOptions::from(&*config);
    let listener = Listener::new(Arc::clone(&store), &subscriber, &handle, &publisher, options, handler).unwrap();
    // Whoever looks before it is there looks again only when the interval is over.
    listener.wait_registered(LONG).unwrap();
    let options = NotifierOptions::from(&*config);
    let notifier = Notifier::new(Arc::clone(&store), &subscriber, &handle, &publisher, options).unwrap();
    let options = MonitorOptions::from(&*config);
    let monitor = Monitor::new(Arc::clone(&store), Arc::clone(&publisher), "monitored", "id", options).unwrap();
    let arrives = || {
        publisher.send_event(&update("key")).unwrap();
        updates.recv_timeout(Duration::from_millis(20)).is_ok()
    };
    eventually(LONG, arrives);
    notifier.notify(update("status")).unwrap();
    seen.recv_timeout(LONG).unwrap();
    rests("all parts");
    drop((notifier, listener, monitor));
}
