//! The registered topics: which are subscribed, and up to when the program knows the updates of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hashbrown::HashMap;

use crate::update::Topic;

/// The registered topics. Each registration raises the generation; a proof counts for all topics up to a generation.
#[derive(Debug)]
pub(super) struct Topics {
    known: HashMap<Topic, Interest>,
    /// The generation of the newest topic that was subscribed.
    latest: u64,
    /// Topics that the driver has refused, by generation.
    refused: BTreeMap<u64, Topic>,
    /// Updates sent on any topic before this are known to the program.
    covered: Instant,
    /// Topics on which updates without numbers have come, whose losses do not show.
    unnumbered: BTreeSet<Topic>,
}

/// A registered topic.
#[derive(Debug)]
struct Interest {
    generation: u64,
    /// Updates sent on this topic before this are known to the program.
    covered: Instant,
}

impl Topics {
    /// Creates an empty set. Topics up to this generation were registered by earlier runs.
    pub(super) fn new(generation: u64, now: Instant) -> Topics {
        Topics {
            known: HashMap::new(),
            latest: generation,
            refused: BTreeMap::new(),
            covered: now,
            unnumbered: BTreeSet::new(),
        }
    }

    /// The registered topic of this name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Topic> {
        let name = std::str::from_utf8(name).ok()?;
        self.known.get_key_value(name).map(|(topic, _)| topic)
    }

    /// The number of registered topics.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn register(&mut self, topic: Topic, generation: u64, now: Instant) {
        self.latest = self.latest.max(generation);
        let covered = now;
        self.known.insert(topic, Interest { generation, covered });
    }

    /// Removes a topic. Returns true if it was registered.
    pub(super) fn unregister(&mut self, topic: &Topic) -> bool {
        let Some(interest) = self.known.remove(topic) else {
            return false;
        };
        self.refused.remove(&interest.generation);
        self.unnumbered.remove(topic);
        true
    }

    /// Removes all topics. Returns them in order, with their generations.
    pub(super) fn clear(&mut self) -> BTreeMap<Topic, u64> {
        // Not the hellos' topic.
        self.refused.retain(|generation, _| *generation == 0);
        self.unnumbered.clear();
        let all = self.known.drain();
        all.map(|(topic, interest)| (topic, interest.generation)).collect()
    }

    /// Notes that the driver could not subscribe to this topic. Returns the generation up to which all topics are
    /// subscribed.
    pub(super) fn refuse(&mut self, topic: Topic) -> u64 {
        match self.known.get(&topic) {
            Some(interest) => _ = self.refused.insert(interest.generation, topic),
            // Before all others: without hellos nothing is proven.
            None if topic == Topic::hello() => _ = self.refused.insert(0, topic),
            None => {}
        }
        self.generation()
    }

    /// Takes out the refused topics, to be subscribed again.
    pub(super) fn take_refused(&mut self) -> impl Iterator<Item = Topic> {
        std::mem::take(&mut self.refused).into_values()
    }

    /// The generation up to which the driver was asked to subscribe to all topics.
    pub(super) fn generation(&self) -> u64 {
        let refused = self.refused.keys().next();
        refused.map_or(self.latest, |generation| generation.saturating_sub(1))
    }

    /// Each topic with its generation.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, u64)> {
        self.known.iter().map(|(topic, interest)| (topic, interest.generation))
    }

    /// Notes that an update without a number has come on this topic. Returns true if it is the first.
    pub(super) fn came_unnumbered(&mut self, topic: &[u8]) -> bool {
        let topic = self
            .get(topic)
            .filter(|topic| !self.unnumbered.contains(*topic))
            .cloned();
        topic.is_some_and(|topic| self.unnumbered.insert(topic))
    }

    /// True if updates without numbers have come on this topic.
    pub(super) fn is_unnumbered(&self, topic: &Topic) -> bool {
        self.unnumbered.contains(topic)
    }

    /// True if updates without numbers have come on any topic.
    pub(super) fn has_unnumbered(&self) -> bool {
        !self.unnumbered.is_empty()
    }

    /// Notes that the program knows the updates sent on any topic before now.
    pub(super) fn cover_all(&mut self, now: Instant) {
        self.covered = now;
    }

    /// Until when what was sent on any topic is known to the program.
    pub(super) fn all_covered(&self) -> Instant {
        self.covered
    }

    /// Notes that the program knows the updates sent on this topic before now.
    pub(super) fn cover(&mut self, topic: &Topic, now: Instant) {
        if let Some(interest) = self.known.get_mut(topic) {
            interest.covered = now;
        }
    }

    /// The time up to which the program knows the updates of this topic, and the topic's generation.
    pub(super) fn covered(&self, topic: &Topic) -> Option<(Instant, u64)> {
        let interest = self.known.get(topic)?;
        Some((interest.covered.max(self.covered), interest.generation))
    }
}
