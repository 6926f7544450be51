//! The receiving end of a network with faults.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::drivers::events::{AddressEvent, Events};
use crate::error::Result;
use crate::thread::deadline;
use crate::transport::{Inbound, Received};
use crate::update::Topic;

use super::faults::{Faults, Link};

pub(super) struct FaultyInbound {
    inner: Box<dyn Inbound>,
    faults: Arc<Faults>,
    /// The link, and how often it was cut, as this end has last seen it.
    link: Link,
    cuts: u64,
    connected: BTreeSet<Arc<str>>,
    /// Connections that came or went, to be reported.
    events: Events,
    is_woken: bool,
    /// What was held back: its address and parts, and whether it is an answer.
    held: VecDeque<(String, Vec<u8>, Vec<u8>, bool)>,
    /// Parts of the last result.
    address: String,
    topic: Vec<u8>,
    payload: Vec<u8>,
}

impl FaultyInbound {
    pub(super) fn new(inner: Box<dyn Inbound>, faults: Arc<Faults>) -> FaultyInbound {
        let cuts = faults.state.lock().cuts;
        FaultyInbound {
            inner,
            faults,
            link: Link::Up,
            cuts,
            connected: BTreeSet::new(),
            events: Events::default(),
            is_woken: false,
            held: VecDeque::new(),
            address: String::new(),
            topic: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Takes note of a link that was cut or mended since the last look, or both.
    fn look(&mut self) {
        let (link, cuts) = {
            let state = self.faults.state.lock();
            (state.link, state.cuts)
        };
        let before = std::mem::replace(&mut self.link, link);
        let is_cut = std::mem::replace(&mut self.cuts, cuts) != cuts;
        let is_mended = link != Link::Cut && (is_cut || before == Link::Cut);
        for address in &self.connected {
            if is_cut && before != Link::Cut {
                self.events.push(address, AddressEvent::Disconnected(0));
            }
            if is_mended {
                self.events.push(address, AddressEvent::Connected);
            }
        }
        if is_cut || link.loses() {
            self.held.clear();
        }
    }

    fn received(&self, is_answer: bool) -> Received<'_> {
        let (address, topic, payload) = (&*self.address, &*self.topic, &*self.payload);
        match is_answer {
            false => Received::Frame {
                address,
                topic,
                payload,
            },
            true => Received::Answer {
                address,
                probe: topic,
                hello: payload,
            },
        }
    }
}

impl Inbound for FaultyInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        self.inner.connect(address)
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.connected.remove(address);
        self.events.forget(address);
        self.inner.disconnect(address)
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.inner.subscribe(topic)
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.inner.unsubscribe(topic)
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        self.look();
        match self.link {
            Link::Up | Link::Held => self.inner.probe(address, probe),
            Link::Stalled | Link::Cut => Ok(()),
        }
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        let until = timeout.map(deadline);
        loop {
            self.look();
            if !self.events.is_empty() {
                return self.events.pop();
            }
            if std::mem::take(&mut self.is_woken) {
                return Ok(Received::Woken);
            }
            if self.link == Link::Up
                && let Some((address, topic, payload, is_answer)) = self.held.pop_front()
            {
                (self.address, self.topic, self.payload) = (address, topic, payload);
                return Ok(self.received(is_answer));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let (address, first, second, is_answer) = match self.inner.recv(left)? {
                Received::Idle => return Ok(Received::Idle),
                Received::Woken => {
                    self.is_woken = true;
                    continue;
                }
                Received::Connected { address } => {
                    let address = Arc::from(address);
                    if self.link != Link::Cut {
                        self.events.push(&address, AddressEvent::Connected);
                    }
                    self.connected.insert(address);
                    continue;
                }
                Received::Frame {
                    address,
                    topic,
                    payload,
                } => (address, topic, payload, false),
                Received::Answer { address, probe, hello } => (address, probe, hello, true),
                Received::Disconnected { .. } | Received::Malformed => continue,
            };
            match self.link {
                Link::Up => {}
                Link::Held => {
                    let held = (address.to_owned(), first.to_vec(), second.to_vec(), is_answer);
                    self.held.push_back(held);
                    continue;
                }
                Link::Stalled | Link::Cut => continue,
            }
            address.clone_into(&mut self.address);
            first.clone_into(&mut self.topic);
            second.clone_into(&mut self.payload);
            return Ok(self.received(is_answer));
        }
    }
}
