//! The receiving end: for each address a connection to one node, with the subscriptions on it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::config::JoinFrames;
use crate::drivers::events::{AddressEvent, Events};
use crate::drivers::wake::{self, Wakeable};
use crate::error::{Error, ErrorKind, Result};
use crate::poll::poll;
use crate::redis::{Finder, RedisOptions, Way};
use crate::thread;
use crate::transport::{Inbound, Received, Wake};
use crate::update::Topic;

use super::connecting::{Connecting, Outcome};
use super::known::Known;
use super::link::{Link, Read};
use super::lookout::Lookout;

pub(super) struct RedisInbound {
    options: RedisOptions,
    known: Known,
    turns: Arc<AtomicUsize>,
    topics: BTreeSet<Topic>,
    peers: Vec<Peer>,
    /// The peer to read next, and how many more messages it may return before other peers get a turn.
    turn: usize,
    turn_left: u32,
    /// Events to return before any message.
    events: Events,
    wakeable: Wakeable,
}

struct Peer {
    address: Arc<str>,
    finder: Finder,
    state: State,
    /// Looks for a second master beside a connected one.
    lookout: Option<Lookout>,
    /// How long to wait before the next connection.
    wait: Duration,
}

enum State {
    Lost,
    Connecting(Connecting),
    Linked(Box<Link>),
}

/// The messages of a lost connection are lost with it.
const LOST: AddressEvent = AddressEvent::Disconnected(0);

/// Number of messages in a peer's turn.
const TURN: u32 = 256;

impl RedisInbound {
    pub(super) fn open(
        options: &RedisOptions,
        known: &Known,
        turns: &Arc<AtomicUsize>,
    ) -> Result<(RedisInbound, Arc<dyn Wake>)> {
        let (wakeable, waker) = wake::pair()?;
        let inbound = RedisInbound {
            options: options.clone(),
            known: known.clone(),
            turns: Arc::clone(turns),
            topics: BTreeSet::new(),
            peers: Vec::new(),
            turn: 0,
            turn_left: TURN,
            events: Events::default(),
            wakeable,
        };
        Ok((inbound, waker))
    }

    fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        self.peers.iter_mut().filter_map(|peer| match &mut peer.state {
            State::Linked(link) => Some(&mut **link),
            _ => None,
        })
    }

    /// Reads the next message from the peer whose turn it is; other events go to `events`.
    fn read(&mut self) -> Option<(usize, Read)> {
        for step in 0..self.peers.len() {
            let index = (self.turn + step) % self.peers.len();
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            let State::Linked(link) = &mut peer.state else {
                continue;
            };
            let event = match link.read(self.options.max_frame_bytes, &self.topics) {
                Ok(None) => continue,
                Ok(Some(read @ (Read::Message | Read::TooLarge))) => {
                    if step != 0 {
                        (self.turn, self.turn_left) = (index, TURN);
                    }
                    self.turn_left -= 1;
                    return Some((index, read));
                }
                Ok(Some(Read::Confirmed(probe))) => AddressEvent::Confirmed(probe),
                Ok(Some(Read::Refused(e))) => AddressEvent::Failed(e),
                Ok(Some(Read::Failover)) => {
                    // The connection is good, but earlier confirmations may no longer hold.
                    self.events.push(&peer.address, LOST);
                    AddressEvent::Connected
                }
                Err(e) => {
                    peer.lose(&e, &self.options, &mut self.events);
                    return None;
                }
            };
            self.events.push(&peer.address, event);
            return None;
        }
        None
    }

    /// Waits until something can be read or is due. Returns true if something can be read.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let now = Instant::now();
        let beats = self.peers.iter().filter_map(|peer| match &peer.state {
            State::Linked(link) => Some(link.next_beat(&self.options)),
            _ => None,
        });
        let left = beats.min().map(|beat| beat.saturating_duration_since(now));
        let timeout = match (timeout, left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        let wanted = self.peers.iter().filter_map(|peer| match &peer.state {
            State::Linked(link) => Some((link.conn().as_fd(), link.conn().news())),
            State::Connecting(connecting) => Some((connecting.fd()?, PollFlags::IN)),
            State::Lost => None,
        });
        let wanted = wanted.chain([(self.wakeable.as_fd(), PollFlags::IN)]);
        let mut fds: Vec<_> = wanted.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
        // Behind all others, since each of those belongs to a peer.
        let linked = self.peers.iter().filter(|peer| matches!(peer.state, State::Linked(_)));
        fds.extend(linked.flat_map(|peer| {
            let master = peer.finder.master().map(|master| master.news());
            let beside = match &peer.state {
                State::Linked(link) => link.news_beside(),
                _ => None,
            };
            let others = peer.lookout.as_ref().and_then(Lookout::news);
            [master, beside, others].into_iter().flatten()
        }));
        let waited = poll(&mut fds, timeout);
        waited.map_err(|e| Error::new(ErrorKind::Io, "cannot wait for messages").with_source(e))?;
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let waited_for = self.peers.iter_mut().filter(|peer| !matches!(peer.state, State::Lost));
        for (peer, ready) in waited_for.zip(&ready) {
            if *ready {
                peer.on_ready(&self.topics, &self.options, &mut self.events);
            }
        }
        self.tend();
        Ok(ready.contains(&true))
    }

    /// Sends what is waiting, and repairs broken connections.
    fn tend(&mut self) {
        let now = Instant::now();
        for peer in &mut self.peers {
            let State::Linked(link) = &mut peer.state else {
                continue;
            };
            let is_master = peer.finder.master().map_or(Ok(()), |master| master.check());
            let is_alone = || peer.lookout.as_ref().map_or(Ok(()), Lookout::check);
            if let Err(e) = is_master
                .and_then(|()| is_alone())
                .and_then(|()| link.tend(now, &self.options))
            {
                peer.lose(&e, &self.options, &mut self.events);
            }
        }
    }
}

impl Inbound for RedisInbound {
    fn connect(&mut self, address: &str) -> Result<()> {
        if let Some(peer) = self.peers.iter_mut().find(|peer| *peer.address == *address) {
            return match peer.state {
                State::Lost => peer.connect(&self.options),
                State::Connecting(_) | State::Linked(_) => Ok(()),
            };
        }
        let servers = self.known.servers(address)?;
        let way = Way::new(&self.options, &servers)?;
        let mut peer = Peer {
            address: address.into(),
            finder: Finder::new(servers, way, self.options.heartbeat_timeout, Arc::clone(&self.turns)),
            state: State::Lost,
            lookout: None,
            wait: Duration::ZERO,
        };
        peer.connect(&self.options)?;
        self.peers.push(peer);
        Ok(())
    }

    fn disconnect(&mut self, address: &str) -> Result<()> {
        self.peers.retain(|peer| *peer.address != *address);
        self.events.forget(address);
        Ok(())
    }

    fn subscribe(&mut self, topic: &Topic) -> Result<()> {
        if self.topics.insert(topic.clone()) {
            self.links().for_each(|link| link.subscribe(topic));
        }
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &Topic) -> Result<()> {
        if self.topics.remove(topic) {
            self.links().for_each(|link| link.unsubscribe(topic));
        }
        Ok(())
    }

    fn probe(&mut self, address: &str, probe: &Topic) -> Result<()> {
        match self.peers.iter_mut().find(|peer| *peer.address == *address) {
            None => {
                let context = format!("cannot probe {address}: not connected to it");
                return Err(Error::new(ErrorKind::InvalidInput, context));
            }
            Some(Peer {
                state: State::Linked(link),
                ..
            }) => link.probe(probe),
            // Its loss is about to be reported.
            Some(_) => {}
        }
        self.tend();
        Ok(())
    }

    fn received_bytes(&mut self, address: &str) -> Option<u64> {
        let peer = self.peers.iter().find(|peer| *peer.address == *address)?;
        match &peer.state {
            State::Linked(link) => Some(link.conn().received),
            State::Lost | State::Connecting(_) => None,
        }
    }

    fn recv(&mut self, timeout: Option<Duration>) -> Result<Received<'_>> {
        // The clock is read only if there is something to wait for.
        let mut until = None;
        let index = loop {
            if self.wakeable.take() {
                return Ok(Received::Woken);
            }
            if !self.events.is_empty() {
                return self.events.pop();
            }
            if self.turn_left == 0 {
                (self.turn, self.turn_left) = (self.turn + 1, TURN);
                self.wait(Some(Duration::ZERO))?;
                continue;
            }
            match self.read() {
                Some((index, Read::Message)) => break index,
                Some(_) => return Ok(Received::Malformed),
                None if !self.events.is_empty() => continue,
                None => {}
            }
            let left = timeout.map(|timeout| {
                let end = *until.get_or_insert_with(|| thread::deadline(timeout));
                end.saturating_duration_since(Instant::now())
            });
            if !self.wait(left)? && left == Some(Duration::ZERO) {
                return Ok(Received::Idle);
            }
        };
        let peer = self.peers.get(index);
        Ok(match peer.map(|peer| (&*peer.address, &peer.state)) {
            Some((address, State::Linked(link))) => {
                let [topic, payload] = link.message();
                Received::Frame {
                    address,
                    topic,
                    payload,
                }
            }
            _ => Received::Idle,
        })
    }
}

impl Peer {
    fn connect(&mut self, options: &RedisOptions) -> Result<()> {
        let connecting = Connecting::start(self.finder.clone(), options, self.wait)?;
        self.state = State::Connecting(connecting);
        Ok(())
    }

    /// Reports the loss of the connection, and begins another one.
    fn lose(&mut self, error: &Error, options: &RedisOptions, events: &mut Events) {
        log::warn!("the connection to {} is lost: {error}", self.address);
        events.push(&self.address, LOST);
        self.lookout = None;
        if let State::Linked(link) = std::mem::replace(&mut self.state, State::Lost) {
            self.finder.shun(link.conn().node());
            // A connection that was good for a while is replaced at once.
            self.wait = match link.since.elapsed() < options.reconnect_max && !self.finder.has_moved() {
                true => options.next_wait(self.wait),
                false => Duration::ZERO,
            };
        }
        if let Err(e) = self.connect(options) {
            // The subscriber asks for it again, since the loss was reported.
            events.push(&self.address, AddressEvent::Failed(e));
        }
    }

    /// Starts another connecting thread after one has ended unasked, which was reported.
    fn restart(&mut self, options: &RedisOptions, events: &mut Events) {
        (self.state, self.wait) = (State::Lost, options.reconnect_max);
        if let Err(e) = self.connect(options) {
            events.push(&self.address, AddressEvent::Failed(e));
            events.push(&self.address, LOST);
        }
    }

    /// Called when the awaited descriptor is ready.
    fn on_ready(&mut self, topics: &BTreeSet<Topic>, options: &RedisOptions, events: &mut Events) {
        let connecting = match &mut self.state {
            State::Lost => return,
            State::Linked(link) => return link.may_read(),
            State::Connecting(connecting) => connecting,
        };
        match connecting.outcome() {
            None if connecting.has_ended() => self.restart(options, events),
            None => {}
            Some(Outcome::Failed(e)) => events.push(&self.address, AddressEvent::Failed(e)),
            Some(Outcome::Connected(found)) => {
                self.finder = found.finder;
                match Lookout::start(&self.finder, &found.conn, options) {
                    Ok(lookout) => self.lookout = lookout,
                    Err(e) => events.push(&self.address, AddressEvent::Failed(e)),
                }
                let joins = options.join_frames != JoinFrames::Never;
                let mut link = Box::new(Link::new(found.conn, found.side, found.health, joins));
                for topic in topics {
                    link.subscribe(topic);
                }
                self.state = State::Linked(link);
                events.push(&self.address, AddressEvent::Connected);
            }
        }
    }
}
