//! The registry, as the processes of a scenario take part in it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tablecast::registry::{Discovery, Member, PUBLISHERS, Presence, Registration, RegistryOptions, Watch};
use tablecast::{Publisher, Store, Subscriber};

use super::store;

/// Where publishers are registered, and how soon they are missed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RegistrySpec {
    /// A file, or the address of a Redis server.
    pub(crate) store: String,
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
}

impl RegistrySpec {
    fn open(&self) -> Arc<dyn Store> {
        // One that hangs must not be waited for until it is back.
        store::open(&self.store, self.timeout / 2)
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions {
            timeout: self.timeout,
            interval: self.interval,
            hook: None,
        }
    }

    /// Registers this publisher, which is bound, of a process whose clock is so many microseconds wrong.
    pub(crate) fn register(&self, id: &str, publisher: &Publisher, wrong: i64) -> Registration {
        let member = Member {
            id: id.into(),
            epoch: publisher.epoch().checked_add_signed(wrong).unwrap(),
            address: publisher.address().unwrap(),
            ..Member::default()
        };
        Registration::new(self.open(), PUBLISHERS, member, self.options()).unwrap()
    }

    /// Has this subscriber follow all that are registered.
    pub(crate) fn follow(&self, subscriber: &Arc<Subscriber>) -> Discovery {
        Discovery::new(self.open(), Arc::clone(subscriber), &[], self.options()).unwrap()
    }

    /// Takes note of who comes and goes.
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

/// Who is registered, and who was ever removed.
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

    /// Those whose rows went, in order.
    pub(crate) fn left(&self) -> Vec<String> {
        self.book.lock().unwrap().left.clone()
    }
}
