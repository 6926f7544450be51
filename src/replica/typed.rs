//! One table of a replica with its lock: updates and what was read are merged here, on the dispatcher's threads, and told.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;
use hashbrown::DefaultHashBuilder;
use parking_lot::{Mutex, RwLock};

use super::core::{Core, Read};
use super::map::{Iter, Map};
use super::options::{ReplicaOptions, ReplicaStats};
use super::part::{Found, Part, What};
use super::row::{Held, NewRow, RowChange, Step, Undecoded};
use super::signal::Signal;
use super::watch::{Telling, Watcher, Watchers};
use crate::clock;
use crate::database::Entry;
use crate::dispatcher::{Callback, DispatcherHandle, Guard, Handler};
use crate::error::{Error, ErrorHook, ErrorKind, Result, report};
use crate::store::{RowChange as Changed, TableVersion};
use crate::update::{DbUpdate, Name, Topic};

/// Makes a row of its table, key and text; an error comes with the text.
pub(super) type Decode<T> = fn(&str, &str, String) -> Result<T, (String, Error)>;

/// How many rows are told to a new handler before others have their turn.
const TOLD_AT_ONCE: usize = 256;

/// A table of a replica.
pub(super) struct Typed<T> {
    name: Name,
    decode: Decode<T>,
    state: RwLock<State<T>>,
    found: Mutex<Waiting>,
    dispatcher: DispatcherHandle,
    /// Wakes the thread that reads.
    wake: Sender<()>,
    signal: Arc<Signal>,
    hasher: DefaultHashBuilder,
    read_bytes: AtomicU64,
    hook: Option<ErrorHook>,
}

struct State<T> {
    core: Core<T>,
    watchers: Watchers<T>,
}

#[derive(Default)]
struct Waiting {
    found: VecDeque<Found>,
    is_coming_in: bool,
    /// The store failed last, and that was reported.
    failed: bool,
}

impl<T: Send + Sync + 'static> Typed<T> {
    pub(super) fn new(
        name: Name,
        decode: Decode<T>,
        options: &ReplicaOptions,
        dispatcher: DispatcherHandle,
        wake: Sender<()>,
        signal: Arc<Signal>,
    ) -> Typed<T> {
        let hasher = DefaultHashBuilder::default();
        let core = Core::new(options.times(), hasher.hash_one(&name), clock::now());
        let watchers = Watchers::new(dispatcher.is_alone());
        Typed {
            name,
            decode,
            state: RwLock::new(State { core, watchers }),
            found: Mutex::default(),
            dispatcher,
            wake,
            signal,
            hasher,
            read_bytes: AtomicU64::new(0),
            hook: options.hook.clone(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Held<T>> {
        self.state.read().core.rows.get(key)
    }

    pub(super) fn len(&self) -> usize {
        let state = self.state.read();
        state.core.rows.decoded.len() + state.core.rows.malformed.len()
    }

    /// The rows as they are now, those that decode and those that do not.
    pub(super) fn rows(&self) -> (Map<Entry<T>>, Map<Undecoded<T>>) {
        let state = self.state.read();
        (state.core.rows.decoded.clone(), state.core.rows.malformed.clone())
    }

    /// Takes in an update, on a thread of the dispatcher's.
    pub(super) fn handle_update(&self, update: &DbUpdate) {
        let now = clock::now();
        if update.version.is_some() && !self.state.read().core.wants(update, now) {
            // It may still say that the store went back, or that there is something to read.
            let before = self.went_back();
            let wakes = self.state.write().core.handle_update(update, None, now).1;
            return self.look(before, wakes);
        }
        let row = update.value.as_ref().filter(|_| update.version.is_some());
        let row = row.map(|text| self.decode(&update.key, text.clone()));
        let mut wakes = false;
        self.merge(|core| {
            let (step, woken) = core.handle_update(update, row, now);
            wakes = woken;
            step
        });
        if wakes {
            self.wake();
        }
        self.signal.notify();
    }

    fn decode(&self, key: &str, text: String) -> NewRow<T> {
        NewRow {
            sum: self.sum_of(&text),
            row: (self.decode)(&self.name, key, text),
        }
    }

    fn sum_of(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    /// Changes a row, and calls the handlers.
    fn merge(&self, change: impl FnOnce(&mut Core<T>) -> Option<Step<T>>) {
        let mut state = self.state.write();
        let Some(step) = change(&mut state.core) else { return };
        let malformed = match &step.after {
            Some(Held::Malformed(it)) => Some(Arc::clone(&it.row)),
            _ => None,
        };
        let mut telling = state.watchers.change(step);
        let needs_word = state.watchers.needs_word();
        drop(state);
        if let Some(row) = malformed {
            report(&row.error, self.hook.as_ref());
        }
        while let Some(Telling { step, watchers }) = telling.take() {
            self.tell(&step, &watchers);
            if needs_word {
                telling = self.state.write().watchers.told(&step.key);
            }
        }
    }

    fn tell(&self, step: &Step<T>, watchers: &[Watcher<T>]) {
        let Some(change) = step.told() else { return };
        for watcher in watchers {
            let what = || {
                format!(
                    "a row change handler of table {}, called with key {}",
                    self.name, step.key
                )
            };
            self.dispatcher.call(watcher, &change, what);
        }
    }

    /// Registers a handler, and gives it what there is: on the dispatcher's threads, or on this one, which waits for it.
    pub(super) fn watch(self: &Arc<Self>, handler: impl Handler<RowChange<T>>, here: bool) -> Guard {
        let watcher: Watcher<T> = Arc::new(Callback::new(move |change: &RowChange<T>| handler.handle(change)));
        let table = Arc::clone(self);
        let guard = watcher.guard(move || table.state.write().watchers.sweep());
        let table = Arc::clone(self);
        let begin = move || {
            let mut state = table.state.write();
            state.watchers.begin(Arc::clone(&watcher));
            let rows = (state.core.rows.decoded.iter(), state.core.rows.malformed.iter());
            drop(state);
            table.tell_all(watcher, rows, here);
        };
        if here {
            begin();
        } else {
            self.dispatcher.run(Box::new(begin));
        }
        guard
    }

    /// Tells a new handler of some of the rows, and later of the others.
    fn tell_all(self: Arc<Self>, watcher: Watcher<T>, mut rows: (Iter<Entry<T>>, Iter<Undecoded<T>>), here: bool) {
        let told = std::slice::from_ref(&watcher);
        for _ in 0..if here { usize::MAX } else { TOLD_AT_ONCE } {
            let held = rows.0.next().map(Held::Row);
            let Some(held) = held.or_else(|| rows.1.next().map(Held::Malformed)) else {
                while watcher.is_live()
                    && let Some(since) = { self.state.write().watchers.since(&watcher) }
                {
                    since.values().for_each(|step| self.tell(step, told));
                }
                return;
            };
            self.tell(&Step::appears(held), told);
        }
        if watcher.is_live() {
            let table = Arc::clone(&self);
            let rows = Mutex::new(rows);
            let go_on = move || table.tell_all(watcher, rows.into_inner(), here);
            self.dispatcher.run(Box::new(go_on));
        }
    }

    fn wake(&self) {
        // Full means that it is awake already.
        let _ = self.wake.try_send(());
    }

    fn went_back(&self) -> u64 {
        self.state.read().core.counts.went_back
    }

    /// Looks what came of something: says that the store went back, wakes the reading thread, and those who wait.
    fn look(&self, went_back_before: u64, wakes: bool) {
        if self.went_back() > went_back_before {
            let context = format!(
                "the store went back to an earlier state: table {:?} is read anew",
                self.name
            );
            report(&Error::new(ErrorKind::Unavailable, context), self.hook.as_ref());
        }
        if wakes {
            self.wake();
        }
        self.signal.notify();
    }

    /// Takes in the oldest of what was read.
    fn take_in(self: Arc<Self>) {
        let Some(Found { read, what }) = self.found.lock().found.pop_front() else {
            return;
        };
        let before = self.went_back();
        self.take(&read, what, clock::now());
        let mut waiting = self.found.lock();
        waiting.is_coming_in = !waiting.found.is_empty();
        if waiting.is_coming_in {
            let table = Arc::clone(&self);
            self.dispatcher.run(Box::new(move || table.take_in()));
        }
        drop(waiting);
        self.look(before, true);
    }

    fn take(&self, read: &Read, what: What, now: Instant) {
        let core = |edit: &dyn Fn(&mut Core<T>)| edit(&mut self.state.write().core);
        match (read, what) {
            (_, What::Failed(error)) => {
                core(&|core| core.handle_failure(read, now));
                if !std::mem::replace(&mut self.found.lock().failed, true) {
                    report(&error, self.hook.as_ref());
                }
                return;
            }
            (Read::Versions { id, .. }, What::Stands(bases)) => {
                core(&|core| core.take_versions(*id, bases.as_deref(), now));
            }
            (Read::Listing { id, topic }, What::Begins(base, held)) => {
                self.state.write().core.begin_listing(*id, topic, base, held, now);
            }
            (Read::Listing { id, topic }, What::Rows(rows)) => {
                for row in rows {
                    self.read_bytes(&row.key, Some(&row.value));
                    let new = self.decode(&row.key, row.value);
                    self.merge(|core| core.take_listed(*id, topic, &row.key, row.version, new));
                }
            }
            (Read::Listing { id, topic }, What::Ends) => {
                let gone = self.state.write().core.end_listing(*id, topic, now);
                gone.iter()
                    .for_each(|key| self.merge(|core| core.sweep(*id, topic, key)));
                core(&|core| core.end_sweep(*id, topic, now));
            }
            (Read::Changes { id, topic, .. }, What::Changes(changes)) => {
                for Changed { key, version, value } in changes {
                    self.read_bytes(&key, value.as_deref());
                    let new = value.map(|value| self.decode(&key, value));
                    self.merge(|core| core.take_changed(*id, topic, &key, version, new));
                }
            }
            (Read::Changes { id, topic, .. }, What::CompleteTo(version)) => {
                core(&|core| core.end_changes(*id, topic, version, now));
            }
            (Read::Changes { id, topic, .. }, What::Unknown) => core(&|core| core.list_instead(*id, topic, now)),
            (Read::Rows { id, topic, .. }, What::Picked(base, rows)) => {
                core(&|core| core.begin_rows(*id, topic, base, now));
                for (key, row) in rows {
                    self.read_bytes(&key, row.as_ref().map(|row| &*row.value));
                    let row = row.map(|row| (row.topic, row.version, self.decode(&key, row.value)));
                    self.merge(|core| core.take_row(*id, topic, &key, row));
                }
                core(&|core| core.end_rows(*id, topic));
            }
            _ => {}
        }
        self.found.lock().failed = false;
    }

    fn read_bytes(&self, key: &str, value: Option<&str>) {
        let bytes = key.len() + value.map_or(0, str::len);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Takes out the rows that no topic holds any more.
    fn evict(&self) {
        let (decoded, malformed) = self.rows();
        let decoded = decoded.iter().map(Held::Row);
        for held in decoded.chain(malformed.iter().map(Held::Malformed)) {
            if !self.holds(held.topic()) {
                self.merge(|core| core.evict(held.key()));
            }
        }
        self.signal.notify();
    }

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
        self.dispatcher.run(Box::new(move || table.evict()));
    }

    fn close(self: Arc<Self>) {
        self.remove_all_topics();
        let table = Arc::clone(&self);
        let close = move || {
            table.evict();
            table.end();
        };
        self.dispatcher.run(Box::new(close));
    }

    fn end(&self) {
        self.remove_all_topics();
        let none = Watchers::new(self.dispatcher.is_alone());
        // Handlers may hold the table, and dropping them is code of the program's own.
        let watchers = std::mem::replace(&mut self.state.write().watchers, none);
        drop(watchers);
    }

    fn handle_loss(&self) {
        self.state.write().core.handle_loss(clock::now());
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

    fn poll(&self, now: Instant) -> Option<Read> {
        self.state.write().core.poll(now)
    }

    fn deadline(&self) -> Option<Instant> {
        self.state.read().core.deadline()
    }

    fn keys(&self, topic: &Topic) -> Vec<Name> {
        let (decoded, malformed) = self.rows();
        let held = decoded
            .iter()
            .map(Held::Row)
            .chain(malformed.iter().map(Held::Malformed));
        let held = held.filter(|held| held.topic() == topic);
        held.map(|held| held.key().clone()).collect()
    }

    fn stamp(&self, key: &str) -> Option<(u64, u32)> {
        self.state.read().core.rows.stamp(key)
    }

    fn sum(&self, text: &str) -> u32 {
        self.sum_of(text)
    }

    fn put(self: Arc<Self>, found: Found) {
        let mut waiting = self.found.lock();
        waiting.found.push_back(found);
        if !std::mem::replace(&mut waiting.is_coming_in, true) {
            let table = Arc::clone(&self);
            self.dispatcher.run(Box::new(move || table.take_in()));
        }
    }

    fn waiting(&self) -> usize {
        self.found.lock().found.len()
    }

    fn is_synced(&self) -> bool {
        self.state.read().core.is_synced()
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

    fn count(&self, stats: &mut ReplicaStats) {
        let state = self.state.read();
        stats.add(&state.core.counts);
        stats.rows += (state.core.rows.decoded.len() + state.core.rows.malformed.len()) as u64;
        stats.malformed += state.core.rows.malformed.len() as u64;
        stats.read_bytes += self.read_bytes.load(Ordering::Relaxed);
    }
}
