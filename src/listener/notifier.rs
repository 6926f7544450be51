//! The node's end: sends each status update to one listener, and waits for its answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use super::latency::Latency;
use super::live::wait_live;
use super::messages::{self, EventId};
use super::notifier_shared::{NotifierShared, State, no_listener};
use super::notifier_thread::NotifierThread;
use super::notifier_worker::{Command, NotifierWorker};
use super::options::{Delivery, NotifierOptions, NotifierStats};
#[cfg(feature = "metrics")]
use super::outline::NotifierOutline;
use super::peers::Standing;
use super::tables::LISTENERS;
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::{Error, ErrorKind, Result, report};
use crate::identity::{new_epoch, unique_id};
use crate::publisher::Publisher;
use crate::registry::{Member, Presence, PresenceState, Watch};
use crate::store::Store;
use crate::subscriber::{OwnTopic, Subscriber};
use crate::thread::deadline;
use crate::update::{DbUpdate, Name, Topic};

/// Sends each status update to one listener.
///
/// Answers come through the program's subscriber and dispatcher, which must run, and whose callbacks must not wait for
/// this notifier.
pub struct Notifier {
    outbox: Arc<Outbox>,
    /// The receiver of answers, if there are any.
    answers: Mutex<Option<Subscription>>,
    watch: Watch,
}

/// The topic of answers.
struct Subscription {
    _own: OwnTopic,
    _guard: Guard,
}

/// Takes the program's updates, and passes them on to the listeners that there are.
struct Outbox {
    /// The topic of answers, and the thread that acts on them; `None` for [`Delivery::AtMostOnce`].
    answers: Option<(Topic, NotifierThread)>,
    shared: Arc<NotifierShared>,
}

impl Notifier {
    /// Begins to watch for listeners, and to receive answers on its own topic.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the id makes no valid topic, [`ErrorKind::Config`] for a timeout of less than 10
    /// ms, and [`ErrorKind::Io`] if a thread cannot be started. Errors of the store go to the hook, and the call is
    /// repeated.
    pub fn new(
        store: Arc<dyn Store>,
        subscriber: &Arc<Subscriber>,
        dispatcher: &DispatcherHandle,
        publisher: &Arc<Publisher>,
        options: NotifierOptions,
    ) -> Result<Notifier> {
        let answers = match options.delivery {
            Delivery::AtMostOnce => None,
            Delivery::ExactlyOnce => {
                let id = options.id.clone().unwrap_or_else(unique_id);
                let topic = Topic::new(format!("notifier/{id}/{}", new_epoch()))?;
                Some((topic, NotifierThread::new(publisher, options.hook.clone())?))
            }
        };
        let shared = NotifierShared::new(publisher, options);
        if let Some((topic, thread)) = &answers {
            thread.begin(NotifierWorker::new(&shared, topic));
        }
        let outbox = Arc::new(Outbox { answers, shared });
        let begun = Notifier::begin(&outbox, store, subscriber, dispatcher);
        begun.inspect_err(|_| drop(outbox.end()))
    }

    fn begin(
        outbox: &Arc<Outbox>,
        store: Arc<dyn Store>,
        subscriber: &Arc<Subscriber>,
        dispatcher: &DispatcherHandle,
    ) -> Result<Notifier> {
        let answers = Subscription::new(outbox, subscriber, dispatcher)?;
        let follower = Arc::clone(outbox);
        let registry = outbox.shared.options.registry();
        let mut subscriber = Some(Arc::clone(subscriber)).filter(|_| outbox.answers.is_some());
        let watch = Watch::new(store, LISTENERS, registry, true, move |present| {
            // Nothing is sent before answers can be received.
            if let Some(subscriber) = subscriber.take() {
                wait_live(&subscriber);
            }
            follower.follow(present);
        })?;
        Ok(Notifier {
            outbox: Arc::clone(outbox),
            answers: Mutex::new(answers),
            watch,
        })
    }

    /// Sends an update to one listener, without waiting until it is processed, which [`Notifier::flush`] and
    /// [`Notifier::stats`] show. Waits only while [`NotifierOptions::capacity`] updates are pending. Without a live
    /// listener the update waits for one.
    ///
    /// With [`Delivery::AtMostOnce`] it is published before this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if too many updates stay pending for the time of the option `notify_timeout`,
    /// [`ErrorKind::Stopped`], and the publisher's error for an update that breaks a limit. With
    /// [`Delivery::AtMostOnce`] also the publisher's other errors, and [`ErrorKind::Unavailable`] if no listener is
    /// alive, or if the driver knows that none of them hears the publisher.
    pub fn notify(&self, update: DbUpdate) -> Result<()> {
        self.outbox.notify(update)
    }

    /// Waits until nothing is pending: every update is processed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer, and [`ErrorKind::Stopped`].
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let what = |state: &State| format!("{} status updates are not acknowledged", state.stats.pending);
        self.outbox.wait(timeout, |state| state.stats.pending == 0, what)
    }

    /// Waits until at least `count` listeners are alive.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer, and [`ErrorKind::Stopped`].
    pub fn wait_listeners(&self, count: usize, timeout: Duration) -> Result<()> {
        let what = |state: &State| format!("{} of {count} listeners are alive", state.listeners.len());
        self.outbox.wait(timeout, |state| state.listeners.len() >= count, what)
    }

    /// Returns the listeners that may be chosen, as last seen.
    pub fn listeners(&self) -> Vec<Member> {
        self.outbox.shared.state.lock().listeners.clone()
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> NotifierStats {
        self.outbox.shared.state.lock().stats
    }

    /// Returns the times from [`Notifier::notify`] to the answer that an update is processed.
    pub fn latency(&self) -> Latency {
        self.outbox.shared.state.lock().latency.clone()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> NotifierOutline {
        NotifierOutline::of(&self.outbox.shared)
    }

    /// Stops, and returns the updates that were never acknowledged, in order: they may have been processed, or may be
    /// yet. It waits only for a send under way. Called in the error hook, it may return none; the hook is then called
    /// with their number.
    pub fn stop(&self) -> Vec<DbUpdate> {
        self.outbox.shared.state.lock().stopped = true;
        self.outbox.shared.changed.notify_all();
        self.watch.stop();
        let answers = self.answers.lock().take();
        match &answers {
            Some(_) => self.outbox.end(),
            None => Vec::new(),
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let pending = self.stop();
        if !pending.is_empty() {
            let context = format!("{} status updates were never acknowledged", pending.len());
            report!(
                &Error::new(ErrorKind::Unconfirmed, context),
                self.outbox.shared.options.hook.as_ref(),
            );
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("options", &self.outbox.shared.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Subscription {
    fn new(
        outbox: &Arc<Outbox>,
        subscriber: &Arc<Subscriber>,
        dispatcher: &DispatcherHandle,
    ) -> Result<Option<Subscription>> {
        let Some((topic, thread)) = &outbox.answers else {
            return Ok(None);
        };
        let (thread, hook) = (thread.clone(), outbox.shared.options.hook.clone());
        let guard = dispatcher.on_topic(topic.clone(), move |update: &DbUpdate| {
            thread.receive(update).unwrap_or_else(|e| report!(&e, hook.as_ref()));
        });
        let own = OwnTopic::register(subscriber, topic.clone(), None)?;
        Ok(Some(Subscription {
            _own: own,
            _guard: guard,
        }))
    }
}

impl Outbox {
    fn notify(&self, update: DbUpdate) -> Result<()> {
        let Some((topic, thread)) = &self.answers else {
            return self.publish(&update);
        };
        // An update that can never be sent is refused here, so that the caller gets the error.
        let (notifier, number) = (topic.clone(), u64::MAX);
        let message = messages::event(&EventId { notifier, number }, u32::MAX, number, &update)?;
        self.shared.publisher.check_update(&update)?;
        self.shared.publisher.check_fits(topic, &message)?;
        let capacity = self.shared.options.capacity.max(1) as u64;
        let deadline = deadline(self.shared.options.notify_timeout);
        let mut state = self.shared.state.lock();
        while state.stats.pending >= capacity && !state.stopped {
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() && state.stats.pending >= capacity {
                let context = format!("{capacity} status updates are pending, no room for another");
                return Err(Error::new(ErrorKind::Timeout, context));
            }
        }
        if state.stopped {
            return Err(stopped());
        }
        // Under the lock, so that numbers are in order. Fails if the thread has ended unexpectedly.
        let command = Command::Notify(state.stats.notified + 1, update);
        if !thread.send(command) {
            return Err(stopped());
        }
        state.stats.notified += 1;
        state.stats.pending += 1;
        Ok(())
    }

    /// Publishes an update, for [`Delivery::AtMostOnce`].
    fn publish(&self, update: &DbUpdate) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.stopped {
            return Err(stopped());
        }
        let listener = state.choice.draw(|_| true).ok_or_else(no_listener)?;
        drop(state);
        let mut topic = Topic::new(listener)?;
        // An update that the listener does not hear would be lost.
        if self.shared.publisher.is_subscribed(&topic) == Some(false) {
            topic = self.draw_heard()?;
        }
        self.shared.publisher.check_update(update)?;
        self.shared.publisher.send_own(&topic, update)?;
        self.shared.state.lock().stats.notified += 1;
        self.shared.sent(false);
        Ok(())
    }

    /// Chooses one of the listeners that have subscribed at this publisher.
    fn draw_heard(&self) -> Result<Topic> {
        let listeners = self.shared.state.lock().listeners.clone();
        let topics = listeners.iter().filter_map(|member| Topic::new(&*member.address).ok());
        // The publisher may be blocked in a send, so the state is not locked here.
        let heard: Vec<Topic> = topics
            .filter(|topic| self.shared.publisher.is_subscribed(topic) != Some(false))
            .collect();
        let is_heard = |name: &Name| heard.iter().any(|topic| topic.as_str() == name.as_str());
        let chosen = self.shared.state.lock().choice.draw(is_heard);
        let unheard = || Error::new(ErrorKind::Unavailable, "no listener hears this publisher yet");
        Topic::new(chosen.ok_or_else(unheard)?)
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&State) -> bool, what: impl Fn(&State) -> String) -> Result<()> {
        let deadline = deadline(timeout);
        let mut state = self.shared.state.lock();
        while !done(&state) {
            if state.stopped {
                return Err(stopped());
            }
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() && !done(&state) {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("after {timeout:?}: {}", what(&state)),
                ));
            }
        }
        Ok(())
    }

    /// Takes the registered listeners.
    fn follow(&self, present: &[Presence]) {
        let may = |presence: &Presence| presence.state != PresenceState::Stale && !presence.member.leaving;
        let (chosen, others): (Vec<_>, Vec<_>) = present.iter().partition(|presence| may(presence));
        // A takeover of its id that failed has left a second row of a live run, as leaving; the other one counts.
        let topics = others.iter().chain(&chosen).map(|presence| {
            let standing = Standing {
                may: may(presence),
                waiting: presence.member.load.waiting,
            };
            (presence.member.address.as_str().into(), standing)
        });
        let topics: BTreeMap<Name, Standing> = topics.collect();
        let mut state = self.shared.state.lock();
        state.listeners = chosen.iter().map(|presence| presence.member.clone()).collect();
        let addresses = state.listeners.iter().map(|member| member.address.as_str().into());
        let addresses = addresses.collect();
        state.choice.set(addresses);
        drop(state);
        self.shared.changed.notify_all();
        if let Some((_, thread)) = &self.answers {
            thread.send(Command::Listeners(topics));
        }
    }

    /// Ends the worker; returns the updates that were never acknowledged.
    fn end(&self) -> Vec<DbUpdate> {
        let Some((_, thread)) = &self.answers else {
            return Vec::new();
        };
        let (sender, pending) = bounded(1);
        thread.send(Command::Stop(sender));
        // In the hook, the thread itself would wait for the thread. What is left is reported then.
        match thread.is_here() {
            true => Vec::new(),
            false => pending.recv().unwrap_or_default(),
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the notifier was stopped")
}
