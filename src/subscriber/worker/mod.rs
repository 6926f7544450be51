//! The subscriber's thread: the one place where frames become updates in the queue.

mod upkeep;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use hashbrown::HashSet;

use crate::codec::{Control, Decoder, GOODBYE, HELLO, Hello, Message};
use crate::error::{Error, report};
use crate::queue::QueueSender;
use crate::transport::{Inbound, Received};
use crate::update::{DbUpdate, Name, SyncReason, Topic};

use super::continuity::{Continuity, Sender};
use super::live::Departed;
use super::{Shared, SubscriberOptions, SubscriberStats};

/// What other threads tell the subscriber's thread.
pub(super) enum Command {
    Subscribe(Topic, u64),
    Unsubscribe(Topic),
    Connect(Name),
    Disconnect(Name),
    /// The program is told that this address is lost for good, unless who was there has said goodbye.
    GivenUp(Name, Departed),
}

pub(super) struct Worker {
    inbound: Box<dyn Inbound>,
    state: State,
}

/// Everything but the receiving end, which lends out what it received.
struct State {
    commands: Receiver<Command>,
    /// Disconnected when the subscriber is to stop.
    stop: Receiver<()>,
    shared: Arc<Shared>,
    queue: QueueSender,
    options: SubscriberOptions,
    topics: HashSet<Topic>,
    /// The generation of the newest topic.
    latest: u64,
    /// Topics that the receiving end refused, with their generations; asked for again from time to time.
    refused: HashMap<Topic, u64>,
    refused_until: Option<Instant>,
    id: u64,
    probes: u64,
    /// Addresses that are to be connected again.
    retries: HashMap<Name, Retry>,
    /// The next time that something is to be done without being asked.
    deadline: Option<Instant>,
    decoder: Decoder,
    messages: Vec<Message>,
    batch: Vec<DbUpdate>,
    /// Frames since the last flush, and when the first of them came.
    unflushed: usize,
    now: Instant,
    /// Everything that had come by then was seen.
    drained: Instant,
    stats: SubscriberStats,
}

/// So many decoded messages keep their place in memory.
const MAX_KEPT: usize = 1024;

struct Retry {
    at: Instant,
    wait: Duration,
}

/// After so many frames what they brought goes into the queue, even if more are there.
const BATCH: usize = 64;

impl Worker {
    pub(super) fn new(
        inbound: Box<dyn Inbound>,
        commands: Receiver<Command>,
        stop: Receiver<()>,
        shared: Arc<Shared>,
        queue: QueueSender,
        options: SubscriberOptions,
    ) -> Worker {
        let stats = *shared.stats.lock();
        Worker {
            inbound,
            state: State {
                commands,
                stop,
                shared,
                queue,
                decoder: Decoder::new(),
                options,
                topics: HashSet::new(),
                latest: 0,
                refused: HashMap::new(),
                refused_until: None,
                id: RandomState::new().hash_one(0),
                probes: 0,
                retries: HashMap::new(),
                deadline: None,
                messages: Vec::new(),
                batch: Vec::with_capacity(BATCH),
                unflushed: 0,
                now: Instant::now(),
                drained: Instant::now(),
                stats,
            },
        }
    }

    /// Receives until told to stop.
    pub(super) fn run(mut self) {
        let (inbound, state) = (&mut *self.inbound, &mut self.state);
        state.begin(inbound);
        loop {
            let timeout = match state.unflushed == 0 {
                true => state.deadline.map(|at| at.saturating_duration_since(Instant::now())),
                false => Some(Duration::ZERO),
            };
            match inbound.recv(timeout) {
                Ok(Received::Frame {
                    address,
                    topic,
                    payload,
                }) => {
                    state.on_frame(address, topic, payload);
                    if state.unflushed < BATCH {
                        continue;
                    }
                }
                Ok(Received::Malformed) => state.stats.malformed += 1,
                Ok(Received::Connected { address }) => {
                    let address = Name::from(address);
                    state.shared.live.lock().connected(&address);
                    state.settle();
                    state.retries.remove(&address);
                    state.probe(inbound, &address, state.options.live_timeout);
                }
                Ok(Received::Disconnected { address }) => {
                    let address = Name::from(address);
                    state.on_disconnected(inbound, &address);
                }
                Ok(Received::Answer { address, probe, hello }) => {
                    // In this order: the program is to have all that came before it is told to read the store.
                    let owner = state.on_hello(address, hello);
                    let ask_at = Instant::now() + state.options.hello_interval.mul_f64(upkeep::ASK);
                    let reason = state.shared.live.lock().answered(address, probe, owner, ask_at);
                    state.look_ahead();
                    state.settle();
                    state.flush();
                    state.tell(reason);
                    state.tell_cleared();
                    state.ask(inbound);
                }
                Ok(Received::Woken) => {
                    if state.stop.try_recv() == Err(TryRecvError::Disconnected) {
                        return state.flush();
                    }
                    state.on_commands(inbound);
                }
                Ok(Received::Idle) => {
                    state.drained = Instant::now();
                    if let Some(continuity) = &mut *state.shared.continuity.lock() {
                        continuity.drained(state.drained);
                    }
                }
                Err(e) => {
                    state.report(&e);
                    // What fails is tried again after a while; stop ends the while.
                    let wait = state.options.retry_interval;
                    if state.stop.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                }
            }
            state.flush();
            state.on_time(inbound);
        }
    }
}

impl State {
    fn begin(&mut self, inbound: &mut dyn Inbound) {
        if self.options.continuity {
            *self.shared.continuity.lock() = Some(Continuity::new(Instant::now()));
            if let Err(e) = inbound.subscribe(&Topic::hello()) {
                self.report(&e);
            }
        }
        self.on_commands(inbound);
    }

    /// The path of every message: nothing here may cost more than it must.
    fn on_frame(&mut self, address: &str, topic: &[u8], payload: &[u8]) {
        if self.unflushed == 0 {
            self.now = Instant::now();
        }
        self.unflushed += 1;
        self.stats.received += 1;
        let known = std::str::from_utf8(topic).ok().and_then(|topic| self.topics.get(topic));
        let Some(topic) = known else {
            if topic == Topic::hello().as_str().as_bytes() && self.options.continuity {
                self.on_hello(address, payload);
            } else {
                self.stats.filtered += 1;
            }
            return;
        };
        if payload.len() > self.options.max_message_bytes
            || self.decoder.decode(topic, payload, &mut self.messages).is_err()
        {
            self.stats.malformed += 1;
            return;
        }
        let mut requested = false;
        let mut continuity = self.shared.continuity.lock();
        for message in self.messages.drain(..) {
            match (message, &mut *continuity) {
                (Message::Update(update), Some(known)) => known.update(address, update, self.now, &mut self.batch),
                (Message::Update(update), None) => self.batch.push(update),
                (Message::Control(control), _) => requested |= control.action == "sync",
            }
        }
        drop(continuity);
        // What a message with very many parts took is given back.
        self.messages.shrink_to(MAX_KEPT);
        if requested {
            self.tell(Some(SyncReason::Requested));
        }
    }

    /// A publisher tells of itself; returns its id.
    fn on_hello(&mut self, address: &str, payload: &[u8]) -> Option<Name> {
        let decoded = self.decoder.decode(&Topic::hello(), payload, &mut self.messages);
        let message = self.messages.pop().filter(|_| decoded.is_ok());
        self.messages.clear();
        let Some(Message::Control(Control {
            action,
            value,
            publisher: Some(publisher),
            epoch: Some(epoch),
        })) = message
        else {
            // A transport that confirms by itself has no hello.
            self.stats.malformed += u64::from(!payload.is_empty());
            return None;
        };
        let last = action == GOODBYE;
        match Hello::parse(value.as_deref()) {
            Ok(hello) if last || action == HELLO => {
                if let Some(continuity) = &mut *self.shared.continuity.lock() {
                    let from = Sender {
                        address,
                        publisher: &publisher,
                        epoch,
                    };
                    continuity.hello(&from, &hello, last, Instant::now());
                }
            }
            _ => self.stats.malformed += 1,
        }
        Some(publisher)
    }

    /// Hands on what was decoded. An error means that the subscriber or the dispatcher is stopping.
    fn flush(&mut self) {
        self.unflushed = 0;
        self.stats.decoded += self.batch.len() as u64;
        if let Some(continuity) = &*self.shared.continuity.lock() {
            self.deadline = self.deadline.into_iter().chain(continuity.deadline()).min();
            self.stats.count(continuity.counters());
        }
        // Before a callback can look at them.
        *self.shared.stats.lock() = self.stats;
        if !self.batch.is_empty() && self.queue.push(&mut self.batch, &self.stop).is_err() {
            self.batch.clear();
        }
        if self.decoder.spares() < BATCH
            && let Some(values) = self.queue.spare_values()
        {
            self.decoder.reuse(values);
        }
    }

    /// Tells the program, and whoever waits for a change.
    fn tell(&mut self, reason: Option<SyncReason>) {
        if let Some(reason) = reason {
            log::info!("sync: {reason}");
            self.stats.syncs += 1;
            if let Some(continuity) = &mut *self.shared.continuity.lock()
                && reason.topics().is_none()
            {
                continuity.cover(Instant::now());
            }
            self.queue.sync(reason);
        }
        self.shared.changed.notify_all();
    }

    /// Tells what became of topics that were cleared.
    fn tell_cleared(&mut self) {
        let reasons = self.shared.live.lock().tell_cleared();
        for reason in reasons.into_iter().flatten() {
            self.tell(Some(reason));
        }
    }

    fn report(&mut self, error: &Error) {
        self.stats.errors += 1;
        report(error, self.options.hook.as_ref());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let mut live = self.shared.live.lock();
        live.reset();
        live.link = None;
        drop(live);
        *self.shared.continuity.lock() = None;
        *self.shared.stats.lock() = self.stats;
        self.shared.changed.notify_all();
    }
}
