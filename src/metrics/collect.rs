//! Reads the counters of the running parts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::samples::Samples;
use super::series::*;
use crate::clock;
use crate::dispatcher::DispatcherHandle;
#[cfg(feature = "zmq")]
use crate::drivers::accepted;
use crate::error::{ErrorCounts, REPORTED};
use crate::event::SyncReason;
use crate::listener::{Latency, ListenerStats, NotifierStats};
use crate::node::Running;
use crate::publisher::Publisher;
#[cfg(feature = "redis")]
use crate::redis;
use crate::replica::{Outline, ReplicaStats};
use crate::service::Service;
use crate::subscriber::{AddressState, Subscriber};
use crate::thread::failed_threads;

/// With more topics, there are no series of each.
const MAX_TOPICS: usize = 100;

/// The percentiles that are given of ages.
const PERCENTILES: [(&str, f64); 3] = [("50", 0.5), ("90", 0.9), ("99", 0.99)];

/// When the first metrics of the process were made, in seconds since 1970.
pub(super) static START: LazyLock<f64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
});

/// Takes samples whenever the metrics are written.
pub(super) struct Collector(pub(super) Arc<Mutex<Running>>);

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = Samples::default();
        collect(&self.0, &mut samples);
        samples.write(&mut encoder)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

/// Takes a sample of everything.
fn collect(running: &Mutex<Running>, samples: &mut Samples) {
    let (replicas, gone) = {
        let mut running = running.lock();
        of_parts(&mut running, samples);
        running.replicas()
    };
    of_replicas(&replicas, gone, samples);
    if !replicas.is_empty() {
        topics_of_replicas(&replicas, samples);
    }
}

fn of_parts(running: &mut Running, samples: &mut Samples) {
    samples.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    samples.gauge(&START_TIME, &[], *START);
    errors(&BACKGROUND_ERRORS, &REPORTED, samples);
    samples.count(&FAILED_THREADS, &[], failed_threads());
    #[cfg(feature = "zmq")]
    for accepted in [&accepted::TCP, &accepted::IPC] {
        samples.gauge(&CONNECTIONS, &[accepted.kind], accepted.open() as f64);
        samples.count(&REFUSED, &[accepted.kind], accepted.refused());
    }
    #[cfg(feature = "redis")]
    samples.gauge(&REDIS_CONNECTIONS, &[], redis::connections() as f64);
    if let Some(subscriber) = &running.subscriber {
        of_subscriber(subscriber, samples);
    }
    if let Some(dispatcher) = &running.dispatcher {
        of_dispatcher(dispatcher, samples);
    }
    if let Some(syncs) = running.syncs() {
        // A counter that begins at 1 shows no increase.
        let mut counts: BTreeMap<&str, u64> = SyncReason::WORDS.iter().map(|word| (*word, 0)).collect();
        counts.extend(syncs);
        for (reason, count) in counts {
            samples.count(&SYNC_EVENTS, &[reason], count);
        }
    }
    if let Some(publisher) = &running.publisher {
        of_publisher(publisher, samples);
    }
    if let Some(service) = &running.service {
        of_service(service, samples);
    }
    of_monitors(running, samples);
    of_listeners(&running.listeners(), samples);
    of_notifiers(&running.notifiers(), samples);
    if let Some(store) = running.store() {
        for (call, times) in store.calls() {
            samples.histogram(&STORE_CALLS, &[call], times);
        }
        errors(&STORE_ERRORS, &store.errors, samples);
    }
}

fn errors(series: &Series, counts: &ErrorCounts, samples: &mut Samples) {
    for (kind, count) in counts.iter() {
        samples.count(series, &[&kind.to_string().replace(' ', "-")], count);
    }
}

fn of_subscriber(subscriber: &Subscriber, samples: &mut Samples) {
    let stats = subscriber.stats();
    samples.count(&FRAMES_RECEIVED, &[], stats.received);
    samples.count(&FRAMES_DROPPED, &["filtered"], stats.filtered);
    samples.count(&FRAMES_DROPPED, &["malformed"], stats.malformed);
    samples.count(&HELLOS_RECEIVED, &[], stats.hellos);
    samples.count(&UPDATES_RECEIVED, &[], stats.decoded);
    samples.count(&UPDATES_DUPLICATE, &[], stats.duplicates);
    samples.count(&UPDATES_UNNUMBERED, &[], stats.unnumbered);
    samples.count(&UPDATES_LOST, &[], stats.lost);
    samples.count(&ID_CLASHES, &[], stats.clashes);
    samples.count(&SUBSCRIBER_ERRORS, &[], stats.errors);
    let (addresses, topics) = subscriber.outline();
    let states = [
        ("connecting", AddressState::Connecting),
        ("unconfirmed", AddressState::Unconfirmed),
        ("live", AddressState::Live),
        ("no-hello", AddressState::NoHello),
    ];
    for (name, state) in states {
        let count = addresses.iter().filter(|address| **address == state).count();
        samples.gauge(&ADDRESSES, &[name], count as f64);
    }
    samples.gauge(&TOPICS, &[], topics as f64);
}

fn of_dispatcher(dispatcher: &DispatcherHandle, samples: &mut Samples) {
    let stats = dispatcher.stats();
    let queue = &stats.queue;
    samples.gauge(&QUEUE_UPDATES, &[], queue.depth as f64);
    samples.gauge(&QUEUE_CAPACITY, &[], queue.capacity as f64);
    samples.count(&QUEUE_REMOVED, &["coalesced"], queue.coalesced);
    samples.count(&QUEUE_REMOVED, &["dropped"], queue.dropped);
    samples.count(&QUEUE_REMOVED, &["covered"], queue.covered);
    samples.count(&UPDATES_DISPATCHED, &[], stats.updates);
    samples.count(&UPDATES_UNHANDLED, &[], stats.unhandled);
    if let Some(lag) = dispatcher.lag() {
        samples.histogram(&UPDATE_LAG, &[], lag.counts());
    }
    samples.count(&CALLBACKS, &[], stats.calls);
    samples.count(&CALLBACK_FAILURES, &["panic"], stats.panics);
    samples.count(&CALLBACK_FAILURES, &["mismatch"], stats.mismatches);
    samples.count(&CALLBACK_FAILURES, &["refused"], stats.refused);
}

fn of_publisher(publisher: &Publisher, samples: &mut Samples) {
    let stats = publisher.stats();
    samples.count(&UPDATES_SENT, &[], stats.sent);
    samples.count(&UPDATES_UNSENT, &["refused"], stats.failed);
    samples.count(&UPDATES_UNSENT, &["lost"], stats.lost);
    samples.count(&HELLOS_SENT, &["publisher"], stats.hellos);
    subscribers("publisher", stats.subscribers, samples);
}

fn of_service(service: &Service, samples: &mut Samples) {
    let stats = service.stats();
    samples.gauge(&SERVICE_RUNNING, &[], f64::from(u8::from(service.is_running())));
    samples.count(&SERVICE_FORWARDED, &[], stats.forwarded);
    samples.count(&SERVICE_DROPPED, &["malformed"], stats.malformed);
    samples.count(&SERVICE_DROPPED, &["refused"], stats.failed);
    samples.count(&SERVICE_ERRORS, &[], stats.errors);
    samples.count(&HELLOS_SENT, &["service"], stats.hellos);
    subscribers("service", stats.subscribers, samples);
}

fn subscribers(part: &str, count: Option<usize>, samples: &mut Samples) {
    if let Some(count) = count {
        samples.gauge(&SUBSCRIBERS, &[part], count as f64);
    }
}

fn of_monitors(running: &Running, samples: &mut Samples) {
    for (table, stats) in running.monitors() {
        let read = stats.polls.saturating_sub(stats.skipped);
        samples.count(&MONITOR_POLLS, &[table, "read"], read);
        samples.count(&MONITOR_POLLS, &[table, "skipped"], stats.skipped);
        samples.count(&MONITOR_ROWS, &[table], stats.rows_read);
        samples.count(&MONITOR_PUBLISHED, &[table, "create"], stats.created);
        samples.count(&MONITOR_PUBLISHED, &[table, "set"], stats.set);
        samples.count(&MONITOR_PUBLISHED, &[table, "delete"], stats.deleted);
        samples.count(&MONITOR_WENT_BACK, &[table], stats.went_back);
        samples.count(&MONITOR_FAILURES, &[table], stats.failures);
    }
}

fn of_replicas(replicas: &[Outline], gone: Option<ReplicaStats>, samples: &mut Samples) {
    if replicas.is_empty() && gone.is_none() {
        return;
    }
    let (mut total, mut are_synced) = (gone.unwrap_or_default(), true);
    for (stats, is_synced) in replicas.iter().map(Outline::stats) {
        total.add(&stats);
        are_synced &= is_synced;
    }
    samples.gauge(&REPLICA_ROWS, &[], total.rows as f64);
    samples.gauge(&REPLICA_MALFORMED, &[], total.malformed as f64);
    samples.gauge(&REPLICA_SYNCED, &[], f64::from(u8::from(are_synced)));
    samples.count(&REPLICA_UPDATES, &["applied"], total.applied);
    samples.count(&REPLICA_UPDATES, &["old"], total.old);
    samples.count(&REPLICA_UPDATES, &["unversioned"], total.unversioned);
    samples.count(&REPLICA_CHECKS, &[], total.checks);
    samples.count(&REPLICA_RESYNCS, &["catch-up"], total.catch_ups);
    samples.count(&REPLICA_RESYNCS, &["listing"], total.listings);
    samples.count(&REPLICA_RESYNC_ROWS, &["catch-up"], total.changes);
    samples.count(&REPLICA_RESYNC_ROWS, &["listing"], total.listed);
    samples.count(&REPLICA_READ_BYTES, &[], total.read_bytes);
    samples.count(&REPLICA_WENT_BACK, &[], total.went_back);
    samples.count(&REPLICA_FAILURES, &[], total.failures);
    samples.count(&REPLICA_DIFFERENCES, &[], total.differences);
}

/// Positions and staleness. Of two replicas with one topic the worse counts.
fn topics_of_replicas(replicas: &[Outline], samples: &mut Samples) {
    let now = clock::now();
    let mut topics = 0;
    let mut ages = Vec::new();
    let mut some = BTreeMap::new();
    for replica in replicas {
        replica.visit(|table, on_topic| {
            topics += 1;
            let age = on_topic
                .proven
                .map(|proven| now.saturating_duration_since(proven).as_secs_f64());
            ages.extend(age);
            if topics <= MAX_TOPICS {
                let position = on_topic.position.map_or(0, |position| position.version);
                let of_topic = some.entry((table.clone(), on_topic.topic)).or_insert((position, age));
                *of_topic = (of_topic.0.min(position), worse(of_topic.1, age));
            }
        });
    }
    ages.sort_unstable_by(f64::total_cmp);
    samples.gauge(&REPLICA_TOPICS, &["proven"], ages.len() as f64);
    samples.gauge(&REPLICA_TOPICS, &["unproven"], (topics - ages.len()) as f64);
    if let Some(oldest) = ages.last() {
        samples.gauge(&REPLICA_STALENESS_MAX, &[], *oldest);
        for (name, share) in PERCENTILES {
            let at = ((ages.len() - 1) as f64 * share).round() as usize;
            samples.gauge(&REPLICA_STALENESS_PERCENTILE, &[name], ages[at]);
        }
    }
    if topics > MAX_TOPICS {
        return;
    }
    for ((table, topic), (position, age)) in some {
        let labels = [table.as_str(), topic.as_str()];
        samples.gauge(&REPLICA_POSITION, &labels, position as f64);
        if let Some(age) = age {
            samples.gauge(&REPLICA_STALENESS, &labels, age);
        }
    }
}

/// The greater age; no proof is worse than any.
fn worse(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one?.max(other?))
}

fn of_listeners(all: &[ListenerStats], samples: &mut Samples) {
    if all.is_empty() {
        return;
    }
    let sum = |count: fn(&ListenerStats) -> u64| all.iter().map(count).sum::<u64>();
    samples.count(&LISTENER_FAILED, &[], sum(|stats| stats.failed));
    samples.count(&LISTENER_EVENTS, &["handled"], sum(|stats| stats.handled));
    samples.count(&LISTENER_EVENTS, &["taken-over"], sum(|stats| stats.taken_over));
    samples.count(&LISTENER_EVENTS, &["left"], sum(|stats| stats.left));
    samples.count(&LISTENER_EVENTS, &["repeated"], sum(|stats| stats.repeated));
    samples.count(&LISTENER_EVENTS, &["moved"], sum(|stats| stats.moved));
    samples.count(&LISTENER_EVENTS, &["dropped"], sum(|stats| stats.dropped));
    samples.gauge(&LISTENER_CLAIMS, &[], sum(|stats| stats.claims) as f64);
}

fn of_notifiers(all: &[(NotifierStats, Latency)], samples: &mut Samples) {
    if all.is_empty() {
        return;
    }
    let mut latency = Latency::default();
    all.iter().for_each(|(_, times)| latency.merge(times));
    let sum = |count: fn(&NotifierStats) -> u64| all.iter().map(|(stats, _)| count(stats)).sum::<u64>();
    samples.count(&NOTIFIER_NOTIFIED, &[], sum(|stats| stats.notified));
    samples.count(&NOTIFIER_SENT, &[], sum(|stats| stats.sent));
    samples.count(&NOTIFIER_RETRIED, &[], sum(|stats| stats.retried));
    samples.count(&NOTIFIER_ACKNOWLEDGED, &[], sum(|stats| stats.acknowledged));
    samples.count(&NOTIFIER_FAILED, &[], sum(|stats| stats.failed));
    samples.gauge(&NOTIFIER_PENDING, &[], sum(|stats| stats.pending) as f64);
    samples.histogram(&NOTIFIER_TIMES, &[], latency.counts());
}
