//! The handlers of row changes; each row's changes are reported in order, whatever thread finds them.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::row::{Held, RowChange, Step};
use crate::dispatcher::Callback;
use crate::update::Name;

pub(super) type Watcher<T> = Arc<Callback<RowChange<T>>>;

/// The changes of each row since a handler's registration.
type Since<T> = HashMap<Name, Step<T>>;

/// The handlers of a table.
pub(super) struct Watchers<T> {
    live: Arc<Vec<Watcher<T>>>,
    /// The handlers that are still being called for the present rows, with the changes since.
    new: Vec<(Watcher<T>, Since<T>)>,
    /// The rows that are being reported. Unused if one thread does everything.
    busy: HashMap<Name, Busy<T>>,
    /// The number of changes of busy rows so far.
    noted: u64,
    is_alone: bool,
    /// The table is no longer held: there is nothing more to report to handlers than what is noted.
    is_closed: bool,
}

/// A row that is being reported.
struct Busy<T> {
    /// The number of the change that is being reported.
    number: u64,
    /// The changes to report after that, with their numbers.
    waiting: VecDeque<(u64, Telling<T>)>,
}

/// A change, and the handlers to call.
pub(super) struct Telling<T> {
    pub(super) step: Step<T>,
    pub(super) watchers: Arc<Vec<Watcher<T>>>,
}

impl<T> Watchers<T> {
    pub(super) fn new(is_alone: bool) -> Watchers<T> {
        Watchers {
            live: Arc::default(),
            new: Vec::new(),
            busy: HashMap::new(),
            noted: 0,
            is_alone,
            is_closed: false,
        }
    }

    /// Takes in a change. Returns it if it is to be reported now, after which [`Watchers::told`] is called; and a state
    /// that is skipped, which the caller drops without the table's lock.
    pub(super) fn change(&mut self, step: Step<T>) -> (Option<Telling<T>>, Option<Held<T>>) {
        for (_, since) in &mut self.new {
            // What this skips is in `step`, too.
            match since.get_mut(&step.key) {
                // It came and went.
                Some(earlier) if earlier.before.is_none() && step.after.is_none() => drop(since.remove(&step.key)),
                Some(earlier) => drop(earlier.join(step.clone())),
                None => drop(since.insert(step.key.clone(), step.clone())),
            }
        }
        let telling = Telling {
            step,
            watchers: Arc::clone(&self.live),
        };
        if self.is_alone || self.live.is_empty() {
            return (Some(telling), None);
        }
        self.noted += 1;
        let Some(busy) = self.busy.get_mut(&telling.step.key) else {
            let busy = Busy {
                number: self.noted,
                waiting: VecDeque::new(),
            };
            self.busy.insert(telling.step.key.clone(), busy);
            return (Some(telling), None);
        };
        if let Some((_, last)) = busy.waiting.back_mut()
            && Arc::ptr_eq(&last.watchers, &telling.watchers)
        {
            return (None, last.step.join(telling.step));
        }
        busy.waiting.push_back((self.noted, telling));
        (None, None)
    }

    /// True if a change has to be noted.
    pub(super) fn is_needed(&self) -> bool {
        !self.live.is_empty() || !self.new.is_empty()
    }

    /// The last change so far, for [`Watchers::has_told`]; `None` if all are reported.
    pub(super) fn untold(&self) -> Option<u64> {
        (!self.busy.is_empty()).then_some(self.noted)
    }

    /// True if everything up to this change is reported.
    pub(super) fn has_told(&self, number: u64) -> bool {
        self.busy.values().all(|busy| busy.number > number)
    }

    /// As [`Watchers::has_told`], for the changes of one row.
    pub(super) fn has_told_of(&self, key: &Name, number: u64) -> bool {
        self.busy.get(key).is_none_or(|busy| busy.number > number)
    }

    /// A change of this row was reported: returns the next to report.
    pub(super) fn told(&mut self, key: &str) -> Option<Telling<T>> {
        let busy = self.busy.get_mut(key)?;
        let Some((number, next)) = busy.waiting.pop_front() else {
            self.busy.remove(key);
            return None;
        };
        busy.number = number;
        Some(next)
    }

    pub(super) fn needs_word(&self) -> bool {
        !self.is_alone
    }

    /// Begins to note changes for a handler that is being called for the present rows.
    pub(super) fn begin(&mut self, watcher: Watcher<T>) {
        self.new.push((watcher, HashMap::new()));
    }

    /// Returns the changes noted since; `None` if there are none: from now on the handler is called with the others.
    pub(super) fn since(&mut self, watcher: &Watcher<T>) -> Option<Since<T>> {
        let place = self.new.iter().position(|(new, _)| Arc::ptr_eq(new, watcher))?;
        let since = std::mem::take(&mut self.new[place].1);
        if !since.is_empty() {
            return Some(since);
        }
        let (watcher, _) = self.new.remove(place);
        if !self.is_closed {
            self.edit(|live| live.push(watcher));
        }
        None
    }

    /// Ends the reports after those that are noted. Returns the handlers, for the caller to drop without the table's
    /// lock.
    pub(super) fn close(&mut self) -> impl Sized + use<T> {
        self.is_closed = true;
        std::mem::take(&mut self.live)
    }

    /// Removes the handlers whose guards were dropped. Returns them, for the caller to drop without the table's lock:
    /// they hold what is the program's.
    pub(super) fn sweep(&mut self) -> impl Sized + use<T> {
        let new = std::mem::take(&mut self.new).into_iter();
        let (kept, gone): (_, Vec<_>) = new.partition(|(watcher, _)| watcher.is_live());
        self.new = kept;
        (gone, self.edit(|live| live.retain(|watcher| watcher.is_live())))
    }

    /// Returns the handlers before.
    fn edit(&mut self, edit: impl FnOnce(&mut Vec<Watcher<T>>)) -> Arc<Vec<Watcher<T>>> {
        let mut live = Vec::clone(&self.live);
        edit(&mut live);
        std::mem::replace(&mut self.live, Arc::new(live))
    }
}
