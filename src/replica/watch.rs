//! Who is told of row changes, each row's in order whatever thread finds them.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::row::{RowChange, Step};
use crate::dispatcher::Callback;
use crate::update::Name;

pub(super) type Watcher<T> = Arc<Callback<RowChange<T>>>;

/// What has changed of each row since something.
type Since<T> = HashMap<Name, Step<T>>;

/// Who is told of the changes of a table.
pub(super) struct Watchers<T> {
    live: Arc<Vec<Watcher<T>>>,
    /// Those that are being given what there is, with what has changed since.
    new: Vec<(Watcher<T>, Since<T>)>,
    /// The rows of which somebody is being told, with what comes after that. Not used if one thread does everything.
    busy: HashMap<Name, VecDeque<Telling<T>>>,
    is_alone: bool,
}

/// A change, and who is told of it.
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
            is_alone,
        }
    }

    /// Takes in a change: what is to be told now, if there is anyone to be told, and then [`Watchers::told`].
    pub(super) fn change(&mut self, step: Step<T>) -> Option<Telling<T>> {
        for (_, since) in &mut self.new {
            match since.get_mut(&step.key) {
                Some(earlier) => earlier.join(step.clone()),
                None => drop(since.insert(step.key.clone(), step.clone())),
            }
        }
        let telling = Telling {
            step,
            watchers: Arc::clone(&self.live),
        };
        if self.is_alone || self.live.is_empty() {
            return Some(telling);
        }
        let Some(waiting) = self.busy.get_mut(&telling.step.key) else {
            self.busy.insert(telling.step.key.clone(), VecDeque::new());
            return Some(telling);
        };
        match waiting.back_mut() {
            Some(last) if Arc::ptr_eq(&last.watchers, &telling.watchers) => last.step.join(telling.step),
            _ => waiting.push_back(telling),
        }
        None
    }

    /// They were told of a change of this row: what is to be told of it next.
    pub(super) fn told(&mut self, key: &str) -> Option<Telling<T>> {
        let next = self.busy.get_mut(key)?.pop_front();
        if next.is_none() {
            self.busy.remove(key);
        }
        next
    }

    pub(super) fn needs_word(&self) -> bool {
        !self.is_alone
    }

    /// Begins to note what changes for one that is given what there is.
    pub(super) fn begin(&mut self, watcher: Watcher<T>) {
        self.new.push((watcher, HashMap::new()));
    }

    /// What has changed since it was begun; `None` if nothing has, and from now on it is told with the others.
    pub(super) fn since(&mut self, watcher: &Watcher<T>) -> Option<Since<T>> {
        let place = self.new.iter().position(|(new, _)| Arc::ptr_eq(new, watcher))?;
        let since = std::mem::take(&mut self.new[place].1);
        if !since.is_empty() {
            return Some(since);
        }
        let (watcher, _) = self.new.remove(place);
        self.edit(|live| live.push(watcher));
        None
    }

    /// Removes those whose guard was dropped.
    pub(super) fn sweep(&mut self) {
        self.new.retain(|(watcher, _)| watcher.is_live());
        self.edit(|live| live.retain(|watcher| watcher.is_live()));
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Vec<Watcher<T>>)) {
        let mut live = Vec::clone(&self.live);
        edit(&mut live);
        self.live = Arc::new(live);
    }
}
