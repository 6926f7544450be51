//! The thread that reads a table of members periodically.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::options::RegistryOptions;
use super::roster::{Less, Presence, Roster, Version};
use crate::error::{ErrorKind, Result, contain, report};
use crate::store::{Changes, Row, Store, TableVersion, Write};
use crate::thread::{Background, Stop};
use crate::update::{Name, Topic};

/// Reports the members of a table, from its creation until it is dropped.
#[doc(hidden)]
pub struct Watch {
    table: String,
    thread: Background,
}

impl Watch {
    /// Begins to watch this table. After each read it calls `tell` with all members, on the watch's thread; `tell` must
    /// be quick. With `remove`, it removes the rows of members that are gone, and no longer reports those.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a timeout of less than 10 ms, and [`ErrorKind::Io`] if a thread cannot be started.
    /// Errors of the store go to the hook.
    pub fn new(
        store: Arc<dyn Store>,
        table: &str,
        options: RegistryOptions,
        remove: bool,
        tell: impl FnMut(&[Presence]) + Send + 'static,
    ) -> Result<Watch> {
        options.check()?;
        let observer = Observer {
            roster: Roster::new(options.timeout),
            seen: None,
            store,
            table: table.to_owned(),
            options,
            remove,
            tell,
        };
        let what = format!("the watch of table {table:?}");
        let hook = observer.options.hook.clone();
        let thread = Background::spawn("tc-watch", what, hook, move |stop| observer.run(&stop))?;
        Ok(Watch {
            table: table.to_owned(),
            thread,
        })
    }

    /// Tells the thread to stop, and does not wait.
    pub(crate) fn tell(&self) {
        self.thread.tell();
    }

    /// Stops watching. Waits for at most 300 ms, also if the store does not answer.
    pub fn stop(&self) {
        self.thread.stop();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// The thread that reads the table.
struct Observer<F> {
    roster: Roster,
    /// The state of the table at the last look.
    seen: Option<TableVersion>,
    store: Arc<dyn Store>,
    table: String,
    options: RegistryOptions,
    remove: bool,
    tell: F,
}

impl<F: FnMut(&[Presence])> Observer<F> {
    fn run(mut self, stop: &Stop) {
        loop {
            let name = format!("the watch of table {:?}", self.table);
            if let Err(e) = contain(|| name.clone(), || self.look()).flatten() {
                let error = e.context(name);
                report!(&error, self.options.hook.as_ref());
            }
            if stop.within(self.options.look()) {
                return;
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let (rows, went_back) = self.read().inspect_err(|_| self.roster.skip())?;
        let now = Instant::now();
        let writable = self.check_writable(now).inspect_err(|_| self.roster.skip());
        self.roster.look(rows, now, went_back);
        let removed = self.remove_stale(now);
        (self.tell)(&self.roster.presences(now));
        writable.and(removed)
    }

    /// Reads the rows; also returns true if the store went back since the last look, which is checked only if a row is
    /// older or missing.
    fn read(&mut self) -> Result<(Vec<Row>, bool)> {
        let before = self.store.table_version(&self.table)?;
        let rows = self.store.entries(&self.table, None).collect::<Result<Vec<Row>>>()?;
        let Less { is_older, missing } = self.roster.compare(&rows);
        if !is_older && missing.is_empty() {
            self.seen = before;
            return Ok((rows, false));
        }
        // The store may have gone back since.
        let now = self.store.table_version(&self.table)?;
        let seen = self.seen.filter(|seen| seen.version > 0).or(before);
        let is_earlier = now.zip(seen).is_some_and(|(now, seen)| {
            let seen = seen.at(seen.version.max(self.roster.version()));
            now.went_back_since(&seen)
        });
        // With as many writes as it has lost, or more, only its rows show it.
        let went_back = is_older || is_earlier || self.has_lost(missing, now)?;
        self.seen = now;
        if went_back {
            log::warn!(
                "the watch of table {:?}: the store went back to an earlier state",
                self.table
            );
        }
        Ok((rows, went_back))
    }

    /// True if one of these rows is gone but was not deleted, as far as the store remembers.
    fn has_lost(&self, missing: BTreeMap<Topic, BTreeMap<Name, u64>>, now: Option<TableVersion>) -> Result<bool> {
        let Some(now) = now else { return Ok(false) };
        for (topic, mut rows) in missing {
            let mut since = now.at(rows.values().copied().min().unwrap_or_default());
            while !rows.is_empty()
                && let Changes::Page(page) = self.store.changes(&self.table, &topic, since)?
            {
                page.changes.iter().for_each(|change| _ = rows.remove(&change.key));
                if !page.more && !rows.is_empty() {
                    return Ok(true);
                }
                since = page.version;
            }
        }
        Ok(false)
    }

    /// Fails if the store accepts no writes: a store that is full or locked can still be read, but not renewed in, so
    /// no member may be removed then. Writes only when it matters.
    fn check_writable(&self, now: Instant) -> Result<()> {
        if self.remove && self.roster.is_in_doubt(now) {
            self.store.allocate_unique_key(&self.table)?;
        }
        Ok(())
    }

    fn remove_stale(&mut self, now: Instant) -> Result<()> {
        if self.remove {
            for stale in self.roster.stale(now) {
                self.remove(&stale)?;
            }
        }
        Ok(())
    }

    /// Removes the row of a member that is gone, unless it was written since it was seen.
    fn remove(&mut self, (key, version): &Version) -> Result<()> {
        match self.store.write(&Write::delete(&self.table, key).if_version(*version)) {
            Ok(_) => log::info!(
                "table {:?}: {key} has not renewed its row for the timeout: removed",
                self.table
            ),
            // Another observer has removed it.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // It was renewed after all; the next look shows it.
            Err(e) if e.kind() == ErrorKind::Conflict => return Ok(()),
            Err(e) => return Err(e),
        }
        self.roster.forget(key);
        Ok(())
    }
}
