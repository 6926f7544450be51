//! The topics, tables and waiting callers of a replica, which its threads share.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::options::ReplicaOptions;
use super::part::Part;
use super::reader::Parts;
use super::signal::Signal;
use super::stats::ReplicaStats;
use super::table::ReplicaTable;
use super::typed::{Decode, Typed};
use super::verify::{self, Difference};
use crate::barrier::{Answers, Applied, Asked, Standing};
use crate::clock;
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::{Error, ErrorKind, Result, report};
use crate::event::SyncReason;
use crate::registry::RegistryOptions;
use crate::store::{Store, TableVersion};
use crate::subscriber::{OwnTopic, Subscriber};
use crate::thread::{Background, Stop, deadline, jittered};
use crate::update::{Name, Topic};

pub(super) struct Holdings {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) dispatcher: DispatcherHandle,
    pub(super) store: Arc<dyn Store>,
    pub(super) options: ReplicaOptions,
    pub(super) topics: Mutex<BTreeMap<Topic, OwnTopic>>,
    pub(super) tables: Mutex<BTreeMap<Name, HeldTable>>,
    pub(super) parts: Arc<Parts>,
    pub(super) wake: Sender<()>,
    pub(super) signal: Arc<Signal>,
    /// Set at the end, for tables that are no longer held, too.
    pub(super) ended: Arc<AtomicBool>,
    /// The counts of no table, and of those that are no longer held; in the end, all.
    pub(super) counted: Arc<Mutex<ReplicaStats>>,
}

/// A held table.
pub(super) struct HeldTable {
    pub(super) part: Arc<dyn Part>,
    /// The same as a [`ReplicaTable`].
    pub(super) typed: Box<dyn Any + Send + Sync>,
    /// Its rows are texts as they are. Others may be of type `String`, too.
    is_raw: bool,
    _guard: Guard,
}

impl Holdings {
    pub(super) fn table<T: Send + Sync + 'static>(
        &self,
        name: Name,
        decode: Decode<T>,
        is_raw: bool,
    ) -> Result<ReplicaTable<T>> {
        let topics = self.topics.lock();
        let mut tables = self.tables.lock();
        if let Some(held) = tables.get(&name) {
            let table = held.typed.downcast_ref::<ReplicaTable<T>>();
            return table.filter(|_| held.is_raw == is_raw).cloned().ok_or_else(|| {
                let context = format!("table {name:?} is held with another type of rows");
                Error::new(ErrorKind::InvalidInput, context)
            });
        }
        let (wake, signal) = (self.wake.clone(), Arc::clone(&self.signal));
        let dispatcher = self.dispatcher.clone();
        let typed = Arc::new(Typed::new(
            name.clone(),
            decode,
            &self.options,
            dispatcher,
            wake,
            signal,
            Arc::clone(&self.ended),
        ));
        let (updated, coming) = (Arc::clone(&typed), Arc::clone(&typed));
        let guard = self.dispatcher.on_table_ahead(
            name.clone(),
            move |update| updated.handle_update(update),
            move |updates| coming.look_ahead(updates),
        );
        let part: Arc<dyn Part> = Arc::clone(&typed) as _;
        topics.keys().for_each(|topic| part.add_topic(topic));
        self.parts.write().push(Arc::clone(&part));
        let table = ReplicaTable(typed);
        let held = HeldTable {
            part,
            typed: Box::new(table.clone()),
            is_raw,
            _guard: guard,
        };
        tables.insert(name, held);
        // Only now can the reading thread find the table.
        let _ = self.wake.try_send(());
        Ok(table)
    }

    pub(super) fn add_topic(&self, topic: &Topic) -> Result<bool> {
        self.subscriber.check_topic(topic)?;
        let mut topics = self.topics.lock();
        if topics.contains_key(topic) {
            return Ok(false);
        }
        let own = OwnTopic::register(&self.subscriber, topic.clone(), None)?;
        topics.insert(topic.clone(), own);
        self.parts.read().iter().for_each(|part| part.add_topic(topic));
        Ok(true)
    }

    /// Returns true if it was held. Under one lock, as adding it, so that the subscriber and all tables agree.
    pub(super) fn remove_topic(&self, topic: &Topic) -> bool {
        let mut topics = self.topics.lock();
        let is_held = topics.remove(topic).is_some();
        if is_held {
            self.parts().into_iter().for_each(|part| part.remove_topic(topic));
        }
        drop(topics);
        self.signal.notify();
        is_held
    }

    pub(super) fn parts(&self) -> Vec<Arc<dyn Part>> {
        self.parts.read().clone()
    }

    pub(super) fn part(&self, table: &str) -> Option<Arc<dyn Part>> {
        let parts = self.parts.read();
        parts.iter().find(|part| *part.name() == *table).cloned()
    }

    pub(super) fn handle_sync(&self, reason: &SyncReason) {
        let parts = self.parts.read();
        let concerns = |part: &Arc<dyn Part>| match reason.topics() {
            Some(topics) => topics.iter().any(|topic| part.holds(topic)),
            None => true,
        };
        parts
            .iter()
            .filter(|part| concerns(part))
            .for_each(|part| part.handle_loss());
    }

    pub(super) fn wait(
        &self,
        timeout: Duration,
        what: &str,
        is_missing: impl Fn(&Arc<dyn Part>) -> bool,
    ) -> Result<()> {
        let none_missing = || !self.parts.read().iter().any(&is_missing);
        let deadline = deadline(timeout);
        let all_there = self.signal.wait(deadline, none_missing);
        if all_there && self.wait_indexed(deadline) {
            return Ok(());
        }
        let parts = self.parts.read();
        let is_missing = |part: &&Arc<dyn Part>| match all_there {
            true => part.unindexed().is_some(),
            false => is_missing(part),
        };
        let missing = parts.iter().filter(is_missing).map(|part| &**part.name());
        let missing: Vec<&str> = missing.collect();
        let context = format!("{what} within {timeout:?}: tables {missing:?}");
        Err(Error::new(ErrorKind::Timeout, context))
    }

    /// Waits until the indexes have what is merged by now; returns false if they do not by `deadline`.
    pub(super) fn wait_indexed(&self, deadline: Instant) -> bool {
        let behind = self.parts().into_iter();
        let behind = behind.filter_map(|part| part.unindexed().map(|number| (part, number)));
        let behind: Vec<_> = behind.collect();
        let is_indexed = || behind.iter().all(|(part, number)| part.has_indexed(*number));
        self.signal.wait(deadline, is_indexed)
    }

    pub(super) fn stats(&self) -> ReplicaStats {
        let counted = self.counted.lock();
        let mut stats = *counted;
        self.parts.read().iter().for_each(|part| part.count(&mut stats));
        stats
    }

    /// Stops holding the tables for which this is true. Nothing waits for them from now on.
    pub(super) fn close(&self, is_closed: impl Fn(&Arc<dyn Part>) -> bool) {
        let mut counted = self.counted.lock();
        for part in self.parts.write().extract_if(.., |part| is_closed(part)) {
            part.count(&mut counted);
        }
        (counted.rows, counted.malformed) = (0, 0);
        drop(counted);
        self.signal.notify();
    }

    pub(super) fn wait_current(&self, timeout: Duration) -> Result<()> {
        let since = clock::now();
        self.parts.read().iter().for_each(|part| part.demand());
        self.wait(timeout, "not current", |part| !part.is_current(since))
    }

    pub(super) fn verify(&self, timeout: Duration) -> Result<Vec<Difference>> {
        let deadline = deadline(timeout);
        let topics: Vec<Topic> = self.topics.lock().keys().cloned().collect();
        let catch_up = || self.wait_current(deadline.saturating_duration_since(Instant::now()));
        let mut all = Vec::new();
        for part in self.parts() {
            let differences = verify::compare(&part, &topics, &*self.store, deadline, catch_up)?;
            if self.ended.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Stopped, "the replica has ended"));
            }
            if let Some(first) = differences.first() {
                let context = format!(
                    "rows that differ from the store: {}, the first is {first}",
                    differences.len()
                );
                report!(&Error::new(ErrorKind::Conflict, context), self.options.hook.as_ref());
                part.distrust();
            }
            self.counted.lock().differences += differences.len() as u64;
            all.extend(differences);
        }
        Ok(all)
    }

    /// Starts the repeated comparison with the store, if the options ask for it.
    pub(super) fn begin_self_check(self: &Arc<Holdings>) -> Result<Option<Background>> {
        let Some(interval) = self.options.self_check else {
            return Ok(None);
        };
        let about = Arc::downgrade(self);
        let run = move |stop: Stop| {
            while !stop.within(jittered(interval)) {
                let Some(holdings) = about.upgrade() else { return };
                if let Err(error) = holdings.verify(interval.max(Duration::from_secs(10)))
                    && error.kind() != ErrorKind::Stopped
                {
                    report!(&error, holdings.options.hook.as_ref());
                }
            }
        };
        let hook = self.options.hook.clone();
        let what = "a replica's self-check".into();
        Background::spawn("tc-check", what, hook, run).map(Some)
    }

    /// Registers the replica for barriers, if it has an id.
    pub(super) fn register(self: &Arc<Holdings>) -> Result<Option<Answers>> {
        let Some(id) = &self.options.id else { return Ok(None) };
        let applied = Arc::new(About(Arc::downgrade(self)));
        let registry = self.options.registry.clone();
        let registry = RegistryOptions {
            hook: registry.hook.or_else(|| self.options.hook.clone()),
            ..registry
        };
        Answers::new(id, &self.store, &self.subscriber, applied, registry).map(Some)
    }

    /// Returns true if everything of the topic up to this version is included; `None` if it is not held.
    pub(super) fn covers(&self, table: &str, topic: &Topic, at: TableVersion) -> Option<bool> {
        let part = self.part(table).filter(|part| part.holds(topic))?;
        Some(part.position(topic).is_some_and(|position| covers(position, at)))
    }

    fn standing(&self, table: &str, topic: &Topic, asked: &Asked) -> Option<Standing> {
        let part = self.part(table).filter(|part| part.holds(topic))?;
        let Some(position) = part.position(topic).filter(|position| covers(*position, asked.at)) else {
            return Some(Standing::Behind);
        };
        let is_ahead = asked.stands.is_some_and(|stands| position.version > stands);
        let is_proven = || part.proven(topic).is_some_and(|proven| proven >= asked.since);
        Some(match is_ahead && !is_proven() {
            true => Standing::Doubted,
            false => Standing::Applied,
        })
    }
}

/// True if a position includes this version.
fn covers(position: TableVersion, at: TableVersion) -> bool {
    // If a table was empty when it was read, its incarnation is unknown until the next check.
    let is_same = position.incarnation == at.incarnation || position.incarnation == 0;
    is_same && position.version >= at.version
}

/// The answers to barriers.
struct About(Weak<Holdings>);

impl Applied for About {
    fn tables(&self) -> Vec<Name> {
        let parts = self.0.upgrade().map(|holdings| holdings.parts());
        let parts = parts.into_iter().flatten();
        parts.map(|part| part.name().clone()).collect()
    }

    fn topics(&self) -> Vec<Topic> {
        let topics = self
            .0
            .upgrade()
            .map(|holdings| holdings.topics.lock().keys().cloned().collect());
        topics.unwrap_or_default()
    }

    fn staleness(&self) -> Option<Duration> {
        let parts = self.0.upgrade()?.parts();
        let oldest = parts.iter().map(|part| part.oldest_proof()).min()??;
        Some(clock::now().saturating_duration_since(oldest))
    }

    fn standing(&self, table: &str, topic: &Topic, asked: &Asked) -> Option<Standing> {
        self.0.upgrade()?.standing(table, topic, asked)
    }

    fn check(&self, table: &str) {
        if let Some(part) = self.0.upgrade().and_then(|holdings| holdings.part(table)) {
            part.check();
        }
    }

    fn hurry(&self, table: &str, _topic: &Topic) {
        if let Some(part) = self.0.upgrade().and_then(|holdings| holdings.part(table)) {
            part.demand();
        }
    }
}
