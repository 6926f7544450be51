//! Metrics of a node in a program.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, unbounded};
#[cfg(feature = "zmq")]
use tablecast::metrics::series;
use tablecast::replica::ReplicaOptions;
use tablecast::store::Write;
use tablecast::stores::Stores;
use tablecast::stores::memory::MemoryStore;
use tablecast::{Config, DbUpdate, ListenerOptions, Metrics, Node, NotifierOptions, Topic};

use crate::common::{Stopwatch, eventually, within};
#[cfg(feature = "zmq")]
use crate::documents;
use crate::scrape::Scrape;
#[cfg(feature = "zmq")]
use crate::whole::Whole;
use crate::{LIMIT, LONG};

/// A node in memory, with a store of its own.
fn node(name: &str) -> Node {
    let mut config = Config::in_memory(name);
    config.topics = vec![Topic::ALL];
    config.nb_db_class = "own".into();
    let mut stores = Stores::new();
    stores.register("own", |_| Ok(Arc::new(MemoryStore::new()))).unwrap();
    Node::builder(&config).stores(stores).open().unwrap()
}

fn read(metrics: &Metrics) -> Scrape {
    Scrape::read(&metrics.encode())
}

#[test]
fn counters_agree_with_what_was_sent() {
    within(LIMIT, || {
        let node = node("metrics-agree");
        let metrics = Metrics::new(&node);
        assert_eq!(read(&metrics).count("tablecast_updates_sent_total"), 0);
        let replica = node.replica().unwrap();
        let table = replica.raw_table("lport").unwrap();
        let database = node.database().unwrap();
        node.subscriber().unwrap().wait_live(LONG).unwrap();
        for n in 0..100 {
            let key = format!("port-{n}");
            database.write(&Write::create("lport", &key, "{}"), 5).unwrap();
        }
        assert!(database.write(&Write::create("lport", "port-1", "{}"), 5).is_err());
        let late = DbUpdate {
            timestamp: 1,
            ..DbUpdate::new("other", "k", "set".into())
        };
        node.publisher().unwrap().send_event(&late).unwrap();
        replica.wait_current(LONG).unwrap();
        eventually(LONG, || {
            read(&metrics).value("tablecast_updates_dispatched_total") == 101.0
        });
        let scrape = read(&metrics);
        let value = |sample: &str| scrape.value(&format!("tablecast_{sample}"));
        assert_eq!(value("updates_sent_total"), 101.0);
        assert_eq!(value("updates_received_total"), 101.0);
        assert_eq!(value("updates_lost_total"), 0.0);
        assert_eq!(value("updates_unhandled_total"), 1.0);
        assert_eq!(value("update_lag_seconds_count"), 101.0);
        // One was sent with a time after all others, so all lags are of this test.
        assert!(value("update_lag_seconds_sum") < 101.0 * LIMIT.as_secs_f64());
        assert_eq!(value("sync_events_total{reason=\"connected\"}"), 1.0);
        assert_eq!(value("sync_events_total{reason=\"gap\"}"), 0.0);
        assert_eq!(value("subscriber_addresses{state=\"live\"}"), 1.0);
        assert_eq!(value("subscriber_addresses{state=\"connecting\"}"), 0.0);
        assert_eq!(
            (value("queue_updates"), value("queue_capacity_updates")),
            (0.0, 65_536.0)
        );
        assert_eq!(value("replica_rows"), table.len() as f64);
        assert_eq!((value("replica_rows"), value("replica_synced")), (100.0, 1.0));
        let position = value("replica_position{table=\"lport\",topic=\"D\"}");
        let held = replica.position("lport", &Topic::ALL).unwrap();
        assert_eq!(position, held.version as f64);
        let staleness = value("replica_staleness_seconds{table=\"lport\",topic=\"D\"}");
        assert!(staleness < LIMIT.as_secs_f64());
        assert_eq!(value("replica_staleness_max_seconds"), staleness);
        assert_eq!(value("store_call_duration_seconds_count{call=\"write\"}"), 101.0);
        assert_eq!(value("store_errors_total{kind=\"already-exists\"}"), 1.0);

        // Nothing of a stopped node stays.
        drop(database);
        node.stop();
        let scrape = read(&metrics);
        assert_eq!(scrape.count("tablecast_updates_sent_total"), 0);
        assert_eq!(scrape.count("tablecast_build_info"), 1);
    });
}

/// Prometheus takes a counter that falls for one that began anew, and counts it all again.
#[test]
fn no_counter_falls_when_one_of_two_parts_ends() {
    within(LIMIT, || {
        let node = node("metrics-ends");
        let metrics = Metrics::new(&node);
        let database = node.database().unwrap();
        let replicas = [(); 2].map(|()| node.replica().unwrap());
        for replica in &replicas {
            replica.raw_table("lport").unwrap();
            replica.raw_table("other").unwrap();
        }
        let listeners = ["one", "two"].map(|id| {
            let options = ListenerOptions {
                id: Some(id.into()),
                ..ListenerOptions::default()
            };
            node.listener_with(options, |_| {}).unwrap()
        });
        let notifiers = ["three", "four"].map(|id| {
            let options = NotifierOptions {
                id: Some(id.into()),
                ..NotifierOptions::default()
            };
            node.notifier_with(options).unwrap()
        });
        node.subscriber().unwrap().wait_live(LONG).unwrap();
        // Otherwise a listing may have the rows before their updates come.
        replicas.iter().for_each(|replica| replica.wait_synced(LONG).unwrap());
        let work = |keys: &str| {
            for n in 0..20 {
                let key = format!("{keys}-{n}");
                for table in ["lport", "other"] {
                    database.write(&Write::create(table, &key, "{}"), 5).unwrap();
                }
                for notifier in &notifiers {
                    notifier.notify(DbUpdate::new("status", &*key, "set".into())).unwrap();
                }
            }
            notifiers.iter().for_each(|notifier| notifier.flush(LONG).unwrap());
            for replica in &replicas {
                replica.wait_current(LONG).unwrap();
            }
        };
        work("k");
        let counters = || {
            let names = [
                "replica_updates_total{result=\"applied\"}",
                "replica_resyncs_total{kind=\"listing\"}",
            ];
            let of_status = ["listener_events_total{result=\"handled\"}", "notifier_sent_total"];
            let scrape = read(&metrics);
            let value = |name: &str| scrape.value(&format!("tablecast_{name}"));
            (names.map(value), of_status.map(value))
        };
        let before = counters();
        assert!(before.0.iter().chain(&before.1).all(|count| *count > 0.0), "{before:?}");
        let [first, second] = replicas;
        assert!(first.remove_table("other"));
        assert_eq!(counters(), before);
        assert!(first.stats().applied >= 40);
        drop(first);
        assert_eq!(counters(), before);
        assert_eq!(read(&metrics).value("tablecast_replica_rows"), 40.0);
        drop(second);
        let [first, second] = listeners;
        drop(first);
        let [_, fourth] = notifiers;
        eventually(LONG, || counters() == before);
        // What the others count now is added.
        fourth.notify(DbUpdate::new("status", "last", "set".into())).unwrap();
        fourth.flush(LONG).unwrap();
        let after = counters();
        assert_eq!(after.0, before.0);
        assert_eq!(after.1[0], before.1[0] + 1.0);
        assert!(after.1[1] > before.1[1]);
        drop((second, fourth));
        eventually(LONG, || counters() == after);
        assert_eq!(read(&metrics).value("tablecast_listener_claims"), 0.0);
    });
}

#[test]
fn calls_of_a_store_that_the_program_gives_are_timed() {
    within(LIMIT, || {
        let config = Config::in_memory("metrics-given");
        let store = Arc::new(MemoryStore::new());
        let node = Node::builder(&config).store(store).open().unwrap();
        let metrics = Metrics::new(&node);
        node.store().unwrap().get("t", "k", None).unwrap_err();
        let scrape = read(&metrics);
        assert_eq!(
            scrape.value("tablecast_store_call_duration_seconds_count{call=\"get\"}"),
            1.0
        );
    });
}

#[test]
fn a_node_without_metrics_measures_nothing() {
    within(LIMIT, || {
        let node = node("metrics-late");
        let (updates, received) = unbounded::<DbUpdate>();
        node.dispatcher().unwrap().on_update(updates).detach();
        node.subscriber().unwrap();
        let publisher = node.publisher().unwrap();
        node.subscriber().unwrap().wait_live(LONG).unwrap();
        let send = || {
            publisher.send_event(&DbUpdate::new("t", "k", "set".into())).unwrap();
            received.recv_timeout(LONG).unwrap();
        };
        send();
        let metrics = Metrics::new(&node);
        send();
        let scrape = read(&metrics);
        // What the parts count anyway is all there, the times only since then.
        assert_eq!(scrape.value("tablecast_updates_sent_total"), 2.0);
        assert_eq!(scrape.value("tablecast_update_lag_seconds_count"), 1.0);
    });
}

/// Peers can make up times.
#[test]
fn a_time_that_is_made_up_distorts_little() {
    within(LIMIT, || {
        let node = node("metrics-times");
        let metrics = Metrics::new(&node);
        let queue = node.dispatcher().unwrap().queue();
        for timestamp in [i64::MIN, 0, i64::MAX] {
            let update = DbUpdate {
                timestamp,
                ..DbUpdate::new("t", "k", "set".into())
            };
            queue.push(&mut vec![update], &never()).unwrap();
        }
        eventually(LONG, || {
            read(&metrics).value("tablecast_update_lag_seconds_count") == 3.0
        });
        // The first is measured; the others are too, or count like it.
        let sum = read(&metrics).value("tablecast_update_lag_seconds_sum");
        assert!((3600.0..=3.0 * 3600.0).contains(&sum), "{sum}");
    });
}

#[test]
fn many_topics_are_few_series() {
    within(LIMIT, || {
        const TOPICS: usize = 100_000;
        let node = node("metrics-topics");
        let metrics = Metrics::new(&node);
        let topic = |n: usize| Topic::new(format!("tenant-{n:0>60}")).unwrap();
        let options = |topics: usize| ReplicaOptions {
            topics: (0..topics).map(topic).collect(),
            ..ReplicaOptions::default()
        };
        let few = node.replica_with(options(100)).unwrap();
        few.raw_table("lport").unwrap();
        few.wait_synced(LIMIT).unwrap();
        let scrape = read(&metrics);
        assert_eq!(scrape.count("tablecast_replica_position{"), 100);
        assert_eq!(scrape.count("tablecast_replica_staleness_seconds{"), 100);
        drop(few);

        let many = node.replica_with(options(TOPICS)).unwrap();
        many.raw_table("lport").unwrap();
        eventually(LONG, || {
            read(&metrics).value("tablecast_replica_topics{state=\"proven\"}") > 0.0
        });
        let (start, watch) = (Instant::now(), Stopwatch::start());
        let text = metrics.encode();
        let took = start.elapsed();
        watch.assert_within(Duration::from_secs(2), "a scrape");
        println!("a scrape of {TOPICS} topics: {} bytes in {took:?}", text.len());
        assert!(text.len() < 20_000, "{}", text.len());
        let scrape = Scrape::read(&text);
        let topics = ["proven", "unproven"].map(|state| format!("tablecast_replica_topics{{state=\"{state}\"}}"));
        let topics = topics.map(|sample| scrape.value(&sample));
        assert_eq!(topics.iter().sum::<f64>(), TOPICS as f64);
        let max = scrape.value("tablecast_replica_staleness_max_seconds");
        let median = scrape.value("tablecast_replica_staleness_percentile_seconds{percentile=\"50\"}");
        assert!(0.0 < median && median <= max, "{median} {max}");
        assert_eq!(scrape.count("tablecast_replica_position{"), 0);
    });
}

/// Nodes that have every part show every series.
#[cfg(feature = "zmq")]
#[test]
fn every_series_of_the_table_is_written() {
    within(LIMIT, || {
        let whole = Whole::start();
        whole.work();
        let (service, node) = (read(&whole.service), read(&whole.node));
        let is_written = |name: &str| [&service, &node].iter().any(|scrape| scrape.families.contains(name));
        let all = series().iter().map(|series| series.name);
        let missing: Vec<&str> = all.filter(|name| !is_written(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(node.value("tablecast_listener_failed_total"), 1.0);
        assert_eq!(node.value("tablecast_notifier_acknowledged_total"), 1.0);
        assert!(node.value("tablecast_background_errors_total{kind=\"panic\"}") >= 1.0);
        // What alerts and panels choose by a label is there, before anything has gone wrong.
        for (name, label, value) in documents::choices() {
            let sample = format!("{label}=\"{value}\"");
            let is_there = |scrape: &Scrape| scrape.has(&name, &sample);
            assert!(is_there(&service) || is_there(&node), "no {name} with {sample}");
        }
        whole.stop();
    });
}
