//! Parts that look at the store repeatedly.

use std::sync::Arc;
use std::time::Duration;

use tablecast::drivers::memory::MemoryDriver;
use tablecast::monitor::{Monitor, MonitorOptions};
use tablecast::registry::{Member, Registration, RegistryOptions, Watch};
use tablecast::stores::memory::MemoryStore;
use tablecast::transport::Driver;
use tablecast::{
    ErrorKind, Listener, ListenerOptions, Notifier, NotifierOptions, Publisher, PublisherOptions, Store, Topic,
};

use crate::common::eventually;
use crate::rig::{LONG, Rig, update};
use crate::{SIZES, TIMES, alone, rests, rests_at};

#[test]
fn monitors() {
    alone(|| {
        for time in TIMES {
            let driver = MemoryDriver::new("memory://a").unwrap();
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
        // The shortest possible time.
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
            let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::new(&address).unwrap());
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
