//! Many replicas that learn of one loss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tablecast::store::{Page, Row, StoreOptions, TopicVersions};
use tablecast::stores::memory::MemoryStore;
use tablecast::{Result, Store, SyncReason, Topic};

use crate::common::{eventually, within};
use crate::front::pass_on;
use crate::{LONG, World, holds};

const REPLICAS: usize = 200;

/// Counts the reads.
#[derive(Debug)]
pub(crate) struct Counting {
    store: MemoryStore,
    checks: Mutex<Vec<Instant>>,
    pub(crate) others: Mutex<usize>,
    /// The tables of which pages were read.
    pages: Mutex<Vec<String>>,
}

impl Default for Counting {
    fn default() -> Counting {
        let options = StoreOptions {
            batch_amount: 10,
            ..StoreOptions::default()
        };
        Counting {
            store: MemoryStore::new().with_options(options),
            checks: Mutex::default(),
            others: Mutex::default(),
            pages: Mutex::default(),
        }
    }
}

impl Counting {
    fn count(&self) -> &MemoryStore {
        *self.others.lock() += 1;
        &self.store
    }

    pub(crate) fn pages(&self, table: &str) -> usize {
        self.pages.lock().iter().filter(|of| **of == table).count()
    }
}

impl Store for Counting {
    fn page_of_entries(&self, table: &str, topic: Option<&Topic>, after: Option<&str>) -> Result<Page<Row>> {
        self.pages.lock().push(table.to_owned());
        self.count().page_of_entries(table, topic, after)
    }

    fn topic_versions(&self, table: &str, topics: &[Topic]) -> Result<Option<TopicVersions>> {
        self.checks.lock().push(Instant::now());
        self.store.topic_versions(table, topics)
    }

    pass_on!(|this| this.count(); get changes);
    pass_on!(|this| this.store; write page_of_keys create_table delete_table allocate_unique_key);
}

/// Each asks once, at its own random moment, and reads nothing that it already has.
#[test]
fn a_fleet_spreads_and_reads_what_it_misses() {
    within(2 * LONG, || {
        let store = Arc::new(Counting::default());
        let world = World::with(0, Arc::clone(&store) as _);
        for number in 0..100 {
            store.create("t", &number.to_string(), "x", &Topic::ALL).unwrap();
        }
        let options = || tablecast::replica::ReplicaOptions {
            // Regular checks stay out of the way.
            check_interval: Duration::from_secs(600),
            ..holds(&["D"])
        };
        world.subscriber.wait_live(LONG).unwrap();
        let replicas: Vec<_> = (0..REPLICAS).map(|_| world.replica(options())).collect();
        let tables: Vec<_> = replicas.iter().map(|it| it.raw_table("t").unwrap()).collect();
        replicas.iter().for_each(|it| it.wait_synced(LONG).unwrap());
        world.come_to_rest(&replicas);
        let checks = || replicas.iter().map(|it| it.stats().checks).sum::<u64>();

        *store.others.lock() = 0;
        let is_spread = || {
            let before = checks();
            store.checks.lock().clear();
            let begun = Instant::now();
            for number in 0..100 {
                let publisher = format!("publisher-{number}").into();
                world.dispatcher.queue().sync(SyncReason::Restarted { publisher });
            }
            eventually(LONG, || checks() >= before + REPLICAS as u64);
            let mut asked: Vec<_> = store.checks.lock().iter().map(|at| *at - begun).collect();
            asked.sort();
            // A replica that had asked before the last event asks again.
            assert!(asked.len() <= 3 * REPLICAS, "{}", asked.len());
            let (first, last) = (asked[asked.len() / 4], asked[asked.len() * 3 / 4]);
            println!("half of them asked between {first:?} and {last:?}");
            last - first > Duration::from_millis(200)
        };
        // After a pause of a busy machine many ask together.
        assert!((0..3).any(|_| is_spread()));
        assert_eq!(*store.others.lock(), 0, "nothing was missing");

        store.set("t", "7", "y").unwrap();
        world.dispatcher.queue().sync(SyncReason::Requested);
        eventually(LONG, || {
            tables.iter().all(|it| it.get("7").unwrap().unwrap().row == "y")
        });
        assert_eq!(*store.others.lock(), REPLICAS, "each has read the changes");
    });
}
