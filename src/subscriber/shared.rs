//! State of a subscriber's handle and its thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::transport::Wake;
use crate::update::{Name, Topic};

use super::options::Counts;
use super::own::Own;
use super::session::{Command, Memory};
use super::status::{AddressState, TopicStatus};

pub(super) struct Shared {
    /// Not locked for frames.
    pub(super) state: Mutex<State>,
    /// Signalled when the thread has changed the state.
    pub(super) changed: Condvar,
    pub(super) counts: Counts,
    pub(super) own: Own,
}

/// The registrations, the thread's last report on them, and the channels to the thread while it runs.
#[derive(Default)]
pub(super) struct State {
    /// Each topic with the generation it was registered in.
    topics: BTreeMap<Topic, u64>,
    generation: u64,
    /// Each address with a number that identifies its registration.
    addresses: BTreeMap<Name, u64>,
    /// The addresses that the program has not registered itself.
    pub(super) followed: BTreeSet<Name>,
    registrations: u64,
    /// The thread's state of addresses.
    seen: BTreeMap<Name, Seen>,
    channels: Option<Channels>,
    /// The subscriber was stopped, and not started again.
    stopped: bool,
    report: Report,
    /// State from earlier runs of the thread, while there is none.
    memory: Memory,
}

/// The thread's state of an address.
struct Seen {
    registration: u64,
    state: AddressState,
    /// Topics up to this generation are in force there.
    generation: u64,
}

/// The channels to the thread.
pub(super) struct Channels {
    pub(super) commands: Sender<Message>,
    /// Dropped to stop the thread; `None` once that was done.
    pub(super) stop: Option<Sender<()>>,
    pub(super) wake: Arc<dyn Wake>,
}

/// Message to the thread.
pub(super) enum Message {
    Command(Command),
    /// A caller waits for the state of the topics, with this number.
    Report(u64),
}

/// The state of each topic, made on request.
#[derive(Default)]
struct Report {
    asked: u64,
    made: u64,
    topics: Vec<TopicStatus>,
}

/// How long to wait for the thread's report on the topics; it may be waiting for room in the queue.
const PATIENCE: Duration = Duration::from_millis(500);

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            counts: Counts::default(),
            own: Own::default(),
        }
    }

    /// The state of every address and topic; of topics the last known state if the thread does not answer in time.
    pub(super) fn status(&self) -> (Vec<(Name, AddressState)>, Vec<TopicStatus>) {
        let mut state = self.state.lock();
        if state.is_running() {
            state.report.asked += 1;
            let asked = state.report.asked;
            state.send(Message::Report(asked));
            let deadline = Instant::now() + PATIENCE;
            while state.is_running()
                && state.report.made < asked
                && !self.changed.wait_until(&mut state, deadline).timed_out()
            {}
        }
        (state.addresses().collect(), state.report.topics.clone())
    }
}

impl State {
    pub(super) fn is_running(&self) -> bool {
        self.channels.is_some()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a topic. Returns true if it is new.
    pub(super) fn add_topic(&mut self, topic: &Topic) -> bool {
        if self.topics.contains_key(topic) {
            return false;
        }
        self.generation += 1;
        self.topics.insert(topic.clone(), self.generation);
        self.command(Command::Subscribe(topic.clone(), self.generation));
        true
    }

    /// Removes a topic. Returns true if it was registered.
    pub(super) fn remove_topic(&mut self, topic: &Topic) -> bool {
        // A cleared topic has to be forgotten too.
        match self.is_running() {
            true => self.command(Command::Unsubscribe(topic.clone())),
            false => self.memory.unregistered(topic),
        }
        self.topics.remove(topic).is_some()
    }

    /// Handles topics that the thread has cleared. A topic that was registered anew meanwhile stays; the library's own
    /// topics are registered again.
    pub(super) fn clear_topics(&mut self, cleared: &BTreeMap<Topic, u64>, own: &Own) {
        for (topic, generation) in cleared {
            if self.topics.get(topic) != Some(generation) {
                continue;
            }
            self.topics.remove(topic);
            // For the library's parts alone: the program's registration was cleared.
            if own.claim(topic, true).is_some() {
                self.add_topic(topic);
            }
        }
    }

    /// Adds an address. Returns true if it is new.
    pub(super) fn add_address(&mut self, address: Name) -> bool {
        if self.addresses.contains_key(&address) {
            return false;
        }
        self.registrations += 1;
        self.addresses.insert(address.clone(), self.registrations);
        self.command(Command::Connect(address, self.registrations));
        true
    }

    /// Removes an address and sends the command made from it. Returns true if it was registered.
    pub(super) fn remove_address(&mut self, address: &str, command: impl FnOnce(Name) -> Command) -> bool {
        let removed = self.addresses.remove_entry(address);
        let found = removed.is_some();
        if let Some((address, _)) = removed {
            self.command(command(address));
        }
        found
    }

    /// Called when the thread starts: sends it all registrations. Returns the generation of the topics, and the state
    /// from earlier runs.
    pub(super) fn begin(&mut self, channels: Channels) -> (u64, Memory) {
        self.channels = Some(channels);
        self.stopped = false;
        for (topic, generation) in &self.topics {
            self.command(Command::Subscribe(topic.clone(), *generation));
        }
        for (address, registration) in &self.addresses {
            self.command(Command::Connect(address.clone(), *registration));
        }
        (self.generation, std::mem::take(&mut self.memory))
    }

    /// Called when the thread has ended.
    pub(super) fn end(&mut self, memory: Memory) {
        self.memory = memory;
        self.channels = None;
        self.stopped = true;
        self.seen.clear();
        self.report.topics.clear();
    }

    pub(super) fn stop(&mut self) {
        if let Some(channels) = &mut self.channels {
            channels.stop = None;
            channels.wake.wake();
        }
    }

    /// Stores the thread's state of the addresses.
    pub(super) fn see<'a>(&mut self, addresses: impl Iterator<Item = (&'a Name, u64, AddressState, u64)>) {
        let seen = addresses.map(|(address, registration, state, generation)| {
            let seen = Seen {
                registration,
                state,
                generation,
            };
            (address.clone(), seen)
        });
        self.seen = seen.collect();
    }

    /// Stores the thread's state of the topics for callers up to number `asked`. Later callers need a later report,
    /// since this one may lack their last changes.
    pub(super) fn report(&mut self, asked: u64, topics: Vec<TopicStatus>) {
        self.report.made = asked;
        self.report.topics = topics;
    }

    /// The addresses that are not live, in readable form; `None` if all are live.
    pub(super) fn missing(&self) -> Option<String> {
        if self.addresses.is_empty() {
            return Some("no listen address is registered".into());
        }
        let mut missing = String::new();
        for (address, state) in self.addresses() {
            if state != AddressState::Live {
                let separator = if missing.is_empty() { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = write!(missing, "{separator}{address} ({state})");
            }
        }
        (!missing.is_empty()).then_some(missing)
    }

    /// The number of registered topics, the library's own included.
    #[cfg(feature = "metrics")]
    pub(super) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The state of each address: live only if all current topics are in force there.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (Name, AddressState)> {
        self.addresses.iter().map(|(address, registration)| {
            let seen = self.seen.get(address).filter(|seen| seen.registration == *registration);
            let state = match seen {
                None => AddressState::Connecting,
                Some(seen) if seen.state == AddressState::Live && seen.generation < self.generation => {
                    AddressState::Unconfirmed
                }
                Some(seen) => seen.state,
            };
            (address.clone(), state)
        })
    }

    fn command(&self, command: Command) {
        self.send(Message::Command(command));
    }

    fn send(&self, message: Message) {
        if let Some(channels) = &self.channels {
            // Fails only if the thread has ended; the next one gets all registrations.
            let _ = channels.commands.send(message);
            channels.wake.wake();
        }
    }
}
