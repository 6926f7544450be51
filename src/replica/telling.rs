//! Calling the handlers of a table, without its lock.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use parking_lot::Mutex;

use super::core::Rows;
use super::map::Iter;
use super::row::{Held, MalformedRow, RowChange, Step, Undecoded};
use super::typed::{State, Typed};
use super::watch::{Telling, Watcher, Watchers};
use crate::dispatcher::{Callback, Guard, Handler};
use crate::error::{contain, report};
use crate::table::Entry;
use crate::thread::deadline;
use crate::update::Name;

/// The most rows reported to a new handler, or looked at to be removed, in one job; other jobs run in between.
pub(super) const AT_ONCE: usize = 256;

/// The rows of a table at one moment that are still to be visited.
pub(super) struct Rest<T> {
    decoded: Iter<Entry<T>>,
    malformed: Iter<Undecoded<T>>,
}

impl<T> Rest<T> {
    pub(super) fn of(rows: &Rows<T>) -> Rest<T> {
        Rest {
            decoded: rows.decoded.iter(),
            malformed: rows.malformed.iter(),
        }
    }
}

/// The consequences of a change, without the table's lock.
pub(super) struct Merged<T> {
    /// The row, if it does not decode.
    malformed: Option<Arc<MalformedRow>>,
    /// The indexes to change, before any handler is called.
    indexing: Option<Telling<T>>,
    /// The handlers to call.
    telling: Option<Telling<T>>,
    /// The states that the indexes, and the handlers, are not told.
    skipped: [Option<Held<T>>; 2],
}

impl<T> State<T> {
    /// The handlers, or the indexes.
    fn watchers(&mut self, are_indexes: bool) -> &mut Watchers<T> {
        match are_indexes {
            true => &mut self.indexes,
            false => &mut self.watchers,
        }
    }

    /// Takes note of a change; returns what to report once the lock is free.
    pub(super) fn note(&mut self, step: Step<T>) -> Merged<T> {
        let malformed = match &step.after {
            Some(Held::Malformed(it)) => Some(Arc::clone(&it.row)),
            _ => None,
        };
        let (indexing, unindexed) = match self.indexes.is_needed() {
            true => self.indexes.change(step.clone()),
            false => (None, None),
        };
        let (telling, skipped) = self.watchers.change(step);
        Merged {
            malformed,
            indexing,
            telling,
            skipped: [unindexed, skipped],
        }
    }
}

impl<T: Send + Sync + 'static> Typed<T> {
    /// Changes the indexes, and then calls the handlers. `unindexed` is the last change of the indexes.
    pub(super) fn tell_merged(&self, merged: &mut [Merged<T>], unindexed: Option<u64>, needs_word: bool) {
        if let Some(number) = unindexed {
            self.tell_indexes(merged, number);
        }
        for merged in merged {
            self.drop_rows((std::mem::take(&mut merged.skipped), merged.indexing.take()));
            if let Some(row) = merged.malformed.take() {
                report!(&row.error, self.hook.as_ref());
            }
            while let Some(Telling { step, watchers }) = merged.telling.take() {
                if !watchers.is_empty() {
                    self.tell(&step, &watchers, false);
                    if needs_word {
                        let mut state = self.state.write();
                        merged.telling = state.watchers.told(&step.key);
                        let unindexed = state.indexes.untold().filter(|_| merged.telling.is_some());
                        drop(state);
                        if let Some(number) = unindexed {
                            self.await_indexed(std::slice::from_ref(&step.key), number);
                        }
                    }
                }
                self.drop_rows((step, watchers));
            }
        }
    }

    fn tell_indexes(&self, merged: &mut [Merged<T>], number: u64) {
        // Without an index it is nobody's turn.
        let indexing = |merged: &mut Merged<T>| merged.indexing.take_if(|it| !it.watchers.is_empty());
        let mut all: Vec<_> = merged.iter_mut().filter_map(indexing).collect();
        let told_next = merged.iter().filter_map(|merged| merged.telling.as_ref());
        let keys: Vec<_> = told_next.map(|telling| telling.step.key.clone()).collect();
        let mut is_told = false;
        while !all.is_empty() {
            all.iter().for_each(|it| self.tell(&it.step, &it.watchers, true));
            let mut state = self.state.write();
            let next = all.iter().filter_map(|it| state.indexes.told(&it.step.key)).collect();
            is_told = keys.iter().all(|key| state.indexes.has_told_of(key, number));
            drop(state);
            let told = std::mem::replace(&mut all, next);
            told.into_iter().for_each(|it| self.drop_rows((it.step, it.watchers)));
        }
        self.signal.notify();
        if !is_told {
            self.await_indexed(&keys, number);
        }
    }

    /// Waits until the indexes have the changes of these rows up to this one.
    fn await_indexed(&self, keys: &[Name], number: u64) {
        self.signal.wait(deadline(Duration::MAX), || {
            let state = self.state.read();
            keys.iter().all(|key| state.indexes.has_told_of(key, number))
        });
    }

    /// Waits until the indexes have this change: another thread is about to make it. That calls nothing that waits.
    fn await_indexes(&self, number: Option<u64>) {
        if let Some(number) = number {
            self.signal
                .wait(deadline(Duration::MAX), || self.state.read().indexes.has_told(number));
        }
    }

    /// Drops rows, which is the program's code: a panic must not cost others their changes.
    fn drop_rows(&self, rows: impl Sized) {
        if let Err(panic) = contain(|| self.dropping(), || drop(rows)) {
            report!(&panic, self.hook.as_ref());
        }
    }

    /// The next row. The others may have the last handle to a row, which is dropped as they pass it.
    pub(super) fn next_of(&self, rows: &mut Rest<T>) -> Option<Held<T>> {
        loop {
            let next = || {
                let held = rows.decoded.next().map(Held::Row);
                held.or_else(|| rows.malformed.next().map(Held::Malformed))
            };
            match contain(|| self.dropping(), next) {
                Ok(held) => return held,
                Err(panic) => report!(&panic, self.hook.as_ref()),
            }
        }
    }

    fn dropping(&self) -> String {
        format!("dropping a row of table {}", self.name)
    }

    /// Calls handlers, or indexes, which follow the rows whatever has stopped.
    fn tell(&self, step: &Step<T>, watchers: &[Watcher<T>], are_indexes: bool) {
        for change in step.told() {
            for watcher in watchers {
                let what = || {
                    format!(
                        "a row change handler of table {:?}, called with key {:?}",
                        self.name, step.key
                    )
                };
                match are_indexes {
                    true => self.dispatcher.call_always(watcher, &change, what),
                    false => self.dispatcher.call(watcher, &change, what),
                }
            }
        }
    }

    /// Registers a handler and calls it for all present rows, on the dispatcher's threads; or an index, on this one, if
    /// `here`.
    pub(super) fn watch(self: &Arc<Self>, handler: impl Handler<RowChange<T>>, here: bool) -> Guard {
        let ended = Arc::clone(&self.ended);
        // An index follows the rows that stay.
        let call = move |change: &RowChange<T>| match !here && ended.load(Acquire) {
            true => Ok(()),
            false => handler.handle(change),
        };
        let watcher: Watcher<T> = Arc::new(Callback::new(call));
        let table = Arc::clone(self);
        let guard = watcher.guard(move || {
            let swept = table.state.write().watchers(here).sweep();
            drop(swept);
        });
        let table = Arc::clone(self);
        let begin = move || {
            let mut state = table.state.write();
            if !watcher.is_live() || !here && table.is_ended() {
                // Its guard may have looked for it before it was there.
                return drop(state);
            }
            state.watchers(here).begin(Arc::clone(&watcher));
            let rows = Rest::of(&state.core.rows);
            let unindexed = state.indexes.untold();
            drop(state);
            if !here {
                table.await_indexes(unindexed);
            }
            table.tell_all(watcher, rows, here);
        };
        if here {
            begin();
        } else {
            self.dispatcher.run(Box::new(begin));
        }
        guard
    }

    /// Calls a new handler for some rows, and queues a job for the rest.
    fn tell_all(self: Arc<Self>, watcher: Watcher<T>, mut rows: Rest<T>, here: bool) {
        let told = std::slice::from_ref(&watcher);
        for _ in 0..if here { usize::MAX } else { AT_ONCE } {
            let Some(held) = self.next_of(&mut rows) else {
                while watcher.is_live() {
                    let mut state = self.state.write();
                    let since = state.watchers(here).since(&watcher);
                    let unindexed = state.indexes.untold();
                    drop(state);
                    let Some(since) = since else { return };
                    if !here {
                        self.await_indexes(unindexed);
                    }
                    since.values().for_each(|step| self.tell(step, told, here));
                }
                return;
            };
            self.tell(&Step::appears(held), told, here);
        }
        if watcher.is_live() && !self.is_ended() {
            let table = Arc::clone(&self);
            let rows = Mutex::new(rows);
            let go_on = move || table.tell_all(watcher, rows.into_inner(), here);
            self.dispatcher.run(Box::new(go_on));
        }
    }
}
