//! The server's end: a listener.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::answering::Answering;
use super::claims::Claims;
use super::inbox::Inbox;
use super::listener_shared::{FirstFailure, ListenerShared};
use super::listener_worker::{Current, FIRST_WAIT, ListenerWorker};
use super::options::{ListenerOptions, ListenerStats};
#[cfg(feature = "metrics")]
use super::outline::ListenerOutline;
use super::run::{Base, Run};
use super::sweep::Sweep;
use super::tables::LISTENERS;
use crate::dispatcher::DispatcherHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::unique_id;
use crate::publisher::Publisher;
use crate::registry::{Member, Watch};
use crate::store::Store;
use crate::subscriber::Subscriber;
use crate::thread::{self, Thread, deadline};
use crate::update::DbUpdate;

/// Takes a share of the status updates, from its creation until it is stopped or dropped.
///
/// Its handler runs on the threads of the program's dispatcher; with workers, calls for different updates run at the
/// same time. The subscriber must feed that dispatcher's queue.
///
/// A listener that others have declared dead, for example because its process was stopped for long, begins a new run
/// with another topic.
pub struct Listener {
    shared: Arc<ListenerShared>,
    current: Arc<Current>,
    /// The thread stops when this is dropped.
    alive: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<Thread>>,
}

/// How long [`Listener::stop`] waits for the thread.
const STOP: Duration = Duration::from_millis(900);

impl Listener {
    /// Begins to listen: registers its own topic with the subscriber, and then itself in the store. Answers go through
    /// `publisher`.
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
        options: ListenerOptions,
        handler: impl Fn(&DbUpdate) + Send + Sync + 'static,
    ) -> Result<Listener> {
        let base = Base {
            id: options.id.clone().unwrap_or_else(unique_id).to_string(),
            store: Arc::clone(&store),
            subscriber: Arc::clone(subscriber),
            dispatcher: dispatcher.clone(),
            options,
        };
        let hook = base.options.hook.clone();
        let run = Arc::new(Run::new(&base.id)?);
        let (inbox, inputs) = Inbox::new();
        let shared = ListenerShared::new(run.topic.clone(), inbox, Box::new(handler), hook.clone());
        let shared = Arc::new(shared);
        // One message at the start causes a sweep, since claims may be of listeners that are long gone.
        let (goes, gone) = bounded(1);
        let _ = goes.send(());
        let mut before = BTreeSet::new();
        let watch = Watch::new(
            Arc::clone(&store),
            LISTENERS,
            base.options.registry(),
            true,
            move |present| {
                let now = present.iter().map(|presence| presence.member.address.clone()).collect();
                if before.difference(&now).next().is_some() {
                    // If the channel is full, a sweep is due already.
                    let _ = goes.try_send(());
                }
                before = now;
            },
        )?;
        let answering = Answering {
            shared: Arc::clone(&shared),
            inputs,
            publisher: Arc::clone(publisher),
            sent: 0,
            failure: FirstFailure::default(),
        };
        let answering = thread::spawn("tc-answers", hook.clone(), move || answering.run())?;
        run.begin(&base, &shared).inspect_err(|_| shared.inbox.end())?;
        let current = Arc::new(Current {
            run: Mutex::new(run),
            changed: Condvar::new(),
        });
        let (alive, stop) = bounded(0);
        let worker = ListenerWorker {
            claims: Claims::new(store),
            base,
            shared: Arc::clone(&shared),
            current: Arc::clone(&current),
            gone,
            stop,
            sweep: Sweep::default(),
            looked: Instant::now(),
            swept: Instant::now(),
            is_stuck: false,
            dropped: 0,
            wait: FIRST_WAIT,
            failure: FirstFailure::default(),
            _answering: answering,
            _watch: watch,
        };
        let thread = thread::spawn("tc-listener", hook, move || worker.run())?;
        Ok(Listener {
            shared,
            current,
            alive: Mutex::new(Some(alive)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Returns its registration: the address is its topic, the epoch identifies the run.
    pub fn member(&self) -> Member {
        self.current.run.lock().member.clone()
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer.
    pub fn wait_registered(&self, timeout: Duration) -> Result<()> {
        let deadline = deadline(timeout);
        let mut current = self.current.run.lock();
        loop {
            let run = Arc::clone(&current);
            let wait = || {
                run.registration()
                    .is_some_and(|registration| registration.wait_held(deadline))
            };
            if MutexGuard::unlocked(&mut current, wait) {
                return Ok(());
            }
            // Other listeners have removed it, or the time is over.
            if Arc::ptr_eq(&run, &current) && self.current.changed.wait_until(&mut current, deadline).timed_out() {
                break;
            }
        }
        let id = current.member.id.clone();
        let context = format!("listener {id:?} is not registered within {timeout:?}");
        Err(Error::new(ErrorKind::Timeout, context))
    }

    /// Returns the counts since the start.
    pub fn stats(&self) -> ListenerStats {
        self.shared.stats()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> ListenerOutline {
        ListenerOutline::of(&self.shared)
    }

    /// Stops and hands over at once: it takes no new events, gives back the waiting ones, and finishes and acknowledges
    /// those being processed. Then the listener is no longer registered.
    ///
    /// Waits for at most 900 ms. Anything longer is finished in the background while the process lives; until then the
    /// listener stays registered as leaving. Called from the handler of an acknowledged update, it does not wait.
    /// Stopping again has no effect.
    pub fn stop(&self) {
        if let Err(e) = self.stop_within(STOP) {
            log::info!("{e}");
        }
    }

    /// As [`Listener::stop`], but waits up to `timeout`: useful before a process with slow handlers ends.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not finished by then; it goes on in the background.
    pub fn stop_within(&self, timeout: Duration) -> Result<()> {
        self.shared.begin_to_stop();
        drop(self.alive.lock().take());
        let Some(thread) = self.thread.lock().take() else {
            return Ok(());
        };
        let is_handling = self.shared.events.lock().is_handling(std::thread::current().id());
        let timeout = if is_handling { Duration::ZERO } else { timeout };
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
