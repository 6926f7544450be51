//! A table as the replica's threads see it, whatever its row type.

use std::sync::Arc;
use std::time::Instant;

use super::Typed;
use crate::clock;
#[cfg(feature = "metrics")]
use crate::replica::core::OnTopic;
use crate::replica::core::Read;
use crate::replica::part::{Found, Part};
use crate::replica::row::Held;
use crate::replica::stats::ReplicaStats;
use crate::replica::watch::Watchers;
use crate::store::TableVersion;
use crate::update::{Name, Topic};

impl<T: Send + Sync + 'static> Typed<T> {
    fn remove_all_topics(&self) {
        let core = &mut self.state.write().core;
        let topics: Vec<Topic> = core.topics().cloned().collect();
        topics.iter().for_each(|topic| core.remove_topic(topic));
    }
}

impl<T: Send + Sync + 'static> Part for Typed<T> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn add_topic(&self, topic: &Topic) {
        self.state.write().core.add_topic(topic, clock::now());
        self.wake();
    }

    fn remove_topic(self: Arc<Self>, topic: &Topic) {
        self.state.write().core.remove_topic(topic);
        let table = Arc::clone(&self);
        let topic = topic.clone();
        let evict = move || table.evict_rows(Some(topic));
        self.dispatcher.run(Box::new(evict));
    }

    fn close(self: Arc<Self>) {
        self.remove_all_topics();
        let table = Arc::clone(&self);
        self.dispatcher.run(Box::new(move || table.evict_rows(None)));
    }

    fn end(&self) {
        let none = Watchers::new(self.dispatcher.is_alone());
        // Handlers may hold the table, and dropping them runs the program's code, so without the lock.
        let mut state = self.state.write();
        state.core.end();
        let watchers = std::mem::replace(&mut state.watchers, none);
        // These get what is merged already.
        let indexes = state.indexes.close();
        drop(state);
        drop((watchers, indexes));
    }

    fn handle_loss(&self) {
        self.state.write().core.handle_loss(clock::now());
        self.wake();
    }

    fn check(&self) {
        self.state.write().core.check(clock::now());
        self.wake();
    }

    fn demand(&self) {
        self.state.write().core.demand(clock::now());
        self.wake();
    }

    fn distrust(&self) {
        self.state.write().core.distrust(clock::now());
        self.wake();
    }

    fn poll(&self) -> Option<Read> {
        let mut state = self.state.write();
        // Read under the lock: a check that begins after a demand is newer than it.
        state.core.poll(clock::now())
    }

    fn deadline(&self) -> Option<Instant> {
        self.state.read().core.deadline()
    }

    fn is_reading(&self, read: &Read) -> bool {
        self.state.read().core.is_reading(read)
    }

    fn may_have_rows(&self, topic: &Topic) -> bool {
        self.state.read().core.may_have_rows(topic)
    }

    fn keys(&self, is_of: &dyn Fn(&Topic) -> bool) -> Vec<Name> {
        let (decoded, malformed) = self.rows();
        let held = decoded
            .iter()
            .map(Held::Row)
            .chain(malformed.iter().map(Held::Malformed));
        let held = held.filter(|held| is_of(held.topic()));
        held.map(|held| held.key().clone()).collect()
    }

    fn stamp(&self, key: &str) -> Option<(u64, u32)> {
        let core = &self.state.read().core;
        let held = core.rows.get(key)?;
        core.rows.stamp(key).filter(|_| core.holds(held.topic()))
    }

    fn sum(&self, text: &str) -> u32 {
        self.sum_of(text)
    }

    fn put(self: Arc<Self>, found: Found) {
        self.accept(found);
    }

    fn waiting(&self) -> usize {
        self.found.lock().len()
    }

    fn is_synced(&self) -> bool {
        self.state.write().core.is_synced()
    }

    fn unindexed(&self) -> Option<u64> {
        self.state.read().indexes.untold()
    }

    fn has_indexed(&self, number: u64) -> bool {
        self.state.read().indexes.has_told(number)
    }

    fn is_current(&self, since: Instant) -> bool {
        self.state.read().core.is_current(since)
    }

    fn holds(&self, topic: &Topic) -> bool {
        self.state.read().core.holds(topic)
    }

    fn position(&self, topic: &Topic) -> Option<TableVersion> {
        self.state.read().core.position(topic)
    }

    fn proven(&self, topic: &Topic) -> Option<Instant> {
        self.state.read().core.proven(topic)
    }

    #[cfg(feature = "metrics")]
    fn standings(&self, after: Option<&Topic>) -> Vec<OnTopic> {
        self.state.read().core.standings(after)
    }

    fn oldest_proof(&self) -> Option<Instant> {
        self.state.read().core.oldest_proof()
    }

    fn count(&self, stats: &mut ReplicaStats) {
        let state = self.state.read();
        stats.add(&state.core.counts);
        stats.rows += (state.core.rows.decoded.len() + state.core.rows.malformed.len()) as u64;
        stats.malformed += state.core.rows.malformed.len() as u64;
        stats.read_bytes += self.read_bytes.get();
    }
}
