//! A stand-in for the queue: first in, first out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, ErrorKind, Result};
use crate::update::{DbUpdate, Event, Name, SyncReason};

/// Options.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Capacity.
    pub capacity: usize,
    /// Policy.
    pub overflow: Overflow,
    /// Ageing.
    pub max_overtake: Duration,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            capacity: 65536,
            overflow: Overflow::Coalesce,
            max_overtake: Duration::from_secs(1),
        }
    }
}

/// Policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Coalesce.
    Coalesce,
    /// Block.
    Block,
    /// Drop.
    DropAndSync,
}

/// Stats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// How many wait.
    pub depth: usize,
}

/// What travels in the channel.
#[derive(Debug)]
pub struct Delivery(Vec<Event>);

/// A queue.
pub fn bounded(_options: QueueOptions) -> (QueueSender, QueueReceiver) {
    let (sender, channel) = crossbeam_channel::unbounded();
    let depth = Arc::new(AtomicUsize::new(0));
    let receiver = QueueReceiver {
        channel,
        depth: Arc::clone(&depth),
        waiting: VecDeque::new(),
        held: HashSet::new(),
    };
    (QueueSender { sender, depth }, receiver)
}

/// The sending end.
#[derive(Debug, Clone)]
pub struct QueueSender {
    sender: Sender<Delivery>,
    depth: Arc<AtomicUsize>,
}

impl QueueSender {
    /// Takes the updates.
    ///
    /// # Errors
    /// Stopped.
    pub fn push(&self, updates: &mut Vec<DbUpdate>, _stop: &Receiver<()>) -> Result<()> {
        self.depth.fetch_add(updates.len(), Ordering::Relaxed);
        let delivery = Delivery(updates.drain(..).map(Event::Update).collect());
        let stopped = |_| Error::new(ErrorKind::Stopped, "the dispatcher is gone");
        self.sender.send(delivery).map_err(stopped)
    }

    /// Takes a sync.
    pub fn sync(&self, reason: SyncReason) {
        self.depth.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send(Delivery(vec![Event::Sync(reason)]));
    }

    /// Stats.
    pub fn stats(&self) -> QueueStats {
        QueueStats {
            depth: self.depth.load(Ordering::Relaxed),
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct QueueReceiver {
    channel: Receiver<Delivery>,
    depth: Arc<AtomicUsize>,
    waiting: VecDeque<Event>,
    held: HashSet<(Name, Name)>,
}

impl QueueReceiver {
    /// What to wait on.
    pub fn channel(&self) -> &Receiver<Delivery> {
        &self.channel
    }

    /// Takes in what [`QueueReceiver::channel`] gave.
    pub fn accept(&mut self, delivery: Delivery) {
        for event in delivery.0 {
            match event {
                Event::Sync(_) => self.waiting.push_front(event),
                Event::Update(_) => self.waiting.push_back(event),
            }
        }
    }

    /// The next.
    pub fn pop(&mut self, _now: Instant) -> Option<Event> {
        self.take_in();
        let event = self.waiting.pop_front()?;
        self.depth.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }

    /// The next whose key is not held.
    pub fn pop_held(&mut self, _now: Instant) -> Option<Event> {
        self.take_in();
        let held = &self.held;
        let at = self.waiting.iter().position(|event| match event {
            Event::Sync(_) => true,
            Event::Update(update) => !held.contains(&(update.table.clone(), update.key.clone())),
        })?;
        let event = self.waiting.remove(at)?;
        if let Event::Update(update) = &event {
            self.held.insert((update.table.clone(), update.key.clone()));
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }

    /// Ends holding a key.
    pub fn release(&mut self, table: &Name, key: &Name) {
        self.held.remove(&(table.clone(), key.clone()));
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.channel.is_empty()
    }

    fn take_in(&mut self) {
        while let Ok(delivery) = self.channel.try_recv() {
            self.accept(delivery);
        }
    }
}
