//! The receiving end, written once for all drivers: a thread that turns frames into updates in a queue.

mod options;
mod own;
mod own_topic;
mod session;
mod shared;
mod status;
mod worker;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::QueueSender;
use crate::thread::{self, Thread};
use crate::transport::Driver;
use crate::update::{Name, Topic};

pub use options::{SubscriberOptions, SubscriberStats};
pub(crate) use own_topic::OwnTopic;
#[cfg(any(test, fuzzing))]
pub(crate) use session::fuzzing::session as fuzz;
use session::{Command, Session};
use shared::{Channels, Shared, State};
pub use status::{AddressState, AddressStatus, PublisherStatus, SubscriberStatus, TopicState, TopicStatus};
use worker::Worker;

/// Receives updates from any number of publishers, and puts them into a dispatcher's queue.
///
/// All methods may be called from any thread, also from a callback. A stopped subscriber can be started again; its
/// registrations stay. Dropping it stops it.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tablecast::drivers::memory::MemoryDriver;
/// use tablecast::*;
///
/// # fn main() -> Result<()> {
/// let dispatcher = Dispatcher::new(DispatcherOptions::default())?;
/// let (updates, received) = crossbeam_channel::unbounded::<DbUpdate>();
/// dispatcher.on_table("lport", updates).detach();
///
/// let driver = MemoryDriver::new("memory://host1")?;
/// let publisher = Publisher::new(&driver, PublisherOptions::default())?;
///
/// let options = SubscriberOptions::default();
/// let subscriber = Subscriber::new(Arc::new(driver), dispatcher.queue(), options);
/// subscriber.register_listen_address("memory://host1")?;
/// subscriber.register_topic(&Topic::ALL)?;
/// subscriber.daemonize()?;
/// subscriber.wait_live(Duration::from_secs(5))?;
///
/// publisher.send_event(&DbUpdate::new("lport", "port-1", Action::Delete))?;
/// let update = received.recv_timeout(Duration::from_secs(5)).expect("it is live");
/// assert_eq!(update.key, "port-1");
/// # Ok(())
/// # }
/// ```
pub struct Subscriber {
    driver: Arc<dyn Driver>,
    queue: QueueSender,
    options: SubscriberOptions,
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

impl Subscriber {
    /// Creates a subscriber that is not running yet.
    pub fn new(driver: Arc<dyn Driver>, queue: QueueSender, options: SubscriberOptions) -> Subscriber {
        Subscriber {
            driver,
            queue,
            options,
            shared: Arc::new(Shared::new()),
            thread: Mutex::new(None),
        }
    }

    /// Registers a topic. Returns true if it was not registered before, for a replica or listener either.
    ///
    /// With [`Resubscribe::Manual`](crate::config::Resubscribe::Manual) topics are unregistered when a connection is
    /// lost; this method registers them again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the topic is longer than the option `max_topic_bytes`.
    pub fn register_topic(&self, topic: &Topic) -> Result<bool> {
        self.check_topic(topic)?;
        let mut state = self.shared.state.lock();
        self.shared.own.claim(topic, false);
        Ok(state.add_topic(topic))
    }

    /// Refuses a topic that is longer than the option `max_topic_bytes`.
    pub(crate) fn check_topic(&self, topic: &Topic) -> Result<()> {
        topic.check_length(self.options.max_topic_bytes)
    }

    /// Unregisters a topic. Returns true if it was registered. Updates that are already in the queue are still
    /// delivered. A topic that a replica or listener uses stays until that ends.
    pub fn unregister_topic(&self, topic: &Topic) -> bool {
        let mut state = self.shared.state.lock();
        match self.shared.own.claim(topic, true) {
            Some(was_claimed) => !was_claimed,
            None => state.remove_topic(topic),
        }
    }

    /// Registers the address of a publisher. Returns true if it was not registered before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] or [`ErrorKind::Unsupported`] if the driver cannot take an address of this form. An
    /// address without a publisher is not an error: the subscriber keeps trying to connect, and reports it once after
    /// ten seconds without a connection.
    pub fn register_listen_address(&self, address: &str) -> Result<bool> {
        self.driver.check_address(address)?;
        let name = Name::from(self.driver.known_as(address));
        let mut state = self.shared.state.lock();
        state.followed.remove(&name);
        Ok(state.add_address(name))
    }

    /// Registers an address until [`Subscriber::give_up_listen_address`], unless the program registers it too. Returns
    /// false if the program has done so.
    ///
    /// # Errors
    /// As [`Subscriber::register_listen_address`].
    pub(crate) fn follow_listen_address(&self, address: &str) -> Result<bool> {
        self.driver.check_address(address)?;
        let name = Name::from(self.driver.known_as(address));
        let mut state = self.shared.state.lock();
        if state.add_address(name.clone()) {
            state.followed.insert(name.clone());
        }
        Ok(state.followed.contains(&name))
    }

    /// Unregisters the address of a publisher. Returns true if it was registered.
    pub fn unregister_listen_address(&self, address: &str) -> bool {
        let name = self.driver.known_as(address);
        let mut state = self.shared.state.lock();
        state.followed.remove(&*name);
        state.remove_address(&name, Command::Disconnect)
    }

    /// Unregisters a followed address whose publisher is gone, and emits a sync event unless the publisher has said
    /// goodbye.
    pub(crate) fn give_up_listen_address(&self, address: &str) {
        let name = self.driver.known_as(address);
        let mut state = self.shared.state.lock();
        if state.followed.remove(&*name) {
            state.remove_address(&name, Command::GiveUp);
        }
    }

    /// Receives on the calling thread until [`Subscriber::stop`] is called on another thread.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the subscriber is already running; otherwise the driver's error.
    pub fn run(&self) -> Result<()> {
        self.start()?.run();
        Ok(())
    }

    /// Receives on a thread of its own.
    ///
    /// # Errors
    /// As [`Subscriber::run`], and [`ErrorKind::Io`] if the thread cannot be started.
    pub fn daemonize(&self) -> Result<()> {
        let mut thread = self.thread.lock();
        let worker = self.start()?;
        let hook = self.options.hook.clone();
        let before = thread.replace(thread::spawn("tc-subscriber", hook, move || worker.run())?);
        drop(thread);
        // Waits for it, if it has panicked.
        drop(before);
        Ok(())
    }

    fn start(&self) -> Result<Worker> {
        let running = || Error::new(ErrorKind::InvalidInput, "the subscriber is running already");
        if self.is_running() {
            return Err(running());
        }
        // The driver may be the program's, so without the lock.
        let (inbound, wake) = self.driver.inbound()?;
        let mut state = self.shared.state.lock();
        if state.is_running() {
            drop(state);
            return Err(running());
        }
        let (commands, messages) = crossbeam_channel::unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (generation, memory) = state.begin(Channels {
            commands,
            stop: Some(stop),
            wake,
        });
        let seed = RandomState::new().hash_one(generation);
        let session = Session::new(&self.options, memory, generation, seed, clock::now());
        Ok(Worker {
            inbound,
            messages,
            stop: stopped,
            shared: Arc::clone(&self.shared),
            queue: self.queue.clone(),
            options: self.options.clone(),
            session,
            refused: HashMap::new(),
            has_ended: false,
        })
    }

    /// Returns true from `run` or `daemonize` until the subscriber has stopped.
    pub fn is_running(&self) -> bool {
        self.shared.state.lock().is_running()
    }

    /// Waits until the publisher at every registered address has confirmed every registered topic. From then on no
    /// change is missed silently.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], naming each address that is not live and its state. A publisher that sends no hellos,
    /// such as Dragonflow's, is never live, although its updates are received. [`ErrorKind::Stopped`] if the subscriber
    /// was stopped and not started again. Before the first start this method waits.
    pub fn wait_live(&self, timeout: Duration) -> Result<()> {
        let deadline = thread::deadline(timeout);
        let mut state = self.shared.state.lock();
        while let Some(missing) = state.missing() {
            if state.is_stopped() {
                return Err(Error::new(ErrorKind::Stopped, "the subscriber was stopped"));
            }
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() && state.missing().is_some() {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("not live within {timeout:?}: {missing}"),
                ));
            }
        }
        Ok(())
    }

    /// Returns the state of each registered address, topic, and publisher. The state of topics is known only while the
    /// subscriber runs and the option `continuity` is on. Waits for the subscriber's thread for at most 500 ms; if that
    /// thread is waiting for room in the queue, the last known state of the topics is returned.
    pub fn status(&self) -> SubscriberStatus {
        let (addresses, topics) = self.shared.status();
        let addresses = addresses.into_iter().map(|(address, state)| AddressStatus {
            authenticates: self.driver.authenticates(&address),
            address,
            state,
        });
        SubscriberStatus {
            addresses: addresses.collect(),
            topics,
        }
    }

    /// The state of each address, and the number of topics, without a question to the thread.
    #[cfg(feature = "metrics")]
    pub(crate) fn outline(&self) -> (Vec<AddressState>, usize) {
        let state = self.shared.state.lock();
        let states = state.addresses().map(|(_, state)| state);
        (states.collect(), state.topic_count())
    }

    /// Returns the counts since the subscriber was created.
    pub fn stats(&self) -> SubscriberStats {
        self.shared.counts.get()
    }

    /// Stops receiving. Returns when the thread has ended, well within a second. Does nothing if it is not running.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        let mut state = self.shared.state.lock();
        state.stop();
        match thread {
            Some(thread) => {
                drop(state);
                drop(thread);
            }
            None => self.wait_stopped(&mut state),
        }
    }

    /// Waits for a `run` on another thread.
    fn wait_stopped(&self, state: &mut MutexGuard<'_, State>) {
        let deadline = Instant::now() + Duration::from_millis(900);
        while state.is_running() && !self.shared.changed.wait_until(state, deadline).timed_out() {}
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("driver", &self.driver)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
