//! The registry, as processes of a scenario use it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tablecast::registry::{Discovery, Member, PUBLISHERS, Presence, Registration, RegistryOptions, Watch};
use tablecast::{Publisher, Store, Subscriber};

use super::store;

/// Where publishers are registered, and the timeout after which they are dead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RegistrySpec {
    /// A file, or the address of a Redis server.
    pub(crate) store: String,
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
}

impl RegistrySpec {
    fn open(&self) -> Arc<dyn Store> {
        // A hanging call must end before the store is back.
        store::open(&self.store, self.timeout / 2)
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions {
            timeout: self.timeout,
            interval: self.interval,
            hook: None,
        }
    }

    /// Registers this bound publisher, from a process whose clock is wrong by this many microseconds.
    pub(crate) fn register(&self, id: &str, publisher: &Publisher, wrong: i64) -> Registration {
        let member = Member {
            id: id.into(),
            epoch: publisher.epoch().checked_add_signed(wrong).unwrap(),
            address: publisher.address().unwrap(),
            ..Member::default()
        };
        Registration::new(self.open(), PUBLISHERS, member, self.options()).unwrap()
    }

    /// Makes this subscriber follow all registered publishers.
    pub(crate) fn follow(&self, subscriber: &Arc<Subscriber>) -> Discovery {
        Discovery::new(self.open(), Arc::clone(subscriber), &[], self.options()).unwrap()
    }

    /// Watches the members.
    pub(crate) fn attend(&self) -> Attendance {
        let book = Arc::<Mutex<Book>>::default();
        let notes = Arc::clone(&book);
        let options = RegistryOptions {
            interval: Duration::from_millis(20),
            ..self.options()
        };
        let note = move |present: &[Presence]| notes.lock().unwrap().note(present);
        let watch = Watch::new(self.open(), PUBLISHERS, options, false, note).unwrap();
        Attendance { book, _watch: watch }
    }
}

/// The registered members, and those ever removed.
pub(crate) struct Attendance {
    book: Arc<Mutex<Book>>,
    _watch: Watch,
}

#[derive(Default)]
struct Book {
    present: BTreeSet<String>,
    /// In order.
    left: Vec<String>,
}

impl Book {
    fn note(&mut self, present: &[Presence]) {
        let present: BTreeSet<_> = present.iter().map(|presence| presence.member.id.clone()).collect();
        self.left.extend(self.present.difference(&present).cloned());
        self.present = present;
    }
}

impl Attendance {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.book.lock().unwrap().present.contains(id)
    }

    /// The members whose rows were removed, in order.
    pub(crate) fn left(&self) -> Vec<String> {
        self.book.lock().unwrap().left.clone()
    }
}
