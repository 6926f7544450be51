//! The shared state of a listener's threads, and the calls of its handler on the dispatcher's threads.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::event_table::EventTable;
use super::inbox::Inbox;
use super::messages::{EventId, TABLE};
use super::options::ListenerStats;
use crate::error::{ErrorHook, Result, contain, report};
use crate::update::{DbUpdate, Topic};

pub(super) type Handler = Box<dyn Fn(&DbUpdate) + Send + Sync>;

pub(super) struct ListenerShared {
    pub(super) events: Arc<Mutex<EventTable>>,
    /// Signalled when there may be a step to take.
    pub(super) changed: Condvar,
    pub(super) inbox: Inbox,
    handler: Handler,
    pub(super) hook: Option<ErrorHook>,
}

impl ListenerShared {
    pub(super) fn new(run: Topic, inbox: Inbox, handler: Handler, hook: Option<ErrorHook>) -> ListenerShared {
        ListenerShared {
            events: Arc::new(Mutex::new(EventTable::new(run))),
            changed: Condvar::new(),
            inbox,
            handler,
            hook,
        }
    }

    pub(super) fn stats(&self) -> ListenerStats {
        self.events.lock().stats()
    }

    pub(super) fn begin_to_stop(&self) {
        self.events.lock().stop(Instant::now());
        self.changed.notify_all();
        self.inbox.wake();
    }

    /// Handles an update on the listener's topic, on the dispatcher's thread: an event's turn, or an update sent at
    /// most once.
    pub(super) fn handle(&self, update: &DbUpdate, is_held: impl FnOnce() -> bool) {
        if update.table != TABLE {
            let failed = self.call(update);
            return self.events.lock().handled(failed);
        }
        let Ok(id) = EventId::parse(&update.key) else {
            return;
        };
        // Looked up at the last moment.
        let is_held = is_held();
        let begun = self.events.lock().begin(&id, is_held, Instant::now());
        let Some(event) = begun else {
            return self.inbox.wake();
        };
        let failed = self.call(&event);
        let mut events = self.events.lock();
        let now = Instant::now();
        let is_news = events.ended(id, failed, now) || events.has_step(now);
        drop(events);
        if is_news {
            self.changed.notify_all();
        }
    }

    /// Calls the program's handler; returns true if it panicked.
    fn call(&self, update: &DbUpdate) -> bool {
        let what = || {
            let (table, key) = (&update.table, &update.key);
            format!("the listener's handler, called with table {table:?} key {key:?}")
        };
        let handled = contain(what, || (self.handler)(update));
        handled.inspect_err(|e| report!(e, self.hook.as_ref())).is_err()
    }
}

/// Reports only the first of successive failures, and logs the others.
#[derive(Debug, Default)]
pub(super) struct FirstFailure(bool);

impl FirstFailure {
    pub(super) fn take(&mut self, done: Result<()>, what: &str, hook: Option<&ErrorHook>) {
        let was_failing = std::mem::replace(&mut self.0, done.is_err());
        match done {
            Ok(()) => {}
            Err(e) if was_failing => log::debug!("{what}: {e}"),
            Err(e) => report!(&e.context(what), hook),
        }
    }
}
