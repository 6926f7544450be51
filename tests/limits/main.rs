//! Times and sizes of every length: no part panics or keeps a processor busy, and invalid values are refused.
#![cfg(all(feature = "zmq", feature = "redis", feature = "sqlite", feature = "bin"))]

#[path = "../common/mod.rs"]
mod common;
mod config;
mod drivers;
#[path = "../common/rig.rs"]
mod rig;
#[path = "../common/redis.rs"]
mod servers;
mod watchers;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{eventually, pass, within};
use nix::time::{ClockId, clock_gettime};
use rig::{LONG, Rig, send, update};
use tablecast::codec::{MAX_ACTION_BYTES, MAX_ID_BYTES, MAX_UPDATES};
use tablecast::drivers::memory::MemoryDriver;
use tablecast::drivers::redis::{RedisDriver, RedisOptions};
use tablecast::drivers::zmq::{ZmqDriver, ZmqMultiproc, ZmqOptions};
use tablecast::queue::{Overflow, QueueOptions};
use tablecast::transport::Driver;
use tablecast::{
    Dispatcher, DispatcherOptions, ErrorKind, Publisher, PublisherOptions, Service, ServiceOptions, Topic,
    failed_threads,
};

const LIMIT: Duration = Duration::from_secs(60);

const TIMES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::MAX,
];

const SIZES: [usize; 3] = [0, 1, usize::MAX];

/// Runs the tests one after the other, since the processor time of the process is measured, and checks that no thread
/// has ended unasked.
fn alone(body: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
    within(LIMIT, body);
    assert_eq!(failed_threads(), 0);
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// Checks that an idle process keeps no processor busy.
fn rests(what: &str) {
    rests_at(what, || 0);
}

/// As [`rests`], and checks that the counted event happens at most once a millisecond.
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

/// Sends an update and receives it.
fn exchange(publisher: &Publisher, rig: &Rig) {
    publisher.send_event(&update("key")).unwrap();
    assert_eq!(rig.next_key(), "key");
}

#[test]
fn publishers() {
    alone(|| {
        let server = servers::Server::start();
        let drivers: [Arc<dyn Driver>; 3] = [
            Arc::new(MemoryDriver::new("memory://a").unwrap()),
            Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap()),
            Arc::new(RedisDriver::new(&server.address(), RedisOptions::default()).unwrap()),
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
        let driver = MemoryDriver::new("memory://a").unwrap();
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
        let rig = Rig::new(&(Arc::new(driver) as Arc<dyn Driver>));
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
        // A batch of exactly the limit arrives.
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
            let network: Arc<dyn Driver> =
                Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", ZmqOptions::default()).unwrap());
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
