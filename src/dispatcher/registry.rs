//! The callbacks. They belong to the dispatcher thread; other threads edit them by commands.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::error::Result;
use crate::event::{Event, SyncReason};
use crate::update::{DbUpdate, Name, Topic};

/// Keeps a callback registered: dropping it unregisters; [`Guard::detach`] keeps the callback registered until the
/// dispatcher stops.
///
/// After the drop has returned no new call begins; a call that began before may still be running.
#[must_use = "dropping the guard unregisters the callback"]
pub struct Guard {
    live: Arc<AtomicBool>,
    /// Cleans up after the callback; `None` once detached.
    removal: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Guard {
    /// Registers a callback with the command that `register` makes of it.
    pub(super) fn new<E>(
        commands: Sender<Command>,
        callback: Callback<E>,
        register: impl FnOnce(Arc<Callback<E>>) -> Command,
        removal: Command,
    ) -> Guard {
        let callback = Arc::new(callback);
        // Fails only if the dispatcher has ended, which calls nothing.
        let _ = commands.send(register(Arc::clone(&callback)));
        callback.guard(move || {
            let _ = commands.send(removal);
        })
    }

    /// Drops the guard without unregistering.
    pub fn detach(mut self) {
        self.removal = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(removal) = self.removal.take() {
            self.live.store(false, Ordering::Release);
            removal();
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// A registered callback.
pub(crate) struct Callback<E> {
    live: Arc<AtomicBool>,
    pub(super) call: Call<E>,
    /// Called with updates that are called next, most likely: brings what they need into the processor's caches.
    ahead: Option<Ahead>,
}

type Call<E> = Box<dyn Fn(&E) -> Result<()> + Send + Sync>;
type Ahead = Box<dyn Fn(&[&DbUpdate]) + Send + Sync>;

impl<E> Callback<E> {
    pub(crate) fn new(call: impl Fn(&E) -> Result<()> + Send + Sync + 'static) -> Callback<E> {
        Callback {
            live: Arc::new(AtomicBool::new(true)),
            call: Box::new(call),
            ahead: None,
        }
    }

    /// With a look at the updates to come.
    pub(super) fn ahead(mut self, ahead: impl Fn(&[&DbUpdate]) + Send + Sync + 'static) -> Callback<E> {
        self.ahead = Some(Box::new(ahead));
        self
    }

    /// A guard that unregisters the callback when it is dropped, and then runs `removal`.
    pub(crate) fn guard(&self, removal: impl FnOnce() + Send + Sync + 'static) -> Guard {
        Guard {
            live: Arc::clone(&self.live),
            removal: Some(Box::new(removal)),
        }
    }

    /// False once the guard was dropped.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }
}

/// The updates that a callback is for.
#[derive(Clone)]
pub(super) enum Scope {
    All,
    Table(Name),
    Topic(Topic),
}

/// Commands of other threads, and of callbacks, to the dispatcher thread.
pub(super) enum Command {
    AddUpdate(Scope, Arc<Callback<DbUpdate>>),
    AddEvent(Arc<Callback<Event>>),
    AddSync(Arc<Callback<SyncReason>>),
    /// A callback of a part of the library, for which no updates are [covered](crate::queue::QueueStats::covered).
    AddOwnSync(Arc<Callback<SyncReason>>),
    /// Remove callbacks that are no longer live.
    SweepUpdate(Scope),
    SweepSync,
    SweepEvent,
    /// Work of the library for the dispatcher's threads.
    Job(Job),
    /// Check the stop flag.
    Wake,
}

pub(crate) type Job = Box<dyn FnOnce() + Send + Sync>;

type List<E> = Vec<Arc<Callback<E>>>;

/// The callbacks. Cloned only when edited while a worker uses it.
#[derive(Clone, Default)]
pub(super) struct Registry {
    events: List<Event>,
    all: List<DbUpdate>,
    tables: HashMap<Name, List<DbUpdate>>,
    topics: HashMap<Topic, List<DbUpdate>>,
    syncs: List<SyncReason>,
    own_syncs: List<SyncReason>,
    /// A callback that looks ahead was registered.
    looks_ahead: bool,
}

impl Registry {
    pub(super) fn apply(&mut self, command: Command) {
        if let Command::AddUpdate(_, callback) = &command {
            self.looks_ahead |= callback.ahead.is_some();
        }
        match command {
            Command::AddUpdate(Scope::All, callback) => self.all.push(callback),
            Command::AddUpdate(Scope::Table(table), callback) => self.tables.entry(table).or_default().push(callback),
            Command::AddUpdate(Scope::Topic(topic), callback) => self.topics.entry(topic).or_default().push(callback),
            Command::AddEvent(callback) => self.events.push(callback),
            Command::AddSync(callback) => self.syncs.push(callback),
            Command::SweepUpdate(Scope::All) => sweep(&mut self.all),
            Command::SweepUpdate(Scope::Table(table)) => sweep_in(&mut self.tables, table),
            Command::SweepUpdate(Scope::Topic(topic)) => sweep_in(&mut self.topics, topic),
            Command::AddOwnSync(callback) => self.own_syncs.push(callback),
            Command::SweepSync => {
                sweep(&mut self.syncs);
                sweep(&mut self.own_syncs);
            }
            Command::SweepEvent => sweep(&mut self.events),
            Command::Job(_) | Command::Wake => {}
        }
    }

    /// The callbacks for both updates and sync events, in order.
    pub(super) fn for_event(&self) -> impl Iterator<Item = &Callback<Event>> {
        self.events.iter().map(|callback| &**callback)
    }

    /// The callbacks for this update, in order.
    pub(super) fn for_update(&self, update: &DbUpdate) -> impl Iterator<Item = &Callback<DbUpdate>> {
        let table = self.tables.get(&update.table).into_iter().flatten();
        let topic = self.topics.get(&update.topic).into_iter().flatten();
        self.all.iter().chain(table).chain(topic).map(|callback| &**callback)
    }

    pub(super) fn looks_ahead(&self) -> bool {
        self.looks_ahead
    }

    /// Has the callbacks of their tables look at the updates to come.
    pub(super) fn look_ahead(&self, updates: &mut [&DbUpdate]) {
        updates.sort_by(|one, other| one.table.cmp(&other.table));
        for same in updates.chunk_by(|one, other| one.table == other.table) {
            let Some(first) = same.first() else { continue };
            for callback in self.tables.get(&first.table).into_iter().flatten() {
                if let Some(ahead) = callback.ahead.as_ref().filter(|_| callback.is_live()) {
                    ahead(same);
                }
            }
        }
    }

    /// True if the program has registered a callback for sync events.
    pub(super) fn hears_syncs(&self) -> bool {
        let events = self.events.iter().map(|callback| callback.is_live());
        let syncs = self.syncs.iter().map(|callback| callback.is_live());
        events.chain(syncs).any(|is_live| is_live)
    }

    /// The library's own callbacks for a sync event.
    pub(super) fn own_syncs(&self) -> impl Iterator<Item = &Callback<SyncReason>> {
        self.own_syncs.iter().map(|callback| &**callback)
    }

    /// The program's callbacks for a sync event, in order.
    pub(super) fn for_sync(&self) -> impl Iterator<Item = &Callback<SyncReason>> {
        self.syncs.iter().map(|callback| &**callback)
    }
}

fn sweep<E>(list: &mut List<E>) {
    list.retain(|callback| callback.is_live());
}

fn sweep_in<K: Hash + Eq, E>(lists: &mut HashMap<K, List<E>>, key: K) {
    if let Entry::Occupied(mut list) = lists.entry(key) {
        sweep(list.get_mut());
        if list.get().is_empty() {
            list.remove();
        }
    }
}
