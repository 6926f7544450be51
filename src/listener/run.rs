//! A run of a listener: the time from its registration until other listeners declare it dead.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::listener_shared::ListenerShared;
use super::live::wait_live;
use super::messages::TABLE;
use super::options::ListenerOptions;
use super::tables::LISTENERS;
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::Result;
use crate::identity::new_epoch;
use crate::registry::{Keep, Load, Member, Registration};
use crate::store::Store;
use crate::subscriber::{OwnTopic, Subscriber};
use crate::update::{DbUpdate, Topic};

pub(super) struct Run {
    pub(super) member: Member,
    pub(super) topic: Topic,
    registration: OnceLock<Registration>,
    /// Receives its messages until it ends.
    subscription: Mutex<Option<(OwnTopic, Guard)>>,
}

/// The parts needed to begin a run.
pub(super) struct Base {
    /// The listener's id.
    pub(super) id: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) dispatcher: DispatcherHandle,
    pub(super) options: ListenerOptions,
}

impl Run {
    /// A run under this id, to be begun by [`Run::begin`].
    pub(super) fn new(id: &str) -> Result<Run> {
        let epoch = new_epoch();
        let topic = Topic::new(format!("listener/{id}/{epoch}"))?;
        let member = Member {
            id: id.to_owned(),
            epoch,
            address: topic.to_string(),
            ..Member::default()
        };
        Ok(Run {
            member,
            topic,
            registration: OnceLock::new(),
            subscription: Mutex::default(),
        })
    }

    /// Subscribes to its topic, and then registers.
    pub(super) fn begin(self: &Arc<Run>, base: &Base, shared: &Arc<ListenerShared>) -> Result<()> {
        let (called, run) = (Arc::clone(shared), Arc::downgrade(self));
        let is_held = move || run.upgrade().is_some_and(|run| run.is_held());
        let guard = base.dispatcher.on_topic(self.topic.clone(), move |update: &DbUpdate| {
            called.handle(update, &is_held);
        });
        let receiver = Arc::clone(shared);
        let sink = Box::new(move |message| receiver.inbox.put(message));
        let own = OwnTopic::register(&base.subscriber, self.topic.clone(), Some((TABLE, sink)))?;
        *self.subscription.lock() = Some((own, guard));
        let mut subscriber = Some(Arc::clone(&base.subscriber));
        let shared = Arc::clone(shared);
        let renewal = move |member: &mut Member| {
            // It is registered only once it can receive messages.
            if let Some(subscriber) = subscriber.take() {
                wait_live(&subscriber);
            }
            let events = shared.events.lock();
            member.load = Load {
                handled: events.stats().handled,
                waiting: events.load() as u64,
            };
            member.leaving = events.is_stopping();
        };
        let (store, member) = (Arc::clone(&base.store), self.member.clone());
        let registration = Registration::with_renewal(
            store,
            LISTENERS,
            member,
            base.options.registry(),
            Keep::ForOneRun,
            renewal,
        )?;
        let _ = self.registration.set(registration);
        Ok(())
    }

    /// Ends the registration and receives no more messages.
    pub(super) fn end(&self) {
        self.registration.get().inspect(|registration| registration.stop());
        drop(self.subscription.lock().take());
    }

    pub(super) fn registration(&self) -> Option<&Registration> {
        self.registration.get()
    }

    /// True if other listeners cannot have declared it dead yet.
    pub(super) fn is_held(&self) -> bool {
        self.registration().is_some_and(Registration::is_held)
    }

    /// True if other listeners have declared it dead, or if it could not begin.
    pub(super) fn is_lost(&self) -> bool {
        self.registration().is_none_or(Registration::is_lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_could_not_begin_is_followed_by_another() {
        let run = Run::new("server-1").unwrap();
        assert!(run.is_lost() && !run.is_held());
    }
}
