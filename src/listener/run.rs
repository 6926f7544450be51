//! A run of a listener: as long as others do not take it for dead.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::desk::Desk;
use super::envelope::TABLE;
use super::options::ListenerOptions;
use super::{LISTENERS, wait_live};
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::Result;
use crate::publisher::new_epoch;
use crate::registry::{Load, Member, Registration};
use crate::store::Store;
use crate::subscriber::{OwnTopic, Subscriber};
use crate::update::{DbUpdate, Topic};

pub(super) struct Run {
    pub(super) member: Member,
    pub(super) topic: Topic,
    registration: OnceLock<Registration>,
    /// Receives its messages, until it ends.
    hears: Mutex<Option<(OwnTopic, Guard)>>,
}

/// Parts needed to begin a run.
pub(super) struct Base {
    /// The listener's id.
    pub(super) id: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) dispatcher: DispatcherHandle,
    pub(super) options: ListenerOptions,
}

impl Run {
    /// A run under this id, which begins with [`Run::begin`].
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
            hears: Mutex::default(),
        })
    }

    /// Listens to its topic, and then is registered.
    pub(super) fn begin(self: &Arc<Run>, base: &Base, desk: &Arc<Desk>) -> Result<()> {
        let (called, run) = (Arc::clone(desk), Arc::downgrade(self));
        let is_held = move || run.upgrade().is_some_and(|run| run.is_held());
        let guard = base.dispatcher.on_topic(self.topic.clone(), move |update: &DbUpdate| {
            called.handle(update, &is_held);
        });
        let told = Arc::clone(desk);
        let sink = Box::new(move |message| told.receive(message));
        let own = OwnTopic::register(&base.subscriber, self.topic.clone(), Some((TABLE, sink)))?;
        *self.hears.lock() = Some((own, guard));
        let mut subscriber = Some(Arc::clone(&base.subscriber));
        let desk = Arc::clone(desk);
        let renewal = move |member: &mut Member| {
            // It is made known when it can be heard.
            if let Some(subscriber) = subscriber.take() {
                wait_live(&subscriber);
            }
            let docket = desk.docket.lock();
            member.load = Load {
                handled: docket.stats().handled,
                waiting: docket.load() as u64,
            };
            member.leaving = docket.is_stopping();
        };
        let (store, member) = (Arc::clone(&base.store), self.member.clone());
        let registration =
            Registration::with_renewal(store, LISTENERS, member, base.options.registry(), false, renewal)?;
        let _ = self.registration.set(registration);
        Ok(())
    }

    /// Is heard no more.
    pub(super) fn end(&self) {
        self.registration.get().inspect(|registration| registration.stop());
        drop(self.hears.lock().take());
    }

    pub(super) fn registration(&self) -> Option<&Registration> {
        self.registration.get()
    }

    /// True if others cannot have taken it for dead yet.
    pub(super) fn is_held(&self) -> bool {
        self.registration().is_some_and(Registration::is_held)
    }

    /// True if others have taken it for dead.
    pub(super) fn is_lost(&self) -> bool {
        self.registration().is_some_and(Registration::is_lost)
    }
}
