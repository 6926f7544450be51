//! The thread that reads the store for all tables of a replica, a page of each in turn. Results are merged on the
//! dispatcher's threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};
use parking_lot::RwLock;

use super::core::{Base, Read};
use super::part::{Found, Part, What};
use crate::clock;
use crate::error::{ErrorKind, Result, contain};
use crate::store::{Changes, Store, TableVersion};
use crate::thread::Stop;
use crate::update::{Name, Topic};

/// The most pages of a table that wait to be merged.
const WINDOW: usize = 2;

/// The most changes that are merged together, so that some are merged while the next are decoded.
const PIECE: usize = 256;

/// The most reads of a table under way; they are searched at each step, so thousands would be slow.
const UNDER_WAY: usize = 64;

/// The pause between two searches of the tables, which may have thousands of topics: this multiple of the time a search
/// takes, up to the longest rest.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(20);

pub(super) type Parts = RwLock<Vec<Arc<dyn Part>>>;

pub(super) struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) parts: Arc<Parts>,
    pub(super) wake: Receiver<()>,
    tasks: VecDeque<Task>,
    /// When to search the tables for due reads; `None`: when woken.
    look_at: Option<Instant>,
    /// No search before this time.
    rests_until: Instant,
}

/// A read under way.
struct Task {
    part: Arc<dyn Part>,
    read: Arc<Read>,
    at: At,
}

/// The progress of a read.
enum At {
    Start,
    /// Rows after this key come next.
    Key(Option<Name>),
    /// Changes after this version come next.
    Version(TableVersion),
}

impl Reader {
    pub(super) fn new(store: Arc<dyn Store>, parts: Arc<Parts>, wake: Receiver<()>) -> Reader {
        Reader {
            store,
            parts,
            wake,
            tasks: VecDeque::new(),
            look_at: Some(clock::now()),
            rests_until: clock::now(),
        }
    }

    pub(super) fn run(mut self, stop: &Stop) {
        while !stop.is_told() {
            if self.wake.try_recv().is_ok() {
                self.woken();
            }
            if self.look_at.is_some_and(|at| at <= clock::now()) {
                self.look();
            }
            let ready = self.tasks.iter().position(|task| task.part.waiting() < WINDOW);
            match ready.and_then(|place| self.tasks.remove(place)) {
                Some(mut task) => match task.step(&*self.store) {
                    // A table with many reads under way was left out of the search. This one may have been dropped
                    // silently, so that no result wakes this thread.
                    true => self.woken(),
                    false => self.tasks.push_back(task),
                },
                None => self.wait(stop),
            }
        }
    }

    /// Plans a search, since a read may have become due.
    fn woken(&mut self) {
        self.look_at = self.look_at.min(Some(self.rests_until)).or(Some(self.rests_until));
    }

    /// Begins the due reads, and finds the time of the next one.
    fn look(&mut self) {
        let now = clock::now();
        for part in self.parts.read().iter() {
            for _ in self.under_way(part)..UNDER_WAY {
                let Some(read) = part.poll() else { break };
                self.tasks.push_back(Task {
                    part: Arc::clone(part),
                    read: Arc::new(read),
                    at: At::Start,
                });
            }
        }
        let parts = self.parts.read();
        let deadlines = parts.iter().filter(|part| self.under_way(part) < UNDER_WAY);
        let look_at = deadlines.filter_map(|part| part.deadline()).min();
        drop(parts);
        let end = clock::now();
        let rest = end.saturating_duration_since(now) * REST;
        self.rests_until = clock::after(end, rest.min(LONGEST_REST));
        self.look_at = look_at.map(|at| at.max(self.rests_until));
    }

    fn under_way(&self, part: &Arc<dyn Part>) -> usize {
        let tasks = self.tasks.iter();
        tasks.filter(|task| Arc::ptr_eq(&task.part, part)).count()
    }

    fn wait(&mut self, stop: &Stop) {
        // Deadlines are by a clock that goes on while the host sleeps.
        let due = self.look_at.map(|at| at.saturating_duration_since(clock::now()));
        let due = due.map_or_else(never, crossbeam_channel::after);
        select! {
            recv(stop.channel()) -> _ => {}
            recv(self.wake) -> _ => self.woken(),
            recv(due) -> _ => {}
        }
    }
}

impl Task {
    /// Makes the next call, if the read is still wanted; returns true if it was the last.
    fn step(&mut self, store: &dyn Store) -> bool {
        if !self.part.is_reading(&self.read) {
            return true;
        }
        // A panic in a program's own store is a failure like others.
        match contain(|| "a read of a replica".into(), || self.call(store)).flatten() {
            Ok(done) => done,
            Err(error) => {
                self.put(What::Failed(error));
                true
            }
        }
    }

    fn put(&self, what: What) {
        let read = Arc::clone(&self.read);
        Arc::clone(&self.part).put(Found { read, what });
    }

    fn call(&mut self, store: &dyn Store) -> Result<bool> {
        let table = self.part.name().clone();
        match &*Arc::clone(&self.read) {
            Read::Versions { topics, .. } => {
                self.put(What::Stands(bases(store, &table, topics)?));
                Ok(true)
            }
            Read::Changes { topic, since, .. } => self.call_changes(store, &table, topic, *since),
            Read::Listing { topic, .. } => self.call_listing(store, &table, topic),
            Read::Rows { topic, keys, .. } => {
                let base = base(store, &table, topic)?;
                let mut rows = Vec::with_capacity(keys.len());
                for key in keys {
                    let row = match store.get(&table, key, None) {
                        Ok(row) => Some(row),
                        Err(e) if e.kind() == ErrorKind::NotFound => None,
                        Err(e) => return Err(e),
                    };
                    rows.push((key.clone(), row));
                }
                self.put(What::Picked(base, rows));
                Ok(true)
            }
        }
    }

    fn call_changes(&mut self, store: &dyn Store, table: &str, topic: &Topic, since: TableVersion) -> Result<bool> {
        let since = match self.at {
            At::Version(version) => version,
            _ => since,
        };
        match store.changes(table, topic, since)? {
            Changes::Page(page) => {
                self.at = At::Version(page.version);
                let mut changes = page.changes.into_iter().peekable();
                while changes.peek().is_some() {
                    self.put(What::Changes(changes.by_ref().take(PIECE).collect()));
                }
                if !page.more {
                    self.put(What::CompleteTo(page.version));
                }
                Ok(!page.more)
            }
            Changes::Unknown => {
                self.put(What::Unknown);
                Ok(true)
            }
        }
    }

    fn call_listing(&mut self, store: &dyn Store, table: &str, topic: &Topic) -> Result<bool> {
        let At::Key(after) = &self.at else {
            let base = base(store, table, topic)?;
            let held = match self.part.may_have_rows(topic) {
                true => self.part.keys(&|of| of == topic),
                false => Vec::new(),
            };
            self.put(What::Begins(base, held));
            self.at = At::Key(None);
            return Ok(false);
        };
        let page = store.page_of_entries(table, Some(topic), after.as_deref())?;
        let is_last = page.next.is_none();
        self.at = At::Key(page.next);
        self.put(What::Rows(page.items));
        if is_last {
            self.put(What::Ends);
        }
        Ok(is_last)
    }
}

/// The versions of the topics; `None` if the store has no versions.
fn bases(store: &dyn Store, table: &str, topics: &[Topic]) -> Result<Option<Vec<Base>>> {
    if let Some(versions) = store.topic_versions(table, topics)? {
        return Ok(Some(Base::of_each(&versions).collect()));
    }
    let version = store.table_version(table)?;
    Ok(version.map(|version| vec![Base::of_table(version); topics.len()]))
}

fn base(store: &dyn Store, table: &str, topic: &Topic) -> Result<Option<Base>> {
    let bases = bases(store, table, std::slice::from_ref(topic))?;
    Ok(bases.and_then(|bases| bases.first().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::{Dispatcher, DispatcherOptions};
    use crate::replica::options::ReplicaOptions;
    use crate::replica::typed::{Decode, Typed};
    use crate::stores::memory::MemoryStore;
    use crate::thread::{Background, pause};

    /// As many reads as may be under way end unwanted, and nothing else wakes the thread.
    #[test]
    fn reads_that_are_dropped_make_room_for_others() {
        const LIMIT: Duration = Duration::from_secs(20);
        let dispatcher = Dispatcher::new(DispatcherOptions::default()).unwrap();
        let (wake, woken) = crossbeam_channel::bounded(1);
        let decode: Decode<String> = |_, _, text| Ok(text.into_owned());
        let options = ReplicaOptions {
            check_interval: 100 * LIMIT,
            ..ReplicaOptions::default()
        };
        let table = Arc::new(Typed::new(
            "t".into(),
            decode,
            &options,
            dispatcher.handle(),
            wake,
            Arc::default(),
            Arc::default(),
        ));
        for number in 0..UNDER_WAY {
            table.add_topic(&Topic::new(format!("t{number}")).unwrap());
        }
        let parts = Arc::new(Parts::default());
        parts.write().push(Arc::clone(&table) as _);
        let mut reader = Reader::new(Arc::new(MemoryStore::new()), parts, woken);
        reader.look();
        assert_eq!((reader.tasks.len(), reader.look_at), (UNDER_WAY, None));
        table.distrust();
        // It was woken for this while all reads were under way.
        reader.wake.try_recv().unwrap();
        let run = move |stop: Stop| reader.run(&stop);
        let _reader = Background::spawn("tc-replica", "a replica".into(), None, run).unwrap();
        let end = Instant::now() + LIMIT;
        while !table.is_synced() {
            assert!(Instant::now() < end, "no read after those that were dropped");
            pause(Duration::from_millis(1));
        }
    }
}
