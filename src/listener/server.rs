//! The server's end: a listener, and the thread that keeps it registered and removes claims.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::claims::{Claims, Sweep};
use super::desk::{Desk, Run};
use super::envelope::EventId;
use super::options::{ListenerOptions, ListenerStats};
use super::{LISTENERS, wait_live};
use crate::dispatcher::{DispatcherHandle, Guard};
use crate::error::{Error, ErrorKind, Result, report};
use crate::publisher::{Publisher, new_epoch, unique_id};
use crate::registry::{Load, Member, Registration, Watch};
use crate::store::Store;
use crate::subscriber::Subscriber;
use crate::thread::{self, Thread, deadline};
use crate::update::{DbUpdate, Name, Topic};

/// Takes a share of the status updates, from the moment it is made until it is stopped or dropped.
///
/// Its handler runs on the threads of the program's dispatcher, with workers also at the same time for different updates. What comes
/// to it is in the dispatcher's queue, which thus has to be the one that the subscriber fills.
///
/// A listener that others have taken for dead, for example because its process was stopped for long, begins anew with
/// another topic.
pub struct Listener {
    desk: Arc<Desk>,
    runs: Arc<Runs>,
    /// The thread stops when this is gone.
    alive: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<Thread>>,
}

struct Runs {
    current: Mutex<Current>,
    /// Signalled when it is another one.
    changed: Condvar,
}

/// The run that there is now.
struct Current {
    member: Member,
    run: Arc<Run>,
}

/// How long a stop waits for the thread.
const STOP: Duration = Duration::from_millis(900);

/// How many claims are removed in one step.
const BUNDLE: usize = 256;

/// How long a listener that stops waits for confirmations before it hands over what is left.
const DRAIN: Duration = Duration::from_millis(400);

impl Listener {
    /// Begins to listen: registers a topic of its own with the subscriber, and then itself in the store. Answers go out through `publisher`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the id makes no topic that the subscriber takes, [`ErrorKind::Config`] for a timeout of
    /// less than 10 ms, and [`ErrorKind::Io`] if there can be no thread. What is wrong with the store goes to the hook, and is
    /// tried again.
    pub fn new(
        store: Arc<dyn Store>,
        subscriber: &Arc<Subscriber>,
        dispatcher: &DispatcherHandle,
        publisher: &Arc<Publisher>,
        options: ListenerOptions,
        handler: impl Fn(&DbUpdate) + Send + Sync + 'static,
    ) -> Result<Listener> {
        let (settled, confirmed) = unbounded();
        let claims = Claims::new(Arc::clone(&store));
        let hook = options.hook.clone();
        let desk = Desk::new(claims.clone(), Arc::clone(publisher), Box::new(handler), hook, settled);
        let base = Base {
            id: options.id.clone().unwrap_or_else(unique_id).to_string(),
            store: Arc::clone(&store),
            subscriber: Arc::clone(subscriber),
            dispatcher: dispatcher.clone(),
            desk: Arc::new(desk),
            options,
        };
        // It begins with one: what is there may be of listeners that are long gone.
        let (goes, gone) = bounded(1);
        let _ = goes.send(());
        let mut before = BTreeSet::new();
        let watch = Watch::new(store, LISTENERS, base.options.registry(), true, move |present| {
            let now = present.iter().map(|presence| presence.member.address.clone()).collect();
            if before.difference(&now).next().is_some() {
                // Full: it is known that somebody is gone.
                let _ = goes.try_send(());
            }
            before = now;
        })?;
        let (current, guard) = base.begin(&base.id)?;
        let runs = Arc::new(Runs {
            current: Mutex::new(current),
            changed: Condvar::new(),
        });
        let (alive, stop) = bounded(0);
        let keeper = Keeper {
            claims,
            sweep: Sweep::default(),
            swept: Instant::now(),
            unsettled: VecDeque::new(),
            confirmed,
            gone,
            stop,
            runs: Arc::clone(&runs),
            _watch: watch,
            base,
        };
        let desk = Arc::clone(&keeper.base.desk);
        let hook = keeper.base.options.hook.clone();
        let body = move || {
            keeper.run(guard);
            Ok(())
        };
        let thread = thread::spawn_fallible("tablecast-listener", hook, body)?;
        Ok(Listener {
            desk,
            runs,
            alive: Mutex::new(Some(alive)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// How it is registered: the address is its topic, the epoch tells its runs apart.
    pub fn member(&self) -> Member {
        self.runs.current.lock().member.clone()
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not by then.
    pub fn wait_registered(&self, timeout: Duration) -> Result<()> {
        let deadline = deadline(timeout);
        let mut current = self.runs.current.lock();
        loop {
            let run = Arc::clone(&current.run);
            let registration = run.registration.get();
            let wait = || registration.is_some_and(|registration| registration.wait_held(deadline));
            if MutexGuard::unlocked(&mut current, wait) {
                return Ok(());
            }
            // Others have removed it, or the time is over.
            if Arc::ptr_eq(&run, &current.run) && self.runs.changed.wait_until(&mut current, deadline).timed_out() {
                break;
            }
        }
        let id = current.member.id.clone();
        let context = format!("listener {id:?} is not registered within {timeout:?}");
        Err(Error::new(ErrorKind::Timeout, context))
    }

    /// What was counted so far.
    pub fn stats(&self) -> ListenerStats {
        self.desk.stats()
    }

    /// Stops, and hands over at once: nothing new is taken, what waits is sent back, and what is being processed is finished
    /// and acknowledged. Then the listener is no longer registered.
    ///
    /// Waits for at most 900 ms; what takes longer is finished in the background, as long as the process lives. From inside the
    /// handler it waits for nothing. To stop again does no harm.
    pub fn stop(&self) {
        if let Err(e) = self.stop_within(STOP) {
            log::info!("{e}");
        }
    }

    /// As [`Listener::stop`], but waits for as long as this: of use before a process ends, if handlers take their time.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not finished by then; it goes on in the background.
    pub fn stop_within(&self, timeout: Duration) -> Result<()> {
        self.desk.begin_to_stop();
        drop(self.alive.lock().take());
        let Some(thread) = self.thread.lock().take() else {
            return Ok(());
        };
        let timeout = if self.desk.is_handling() {
            Duration::ZERO
        } else {
            timeout
        };
        if thread.is_current() || thread.join_by(deadline(timeout)) {
            return Ok(());
        }
        let context = format!("listener {:?} has not finished within {timeout:?}", self.member().id);
        Err(Error::new(ErrorKind::Timeout, context))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("member", &self.member())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What it takes to begin a run.
struct Base {
    id: String,
    store: Arc<dyn Store>,
    subscriber: Arc<Subscriber>,
    dispatcher: DispatcherHandle,
    desk: Arc<Desk>,
    options: ListenerOptions,
}

impl Base {
    fn begin(&self, id: &str) -> Result<(Current, Guard)> {
        let epoch = new_epoch();
        let topic = Topic::new(format!("listener/{id}/{epoch}"))?;
        self.subscriber.register_topic(&topic)?;
        let run = Arc::new(Run {
            topic: topic.clone(),
            registration: OnceLock::new(),
        });
        let (desk, heard) = (Arc::clone(&self.desk), Arc::clone(&run));
        let hook = self.options.hook.clone();
        let guard = self.dispatcher.on_topic(topic.clone(), move |update: &DbUpdate| {
            if let Err(e) = desk.hear(&heard, update) {
                report(&e, hook.as_ref());
            }
        });
        let member = Member {
            id: id.to_owned(),
            epoch,
            address: topic.to_string(),
            ..Member::default()
        };
        let mut subscriber = Some(Arc::clone(&self.subscriber));
        let (desk, dispatcher) = (Arc::clone(&self.desk), self.dispatcher.clone());
        let renewal = move |member: &mut Member| {
            // Nobody is told of a topic before it can be heard.
            if let Some(subscriber) = subscriber.take() {
                wait_live(&subscriber);
            }
            member.load = Load {
                handled: desk.stats().handled,
                waiting: dispatcher.stats().queue.depth as u64,
            };
            member.leaving = desk.is_stopping();
        };
        let store = Arc::clone(&self.store);
        let registration = Registration::lease(store, LISTENERS, member.clone(), self.options.registry(), renewal)?;
        let _ = run.registration.set(registration);
        Ok((Current { member, run }, guard))
    }

    /// Who others have taken for dead may be hindered by another one of its id, or not.
    fn next_id(&self, member: &Member) -> String {
        match self.store.get(LISTENERS, &self.id, None) {
            Ok(_) => format!("{} {}", self.id, member.epoch),
            Err(_) => self.id.clone(),
        }
    }
}

struct Keeper {
    base: Base,
    claims: Claims,
    sweep: Sweep,
    swept: Instant,
    /// Claims that are to be removed.
    unsettled: VecDeque<EventId>,
    confirmed: Receiver<Vec<EventId>>,
    /// Has something when a listener is gone.
    gone: Receiver<()>,
    /// Disconnected when it is to stop.
    stop: Receiver<()>,
    runs: Arc<Runs>,
    _watch: Watch,
}

impl Keeper {
    fn run(mut self, guard: Guard) {
        let mut guard = Some(guard);
        let tick = self.base.options.registry().look();
        loop {
            let run = Arc::clone(&self.runs.current.lock().run);
            let is_lost = guard.is_none() || run.registration.get().is_some_and(Registration::is_lost);
            if is_lost {
                guard = self.begin_anew(&run, guard);
            }
            let (mut is_time, mut is_stopped) = (false, false);
            select! {
                recv(self.confirmed) -> ids => self.unsettled.extend(ids.into_iter().flatten()),
                recv(self.gone) -> _ => is_time = true,
                recv(self.stop) -> _ => is_stopped = true,
                default(tick) => is_time = self.swept.elapsed() > self.base.options.retention / 4,
            }
            if is_stopped {
                return self.leave(&run, guard);
            }
            let upkept = self.upkeep(is_time);
            self.report(upkept);
        }
    }

    fn report(&self, done: Result<()>) {
        if let Err(e) = done {
            let error = Error::new(e.kind(), "the claims of a listener").with_source(e);
            report(&error, self.base.options.hook.as_ref());
        }
    }

    /// Others have taken this run for dead.
    fn begin_anew(&mut self, run: &Arc<Run>, guard: Option<Guard>) -> Option<Guard> {
        self.base.subscriber.unregister_topic(&run.topic);
        drop(guard);
        let id = self.base.next_id(&self.runs.current.lock().member);
        match self.base.begin(&id) {
            Ok((current, guard)) => {
                log::info!("listener {id:?} was taken for dead, and begins anew");
                *self.runs.current.lock() = current;
                self.runs.changed.notify_all();
                Some(guard)
            }
            Err(e) => {
                report(&e, self.base.options.hook.as_ref());
                None
            }
        }
    }

    /// Removes what claims can be removed. An outage leaves them for the next time.
    fn upkeep(&mut self, is_time: bool) -> Result<()> {
        self.unsettled.extend(self.confirmed.try_iter().flatten());
        let retention = self.base.options.retention;
        if is_time {
            self.swept = Instant::now();
            self.unsettled.extend(self.base.desk.expire(retention));
        }
        while !self.unsettled.is_empty() && !self.base.desk.is_stopping() {
            self.remove_some()?;
        }
        if is_time {
            let topic = self.runs.current.lock().run.topic.clone();
            let is_ours = |owner: &str, event: &str| owner == topic.as_str() && !self.base.desk.knows(event);
            self.sweep.sweep(&self.claims, is_ours, retention, Instant::now())?;
        }
        Ok(())
    }

    fn leave(mut self, run: &Arc<Run>, guard: Option<Guard>) {
        let registration = run.registration.get();
        // Tells that it is leaving.
        registration.inspect(|registration| registration.renew());
        let desk = Arc::clone(&self.base.desk);
        let is_lost = || registration.is_none_or(Registration::is_lost);
        if desk.drain(DRAIN, is_lost) {
            self.unsettled.extend(self.confirmed.try_iter().flatten());
            let handed_over = desk.hand_over();
            self.report(handed_over);
        }
        registration.inspect(|registration| registration.stop());
        self.base.subscriber.unregister_topic(&run.topic);
        drop(guard);
        while !self.unsettled.is_empty() && self.remove_some().is_ok() {}
    }

    fn remove_some(&mut self) -> Result<()> {
        let count = self.unsettled.len().min(BUNDLE);
        let events = self.unsettled.iter().take(count);
        let events: Vec<Name> = events.map(|id| id.to_string().into()).collect();
        self.claims.remove(&events)?;
        self.unsettled.drain(..count);
        Ok(())
    }
}
