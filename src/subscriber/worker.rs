//! The subscriber's thread: the one place where frames become updates in the queue.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::codec::{Decoder, Message};
use crate::error::{Error, report};
use crate::queue::QueueSender;
use crate::thread;
use crate::transport::{Inbound, Received};
use crate::update::{DbUpdate, Name, SyncReason, Topic};

use super::{Shared, SubscriberOptions, SubscriberStats};

/// What other threads tell the subscriber's thread.
pub(super) enum Command {
    Subscribe(Topic, u64),
    Unsubscribe(Topic),
    Connect(Name),
    Disconnect(Name),
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
    /// Frames since the last flush.
    unflushed: usize,
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
                stats,
            },
        }
    }

    /// Receives until told to stop.
    pub(super) fn run(mut self) {
        let (inbound, state) = (&mut *self.inbound, &mut self.state);
        state.on_commands(inbound);
        loop {
            let timeout = match state.unflushed == 0 {
                true => state.deadline.map(|at| at.saturating_duration_since(Instant::now())),
                false => Some(Duration::ZERO),
            };
            match inbound.recv(timeout) {
                Ok(Received::Frame { topic, payload }) => {
                    state.on_frame(topic, payload);
                    state.unflushed += 1;
                    if state.unflushed < BATCH {
                        continue;
                    }
                }
                Ok(Received::Malformed) => state.stats.malformed += 1,
                Ok(Received::Connected { address }) => {
                    let address = Name::from(address);
                    state.shared.live.lock().connected(&address);
                    state.retries.remove(&address);
                    state.probe(inbound, &address, state.options.live_timeout);
                }
                Ok(Received::Disconnected { address }) => state.on_disconnected(address),
                Ok(Received::Answer { address, probe, .. }) => {
                    let reason = state.shared.live.lock().answered(address, probe);
                    state.tell(reason);
                    state.ask(inbound);
                }
                Ok(Received::Woken) => {
                    if state.stop.try_recv() == Err(TryRecvError::Disconnected) {
                        return state.flush();
                    }
                    state.on_commands(inbound);
                }
                Ok(Received::Idle) => {}
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
    /// The path of every message: nothing here may cost more than it must.
    fn on_frame(&mut self, topic: &[u8], payload: &[u8]) {
        self.stats.received += 1;
        let topic = std::str::from_utf8(topic).ok().and_then(|topic| self.topics.get(topic));
        let Some(topic) = topic else {
            self.stats.filtered += 1;
            return;
        };
        if payload.len() > self.options.max_message_bytes
            || self.decoder.decode(topic, payload, &mut self.messages).is_err()
        {
            self.stats.malformed += 1;
            return;
        }
        for message in self.messages.drain(..) {
            match message {
                Message::Update(update) => {
                    self.stats.decoded += 1;
                    self.batch.push(update);
                }
                Message::Control(control) => {
                    if control.action == "sync" {
                        self.stats.syncs += 1;
                        self.queue.sync(SyncReason::Requested);
                    }
                }
            }
        }
        // What a message with very many parts took is given back.
        self.messages.shrink_to(MAX_KEPT);
    }

    /// Hands on what was decoded. An error means that the subscriber or the dispatcher is stopping.
    fn flush(&mut self) {
        if !self.batch.is_empty() && self.queue.push(&mut self.batch, &self.stop).is_err() {
            self.batch.clear();
        }
        self.unflushed = 0;
        *self.shared.stats.lock() = self.stats;
    }

    fn on_commands(&mut self, inbound: &mut dyn Inbound) {
        while let Ok(command) = self.commands.try_recv() {
            let done = match command {
                Command::Subscribe(topic, generation) => {
                    self.latest = generation;
                    self.topics.insert(topic.clone());
                    self.subscribe(inbound, topic, generation);
                    Ok(())
                }
                Command::Unsubscribe(topic) => {
                    self.topics.remove(&topic);
                    self.refused.remove(&topic);
                    inbound.unsubscribe(&topic)
                }
                Command::Connect(address) => {
                    self.connect(inbound, address, self.options.retry_interval);
                    Ok(())
                }
                Command::Disconnect(address) => {
                    self.retries.remove(&address);
                    inbound.disconnect(&address)
                }
            };
            if let Err(e) = done {
                self.report(&e);
            }
        }
        self.ask(inbound);
    }

    /// Probes who has not confirmed every topic.
    fn ask(&mut self, inbound: &mut dyn Inbound) {
        let unasked = self.shared.live.lock().unasked(self.generation());
        for address in unasked {
            self.probe(inbound, &address, self.options.live_timeout);
        }
        self.look_ahead();
    }

    fn connect(&mut self, inbound: &mut dyn Inbound, address: Name, wait: Duration) {
        if let Err(e) = inbound.connect(&address) {
            self.report(&e);
            let at = thread::deadline(wait);
            let wait = wait.saturating_mul(2).min(self.options.retry_max);
            self.retries.insert(address, Retry { at, wait });
        }
    }

    fn subscribe(&mut self, inbound: &mut dyn Inbound, topic: Topic, generation: u64) {
        if let Err(e) = inbound.subscribe(&topic) {
            self.report(&e);
            self.refused.insert(topic, generation);
            self.refused_until = Some(thread::deadline(self.options.retry_interval));
        }
    }

    /// The generation up to which the receiving end has been asked for every topic.
    fn generation(&self) -> u64 {
        let refused = self.refused.values().min();
        refused.map_or(self.latest, |generation| generation - 1)
    }

    fn probe(&mut self, inbound: &mut dyn Inbound, address: &Name, patience: Duration) {
        self.probes += 1;
        let probe = Topic::probe(self.id, self.probes);
        if let Err(e) = inbound.probe(address, &probe) {
            // Nothing will answer, so that it is asked again.
            self.report(&e);
        }
        let generation = self.generation();
        let mut live = self.shared.live.lock();
        live.probed(address, probe, generation, thread::deadline(patience), patience);
        drop(live);
        self.look_ahead();
    }

    fn on_disconnected(&mut self, address: &str) {
        let reason = self.shared.live.lock().disconnected(address);
        self.tell(reason);
        if self.shared.live.lock().has_address(address) {
            // A transport that reconnects by itself takes this as done.
            let wait = self.options.retry_interval;
            let at = thread::deadline(wait);
            self.retries.insert(address.into(), Retry { at, wait });
        }
        self.look_ahead();
    }

    /// Does what is due.
    fn on_time(&mut self, inbound: &mut dyn Inbound) {
        let Some(deadline) = self.deadline else { return };
        let now = Instant::now();
        if now < deadline {
            return;
        }
        let expired = self.shared.live.lock().expire(now);
        for (address, patience, reason) in expired {
            if reason.is_some() {
                log::warn!("{address} does not answer: a publisher without hellos? What it loses is not noticed");
            }
            self.tell(reason);
            self.probe(inbound, &address, patience);
        }
        let due: Vec<_> = self.retries.extract_if(|_, retry| retry.at <= now).collect();
        for (address, retry) in due {
            self.connect(inbound, address, retry.wait);
        }
        if self.refused_until.take_if(|at| *at <= now).is_some() {
            for (topic, generation) in std::mem::take(&mut self.refused) {
                self.subscribe(inbound, topic, generation);
            }
        }
        self.ask(inbound);
    }

    fn look_ahead(&mut self) {
        let probes = self.shared.live.lock().deadline();
        let retries = self.retries.values().map(|retry| retry.at);
        self.deadline = retries.chain(probes).chain(self.refused_until).min();
    }

    /// Tells the program, and whoever waits for a change.
    fn tell(&mut self, reason: Option<SyncReason>) {
        if let Some(reason) = reason {
            log::info!("sync: {reason}");
            self.stats.syncs += 1;
            self.queue.sync(reason);
        }
        self.shared.changed.notify_all();
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
        *self.shared.stats.lock() = self.stats;
        self.shared.changed.notify_all();
    }
}
