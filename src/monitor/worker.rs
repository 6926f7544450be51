//! The thread of a monitor: polls, compares, publishes, remembers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::{Counters, MonitorOptions};
use super::told::Told;
use crate::error::{Error, ErrorKind, Result, contain, report};
use crate::publisher::Publisher;
use crate::store::{Row, Store, TableVersion};
use crate::thread::Stop;
use crate::update::{Action, DbUpdate, Topic};

pub(super) struct Worker {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    table: String,
    id: String,
    options: MonitorOptions,
    counters: Arc<Counters>,
    stop: Stop,
    /// `None` until it was read.
    told: Option<Told>,
    /// The table's version when everything in it was published and remembered.
    done: Option<TableVersion>,
    /// The table's version at the last look.
    seen: Option<TableVersion>,
    /// The store went back, and not every topic has skipped a number yet.
    went_back: bool,
    /// The topics with a published change in this poll, or since the store went back.
    topics: BTreeSet<Topic>,
}

/// The least interval of polls.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// How long a stopping monitor may take to store its memory.
const REMEMBER: Duration = Duration::from_millis(200);

impl Worker {
    pub(super) fn new(
        store: Arc<dyn Store>,
        publisher: Arc<Publisher>,
        (table, id): (String, String),
        options: MonitorOptions,
        counters: Arc<Counters>,
        stop: Stop,
    ) -> Worker {
        Worker {
            store,
            publisher,
            table,
            id,
            options,
            counters,
            stop,
            told: None,
            done: None,
            seen: None,
            went_back: false,
            topics: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut wait = self.options.delay;
        while !self.stop.within(wait) {
            let name = format!("the monitor of table {:?}", self.table);
            let polled = contain(|| name.clone(), || self.poll()).flatten();
            if let Err(e) = polled
                && e.kind() != ErrorKind::Stopped
            {
                self.fail(&e.context(name));
            }
            wait = self.options.interval.max(MIN_INTERVAL);
        }
    }

    fn poll(&mut self) -> Result<()> {
        self.counters.polls.add(1);
        let known = self.told.take();
        let is_known = known.is_some();
        let mut told = match known {
            Some(told) => told,
            None => Told::load(&*self.store, &self.table, &self.id, |e| self.fail(e))?,
        };
        let was_empty = told.is_empty();
        let result = self.poll_with(&mut told);
        if !is_known && was_empty && !told.is_empty() {
            log::info!(
                "the monitor of table {:?} had no memory under the id {:?}: it has published all rows, and no delete from \
                 before",
                self.table,
                self.id
            );
        }
        self.told = Some(told);
        result
    }

    fn poll_with(&mut self, told: &mut Told) -> Result<()> {
        // Read before the rows, so that any later write gives it another value.
        let version = self.store.table_version(&self.table)?;
        if version.is_some() && version == self.done {
            self.counters.skipped.add(1);
            return Ok(());
        }
        self.done = None;
        if let (Some(now), Some(seen)) = (version, self.seen) {
            self.went_back |= now.went_back_since(&seen);
        }
        self.seen = version;
        if !self.went_back {
            self.topics.clear();
        }
        let compared = self.compare(told, version.map(|now| now.version));
        let repaired = match &compared {
            Ok(()) if self.went_back => self.repair(told),
            _ => Ok(()),
        };
        // Also after a failure, since a part was published.
        let remembered = self.remember(told);
        compared.and(repaired)?;
        remembered?;
        self.done = version;
        Ok(())
    }

    /// Skips a number on each published topic after the store went back, so that programs that rely on versions read
    /// the store; and finds the parts of memory that it has lost.
    fn repair(&mut self, told: &mut Told) -> Result<()> {
        told.find(&*self.store)?;
        for topic in std::mem::take(&mut self.topics) {
            self.publisher.skip(&topic);
        }
        self.went_back = false;
        self.counters.went_back.add(1);
        log::warn!(
            "the monitor of table {:?}: the store went back to an earlier state",
            self.table
        );
        Ok(())
    }

    /// Reads all rows, and publishes those that differ from their published state.
    fn compare(&mut self, told: &mut Told, version: Option<u64>) -> Result<()> {
        told.begin();
        let mut after = None;
        loop {
            let page = self.store.page_of_entries(&self.table, None, after.as_deref())?;
            self.counters.rows_read.add(page.items.len() as u64);
            for row in page.items {
                self.go_on()?;
                self.tell(told, row)?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for (key, last) in told.missing() {
            self.go_on()?;
            // The delete's version is unknown. The row was seen to be missing after `version` was read, so any later
            // write of this key has a higher one.
            let deleted = match version {
                Some(version) if last.version != version => version,
                _ => last.version + 1,
            };
            self.went_back |= deleted < last.version;
            let update = DbUpdate::new(&*self.table, &*key, Action::Delete).topic(last.topic);
            self.publish(update, deleted)?;
            told.told_deleted(&key);
        }
        Ok(())
    }

    fn tell(&mut self, told: &mut Told, row: Row) -> Result<()> {
        let action = match told.look(&row) {
            None => Action::Create,
            Some(last) if last.is(&row) => return Ok(()),
            Some(last) => {
                self.went_back |= row.version <= last.version;
                match last.topic == row.topic {
                    true => Action::Set,
                    false => {
                        let update = DbUpdate::new(&*self.table, &*row.key, Action::Delete).topic(last.topic.clone());
                        let deleted = (last.version + 1).min(row.version.saturating_sub(1));
                        self.publish(update, deleted)?;
                        told.told_deleted(&row.key);
                        Action::Create
                    }
                }
            }
        };
        let update = DbUpdate::new(&*self.table, &*row.key, action);
        let update = update.topic(row.topic.clone()).value(row.value.clone());
        self.publish(update, row.version)?;
        told.told(row);
        Ok(())
    }

    /// Publishes an update. One that breaks a limit of the publisher is counted as a failure and not repeated, since it
    /// would block all others; a number is skipped, so that subscribers find a gap and read the store.
    fn publish(&mut self, mut update: DbUpdate, version: u64) -> Result<()> {
        update.version = Some(version);
        match self.publisher.send_event(&update) {
            Ok(()) => {
                self.counters.of(&update.action).add(1);
                self.topics.insert(update.topic);
            }
            Err(e) if matches!(e.kind(), ErrorKind::TooLarge | ErrorKind::InvalidInput) => {
                let context = format!(
                    "table {:?} key {:?}: the change cannot be published",
                    self.table, &*update.key
                );
                self.fail(&e.context(context));
                self.publisher.skip(&update.topic);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn remember(&self, told: &mut Told) -> Result<()> {
        let mut until = None;
        told.save(&*self.store, || {
            !self.stop.is_told() || Instant::now() < *until.get_or_insert_with(|| Instant::now() + REMEMBER)
        })
    }

    fn fail(&self, error: &Error) {
        self.counters.failures.add(1);
        report!(error, self.options.hook.as_ref());
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.is_told() {
            return Err(Error::new(ErrorKind::Stopped, "the monitor is stopping"));
        }
        Ok(())
    }
}
