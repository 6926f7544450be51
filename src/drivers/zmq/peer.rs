//! One address of the receiving end: its connection, its subscriptions, and its messages.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::drivers::events::{AddressEvent, Events};
use crate::error::Result;
use crate::transport::Wake;
use crate::update::Topic;

use super::calls::{patiently, zmq_error};
use super::connection::{Connection, News};
use super::endpoint::{Endpoint, Role};
use super::filter::{subscribe, unsubscribe};
use super::line::{Kind, Line};
use super::settings::Settings;

pub(super) struct Peer {
    pub(super) address: Arc<str>,
    kind: Kind,
    /// The most messages that its socket holds.
    receive_hwm: i32,
    connection: Connection,
    /// The present socket can take subscriptions, and has taken all.
    is_ready: bool,
    /// Number of connections that speak ZeroMQ; more than one only for a bound socket.
    connections: usize,
    /// For a bound socket: the descriptors of connections that have answered a probe, which are surely publishers'.
    known: HashSet<u32>,
    /// Connections closed since the socket was last read until it was empty: input that still comes from one of them
    /// says nothing about the next connection with that number.
    closed: HashSet<u32>,
    probe: Option<Topic>,
    /// The connection is lost and its earlier messages are still being read; nothing is begun before that ends.
    pub(super) is_draining: bool,
}

/// Outcome of a read from a peer.
pub(super) enum Read {
    Message,
    Answer(Topic),
    /// The answer to a probe that was replaced by a newer one.
    Stale,
    Malformed,
}

pub(super) const SUB: Kind = Kind {
    socket: zmq::SUB,
    role: Role::Connect,
    sends: false,
    counts: true,
    is_gated: false,
    // Subscriptions go through the send queue, above whose limit libzmq drops them silently.
    prepare: |socket| socket.set_sndhwm(0),
};

pub(super) const PULL: Kind = Kind {
    socket: zmq::PULL,
    role: Role::Bind,
    sends: false,
    counts: false,
    is_gated: true,
    prepare: |_| Ok(()),
};

impl Peer {
    pub(super) fn open(address: &str, kind: Kind, options: &Settings, wake: Arc<dyn Wake>) -> Result<Peer> {
        Ok(Peer {
            connection: Connection::open(Endpoint::parse(address)?, kind, options, wake)?,
            address: address.into(),
            kind,
            receive_hwm: options.receive_hwm,
            is_ready: false,
            connections: 0,
            known: HashSet::new(),
            closed: HashSet::new(),
            probe: None,
            is_draining: false,
        })
    }

    pub(super) fn line(&self) -> Option<&Line> {
        self.connection.line()
    }

    /// The next time at which [`Peer::look`] has something to do, even without input.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.connection.deadline().filter(|_| !self.is_draining)
    }

    /// Notes changes of connections, and does what is due.
    pub(super) fn look(&mut self, topics: &BTreeSet<Topic>, now: Instant, events: &mut Events) {
        self.take_news(topics, now, events);
        if !self.is_draining && self.connection.is_due(now) && !self.has_unread() {
            if let Some(e) = self.connection.tend(now) {
                events.push(&self.address, AddressEvent::Failed(e));
            }
            // libzmq signals only to a reader that has read until nothing was left.
            self.take_news(topics, now, events);
        }
        if self.connection.is_standing() && !self.is_ready {
            self.make_ready(topics, events);
            if !self.is_counted() && !self.is_multicast() {
                events.push(&self.address, AddressEvent::Connected);
            }
        }
    }

    /// True if a line that is about to be replaced has unread messages: libzmq reports the end of a connection before
    /// it hands over the last messages.
    fn has_unread(&self) -> bool {
        let line = self.connection.line().filter(|_| self.connection.is_resting());
        let events = line.map(|line| patiently(|| line.socket().get_events()));
        matches!(events, Some(Ok(events)) if events.contains(zmq::POLLIN))
    }

    fn is_multicast(&self) -> bool {
        self.connection.endpoint().is_multicast()
    }

    /// Called for a message without a greeting: this peer sends none.
    pub(super) fn hear(&mut self, topics: &BTreeSet<Topic>, events: &mut Events) {
        let now = Instant::now();
        self.take_news(topics, now, events);
        if self.connection.heard(now) {
            self.connections = 1;
            events.push(&self.address, AddressEvent::Connected);
        }
    }

    #[inline]
    pub(super) fn is_unheard(&self) -> bool {
        self.connection.is_unheard()
    }

    fn take_news(&mut self, topics: &BTreeSet<Topic>, now: Instant, events: &mut Events) {
        while let Some(news) = self.connection.news(now) {
            match news {
                News::Opened(_) if self.connection.connects() => self.make_ready(topics, events),
                News::Opened(_) => {}
                News::Greeted if self.is_counted() => {
                    self.connections += 1;
                    events.push(&self.address, AddressEvent::Connected);
                }
                News::Closed(fd, greeted) if self.is_counted() && self.was_last(fd, greeted) => {
                    self.is_draining = true;
                    events.push(&self.address, AddressEvent::Disconnected(self.receive_hwm));
                }
                News::Greeted | News::Closed(..) => {}
            }
        }
    }

    /// True if connections of the peer are reported, rather than its presence.
    fn is_counted(&self) -> bool {
        let endpoint = self.connection.endpoint();
        !endpoint.is_silent() && (self.kind.counts || self.connection.connects())
    }

    /// Notes that a connection was closed. Returns true if it was the last one that speaks ZeroMQ.
    fn was_last(&mut self, fd: u32, greeted: bool) -> bool {
        if self.connection.connects() {
            (self.is_ready, self.probe) = (false, None);
            return std::mem::take(&mut self.connections) > 0;
        }
        self.closed.insert(fd);
        let is_known = self.known.remove(&fd);
        if !is_known && (!greeted || self.connections <= self.known.len()) {
            return false;
        }
        let was_last = self.connections == 1;
        self.connections = self.connections.saturating_sub(1);
        was_last
    }

    /// Subscribes the present socket to all topics, and then to the probe.
    fn make_ready(&mut self, topics: &BTreeSet<Topic>, events: &mut Events) {
        self.is_ready = true;
        let socket = self.connection.line().map(Line::socket);
        let Some(socket) = socket.filter(|_| self.kind.socket == zmq::SUB) else {
            return;
        };
        // Over a multicast hellos are the answers.
        let answers = match self.is_multicast() {
            true => Some(Topic::hello()),
            false => self.probe.clone(),
        };
        // The library's own topics are last in this order, and are subscribed first: they show the publisher that this
        // end is tablecast's.
        let mut all = topics.iter().rev().chain(&answers);
        if let Err(e) = all.try_for_each(|topic| subscribe(socket, topic)) {
            events.push(&self.address, AddressEvent::Failed(e));
        }
    }

    /// The socket, if subscriptions are to be made on it at once.
    fn subscribed(&self) -> Option<&zmq::Socket> {
        let is_subscribed = self.is_ready && self.kind.socket == zmq::SUB;
        self.connection.line().map(Line::socket).filter(|_| is_subscribed)
    }

    pub(super) fn subscribe(&self, topic: &Topic) -> Result<()> {
        self.subscribed().map_or(Ok(()), |socket| subscribe(socket, topic))
    }

    pub(super) fn unsubscribe(&self, topic: &Topic) -> Result<()> {
        self.subscribed().map_or(Ok(()), |socket| unsubscribe(socket, topic))
    }

    /// Asks for the proof that all topics are in force; without a connection, on the next one.
    pub(super) fn probe(&mut self, probe: &Topic) -> Result<()> {
        let old = self.probe.replace(probe.clone());
        let Some(socket) = self.subscribed().filter(|_| !self.is_multicast()) else {
            return Ok(());
        };
        // The subscriptions go to an accepted connection when the socket next processes its commands. This call does
        // that, so that the probe goes behind all of them.
        let processed = patiently(|| socket.get_events());
        processed.map_err(|e| zmq_error(e, format!("cannot probe {}", self.address)))?;
        subscribe(socket, probe)?;
        old.map_or(Ok(()), |old| unsubscribe(socket, &old))
    }

    pub(super) fn read(&mut self, topic: &mut zmq::Message, payload: &mut zmq::Message) -> zmq::Result<Option<Read>> {
        let Some(socket) = self.connection.line().map(Line::socket) else {
            return Ok(None);
        };
        match patiently(|| socket.recv(topic, zmq::DONTWAIT)) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => {
                self.closed.clear();
                return Ok(None);
            }
            Err(e) => return Err(e),
        }
        if !topic.get_more() {
            return Ok(Some(Read::Malformed));
        }
        patiently(|| socket.recv(payload, 0))?;
        if payload.get_more() {
            while socket.get_rcvmore()? {
                patiently(|| socket.recv(payload, 0))?;
            }
            return Ok(Some(Read::Malformed));
        }
        if !Topic::is_probe(topic) {
            // This end filters a multicast itself, so what it has subscribed is in force, and a hello proves the rest:
            // the way from the publisher.
            let is_answer =
                self.probe.is_some() && self.is_multicast() && **topic == *Topic::hello().as_str().as_bytes();
            return Ok(Some(match self.probe.take_if(|_| is_answer) {
                Some(probe) => Read::Answer(probe),
                None => Read::Message,
            }));
        }
        let fd = topic.gets("__fd").and_then(|fd| fd.parse::<u32>().ok());
        self.known.extend(fd.filter(|fd| !self.closed.contains(fd)));
        let Some(probe) = self.probe.take_if(|probe| probe.as_str().as_bytes() == &**topic) else {
            return Ok(Some(Read::Stale));
        };
        socket.set_unsubscribe(topic)?;
        Ok(Some(Read::Answer(probe)))
    }
}
