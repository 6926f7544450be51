//! What `top` looks at: a subscriber of its own, and the members in the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use tablecast::barrier::{REPLICAS, Registered};
use tablecast::listener::LISTENERS;
use tablecast::registry::{Member, PUBLISHERS, Presence, RegistryOptions, Watch};
use tablecast::subscriber::PublisherStatus;
use tablecast::{DbUpdate, Node, Result, Subscriber};

use super::row::{Row, millis};
use super::tally::{Count, Key, Tally};
use crate::{members, status};

/// The kinds of members, and their tables.
const KINDS: [(&str, &str); 3] = [
    ("publisher", PUBLISHERS),
    ("replica", REPLICAS),
    ("listener", LISTENERS),
];

pub(crate) struct Sources {
    subscriber: Arc<Subscriber>,
    tally: Arc<Mutex<Tally>>,
    taken: Instant,
    /// The members of each kind, as last seen.
    looks: Receiver<(&'static str, Vec<Presence>)>,
    members: HashMap<&'static str, Vec<Presence>>,
    meters: HashMap<(&'static str, String), Meter>,
    _watches: Vec<Watch>,
}

/// The rate of a number that a member tells with each renewal.
struct Meter {
    epoch: u64,
    value: u64,
    at: Instant,
    rate: Option<f64>,
}

impl Sources {
    pub(crate) fn open(node: &Node) -> Result<Sources> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let counted = Arc::clone(&tally);
        let count = move |update: &DbUpdate| counted.lock().add(update, SystemTime::now());
        node.dispatcher()?.on_update(count).detach();
        let subscriber = node.subscriber()?;
        let (sender, looks) = unbounded();
        Ok(Sources {
            subscriber,
            tally,
            taken: Instant::now(),
            looks,
            members: HashMap::new(),
            meters: HashMap::new(),
            _watches: watches(node, &sender)?,
        })
    }

    pub(crate) fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// The rows now, by kind and name.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        let now = Instant::now();
        while let Ok((kind, present)) = self.looks.try_recv() {
            self.members.insert(kind, present);
        }
        let seconds = now
            .saturating_duration_since(std::mem::replace(&mut self.taken, now))
            .as_secs_f64();
        let counts = self.tally.lock().take();
        let mut rows = self.of_subscriber(counts, seconds);
        for (kind, _) in KINDS {
            let present = self.members.get(kind).cloned().unwrap_or_default();
            rows.extend(present.iter().map(|presence| self.of_member(kind, presence, now)));
        }
        let there: BTreeSet<_> = rows.iter().map(|row| (row.kind, row.name.as_str())).collect();
        self.meters
            .retain(|(kind, id), _| there.contains(&(*kind, id.as_str())));
        rows
    }

    fn of_subscriber(&self, mut counts: HashMap<Key, Count>, seconds: f64) -> Vec<Row> {
        let status = self.subscriber.status();
        let addresses = status.addresses.iter();
        let mut rows: Vec<Row> = addresses
            .map(|address| Row::new("address", &address.address, status::describe(address.state)))
            .collect();
        for topic in &status.topics {
            let (name, state) = (topic.topic.as_str(), topic.state.to_string());
            if topic.publishers.is_empty() {
                rows.push(Row::new("topic", name, &state));
            }
            for publisher in &topic.publishers {
                let count = counts.remove(&(name.into(), Some(publisher.publisher.clone())));
                rows.push(of_topic(name, publisher, count.unwrap_or_default(), seconds));
            }
        }
        let mut others: Vec<(Key, Count)> = counts.into_iter().collect();
        others.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        rows.extend(others.into_iter().map(|((topic, publisher), count)| Row {
            detail: publisher.map_or_else(|| "without numbers".into(), |publisher| format!("from {publisher}")),
            ..counted(Row::new("topic", &topic, "-"), count, seconds)
        }));
        rows
    }

    fn of_member(&mut self, kind: &'static str, presence: &Presence, now: Instant) -> Row {
        let member = &presence.member;
        let row = Row::new(kind, &member.id, members::state(presence)).seen(presence.age);
        let rate = self.rate(kind, presence, now);
        match kind {
            "publisher" => Row {
                rate,
                detail: [member.address.as_str(), &member.role].join(" ").trim_end().to_owned(),
                ..row
            },
            "listener" => Row {
                rate,
                waiting: Some(member.load.waiting),
                detail: format!("{} handled", member.load.handled),
                ..row
            },
            _ => of_replica(row, member),
        }
    }

    fn rate(&mut self, kind: &'static str, presence: &Presence, now: Instant) -> Option<f64> {
        let (epoch, value) = (presence.member.epoch, presence.member.load.handled);
        let at = now.checked_sub(presence.age)?;
        let key = (kind, presence.member.id.clone());
        let fresh = Meter {
            epoch,
            value,
            at,
            rate: None,
        };
        let meter = self.meters.entry(key).or_insert(fresh);
        let since = at.saturating_duration_since(meter.at);
        if meter.epoch != epoch || value < meter.value {
            *meter = Meter {
                epoch,
                value,
                at,
                rate: None,
            };
        } else if since > RENEWED {
            meter.rate = Some((value - meter.value) as f64 / since.as_secs_f64());
            (meter.value, meter.at) = (value, at);
        }
        meter.rate
    }
}

/// The time of a renewal is only known as exactly as this.
const RENEWED: Duration = Duration::from_millis(5);

fn of_topic(name: &str, publisher: &PublisherStatus, count: Count, seconds: f64) -> Row {
    let row = Row::new("topic", name, &publisher.state.to_string()).seen(publisher.age);
    Row {
        detail: format!("number {} from {}", publisher.last, publisher.publisher),
        ..counted(row, count, seconds)
    }
}

fn counted(row: Row, count: Count, seconds: f64) -> Row {
    Row {
        rate: (seconds > 0.0).then(|| count.updates as f64 / seconds),
        lag_ms: count.mean_lag().map(|lag| lag.as_secs_f64() * 1000.0),
        ..row
    }
}

fn of_replica(row: Row, member: &Member) -> Row {
    let Ok(replica) = Registered::of(member) else {
        return row;
    };
    let tables = status::listed(&replica.tables);
    let topics = replica.topics.as_deref().map_or_else(|| "many".into(), status::listed);
    Row {
        stale_ms: replica.staleness.map(millis),
        detail: format!("{} tables {tables} topics {topics}", replica.host)
            .trim_start()
            .to_owned(),
        ..row
    }
}

/// Watches the members, if the processes can share the store.
fn watches(node: &Node, sender: &Sender<(&'static str, Vec<Presence>)>) -> Result<Vec<Watch>> {
    let config = node.config();
    // To look makes no file.
    if config.nb_db_class == "memory" || (config.nb_db_class == "sqlite" && !config.sqlite_path.exists()) {
        return Ok(Vec::new());
    }
    let store = node.store()?;
    let watch = |(kind, table): (&'static str, &str)| {
        let timeout = match kind {
            "listener" => config.listener_timeout_ms,
            _ => config.publisher_timeout_ms,
        };
        let options = RegistryOptions {
            timeout,
            ..config.into()
        };
        let sender = sender.clone();
        let tell = move |present: &[Presence]| drop(sender.send((kind, present.to_vec())));
        Watch::new(Arc::clone(&store), table, options, false, tell)
    };
    KINDS.into_iter().map(watch).collect()
}
