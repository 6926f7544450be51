//! Extreme options of drivers and stores.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::redis::{RedisDriver, RedisOptions};
use tablecast::drivers::zmq::{ZmqDriver, ZmqOptions};
use tablecast::store::StoreOptions;
use tablecast::stores::memory::MemoryStore;
use tablecast::stores::redis::RedisStore;
use tablecast::stores::sqlite::SqliteStore;
use tablecast::transport::Driver;
use tablecast::{ErrorKind, Publisher, PublisherOptions, Store, Topic};

use crate::common::{eventually, free_port};
use crate::rig::{LONG, Rig, update};
use crate::{SIZES, TIMES, alone, exchange, processor_time, rests, servers};

#[test]
fn stores() {
    alone(|| {
        let server = servers::Server::start();
        let folder = tempfile::tempdir().unwrap();
        for (batch_amount, timeout) in SIZES.into_iter().flat_map(|size| TIMES.map(|time| (size, time))) {
            let options = StoreOptions {
                batch_amount,
                timeout,
                ..StoreOptions::default()
            };
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
                    // There may not be enough time, which is reported.
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
                multicast_rate: if time.is_zero() { 0 } else { u32::MAX },
                multicast_recovery: time,
                ..ZmqOptions::default()
            };
            let driver: Arc<dyn Driver> = Arc::new(ZmqDriver::new("tcp://127.0.0.1:0", options).unwrap());
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            let rig = Rig::new(&driver);
            rig.listen(&["D"], &publisher.address().unwrap());
            // No server is there, so connecting is tried repeatedly.
            let nobody = format!("tcp://127.0.0.1:{}", free_port());
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
        let nobody = format!("redis://127.0.0.1:{}", free_port());
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
            let driver: Arc<dyn Driver> = Arc::new(RedisDriver::new(&server.address(), options.clone()).unwrap());
            let publisher = Publisher::new(&*driver, PublisherOptions::default()).unwrap();
            let rig = Rig::new(&driver);
            rig.subscriber.register_topic(&Topic::ALL).unwrap();
            rig.subscriber.register_listen_address(&server.address()).unwrap();
            rig.subscriber.register_listen_address(&nobody).unwrap();
            rig.subscriber.daemonize().unwrap();
            // On a busy machine a server may need more time than it has.
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
