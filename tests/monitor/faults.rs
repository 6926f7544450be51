//! Stores that fail, that keep no table versions, that do not answer; rows that vanish; limits; stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use tablecast::store::{Page, Row, TableVersion, Write, Written};
use tablecast::stores::memory::MemoryStore;
use tablecast::{
    Action, Error, ErrorKind, Monitor, MonitorOptions, PublisherOptions, Result, Store, SyncReason, Topic,
};

use crate::common::{Stopwatch, eventually, hook, within};
use crate::front::pass_on;
use crate::rig::LONG;
use crate::{Host, memory};

/// A store in front of another one, whose pages can fail, wait, or be preceded by other writes.
struct Faulty {
    rows: Arc<dyn Store>,
    /// Whether it returns table versions.
    can_tell: bool,
    /// Pages of the table `t` fail from this one of a listing on.
    fails_from: AtomicUsize,
    /// Every call fails.
    is_down: AtomicBool,
    /// Writes fail.
    is_full: AtomicBool,
    page: AtomicUsize,
    /// Called before the second page of a listing.
    between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// A page waits for this.
    gate: Mutex<Option<Receiver<()>>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

const NEVER: usize = usize::MAX;

impl Faulty {
    fn new(can_tell: bool) -> (Arc<Faulty>, Arc<dyn Store>) {
        let faulty = Arc::new(Faulty {
            rows: memory(2).0,
            can_tell,
            fails_from: AtomicUsize::new(NEVER),
            is_down: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            page: AtomicUsize::new(0),
            between: Mutex::new(None),
            gate: Mutex::new(None),
        });
        let store: Arc<dyn Store> = faulty.clone();
        (faulty, store)
    }

    /// The store behind it, unless that is down, or `fails`.
    fn rows_unless(&self, fails: bool) -> Result<&dyn Store> {
        match fails || self.is_down.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Unavailable, "an outage")),
            false => Ok(&*self.rows),
        }
    }

    fn rows(&self) -> Result<&dyn Store> {
        self.rows_unless(false)
    }
}

impl Store for Faulty {
    fn write(&self, write: &Write<'_>) -> Result<Written> {
        self.rows_unless(self.is_full.load(Ordering::Acquire))?.write(write)
    }

    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        if table == "t" {
            let page = if after.is_none() {
                0
            } else {
                self.page.load(Ordering::Acquire) + 1
            };
            self.page.store(page, Ordering::Release);
            if page == 1
                && let Some(between) = self.between.lock().take()
            {
                between();
            }
            let gate = self.gate.lock().clone();
            if let Some(gate) = gate {
                let _ = gate.recv_timeout(LONG);
            }
            self.rows_unless(page >= self.fails_from.load(Ordering::Acquire))?;
        }
        self.rows()?.page_of_entries(table, topic, after)
    }

    fn table_version(&self, table: &str) -> Result<Option<TableVersion>> {
        self.rows()?
            .table_version(table)
            .map(|version| version.filter(|_| self.can_tell))
    }

    pass_on!(|this| this.rows()?; get page_of_keys create_table delete_table allocate_unique_key);
}

/// Rows with these keys.
fn fill(store: &dyn Store, keys: &[&str]) {
    for key in keys {
        store.create("t", key, "x", &Topic::ALL).unwrap();
    }
}

fn told(keys: &[&str], action: Action) -> Vec<(String, Action)> {
    keys.iter().map(|key| (key.to_string(), action.clone())).collect()
}

/// Waits until three polls of the monitor have failed.
#[track_caller]
fn fails_for_a_while(monitor: &Monitor) {
    let failures = monitor.stats().failures;
    eventually(LONG, || monitor.stats().failures > failures + 2);
}

#[test]
fn a_store_that_cannot_tell_is_compared() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(false);
        let host = Host::new();
        let monitor = host.monitor(&store);
        fill(&*faulty.rows, &["a", "b", "c", "d", "e"]);
        assert_eq!(host.keys(5).len(), 5);
        faulty.rows.delete("t", "a").unwrap();
        assert_eq!(host.keys(1), told(&["a"], Action::Delete));
        faulty.rows.set("t", "b", "x").unwrap();
        assert_eq!(host.keys(1), told(&["b"], Action::Set));
        host.nothing_more(&monitor);
        assert_eq!(monitor.stats().skipped, 0);
    });
}

#[test]
fn a_listing_that_fails_half_way_tells_no_deletes() {
    within(LONG, || {
        for can_tell in [true, false] {
            let (faulty, store) = Faulty::new(can_tell);
            let host = Host::new();
            fill(&*faulty.rows, &["a", "b", "c", "d", "e"]);
            let monitor = host.monitor(&store);
            assert_eq!(host.keys(5).len(), 5);
            host.nothing_more(&monitor);

            faulty.fails_from.store(1, Ordering::Release);
            faulty.rows.delete("t", "e").unwrap();
            faulty.rows.set("t", "a", "y").unwrap();
            // Rows that were read are published, and not again by the following polls.
            assert_eq!(host.keys(1), told(&["a"], Action::Set));
            fails_for_a_while(&monitor);
            host.nothing_more(&monitor);
            assert_eq!(monitor.stats().deleted, 0);
            faulty.fails_from.store(NEVER, Ordering::Release);
            assert_eq!(host.keys(1), told(&["e"], Action::Delete));
            host.nothing_more(&monitor);
        }
    });
}

#[test]
fn an_outage_is_no_delete() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(true);
        let host = Host::new();
        // The same from the start.
        faulty.is_down.store(true, Ordering::Release);
        fill(&*faulty.rows, &["a", "b", "c"]);
        let (hook, errors) = hook();
        let options = MonitorOptions {
            interval: Duration::from_millis(5),
            hook,
            ..MonitorOptions::default()
        };
        let publisher = Arc::clone(&host.publisher);
        let monitor = Monitor::new(Arc::clone(&store), publisher, "t", "id", options).unwrap();
        let (kind, text) = errors.recv_timeout(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(text.contains(r#"table "t""#), "{text}");
        fails_for_a_while(&monitor);
        faulty.is_down.store(false, Ordering::Release);
        assert_eq!(host.keys(3), told(&["a", "b", "c"], Action::Create));
        faulty.is_down.store(true, Ordering::Release);
        fails_for_a_while(&monitor);
        faulty.rows.delete("t", "b").unwrap();
        fails_for_a_while(&monitor);
        faulty.is_down.store(false, Ordering::Release);
        assert_eq!(host.keys(1), told(&["b"], Action::Delete));
        host.nothing_more(&monitor);
    });
}

#[test]
fn what_cannot_be_remembered_is_told_once_by_each_run() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(true);
        let host = Host::new();
        faulty.is_full.store(true, Ordering::Release);
        fill(&*faulty.rows, &["a", "b"]);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(2), told(&["a", "b"], Action::Create));
        fails_for_a_while(&monitor);
        host.nothing_more(&monitor);
        drop(monitor);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(2), told(&["a", "b"], Action::Create));
        faulty.is_full.store(false, Ordering::Release);
        eventually(LONG, || monitor.stats().skipped > 0);
        drop(monitor);
        let monitor = host.monitor(&store);
        host.nothing_more(&monitor);
        assert_eq!(monitor.stats().failures, 0);
    });
}

#[test]
fn rows_may_come_and_go_while_they_are_listed() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(true);
        let host = Host::new();
        fill(&*faulty.rows, &["a", "b", "c", "d", "e"]);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(5).len(), 5);
        host.nothing_more(&monitor);
        let rows = Arc::clone(&faulty.rows);
        *faulty.between.lock() = Some(Box::new(move || {
            // A row that was listed, and one that was about to be.
            rows.delete("t", "a").unwrap();
            rows.delete("t", "d").unwrap();
            fill(&*rows, &["0", "f"]);
        }));
        faulty.rows.set("t", "c", "y").unwrap();
        let mut expected = told(&["0"], Action::Create);
        expected.extend(told(&["a"], Action::Delete));
        expected.extend(told(&["c"], Action::Set));
        expected.extend(told(&["d"], Action::Delete));
        expected.extend(told(&["f"], Action::Create));
        assert_eq!(host.keys(5), expected);
        host.nothing_more(&monitor);
        assert_eq!(monitor.stats().failures, 0);
    });
}

#[test]
fn a_row_that_comes_back_is_newer_than_its_delete() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(true);
        let host = Host::new();
        fill(&*faulty.rows, &["a", "b", "c"]);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(3).len(), 3);
        host.nothing_more(&monitor);
        // Deleted after the table's version was read, and created again after the page in which it was missing.
        let rows = Arc::clone(&faulty.rows);
        *faulty.between.lock() = Some(Box::new(move || fill(&*rows, &["a"])));
        faulty.rows.delete("t", "a").unwrap();
        let (deleted, created) = (host.next(), host.next());
        assert_eq!((&deleted.0, &*deleted.1), (&Action::Delete, "a"));
        assert_eq!((&created.0, &*created.1), (&Action::Create, "a"));
        assert!(deleted.4 < created.4);
        host.nothing_more(&monitor);
    });
}

#[test]
fn a_row_that_is_too_large_stands_in_nobodys_way() {
    within(LONG, || {
        let store = memory(10).0;
        let host = Host::with(PublisherOptions {
            max_message_bytes: 1000,
            ..PublisherOptions::default()
        });
        store.create("t", "a", &"x".repeat(2000), &Topic::ALL).unwrap();
        fill(&*store, &["b"]);
        let monitor = host.monitor(&store);
        assert_eq!(host.keys(1), told(&["b"], Action::Create));
        host.nothing_more(&monitor);
        assert_eq!((monitor.stats().failures, monitor.stats().created), (1, 1));
        // Programs are told to read what they were not sent.
        while !matches!(
            host.rig.next_sync(),
            SyncReason::Gap { .. } | SyncReason::Unproven { .. }
        ) {}
        store.set("t", "a", "short").unwrap();
        assert_eq!(host.keys(1), told(&["a"], Action::Set));
    });
}

#[test]
fn stops_at_once() {
    within(LONG, || {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let host = Host::new();
        let stop = |what: &str, monitor: Monitor| {
            let start = Stopwatch::start();
            monitor.stop();
            monitor.stop();
            drop(monitor);
            start.assert_within(Duration::from_millis(900), what);
        };
        let monitor = host.monitor_with(&store, Duration::from_secs(3600));
        eventually(LONG, || monitor.stats().polls > 0);
        stop("one that waits", monitor);
        let options = MonitorOptions {
            delay: Duration::MAX,
            ..MonitorOptions::default()
        };
        let publisher = Arc::clone(&host.publisher);
        stop(
            "one that has not begun",
            Monitor::new(Arc::clone(&store), publisher, "t", "id", options).unwrap(),
        );

        let (faulty, store) = Faulty::new(true);
        let (open, gate): (Sender<()>, _) = unbounded();
        *faulty.gate.lock() = Some(gate);
        let monitor = host.monitor(&store);
        eventually(LONG, || monitor.stats().polls > 0);
        stop("one whose store does not answer", monitor);
        drop(open);
        // Its thread ends and releases its resources.
        drop(store);
        eventually(LONG, || Arc::strong_count(&faulty) == 1);
    });
}

#[test]
fn a_run_that_is_stopped_in_the_middle_remembers() {
    within(LONG, || {
        let (faulty, store) = Faulty::new(true);
        let host = Host::new();
        fill(&*faulty.rows, &["a", "b", "c"]);
        let (open, gate) = unbounded();
        *faulty.gate.lock() = Some(gate);
        let monitor = host.monitor(&store);
        // One page.
        open.send(()).unwrap();
        assert_eq!(host.keys(2), told(&["a", "b"], Action::Create));
        *faulty.gate.lock() = None;
        let stopper = std::thread::Builder::new().spawn(move || monitor.stop()).unwrap();
        drop(open);
        stopper.join().unwrap();
        let monitor = host.monitor(&store);
        let mut rest = host.keys(1);
        if rest == told(&["a"], Action::Create) {
            // The stop came before it was published.
            rest = host.keys(2);
        }
        assert_eq!(rest.last(), told(&["c"], Action::Create).last());
        host.nothing_more(&monitor);
    });
}
