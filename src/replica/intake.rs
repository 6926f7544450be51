//! Results of reads: decoded on the reading thread, merged on the dispatcher's.

use std::sync::Arc;
use std::time::Instant;

use super::core::Read;
use super::part::{Found, What};
use super::row::NewRow;
use super::typed::Typed;
use super::waiting::News;
use crate::clock;
use crate::error::{contain, report};
use crate::store::{Row, StoredChange};
use crate::update::{Name, Topic};

impl<T: Send + Sync + 'static> Typed<T> {
    /// Decodes a result, on the reading thread, and queues it for the dispatcher.
    pub(super) fn accept(self: Arc<Self>, Found { read, what }: Found) {
        let news = self.decode_all(&read, what);
        let mut waiting = self.found.lock();
        waiting.found.push_back((read, news));
        if !std::mem::replace(&mut waiting.is_coming_in, true) {
            let table = Arc::clone(&self);
            self.dispatcher.run(Box::new(move || table.take_in()));
        }
    }

    fn decode_all(&self, read: &Read, what: What) -> News<T> {
        let mut bytes = 0;
        let mut decode = |key: Name, topic: &Arc<Topic>, version, value: String| {
            bytes += key.len() + value.len();
            self.decode(key, Arc::clone(topic), version, value.into())
        };
        let news = match (read, what) {
            (Read::Listing { topic, .. }, What::Rows(rows)) => {
                let rows = rows.into_iter();
                let rows = rows.map(|row| decode(row.key, topic, row.version, row.value));
                News::Rows(rows.collect())
            }
            (Read::Changes { topic, .. }, What::Changes(changes)) => {
                let change = |StoredChange { key, version, value }| {
                    let new = value.map(|value| decode(key.clone(), topic, version, value));
                    (key, version, new)
                };
                News::Changes(changes.into_iter().map(change).collect())
            }
            (_, What::Picked(base, rows)) => {
                let row = |(key, row): (Name, Option<Row>)| {
                    let new = row.map(|row| decode(row.key, &self.shared(row.topic), row.version, row.value));
                    (key, new)
                };
                News::Picked(base, rows.into_iter().map(row).collect())
            }
            (_, what) => News::Other(what),
        };
        self.read_bytes.add(bytes as u64);
        news
    }

    /// The topic, shared with its other rows.
    fn shared(&self, topic: Topic) -> Arc<Topic> {
        let state = self.state.read();
        state.core.topic(&topic).cloned().unwrap_or_else(|| Arc::new(topic))
    }

    /// Merges the oldest result.
    fn take_in(self: Arc<Self>) {
        let Some((read, news)) = self.found.lock().found.pop_front() else {
            return;
        };
        // Pages prove nothing: what ends them does.
        let is_page = matches!(news, News::Rows(_) | News::Changes(_));
        let before = self.went_back();
        // It drops rows, which is the program's code. The next results must come in all the same.
        let what = || format!("taking in rows of table {}", self.name);
        let taken = contain(what, || self.take(&read, news, clock::now()));
        if taken.is_err() {
            // A part of the result is missing: it is read again, and its later pages are ignored.
            self.state.write().core.handle_failure(&read, clock::now());
        }
        let mut waiting = self.found.lock();
        waiting.is_coming_in = !waiting.found.is_empty();
        if waiting.is_coming_in {
            let table = Arc::clone(&self);
            self.dispatcher.run(Box::new(move || table.take_in()));
        }
        drop(waiting);
        if let Err(panic) = taken {
            report!(&panic, self.hook.as_ref());
        }
        match is_page {
            true => self.wake(),
            false => self.look(before, true),
        }
    }

    fn take(&self, read: &Read, news: News<T>, now: Instant) {
        match (read, news) {
            (Read::Listing { id, topic }, News::Rows(rows)) => {
                self.merge_each(rows, NewRow::key, |core, new| core.take_listed(*id, topic, new));
            }
            (Read::Changes { id, topic, .. }, News::Changes(changes)) => {
                self.merge_each(
                    changes,
                    |(key, ..)| key,
                    |core, (key, version, new)| core.take_changed(*id, topic, key, *version, new.as_ref()),
                );
            }
            (Read::Rows { id, topic, .. }, News::Picked(base, rows)) => {
                self.state.write().core.begin_rows(*id, topic, base, now);
                self.merge_each(
                    rows,
                    |(key, _)| key,
                    |core, (key, new)| core.take_row(*id, topic, key, new.as_ref()),
                );
                self.state.write().core.end_rows(*id, topic);
            }
            (_, News::Other(What::Failed(error))) => {
                self.state.write().core.handle_failure(read, now);
                if !std::mem::replace(&mut self.found.lock().failed, true) {
                    report!(&error, self.hook.as_ref());
                }
                return;
            }
            (_, News::Other(what)) => self.take_word(read, what, now),
            _ => {}
        }
        self.found.lock().failed = false;
    }

    /// Merges a result without rows.
    fn take_word(&self, read: &Read, what: What, now: Instant) {
        match (read, what) {
            (Read::Versions { id, .. }, What::Stands(bases)) => {
                self.state.write().core.take_versions(*id, bases.as_deref(), now);
            }
            (Read::Listing { id, topic }, What::Begins(base, held)) => {
                self.state.write().core.begin_listing(*id, topic, base, held, now);
            }
            (Read::Listing { id, topic }, What::Ends) => {
                let gone = self.state.write().core.end_listing(*id, topic);
                self.merge_each(gone, |key| key, |core, key| core.sweep(*id, topic, key));
                self.state.write().core.end_sweep(*id, topic, now);
            }
            (Read::Changes { id, topic, .. }, What::CompleteTo(version)) => {
                self.state.write().core.end_changes(*id, topic, version, now);
            }
            (Read::Changes { id, topic, .. }, What::Unknown) => self.state.write().core.list_instead(*id, topic, now),
            _ => {}
        }
    }
}
