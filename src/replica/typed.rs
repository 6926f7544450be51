//! One table of a replica with its lock. The dispatcher's threads merge updates here and call the handlers.

mod as_part;

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crossbeam_channel::Sender;
use hashbrown::DefaultHashBuilder;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::core::Core;
use super::map::Map;
use super::options::ReplicaOptions;
use super::row::{Held, NewRow, Step, Undecoded};
use super::signal::Signal;
use super::waiting::Waiting;
use super::watch::Watchers;
use crate::clock;
use crate::counter::Counter;
use crate::dispatcher::DispatcherHandle;
use crate::error::{Error, ErrorHook, ErrorKind, Result, report};
use crate::table::Entry;
use crate::update::{DbUpdate, Name, Topic};

/// Decodes a row from table, key and text; an error comes with the text.
pub(super) type Decode<T> = fn(&str, &str, Cow<'_, str>) -> Result<T, (String, Error)>;

/// The most rows merged under one lock; readers have their turn in between.
const MERGED_AT_ONCE: usize = 64;

/// A table of a replica.
pub(super) struct Typed<T> {
    pub(super) name: Name,
    decode: Decode<T>,
    pub(super) state: RwLock<State<T>>,
    /// The threads that wait to read.
    readers: AtomicUsize,
    /// The replica has ended: no handler is called any more.
    pub(super) ended: Arc<AtomicBool>,
    pub(super) found: Mutex<Waiting<T>>,
    pub(super) dispatcher: DispatcherHandle,
    /// Wakes the reading thread.
    wake: Sender<()>,
    pub(super) signal: Arc<Signal>,
    hasher: DefaultHashBuilder,
    pub(super) read_bytes: Counter,
    pub(super) hook: Option<ErrorHook>,
}

pub(super) struct State<T> {
    pub(super) core: Core<T>,
    pub(super) watchers: Watchers<T>,
    /// As handlers that are called before the others. Other threads wait for them, so all note which rows are busy.
    pub(super) indexes: Watchers<T>,
}

impl<T: Send + Sync + 'static> Typed<T> {
    pub(super) fn new(
        name: Name,
        decode: Decode<T>,
        options: &ReplicaOptions,
        dispatcher: DispatcherHandle,
        wake: Sender<()>,
        signal: Arc<Signal>,
        ended: Arc<AtomicBool>,
    ) -> Typed<T> {
        let hasher = DefaultHashBuilder::default();
        let core = Core::new(options.times(), hasher.hash_one(&name), clock::now());
        let state = State {
            core,
            watchers: Watchers::new(dispatcher.is_alone()),
            indexes: Watchers::new(false),
        };
        Typed {
            name,
            decode,
            state: RwLock::new(state),
            readers: AtomicUsize::new(0),
            ended,
            found: Mutex::default(),
            dispatcher,
            wake,
            signal,
            hasher,
            read_bytes: Counter::new(),
            hook: options.hook.clone(),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// The state, for the program's threads, which get their turn between two changes.
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.try_read().unwrap_or_else(|| {
            self.readers.fetch_add(1, Relaxed);
            let state = self.state.read();
            self.readers.fetch_sub(1, Relaxed);
            state
        })
    }

    /// Ends a change. The lock goes to a reader that waits; otherwise many changes could overtake it.
    fn give_turn(&self, state: RwLockWriteGuard<'_, State<T>>) {
        RwLockWriteGuard::unlock_fair(state);
        if self.readers.load(Relaxed) > 0 {
            // It may be waiting for this processor.
            std::thread::yield_now();
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Held<T>> {
        self.read().core.rows.get(key)
    }

    pub(super) fn len(&self) -> usize {
        let state = self.read();
        state.core.rows.decoded.len() + state.core.rows.malformed.len()
    }

    /// The rows that decode, and those that do not.
    pub(super) fn rows(&self) -> (Map<Entry<T>>, Map<Undecoded<T>>) {
        let state = self.read();
        (state.core.rows.decoded.clone(), state.core.rows.malformed.clone())
    }

    /// Merges an update, on a thread of the dispatcher.
    pub(super) fn handle_update(&self, update: &DbUpdate) {
        let now = clock::now();
        let (version, topic) = loop {
            {
                let state = self.state.read();
                if let Some((version, topic)) = state.core.wants(update, now) {
                    // Otherwise this was done together with others.
                    if !self.dispatcher.is_alone() {
                        // Waits for memory here, under the read lock, so that readers do not wait.
                        black_box(state.core.rows.version(&update.key));
                    }
                    break (version, Arc::clone(topic));
                }
            }
            let before = self.went_back();
            let mut state = self.state.write();
            if state.core.wants(update, now).is_some() {
                // Since this moment, by what another thread has merged: it has to be decoded.
                continue;
            }
            // It may still show that the store went back, or cause a read.
            let wakes = state.core.handle_update(update, None, now).1;
            drop(state);
            return self.look(before, wakes);
        };
        let text = update.value.as_deref();
        // If it is not taken, it is dropped without the lock.
        let new = text.map(|text| self.decode(update.key.clone(), topic, version, text.into()));
        let mut wakes = false;
        self.merge(|core| {
            let (step, woken) = core.handle_update(update, new.as_ref(), now);
            wakes = woken;
            step
        });
        if wakes {
            self.wake();
        }
        self.signal.notify();
    }

    /// Brings what these updates need into the processor's caches. They wait for memory together, and under the read
    /// lock, so that readers do not wait.
    pub(super) fn look_ahead(&self, updates: &[&DbUpdate]) {
        if let [update] = updates {
            // Nothing to wait for together.
            black_box(self.state.read().core.rows.version(&update.key));
            return;
        }
        let keys = updates.iter().map(|update| &*update.key);
        self.state.read().core.rows.decoded.warm(keys);
    }

    pub(super) fn decode(&self, key: Name, topic: Arc<Topic>, version: u64, text: Cow<'_, str>) -> NewRow<T> {
        let sum = self.sum_of(&text);
        let row = (self.decode)(&self.name, &key, text);
        NewRow::new(key, topic, version, row, sum)
    }

    fn sum_of(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    /// Changes a row, and calls the handlers.
    pub(super) fn merge(&self, change: impl FnOnce(&mut Core<T>) -> Option<Step<T>>) {
        let mut state = self.state.write();
        let Some(step) = change(&mut state.core) else { return };
        let mut merged = [state.note(step)];
        let (unindexed, needs_word) = (state.indexes.untold(), state.watchers.needs_word());
        self.give_turn(state);
        self.tell_merged(&mut merged, unindexed, needs_word);
    }

    /// As [`Typed::merge`], for many rows, some at a time, so that readers do not wait for all.
    pub(super) fn merge_each<N>(
        &self,
        news: impl IntoIterator<Item = N>,
        key: impl Fn(&N) -> &Name,
        change: impl Fn(&mut Core<T>, &N) -> Option<Step<T>>,
    ) {
        let mut news = news.into_iter();
        let (mut some, mut merged) = (Vec::new(), Vec::new());
        loop {
            some.extend(news.by_ref().take(MERGED_AT_ONCE));
            if some.is_empty() {
                return;
            }
            // Under the read lock, so that readers do not wait.
            let keys = some.iter().map(|new| &**key(new));
            self.state.read().core.rows.decoded.warm(keys);
            let mut state = self.state.write();
            for new in &some {
                if let Some(step) = change(&mut state.core, new) {
                    merged.push(state.note(step));
                }
            }
            let (unindexed, needs_word) = (state.indexes.untold(), state.watchers.needs_word());
            // Rows that are replaced or not taken are dropped without the lock.
            self.give_turn(state);
            self.tell_merged(&mut merged, unindexed, needs_word);
            merged.clear();
            some.clear();
        }
    }

    pub(super) fn wake(&self) {
        // If the channel is full, the thread is awake already.
        let _ = self.wake.try_send(());
    }

    pub(super) fn went_back(&self) -> u64 {
        self.state.read().core.counts.went_back
    }

    /// Handles the effects of an input: reports a store that went back, and wakes the reading thread and waiting
    /// callers.
    pub(super) fn look(&self, went_back_before: u64, wakes: bool) {
        if self.went_back() > went_back_before {
            let context = format!(
                "the store went back to an earlier state: table {:?} is listed again",
                self.name
            );
            report!(&Error::new(ErrorKind::Unavailable, context), self.hook.as_ref());
        }
        if wakes {
            self.wake();
        }
        self.signal.notify();
    }
}
