//! Removing the rows of topics and tables that are no longer held.

use std::sync::Arc;

use parking_lot::Mutex;

use super::telling::{AT_ONCE, Rest};
use super::typed::Typed;
use crate::update::Topic;

impl<T: Send + Sync + 'static> Typed<T> {
    /// Removes the rows of a topic that is no longer held, or of a table; on a thread of the dispatcher.
    pub(super) fn evict_rows(self: Arc<Self>, topic: Option<Topic>) {
        let rows = Rest::of(&self.state.read().core.rows);
        self.evict_rest(rows, topic);
    }

    /// Removes some rows, and queues a job for the rest.
    fn evict_rest(self: Arc<Self>, mut rows: Rest<T>, topic: Option<Topic>) {
        for _ in 0..AT_ONCE {
            let Some(held) = self.next_of(&mut rows) else {
                self.end_evict(topic.as_ref());
                return self.signal.notify();
            };
            if topic.as_ref().is_none_or(|topic| held.topic() == topic) {
                self.merge(|core| core.evict(held.key()));
            }
        }
        let table = Arc::clone(&self);
        let rows = Mutex::new(rows);
        let go_on = move || table.evict_rest(rows.into_inner(), topic);
        self.dispatcher.run(Box::new(go_on));
    }

    fn end_evict(&self, topic: Option<&Topic>) {
        let mut state = self.state.write();
        if let Some(topic) = topic {
            return state.core.end_evict(topic);
        }
        // Other threads may still have to report what they have merged.
        let handlers = (state.watchers.close(), state.indexes.close());
        drop(state);
        drop(handlers);
    }
}
