//! The receiving end: a SUB socket for each publisher, or a PULL socket for the processes of the host.
//!
//! There is one socket for each address, so that connections, probes and their answers are known by address.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::codec::is_joined;
use crate::drivers::events::{AddressEvent, Events};
use crate::drivers::wake::{self, Wakeable};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Inbound, Received, Wake};
use crate::update::Topic;

use super::calls::{poll, zmq_error};
use super::line::{Kind, Line};
use super::peer::{Peer, Read};
use super::settings::Settings;

pub(super) struct ZmqInbound {
    kind: Kind,
    options: Settings,
    topics: BTreeSet<Topic>,
    peers: Vec<Peer>,
    /// The peer to read next, and how many more messages it may return before the next peer's turn.
    turn: usize,
    turn_left: u32,
    /// Every socket was read until it was empty: only a signal says that there is more.
    drained: bool,
    /// The messages read since the last wait; joined updates count as two.
    fresh: u32,
    /// How many more times the thread does not yield before it waits, since it did in vain.
    unyielding: u32,
    /// Events to return.
    events: Events,
    /// The peer of the last message.
    from: usize,
    /// The message that the last [`Received`] points into.
    topic: zmq::Message,
    payload: zmq::Message,
    probe: Option<Topic>,
    wakeable: Wakeable,
    waker: Arc<dyn Wake>,
}

/// After a yield in vain, this many waits have none before them.
const UNYIELDING: u32 = 15;

/// Number of messages in a peer's turn; the monitors are read between turns.
const TURN: u32 = 64;

impl ZmqInbound {
    pub(super) fn open(kind: Kind, options: &Settings) -> Result<(ZmqInbound, Arc<dyn Wake>)> {
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
            fresh: 0,
            unyielding: 0,
            events: Events::default(),
            topic: zmq::Message::new(),
            payload: zmq::Message::new(),
            probe: None,
            wakeable,
            waker: Arc::clone(&waker) as Arc<dyn Wake>,
        };
        Ok((inbound, waker))
    }

    fn find(&self, address: &str) -> Option<usize> {
        self.peers.iter().position(|peer| &*peer.address == address)
    }

    /// Notes changes of connections, and does what is due.
    fn look(&mut self) {
        let now = Instant::now();
        for peer in &mut self.peers {
            peer.look(&self.topics, now, &mut self.events);
        }
        // The sockets may have been replaced.
        self.drained = false;
    }

    /// The peer whose loss is the next event, if earlier messages from it are still unread; otherwise it may begin
    /// anew.
    fn lost(&mut self) -> Option<usize> {
        let Some((address, AddressEvent::Disconnected(left))) = self.events.front_mut() else {
            return None;
        };
        let mut peers = self.peers.iter_mut().enumerate();
        let (index, peer) = peers.find(|(_, peer)| peer.address == *address)?;
        if *left == 0 {
            peer.is_draining = false;
            return None;
        }
        *left -= 1;
        Some(index)
    }

    /// Reads one message of this peer, whose connection was lost or which was read last.
    fn read_of(&mut self, index: usize) -> Result<Option<Read>> {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(None);
        };
        let read = peer.read(&mut self.topic, &mut self.payload);
        let read = read.map_err(|e| zmq_error(e, format!("cannot receive from {}", peer.address)))?;
        self.from = index;
        if let (None, Some((_, AddressEvent::Disconnected(left)))) = (&read, self.events.front_mut()) {
            *left = 0;
        }
        Ok(read)
    }

    /// Reads one message, beginning with the peer whose turn it is.
    fn read(&mut self) -> Result<Option<Read>> {
        if self.turn_left == 0 {
            self.turn += 1;
            self.turn_left = TURN;
            self.look();
        }
        for step in 0..self.peers.len() {
            let index = (self.turn + step) % self.peers.len();
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            match peer.read(&mut self.topic, &mut self.payload) {
                Ok(Some(read)) => {
                    if peer.is_unheard() {
                        peer.hear(&self.topics, &mut self.events);
                    }
                    if step != 0 {
                        (self.turn, self.turn_left) = (index, TURN);
                    }
                    // By bytes as well: a message of joined updates is as much work as hundreds.
                    self.turn_left = self.turn_left.saturating_sub(1 + (self.payload.len() >> 10) as u32);
                    self.from = index;
                    return Ok(Some(read));
                }
                Ok(None) => {}
                Err(e) => return Err(zmq_error(e, format!("cannot receive from {}", peer.address))),
            }
        }
        Ok(None)
    }

    /// True if other threads may have more soon.
    fn may_yield(&mut self) -> bool {
        let may = self.unyielding == 0;
        self.unyielding = self.unyielding.saturating_sub(1);
        may
    }

    /// Waits until there is something to read or to do. It waits on file descriptors, since `zmq_poll` on sockets costs
    /// several times the system calls; a descriptor stays signalled until its socket is read. Returns true if there may
    /// be something.
    fn wait(&mut self, until: Option<Instant>, now: Instant) -> Result<bool> {
        let due = self.peers.iter().filter_map(Peer::deadline).min();
        let lines = || self.peers.iter().filter_map(Peer::line).map(Line::signals);
        let fds = lines().flatten().flatten().chain([self.wakeable.as_fd().as_raw_fd()]);
        let mut items: Vec<_> = fds.map(|fd| zmq::PollItem::from_fd(fd, zmq::POLLIN)).collect();
        let ready = poll(&mut items, until.into_iter().chain(due).min(), now);
        let ready = ready.map_err(|e| zmq_error(e, "cannot wait for messages".into()))?;
        let mut items = items.iter().map(zmq::PollItem::is_readable);
        let mut is_due = due.is_some_and(|due| due <= Instant::now());
        for [socket, others @ ..] in lines() {
            self.drained &= socket.is_none() || items.next() != Some(true);
            for _ in others.into_iter().flatten() {
                is_due |= items.next() == Some(true);
            }
        }
        if is_due {
            self.look();
        }
        Ok(ready || is_due)
    }
}

impl Inbound for ZmqInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        if self.find(address).is_none() {
            let peer = Peer::open(address, self.kind, &self.options, Arc::clone(&self.waker))?;
            self.peers.push(peer);
            self.look();
        }
        Ok(())
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.drained = false;
        if let Some(index) = self.find(address) {
            self.peers.swap_remove(index);
            self.events.forget(address);
        }
        Ok(())
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        self.drained = false;
        if self.topics.insert(topic.clone())
            && let Err(e) = self.peers.iter().try_for_each(|peer| peer.subscribe(topic))
        {
            // It is subscribed again later.
            self.topics.remove(topic);
            return Err(e);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        self.drained = false;
        if self.topics.remove(topic) {
            self.peers.iter().try_for_each(|peer| peer.unsubscribe(topic))?;
        }
        Ok(())
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        let Some(peer) = self.find(address).and_then(|index| self.peers.get_mut(index)) else {
            let context = format!("cannot probe {address}: not connected to it");
            return Err(Error::new(ErrorKind::InvalidInput, context));
        };
        if self.kind.socket == zmq::PULL {
            self.events.push(&peer.address, AddressEvent::Confirmed(probe.clone()));
            return Ok(());
        }
        self.drained = false;
        peer.probe(probe)
    }

    fn received_bytes(&mut self, address: &str) -> Option<u64> {
        let peer = self.peers.get(self.find(address)?)?;
        peer.line()?.received_bytes()
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        // The clock is read only if there is something to wait for.
        let mut until = None;
        let mut more = None;
        loop {
            if self.wakeable.take() {
                // A name may have been looked up.
                self.look();
                return Ok(Received::Woken);
            }
            let lost = self.lost();
            let again = more.take();
            if lost.is_none() {
                if !self.events.is_empty() {
                    return self.events.pop();
                }
                if self.drained && std::mem::take(&mut self.fresh) > 1 && self.may_yield() {
                    // Lets other threads run, which may provide more; where processors are scarce this saves many
                    // wake-ups. A lone message is followed by none, and with many subscribers in a process most are in
                    // vain.
                    thread::yield_now();
                    more = Some(self.from);
                    continue;
                }
                if self.drained && again.is_none() {
                    let now = Instant::now();
                    let until = *until.get_or_insert_with(|| timeout.and_then(|timeout| now.checked_add(timeout)));
                    match self.wait(until, now)? {
                        true => continue,
                        false => return Ok(Received::Idle),
                    }
                }
            }
            let read = match lost.or(again) {
                Some(index) => self.read_of(index)?,
                None => self.read()?,
            };
            self.drained &= read.is_none();
            self.fresh = self.fresh.saturating_add(read.is_some().into());
            match read {
                Some(Read::Message) => {
                    self.fresh = self.fresh.saturating_add(is_joined(&self.payload).into());
                    return Ok(Received::Frame {
                        address: self.peers.get(self.from).map_or("", |peer| &*peer.address),
                        topic: &self.topic,
                        payload: &self.payload,
                    });
                }
                Some(Read::Answer(probe)) => {
                    return Ok(Received::Answer {
                        address: self.peers.get(self.from).map_or("", |peer| &*peer.address),
                        probe: self.probe.insert(probe).as_str().as_bytes(),
                        hello: &self.payload,
                    });
                }
                Some(Read::Stale) => continue,
                Some(Read::Malformed) => return Ok(Received::Malformed),
                None if lost.or(again).is_some() => {
                    if lost.is_none() {
                        self.unyielding = UNYIELDING;
                    }
                    continue;
                }
                None => self.drained = true,
            }
            if timeout == Some(Duration::ZERO) {
                return Ok(Received::Idle);
            }
        }
    }
}
