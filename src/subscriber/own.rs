//! The topics of the library's own parts, with the users of each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::update::{DbUpdate, Name, Topic};

/// Takes an update on the subscriber's thread; must be quick and must not wait.
pub(crate) type Sink = Box<dyn Fn(DbUpdate) + Send + Sync>;

/// The topics of the library's own parts, with their sinks.
#[derive(Default)]
pub(super) struct Own {
    /// The number of sinks. Zero is seen without the lock, and without looking at every topic.
    sinks: AtomicUsize,
    topics: RwLock<HashMap<Topic, Users>>,
    count: AtomicU64,
}

/// By the number of the user; each with the table whose updates go to the sink.
pub(super) type Sinks = Vec<(u64, Option<(Name, Sink)>)>;

/// Users of a topic.
#[derive(Default)]
struct Users {
    sinks: Sinks,
    /// True if the topic is registered for these users alone, and not for the program.
    is_claimed: bool,
}

impl Own {
    pub(super) fn add(&self, topic: Topic, sink: Option<(Name, Sink)>) -> u64 {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let mut topics = self.topics.write();
        self.sinks.fetch_add(usize::from(sink.is_some()), Ordering::Release);
        topics.entry(topic).or_default().sinks.push((number, sink));
        number
    }

    /// The topic is registered for its users alone, or for the program too. Returns what it was before; `None` if it
    /// has no users.
    pub(super) fn claim(&self, topic: &Topic, is_claimed: bool) -> Option<bool> {
        let mut topics = self.topics.write();
        let users = topics.get_mut(topic)?;
        Some(std::mem::replace(&mut users.is_claimed, is_claimed))
    }

    /// Removes a user. Returns true if the topic is to be unregistered, and the sinks, which are dropped without locks.
    #[must_use]
    pub(super) fn remove(&self, topic: &Topic, number: u64) -> (bool, Sinks) {
        let mut topics = self.topics.write();
        let Some(users) = topics.get_mut(topic) else {
            return (false, Vec::new());
        };
        let removed: Vec<_> = users.sinks.extract_if(.., |(of, _)| *of == number).collect();
        let is_last = users.sinks.is_empty();
        let is_claimed = users.is_claimed;
        if is_last {
            topics.remove(topic);
        }
        let sinks = removed.iter().filter(|(_, sink)| sink.is_some()).count();
        self.sinks.fetch_sub(sinks, Ordering::Release);
        (is_last && is_claimed, removed)
    }

    /// Moves updates that have a sink to it.
    pub(super) fn take(&self, updates: &mut Vec<DbUpdate>) {
        if self.sinks.load(Ordering::Acquire) == 0 {
            return;
        }
        let topics = self.topics.read();
        // Most updates that come together are of one topic.
        let mut last: Option<(Topic, Option<&Users>)> = None;
        let has_sink = |update: &mut DbUpdate| {
            let users = match &last {
                Some((topic, users)) if *topic == update.topic => *users,
                _ => last.insert((update.topic.clone(), topics.get(&update.topic))).1,
            };
            sinks(users, &update.table).next().is_some()
        };
        for update in updates.extract_if(.., has_sink) {
            let mut sinks: Vec<&Sink> = sinks(topics.get(&update.topic), &update.table).collect();
            let last = sinks.pop();
            sinks.iter().for_each(|sink| sink(update.clone()));
            if let Some(sink) = last {
                sink(update);
            }
        }
    }
}

/// The sinks that take an update of this table instead of the queue, of the users of its topic.
fn sinks<'a>(users: Option<&'a Users>, table: &Name) -> impl Iterator<Item = &'a Sink> {
    let sinks = users
        .into_iter()
        .flat_map(|users| &users.sinks)
        .filter_map(|(_, sink)| sink.as_ref());
    sinks.filter(move |(of, _)| of == table).map(|(_, sink)| sink)
}
