//! The receiving end: a SUB socket for each publisher, or a PULL socket for the processes of the host.
//!
//! One socket an address, so that connections, probes and their answers are known by address.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::drivers::wake::{self, Wakeable};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Inbound, Received, Wake};
use crate::update::Topic;

use super::endpoint::{Endpoint, PathLock, Role};
use super::filter::{subscribe, unsubscribe};
use super::monitor::{Change, Monitor};
use super::{Context, ZmqOptions, millis, zmq_error};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sub,
    Pull,
}

pub(super) struct ZmqInbound {
    kind: Kind,
    options: ZmqOptions,
    topics: BTreeSet<Topic>,
    peers: Vec<Peer>,
    /// The peer to be read next, and how many more messages it may hand out before it is another's turn.
    turn: usize,
    turn_left: u32,
    /// Every socket was read until it had nothing: only a signal says that there is more.
    drained: bool,
    /// Connection changes that wait to be handed out.
    changes: VecDeque<(Arc<str>, Happened)>,
    /// The peer of the last message.
    from: usize,
    /// What the last [`Received`] points into.
    topic: zmq::Message,
    payload: zmq::Message,
    told: Arc<str>,
    probe: Option<Topic>,
    wakeable: Wakeable,
    context: Arc<Context>,
}

struct Peer {
    address: Arc<str>,
    socket: zmq::Socket,
    monitor: Option<Monitor>,
    /// What to wait on: of the socket, and of the monitor.
    signals: [Option<RawFd>; 2],
    /// Connections that speak ZeroMQ; more than one only for a bound socket.
    connections: usize,
    /// The file descriptors of those that have answered a probe: surely a publisher's.
    known: HashSet<u32>,
    probe: Option<Topic>,
    _lock: Option<PathLock>,
}

enum Happened {
    Connected,
    /// So many messages may have come before: they go first.
    Disconnected(i32),
    Confirmed(Topic),
}

/// After how many messages another peer, and the monitors, get their turn.
const TURN: u32 = 64;

impl ZmqInbound {
    pub(super) fn open(kind: Kind, options: &ZmqOptions) -> Result<(ZmqInbound, Arc<dyn Wake>)> {
        let (wakeable, waker) = wake::pair()?;
        let inbound = ZmqInbound {
            kind,
            options: options.clone(),
            topics: BTreeSet::new(),
            peers: Vec::new(),
            turn: 0,
            turn_left: TURN,
            from: 0,
            drained: false,
            changes: VecDeque::new(),
            topic: zmq::Message::new(),
            payload: zmq::Message::new(),
            told: "".into(),
            probe: None,
            wakeable,
            context: Context::shared(),
        };
        Ok((inbound, waker))
    }

    fn open_peer(&self, address: &str) -> Result<Peer> {
        let endpoint = Endpoint::parse(address)?;
        let (kind, role) = match self.kind {
            Kind::Sub => (zmq::SUB, Role::Connect),
            Kind::Pull => (zmq::PULL, Role::Bind),
        };
        let socket = self.context.socket(kind, Duration::ZERO, &self.options)?;
        if self.kind == Kind::Sub {
            // Subscriptions go through the send queue: above its limit libzmq drops them silently.
            let unlimited = socket.set_sndhwm(0);
            unlimited.map_err(|e| zmq_error(e, format!("cannot set up {endpoint}")))?;
            for topic in &self.topics {
                subscribe(&socket, topic)?;
            }
        }
        let role = endpoint.role_or(role);
        let told = self.kind == Kind::Sub && !endpoint.is_silent();
        let monitor = if told {
            Some(Monitor::of(&socket, &self.context)?)
        } else {
            None
        };
        let lock = match role {
            Role::Bind => endpoint.bind(&socket)?.1,
            Role::Connect => {
                endpoint.connect(&socket)?;
                None
            }
        };
        let signal = |socket: &zmq::Socket| {
            let fd = socket.get_fd();
            fd.map_err(|e| zmq_error(e, format!("cannot wait for {endpoint}")))
        };
        let monitored = monitor.as_ref().map(|monitor| signal(&monitor.0)).transpose()?;
        Ok(Peer {
            signals: [Some(signal(&socket)?), monitored],
            address: address.into(),
            socket,
            monitor,
            connections: 0,
            known: HashSet::new(),
            probe: None,
            _lock: lock,
        })
    }

    fn find(&self, address: &str) -> Option<usize> {
        self.peers.iter().position(|peer| &*peer.address == address)
    }

    /// Reads the monitors, and queues what they tell.
    fn look_at_connections(&mut self) {
        for peer in &mut self.peers {
            let Some(monitor) = &peer.monitor else { continue };
            while let Some(change) = monitor.next() {
                let happened = match change {
                    Change::Opened(_) => continue,
                    Change::Greeted => {
                        peer.connections += 1;
                        Happened::Connected
                    }
                    Change::Closed(connection) => {
                        // A stranger's connection, whose handshake failed, ends with the same event.
                        if !peer.known.remove(&connection) && peer.connections <= peer.known.len() {
                            continue;
                        }
                        if peer.connections != 1 {
                            peer.connections = peer.connections.saturating_sub(1);
                            continue;
                        }
                        peer.connections = 0;
                        Happened::Disconnected(self.options.receive_hwm)
                    }
                };
                self.changes.push_back((Arc::clone(&peer.address), happened));
            }
        }
    }

    /// The peer whose connection was lost, if what came from it before is still to be read.
    fn lost(&mut self) -> Option<usize> {
        let Some((address, Happened::Disconnected(left @ 1..))) = self.changes.front_mut() else {
            return None;
        };
        *left -= 1;
        let address = Arc::clone(address);
        self.find(&address)
    }

    fn read_lost(&mut self, index: usize) -> Result<Option<Read>> {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(None);
        };
        let read = peer.read(&mut self.topic, &mut self.payload);
        let read = read.map_err(|e| zmq_error(e, format!("cannot receive from {}", peer.address)))?;
        self.from = index;
        if let (None, Some((_, Happened::Disconnected(left)))) = (&read, self.changes.front_mut()) {
            *left = 0;
        }
        Ok(read)
    }

    /// Reads one message, beginning with the peer whose turn it is.
    fn read(&mut self) -> Result<Option<Read>> {
        if self.turn_left == 0 {
            self.turn += 1;
            self.turn_left = TURN;
            self.look_at_connections();
        }
        for step in 0..self.peers.len() {
            let index = (self.turn + step) % self.peers.len();
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            match peer.read(&mut self.topic, &mut self.payload) {
                Ok(Some(read)) => {
                    if step != 0 {
                        (self.turn, self.turn_left) = (index, TURN);
                    }
                    self.turn_left -= 1;
                    self.from = index;
                    return Ok(Some(read));
                }
                Ok(None) => {}
                Err(e) => return Err(zmq_error(e, format!("cannot receive from {}", peer.address))),
            }
        }
        Ok(None)
    }

    /// Waits until there is something to read, on file descriptors: `zmq_poll` on sockets costs several times the system
    /// calls. They stay signalled until the socket was read.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let signals = self.peers.iter().flat_map(|peer| peer.signals.into_iter().flatten());
        let fds = signals.chain([self.wakeable.as_fd().as_raw_fd()]);
        let mut items: Vec<_> = fds.map(|fd| zmq::PollItem::from_fd(fd, zmq::POLLIN)).collect();
        // Rounded up: a wait of less than a millisecond must not become a busy loop.
        let timeout = timeout.map_or(-1, |timeout| {
            i64::from(millis(timeout.saturating_add(Duration::from_micros(999))))
        });
        let ready = match zmq::poll(&mut items, timeout) {
            Ok(ready) => ready > 0,
            Err(zmq::Error::EINTR) => false,
            Err(e) => return Err(zmq_error(e, "cannot wait for messages".into())),
        };
        let mut items = items.iter().map(zmq::PollItem::is_readable);
        let mut monitored = false;
        for peer in &self.peers {
            self.drained &= items.next() != Some(true);
            monitored |= peer.monitor.is_some() && items.next() == Some(true);
        }
        if monitored {
            self.look_at_connections();
        }
        Ok(ready)
    }
}

impl Inbound for ZmqInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        self.drained = false;
        if self.find(address).is_some() {
            return Ok(());
        }
        let peer = self.open_peer(address)?;
        if peer.monitor.is_none() {
            self.changes.push_back((Arc::clone(&peer.address), Happened::Connected));
        }
        self.peers.push(peer);
        // libzmq signals only to who has read until there was nothing.
        self.look_at_connections();
        Ok(())
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.drained = false;
        if let Some(index) = self.find(address) {
            self.peers.swap_remove(index);
            self.changes.retain(|(of, _)| **of != *address);
        }
        Ok(())
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.drained = false;
        if self.kind == Kind::Sub && self.topics.insert(topic.clone()) {
            self.peers.iter().try_for_each(|peer| subscribe(&peer.socket, topic))?;
        }
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.drained = false;
        if self.topics.remove(topic) {
            self.peers
                .iter()
                .try_for_each(|peer| unsubscribe(&peer.socket, topic))?;
        }
        Ok(())
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        let Some(peer) = self.find(address).and_then(|index| self.peers.get_mut(index)) else {
            let context = format!("cannot probe {address}: not connected to it");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        };
        if self.kind == Kind::Pull {
            let confirmed = Happened::Confirmed(probe.clone());
            self.changes.push_back((Arc::clone(&peer.address), confirmed));
            return Ok(());
        }
        // After a reconnect libzmq subscribes to everything again, but only when the socket next has its commands
        // processed; this does that, so that the probe goes behind all of it.
        self.drained = false;
        let processed = peer.socket.get_events();
        processed.map_err(|e| zmq_error(e, format!("cannot probe {address}")))?;
        subscribe(&peer.socket, probe)?;
        if let Some(old) = peer.probe.replace(probe.clone()) {
            unsubscribe(&peer.socket, &old)?;
        }
        Ok(())
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        let mut waited = false;
        loop {
            if self.wakeable.take() {
                return Ok(Received::Woken);
            }
            let lost = self.lost();
            if lost.is_none() {
                if let Some((address, happened)) = self.changes.pop_front() {
                    self.told = address;
                    return Ok(match happened {
                        Happened::Connected => Received::Connected { address: &self.told },
                        Happened::Disconnected(_) => Received::Disconnected { address: &self.told },
                        Happened::Confirmed(probe) => Received::Answer {
                            address: &self.told,
                            probe: self.probe.insert(probe).as_str().as_bytes(),
                            hello: &[],
                        },
                    });
                }
                if self.drained {
                    if waited {
                        return Ok(Received::Idle);
                    }
                    waited = !self.poll(timeout)?;
                    continue;
                }
            }
            let read = match lost {
                Some(index) => self.read_lost(index)?,
                None => self.read()?,
            };
            match read {
                Some(Read::Message) => {
                    return Ok(Received::Frame {
                        address: self.peers.get(self.from).map_or("", |peer| &*peer.address),
                        topic: &self.topic,
                        payload: &self.payload,
                    });
                }
                Some(Read::Answer(address)) => {
                    self.told = address;
                    return Ok(Received::Answer {
                        address: &self.told,
                        probe: &self.topic,
                        hello: &self.payload,
                    });
                }
                Some(Read::Stale) => continue,
                Some(Read::Malformed) => return Ok(Received::Malformed),
                None if lost.is_some() => continue,
                None => self.drained = true,
            }
            if timeout == Some(Duration::ZERO) {
                return Ok(Received::Idle);
            }
        }
    }
}

enum Read {
    Message,
    Answer(Arc<str>),
    /// The answer to a probe that was replaced by a newer one.
    Stale,
    Malformed,
}

impl Peer {
    fn read(&mut self, topic: &mut zmq::Message, payload: &mut zmq::Message) -> zmq::Result<Option<Read>> {
        match self.socket.recv(topic, zmq::DONTWAIT) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN) => return Ok(None),
            // Not yet read until it had nothing.
            Err(zmq::Error::EINTR) => return self.read(topic, payload),
            Err(e) => return Err(e),
        }
        if !topic.get_more() {
            return Ok(Some(Read::Malformed));
        }
        self.socket.recv(payload, 0)?;
        if payload.get_more() {
            while self.socket.get_rcvmore()? {
                self.socket.recv(payload, 0)?;
            }
            return Ok(Some(Read::Malformed));
        }
        if Topic::is_probe(topic) {
            self.known
                .extend(topic.gets("__fd").and_then(|fd| fd.parse::<u32>().ok()));
            let current = self
                .probe
                .as_ref()
                .is_some_and(|probe| probe.as_str().as_bytes() == &**topic);
            if !current {
                return Ok(Some(Read::Stale));
            }
            self.probe = None;
            self.socket.set_unsubscribe(topic)?;
            return Ok(Some(Read::Answer(Arc::clone(&self.address))));
        }
        Ok(Some(Read::Message))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(monitor) = &self.monitor {
            monitor.detach(&self.socket);
        }
    }
}
