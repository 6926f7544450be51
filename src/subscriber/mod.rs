//! The receiving end, written once for all drivers: a thread that turns frames into updates in a queue.

mod cleared;
mod continuity;
mod live;
mod options;
mod status;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::config::Config;
use crate::drivers::Drivers;
use crate::error::{Error, ErrorKind, Result};
use crate::queue::QueueSender;
use crate::thread::{self, Thread};
use crate::transport::{PubSub, Wake};
use crate::update::{Name, Topic};

use continuity::Continuity;
use live::Live;
pub use live::PeerState;
pub use options::{SubscriberOptions, SubscriberStats};
pub use status::{AddressStatus, PublisherStatus, SubscriberStatus, TopicState, TopicStatus};
use worker::{Command, Worker};

/// Receives updates from any number of publishers, and puts them into a dispatcher's queue.
///
/// All methods may be called from any thread, also from a callback. A subscriber that was stopped can be started
/// again; what was registered stays. Dropping it stops it.
pub struct Subscriber {
    driver: Arc<dyn PubSub>,
    queue: QueueSender,
    options: SubscriberOptions,
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

/// What the handle and the thread share.
struct Shared {
    live: Mutex<Linked>,
    changed: Condvar,
    /// While it runs, and losses are looked for. Never locked together with `live`.
    continuity: Mutex<Option<Continuity>>,
    stats: Mutex<SubscriberStats>,
}

/// The bookkeeping, and the way to the thread while there is one.
#[derive(Default)]
struct Linked {
    live: Live,
    link: Option<Link>,
}

struct Link {
    commands: Sender<Command>,
    /// Dropped to stop the thread; `None` once that was done.
    stop: Option<Sender<()>>,
    wake: Arc<dyn Wake>,
}

impl std::ops::Deref for Linked {
    type Target = Live;
    fn deref(&self) -> &Live {
        &self.live
    }
}

impl std::ops::DerefMut for Linked {
    fn deref_mut(&mut self) -> &mut Live {
        &mut self.live
    }
}

impl Subscriber {
    /// A subscriber as the options say, with their topics and listen addresses, not running yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such driver or an option is wrong, and what the driver says of an address.
    pub fn open(config: &Config, drivers: &Drivers, queue: QueueSender) -> Result<Subscriber> {
        let subscriber = Subscriber::new(drivers.network(config)?, queue, config.into());
        for topic in &config.topics {
            subscriber.register_topic(topic)?;
        }
        for address in config.listen_addresses()? {
            subscriber.register_listen_address(&address)?;
        }
        Ok(subscriber)
    }

    /// A subscriber that is not running yet.
    pub fn new(driver: Arc<dyn PubSub>, queue: QueueSender, options: SubscriberOptions) -> Subscriber {
        Subscriber {
            driver,
            queue,
            options,
            shared: Arc::new(Shared {
                live: Mutex::default(),
                changed: Condvar::new(),
                continuity: Mutex::new(None),
                stats: Mutex::default(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// Begins to listen to this topic; true if it was not registered.
    ///
    /// With [`Resubscribe::Manual`](crate::config::Resubscribe::Manual) topics are unregistered when a connection is
    /// lost; this registers them again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is longer than the option `max_topic_bytes`.
    pub fn register_topic(&self, topic: &Topic) -> Result<bool> {
        let (length, limit) = (topic.as_str().len(), self.options.max_topic_bytes);
        if length > limit {
            let context = format!("a topic of {length} bytes; max_topic_bytes is {limit}");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        }
        let mut live = self.shared.live.lock();
        let generation = live.add_topic(topic.clone());
        if let Some(generation) = generation {
            live.command(Command::Subscribe(topic.clone(), generation));
        }
        Ok(generation.is_some())
    }

    /// Ends listening to this topic; true if it was registered. Updates that are in the queue still come.
    pub fn unregister_topic(&self, topic: &Topic) -> bool {
        let mut live = self.shared.live.lock();
        let changed = live.remove_topic(topic);
        if changed {
            live.command(Command::Unsubscribe(topic.clone()));
        }
        changed
    }

    /// Begins to listen to the publisher at this address; true if it was not registered.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] or [`ErrorKind::Unsupported`] if the driver cannot take such an address.
    /// That nobody is there is not an error: it is tried again and again.
    pub fn register_listen_address(&self, address: &str) -> Result<bool> {
        self.driver.check_address(address)?;
        let address = Name::from(address);
        let mut live = self.shared.live.lock();
        let changed = live.add_address(address.clone());
        if changed {
            live.command(Command::Connect(address));
        }
        Ok(changed)
    }

    /// Ends listening to the publisher at this address; true if it was registered.
    pub fn unregister_listen_address(&self, address: &str) -> bool {
        let mut live = self.shared.live.lock();
        let changed = live.remove_address(address);
        if changed {
            live.command(Command::Disconnect(address.into()));
        }
        changed
    }

    /// Ends listening to the publisher at this address, which is gone; the program is told, unless that one has said goodbye.
    pub(crate) fn give_up_listen_address(&self, address: &str) {
        let mut live = self.shared.live.lock();
        if let Some(departed) = live.give_up(address) {
            live.command(Command::Disconnect(address.into()));
            live.command(Command::GivenUp(address.into(), departed));
        }
    }

    /// Receives on the calling thread until [`Subscriber::stop`] is called from another.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is running already; otherwise what the driver says.
    pub fn run(&self) -> Result<()> {
        self.start()?.run();
        Ok(())
    }

    /// Receives on a thread of its own.
    ///
    /// # Errors
    /// As [`Subscriber::run`], and [`ErrorKind::Io`] if no thread can be had.
    pub fn daemonize(&self) -> Result<()> {
        let mut thread = self.thread.lock();
        let worker = self.start()?;
        *thread = Some(thread::spawn("tablecast-subscriber", move || worker.run())?);
        Ok(())
    }

    fn start(&self) -> Result<Worker> {
        let mut live = self.shared.live.lock();
        if live.link.is_some() {
            return Err(Error::new(ErrorKind::InvalidInput, "the subscriber is running already"));
        }
        let (inbound, wake) = self.driver.inbound()?;
        let (commands, receiver) = crossbeam_channel::unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        live.link = Some(Link {
            commands,
            stop: Some(stop),
            wake,
        });
        let generation = live.generation();
        for topic in &live.topics {
            live.command(Command::Subscribe(topic.clone(), generation));
        }
        for address in live.addresses() {
            live.command(Command::Connect(address.clone()));
        }
        drop(live);
        Ok(Worker::new(
            inbound,
            receiver,
            stopped,
            Arc::clone(&self.shared),
            self.queue.clone(),
            self.options.clone(),
        ))
    }

    /// True from `run` or `daemonize` until it has stopped.
    pub fn is_running(&self) -> bool {
        self.shared.live.lock().link.is_some()
    }

    /// Waits until every registered topic is confirmed by the publisher at every registered address: from then on
    /// no change is missed without a word.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], naming each address that is missing and why. A publisher that sends no hellos, as
    /// Dragonflow's, is never live; its updates come all the same. [`ErrorKind::Stopped`] if it is stopped meanwhile.
    pub fn wait_live(&self, timeout: Duration) -> Result<()> {
        let deadline = thread::deadline(timeout);
        let mut live = self.shared.live.lock();
        let was_running = live.link.is_some();
        while let Some(missing) = live.missing() {
            if was_running && live.link.is_none() {
                return Err(Error::new(ErrorKind::Stopped, "the subscriber was stopped"));
            }
            if self.shared.changed.wait_until(&mut live, deadline).timed_out() && live.missing().is_some() {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("not live within {timeout:?}: {missing}"),
                ));
            }
        }
        Ok(())
    }

    /// How it stands with each registered address, topic, and publisher. Topics are known only while it runs and the
    /// option `continuity` is on.
    pub fn status(&self) -> SubscriberStatus {
        let live = self.shared.live.lock();
        let addresses = live.states().map(|(address, state)| AddressStatus {
            address: address.clone(),
            state,
        });
        let addresses = addresses.collect();
        let is_whole = live.is_whole();
        drop(live);
        let continuity = self.shared.continuity.lock();
        let topics = continuity.as_ref().map(|known| known.status(is_whole, Instant::now()));
        let topics = topics.unwrap_or_default();
        SubscriberStatus { addresses, topics }
    }

    /// What was counted since the subscriber was made.
    pub fn stats(&self) -> SubscriberStats {
        *self.shared.stats.lock()
    }

    /// Ends receiving, and returns when it has ended, well within a second. Does nothing if it is not running.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        let mut live = self.shared.live.lock();
        live.stop();
        match thread {
            Some(thread) => {
                drop(live);
                drop(thread);
            }
            None => self.wait_stopped(&mut live),
        }
    }

    /// Waits for a `run` on another thread.
    fn wait_stopped(&self, live: &mut MutexGuard<'_, Linked>) {
        let deadline = Instant::now() + Duration::from_millis(900);
        while live.link.is_some() && !self.shared.changed.wait_until(live, deadline).timed_out() {}
    }
}

impl Linked {
    /// Tells the thread, if there is one.
    fn command(&self, command: Command) {
        if let Some(link) = &self.link {
            // It fails only if the thread is just ending: a new one learns all from the bookkeeping.
            let _ = link.commands.send(command);
            link.wake.wake();
        }
    }

    /// The connection to this address was lost: unregisters every topic.
    fn clear(&mut self, address: &Name) {
        for topic in self.live.clear_topics(address) {
            // In its turn: what was registered before may still be on its way to the thread.
            self.command(Command::Unsubscribe(topic));
        }
    }

    fn stop(&mut self) {
        if let Some(link) = &mut self.link {
            link.stop = None;
            link.wake.wake();
        }
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
