//! The in-process driver: a broker in memory, for the threads of one program.
//!
//! It is a driver like any other, not a mock: it has addresses, topics and bounds. A subscriber may connect before
//! there is a publisher, and any number of publishers may share an address.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::config::JoinFrames;
use crate::drivers::events::{AddressEvent, Events};
use crate::error::{Error, ErrorKind, Result};
use crate::thread::deadline;
use crate::transport::{Driver, Inbound, Outbound, Received, Wake};
use crate::update::Topic;

/// The in-process driver; its alias is `memory`.
///
/// An address is any text, for example `memory://network`. Only ends of the same `MemoryDriver` (or a clone) reach each
/// other.
#[derive(Debug, Clone)]
pub struct MemoryDriver {
    world: Arc<World>,
    publish: Arc<str>,
    capacity: usize,
    join_frames: JoinFrames,
}

/// The mailboxes of all receiving ends.
#[derive(Debug, Default)]
struct World {
    /// Locked while sending, not while waiting. Room that was found stays, since receivers only free more of it, and
    /// nothing goes past an end that was made meanwhile.
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
}

/// The input of one receiving end.
#[derive(Debug)]
struct Mailbox {
    state: Mutex<State>,
    /// Signalled when there is something to read.
    filled: Condvar,
    /// Signalled when there is room again.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    addresses: BTreeSet<Arc<str>>,
    topics: BTreeSet<Topic>,
    incoming: VecDeque<Incoming>,
    /// Number of frames in `incoming`.
    frames: usize,
    woken: bool,
    closed: bool,
}

/// The publisher's address, the topic, the payload.
type Frame = (Arc<str>, Arc<[u8]>, Arc<[u8]>);

/// Input, kept in order: an answer says that everything before it has come.
#[derive(Debug)]
enum Incoming {
    Frame(Frame),
    Answer(Arc<str>, Topic),
}

impl Incoming {
    fn address(&self) -> &str {
        match self {
            Incoming::Frame((address, ..)) | Incoming::Answer(address, _) => address,
        }
    }
}

/// The default of [`MemoryDriver::capacity`].
const CAPACITY: usize = 65_536;

impl MemoryDriver {
    /// Creates a driver with a broker of its own, whose publishers use this address.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the address is empty.
    pub fn new(publish: &str) -> Result<MemoryDriver> {
        check(publish)?;
        Ok(MemoryDriver::named(publish))
    }

    pub(crate) fn named(publish: &str) -> MemoryDriver {
        MemoryDriver {
            world: Arc::default(),
            publish: publish.into(),
            capacity: CAPACITY,
            join_frames: JoinFrames::default(),
        }
    }

    /// Returns a driver with the broker that the whole process shares; the alias `memory` stands for it.
    ///
    /// # Errors
    /// As [`MemoryDriver::new`].
    pub fn shared(publish: &str) -> Result<MemoryDriver> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut driver = MemoryDriver::new(publish)?;
        let mut shared = SHARED.lock();
        match shared.upgrade() {
            Some(world) => driver.world = world,
            None => *shared = Arc::downgrade(&driver.world),
        }
        Ok(driver)
    }

    /// Sets the number of frames that a receiving end holds before senders wait. Default: 65,536.
    #[must_use]
    pub fn capacity(mut self, frames: usize) -> MemoryDriver {
        self.capacity = frames.max(1);
        self
    }

    /// Sets the policy for updates that are sent close together. Default: [`JoinFrames::Auto`], which joins.
    #[must_use]
    pub fn join_frames(mut self, joins: JoinFrames) -> MemoryDriver {
        self.join_frames = joins;
        self
    }
}

fn check(address: &str) -> Result<()> {
    match address.is_empty() {
        true => Err(Error::new(ErrorKind::InvalidInput, "an address must not be empty")),
        false => Ok(()),
    }
}

impl Driver for MemoryDriver {
    fn outbound(&self) -> Result<Box<dyn Outbound>> {
        Ok(Box::new(MemoryOutbound(self.clone())))
    }

    fn inbound(&self) -> Result<(Box<dyn Inbound>, Arc<dyn Wake>)> {
        let mailbox = Arc::new(Mailbox {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let mut mailboxes = self.world.mailboxes.lock();
        mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        mailboxes.push(Arc::downgrade(&mailbox));
        let inbound = MemoryInbound {
            mailbox: Arc::clone(&mailbox),
            _world: Arc::clone(&self.world),
            frame: (Arc::default(), Arc::default(), Arc::default()),
            events: Events::default(),
        };
        Ok((Box::new(inbound), Arc::new(MemoryWake(Arc::downgrade(&mailbox)))))
    }

    fn check_address(&self, address: &str) -> Result<()> {
        check(address)
    }
}

struct MemoryOutbound(MemoryDriver);

impl Outbound for MemoryOutbound {
    /// Waits for room in every mailbox that takes the frame; fails after `timeout` with nothing sent.
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let MemoryDriver {
            world,
            publish,
            capacity,
            ..
        } = &self.0;
        let deadline = deadline(timeout);
        let frame: Frame = (Arc::clone(publish), topic.into(), payload.into());
        let late = || {
            let context = format!("a subscriber of {publish} does not keep up");
            Error::new(ErrorKind::Timeout, context)
        };
        let wanted = |state: &State| {
            let name = std::str::from_utf8(topic);
            state.addresses.contains(publish) && name.is_ok_and(|name| state.topics.contains(name))
        };
        let is_full = |state: &State| wanted(state) && state.frames >= *capacity && !state.closed;
        loop {
            let mailboxes = world.mailboxes.lock();
            let receivers = || mailboxes.iter().filter_map(Weak::upgrade);
            let Some(full) = receivers().find(|mailbox| is_full(&mailbox.state.lock())) else {
                for mailbox in receivers() {
                    let mut state = mailbox.state.lock();
                    if wanted(&state) {
                        state.incoming.push_back(Incoming::Frame(frame.clone()));
                        state.frames += 1;
                        mailbox.filled.notify_one();
                    }
                }
                return Ok(());
            };
            // Other threads may send elsewhere meanwhile, and take the awaited room.
            drop(mailboxes);
            let mut state = full.state.lock();
            if is_full(&state) && full.emptied.wait_until(&mut state, deadline).timed_out() {
                return Err(late());
            }
        }
    }

    fn takes_joined(&self) -> bool {
        self.0.join_frames != JoinFrames::Never
    }

    fn address(&self) -> Option<String> {
        Some(self.0.publish.to_string())
    }
}

struct MemoryInbound {
    mailbox: Arc<Mailbox>,
    /// Keeps the broker alive, so that a later publisher reaches this end.
    _world: Arc<World>,
    frame: Frame,
    events: Events,
}

impl Inbound for MemoryInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        check(address)?;
        let address: Arc<str> = address.into();
        if self.mailbox.state.lock().addresses.insert(Arc::clone(&address)) {
            self.events.push(&address, AddressEvent::Connected);
        }
        Ok(())
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        let mut state = self.mailbox.state.lock();
        state.addresses.remove(address);
        // The rest is from an address that was given up.
        state.incoming.retain(|incoming| incoming.address() != address);
        let frames = state
            .incoming
            .iter()
            .filter(|incoming| matches!(incoming, Incoming::Frame(_)));
        state.frames = frames.count();
        self.events.forget(address);
        self.mailbox.emptied.notify_all();
        Ok(())
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.mailbox.state.lock().topics.insert(topic.clone());
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.mailbox.state.lock().topics.remove(topic);
        Ok(())
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        // A subscription is in force when the call returns, so there is nothing to wait for.
        let answer = Incoming::Answer(address.into(), probe.clone());
        self.mailbox.state.lock().incoming.push_back(answer);
        Ok(())
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        let deadline = timeout.map(deadline);
        let mut state = self.mailbox.state.lock();
        loop {
            if std::mem::take(&mut state.woken) {
                return Ok(Received::Woken);
            }
            if !self.events.is_empty() {
                return self.events.pop();
            }
            match state.incoming.pop_front() {
                Some(Incoming::Answer(address, probe)) => {
                    self.events.push(&address, AddressEvent::Confirmed(probe));
                    return self.events.pop();
                }
                Some(Incoming::Frame(frame)) => {
                    self.frame = frame;
                    state.frames -= 1;
                    self.mailbox.emptied.notify_all();
                    let (address, topic, payload) = &self.frame;
                    return Ok(Received::Frame {
                        address,
                        topic,
                        payload,
                    });
                }
                None => {}
            }
            let timed_out = match deadline {
                Some(deadline) => self.mailbox.filled.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.mailbox.filled.wait(&mut state);
                    false
                }
            };
            if timed_out {
                return Ok(Received::Idle);
            }
        }
    }
}

impl Drop for MemoryInbound {
    fn drop(&mut self) {
        self.mailbox.state.lock().closed = true;
        self.mailbox.emptied.notify_all();
    }
}

struct MemoryWake(Weak<Mailbox>);

impl Wake for MemoryWake {
    fn wake(&self) {
        if let Some(mailbox) = self.0.upgrade() {
            mailbox.state.lock().woken = true;
            mailbox.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
