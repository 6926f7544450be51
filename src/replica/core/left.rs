//! The removed topics of which rows may be left.

use std::collections::BTreeMap;

use crate::update::Topic;

#[derive(Default)]
pub(super) struct Left {
    topics: BTreeMap<Topic, OfLeft>,
    /// Some of these topics is doubted.
    has_doubted: bool,
}

#[derive(Default)]
struct OfLeft {
    /// The removals of its rows that have not ended.
    removals: usize,
    /// The rows may be of another history than the store's.
    is_doubted: bool,
}

impl Left {
    pub(super) fn add(&mut self, topic: &Topic, is_doubted: bool) {
        let of_left = self.topics.entry(topic.clone()).or_default();
        of_left.removals += 1;
        of_left.is_doubted = is_doubted;
        self.has_doubted |= is_doubted;
    }

    /// Takes note of the end of a removal of the topic's rows.
    pub(super) fn end(&mut self, topic: &Topic) {
        if let Some(of_left) = self.topics.get_mut(topic) {
            of_left.removals -= 1;
            if of_left.removals == 0 {
                self.topics.remove(topic);
                self.has_doubted &= self.topics.values().any(|of_left| of_left.is_doubted);
            }
        }
    }

    /// Rows that are left may be of another history than the store's.
    pub(super) fn doubt(&mut self) {
        self.topics.values_mut().for_each(|of_left| of_left.is_doubted = true);
        self.has_doubted = !self.topics.is_empty();
    }

    pub(super) fn has(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    pub(super) fn has_doubted(&self) -> bool {
        self.has_doubted
    }

    pub(super) fn doubts(&self, topic: &Topic) -> bool {
        self.has_doubted && self.topics.get(topic).is_some_and(|of_left| of_left.is_doubted)
    }
}
