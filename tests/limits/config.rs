//! The least and the greatest value of every option.

use std::sync::Arc;
use std::time::Duration;

use tablecast::config::Source;
use tablecast::monitor::{Monitor, MonitorOptions};
use tablecast::{Config, ErrorKind, Node};

use crate::common::eventually;
use crate::rig::{LONG, update};
use crate::{alone, rests};

/// The least and the greatest value of every option.
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

        // All parts, with the least and with the greatest value of every option.
        for is_least in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = Config::default();
            for (name, low, high) in bounds() {
                // Nothing fits the least value of these, and waiting for the greatest of that takes too long.
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
    let host = Node::open(config).unwrap();
    config.publishers = vec![host.service().unwrap().address().unwrap()];
    let node = Node::open(config).unwrap();
    let (store, dispatcher) = (node.store().unwrap(), node.dispatcher().unwrap());
    let (sender, updates) = crossbeam_channel::unbounded();
    dispatcher.on_table("row", sender).detach();
    let publisher = node.publisher().unwrap();
    let (sender, seen) = crossbeam_channel::unbounded();
    let handler = move |update: &tablecast::DbUpdate| drop(sender.send(update.key.clone()));
    let listener = node.listener(handler).unwrap();
    // A look before the listener is registered would be repeated only after the interval.
    listener.wait_registered(LONG).unwrap();
    let notifier = node.notifier().unwrap();
    let options = MonitorOptions::from(&*config);
    let monitor = Monitor::new(store, Arc::clone(&publisher), "monitored", "id", options).unwrap();
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
