//! The registered topics: which are asked for, and what of each is known to the program.

use std::collections::BTreeMap;
use std::time::Instant;

use hashbrown::HashMap;

use crate::update::Topic;

/// The registered topics. Registering one raises the generation: a proof counts for the topics up to one.
#[derive(Debug)]
pub(super) struct Topics {
    known: HashMap<Topic, Interest>,
    /// The generation of the newest topic that was asked for.
    latest: u64,
    /// Topics that the driver has refused, by generation.
    refused: BTreeMap<u64, Topic>,
    /// Updates sent on any topic before this are known to the program.
    covered: Instant,
}

/// A registered topic.
#[derive(Debug)]
struct Interest {
    generation: u64,
    /// Updates sent on it before this are known to the program.
    covered: Instant,
}

impl Topics {
    /// No topic; those up to this generation are registered no more.
    pub(super) fn new(generation: u64, now: Instant) -> Topics {
        Topics {
            known: HashMap::new(),
            latest: generation,
            refused: BTreeMap::new(),
            covered: now,
        }
    }

    /// The registered topic of this name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Topic> {
        let name = std::str::from_utf8(name).ok()?;
        self.known.get_key_value(name).map(|(topic, _)| topic)
    }

    pub(super) fn register(&mut self, topic: Topic, generation: u64, now: Instant) {
        self.latest = self.latest.max(generation);
        let covered = now;
        self.known.insert(topic, Interest { generation, covered });
    }

    /// Removes a topic: true if it was registered.
    pub(super) fn unregister(&mut self, topic: &Topic) -> bool {
        let Some(interest) = self.known.remove(topic) else {
            return false;
        };
        self.refused.remove(&interest.generation);
        true
    }

    /// Removes all, in order, with their generations.
    pub(super) fn clear(&mut self) -> BTreeMap<Topic, u64> {
        self.refused.clear();
        let all = self.known.drain();
        all.map(|(topic, interest)| (topic, interest.generation)).collect()
    }

    /// The driver could not ask for this topic; returns the generation up to which it has asked for all.
    pub(super) fn refuse(&mut self, topic: Topic) -> u64 {
        if let Some(interest) = self.known.get(&topic) {
            self.refused.insert(interest.generation, topic);
        }
        self.generation()
    }

    /// Those that are to be asked for again.
    pub(super) fn take_refused(&mut self) -> impl Iterator<Item = Topic> {
        std::mem::take(&mut self.refused).into_values()
    }

    /// The generation up to which the driver was asked for all topics.
    pub(super) fn generation(&self) -> u64 {
        let refused = self.refused.keys().next();
        refused.map_or(self.latest, |generation| generation - 1)
    }

    /// Each topic with its generation.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Topic, u64)> {
        self.known.iter().map(|(topic, interest)| (topic, interest.generation))
    }

    /// Updates sent on any topic before now are known to the program.
    pub(super) fn cover_all(&mut self, now: Instant) {
        self.covered = now;
    }

    /// Until when what was sent on any topic is known to the program.
    pub(super) fn all_covered(&self) -> Instant {
        self.covered
    }

    /// Updates sent on the topic before now are known to the program.
    pub(super) fn cover(&mut self, topic: &Topic, now: Instant) {
        if let Some(interest) = self.known.get_mut(topic) {
            interest.covered = now;
        }
    }

    /// Until when what was sent on the topic is known to the program, and the topic's generation.
    pub(super) fn covered(&self, topic: &Topic) -> Option<(Instant, u64)> {
        let interest = self.known.get(topic)?;
        Some((interest.covered.max(self.covered), interest.generation))
    }
}
