//! What `top` looks at: a subscriber of its own, and the members in the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use tablecast::barrier::{REPLICAS, Registered};
use tablecast::listener::LISTENERS;
use tablecast::registry::{Member, PUBLISHERS, Presence, PresenceState, RegistryOptions, Watch};
use tablecast::subscriber::{AddressStatus, PublisherStatus, SubscriberStatus};
use tablecast::{AddressState, Config, DbUpdate, Error, ErrorKind, Node, Result, Store, Subscriber};

use super::row::{Row, millis};
use super::tally::{Count, Key, Tally};
use crate::{members, status};

/// The kinds of members, and their tables.
const KINDS: [(&str, &str); 3] = [
    ("publisher", PUBLISHERS),
    ("replica", REPLICAS),
    ("listener", LISTENERS),
];

pub(crate) struct Sources<'a> {
    node: &'a Node,
    subscriber: Arc<Subscriber>,
    tally: Arc<Mutex<Tally>>,
    taken: Instant,
    /// The members of each kind, as last seen.
    looks: Receiver<(&'static str, Vec<Presence>)>,
    look: Sender<(&'static str, Vec<Presence>)>,
    members: HashMap<&'static str, Vec<Presence>>,
    meters: HashMap<(&'static str, String), Meter>,
    watches: Vec<Watch>,
    /// The store that was asked once cannot be read.
    outage: Option<Error>,
    /// The store is a file that no process has made yet.
    is_awaited: bool,
}

/// The rate of a number that a member tells with each renewal.
struct Meter {
    epoch: u64,
    value: u64,
    at: Instant,
    rate: Option<f64>,
}

impl Sources<'_> {
    /// Opens them. With `is_once`, a store that cannot be read is not asked again and again.
    pub(crate) fn open(node: &Node, is_once: bool) -> Result<Sources<'_>> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let counted = Arc::clone(&tally);
        let count = move |update: &DbUpdate| counted.lock().add(update, SystemTime::now());
        node.dispatcher()?.on_update(count).detach();
        let (look, looks) = unbounded();
        let mut sources = Sources {
            node,
            subscriber: node.subscriber()?,
            tally,
            taken: Instant::now(),
            looks,
            look,
            members: HashMap::new(),
            meters: HashMap::new(),
            watches: Vec::new(),
            outage: None,
            is_awaited: is_missing(node.config()),
        };
        let config = node.config();
        if sources.is_awaited {
            let path = config.sqlite_path.display();
            log::warn!("no members are shown: option sqlite_path: {path} does not exist yet");
        } else if config.nb_db_class != "memory" {
            sources.watch_members(is_once)?;
        }
        Ok(sources)
    }

    fn watch_members(&mut self, is_once: bool) -> Result<()> {
        let store = self.node.store()?;
        if is_once && let Err(e) = store.page_of_keys(PUBLISHERS, None, None) {
            self.outage = Some(e);
            return Ok(());
        }
        self.watches = watches(self.node.config(), &store, &self.look)?;
        Ok(())
    }

    /// Watches the members once another process has made the store's file.
    fn await_store(&mut self) {
        if self.is_awaited && !is_missing(self.node.config()) {
            match self.watch_members(false) {
                Ok(()) => self.is_awaited = false,
                Err(e) => log::warn!("no members are shown: {e}"),
            }
        }
    }

    /// True once every address and topic is live, also those of the publishers that are discovered.
    pub(crate) fn is_heard(&mut self) -> bool {
        self.take_looks();
        let status = self.subscriber.status();
        let follows = |presence: &Presence| {
            status
                .addresses
                .iter()
                .any(|at| *at.address == *presence.member.address)
        };
        let publishers = self.members.get("publisher").into_iter().flatten();
        let mut present = publishers.filter(|presence| presence.state != PresenceState::Stale);
        (!self.node.config().discover || present.all(follows)) && self.subscriber.wait_live(Duration::ZERO).is_ok()
    }

    /// True once every kind of member was looked at, and the state of each member is known.
    pub(crate) fn is_known(&mut self) -> bool {
        self.take_looks();
        let addresses = self.subscriber.status().addresses;
        let mut present = self.members.values().flatten();
        self.members.len() == self.watches.len()
            && present.all(|presence| member_state(presence, &addresses) != PresenceState::Unknown.as_str())
    }

    /// Fails if the store could not be read.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(outage) = self.outage.take() {
            return Err(outage.context("the members are not known"));
        }
        let unread = KINDS.iter().find(|(kind, _)| !self.members.contains_key(kind));
        match unread.filter(|_| !self.watches.is_empty()) {
            Some((_, table)) => Err(Error::new(
                ErrorKind::Timeout,
                format!("table {table:?} was not read in time"),
            )),
            None => Ok(()),
        }
    }

    fn take_looks(&mut self) {
        while let Ok((kind, present)) = self.looks.try_recv() {
            self.members.insert(kind, present);
        }
    }

    /// The rows now, by kind and name.
    pub(crate) fn rows(&mut self) -> Vec<Row> {
        let now = Instant::now();
        self.await_store();
        self.take_looks();
        let seconds = now
            .saturating_duration_since(std::mem::replace(&mut self.taken, now))
            .as_secs_f64();
        let counts = self.tally.lock().take();
        let status = self.subscriber.status();
        let mut rows = of_subscriber(&status, counts, seconds);
        for (kind, _) in KINDS {
            let present = self.members.get(kind).cloned().unwrap_or_default();
            rows.extend(present.iter().map(|presence| {
                let state = member_state(presence, &status.addresses);
                self.of_member(Row::new(kind, &presence.member.id, state), presence, now)
            }));
        }
        let there: BTreeSet<_> = rows.iter().map(|row| (row.kind, row.name.as_str())).collect();
        self.meters
            .retain(|(kind, id), _| there.contains(&(*kind, id.as_str())));
        rows
    }

    fn of_member(&mut self, row: Row, presence: &Presence, now: Instant) -> Row {
        let member = &presence.member;
        let row = row.seen(presence.age);
        let rate = self.rate(row.kind, presence, now);
        match row.kind {
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

/// The state of a member: what its renewals show, or else that its address answers.
fn member_state(presence: &Presence, addresses: &[AddressStatus]) -> &'static str {
    let is_live = |at: &AddressStatus| at.state == AddressState::Live && *at.address == *presence.member.address;
    match presence.state {
        PresenceState::Unknown if !presence.member.leaving && addresses.iter().any(is_live) => {
            PresenceState::Alive.as_str()
        }
        _ => members::state(presence),
    }
}

/// The time of a renewal is only known as exactly as this.
const RENEWED: Duration = Duration::from_millis(5);

fn of_subscriber(status: &SubscriberStatus, mut counts: HashMap<Key, Count>, seconds: f64) -> Vec<Row> {
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

/// True if the store is a file that does not exist: to look makes none.
fn is_missing(config: &Config) -> bool {
    config.nb_db_class == "sqlite" && !config.sqlite_path.exists()
}

/// Watches the members.
fn watches(
    config: &Config,
    store: &Arc<dyn Store>,
    sender: &Sender<(&'static str, Vec<Presence>)>,
) -> Result<Vec<Watch>> {
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
        Watch::new(Arc::clone(store), table, options, false, tell)
    };
    KINDS.into_iter().map(watch).collect()
}
