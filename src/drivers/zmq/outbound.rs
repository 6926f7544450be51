//! The publishing end: an XPUB socket, which is a PUB socket that shows its subscriptions.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::codec::{is_joined, parts};
use crate::config::JoinFrames;
use crate::drivers::wake::{self, Wakeable};
use crate::error::{Error, ErrorKind, Result};
use crate::thread;
use crate::transport::{Outbound, Waiter, WaiterAndWake, Wake, partly_sent, send_parts};
use crate::update::Topic;

use super::calls::{patiently, poll, zmq_error};
use super::census::{Census, Who};
use super::connection::{Connection, News};
use super::endpoint::{Endpoint, Role};
use super::filter::filter;
use super::line::{Kind, Line, Signals};
use super::push;
use super::settings::Settings;
use super::topics::MAX_CHARGE;

pub(super) struct ZmqOutbound {
    connection: Connection,
    census: Census,
    join_frames: JoinFrames,
    /// Probes read during a send.
    probes: Vec<Topic>,
    /// There were too many subscriptions for the last call.
    has_unread: bool,
    /// A failure not yet returned.
    trouble: Option<Error>,
    watched: Arc<Mutex<Watched>>,
    wakeable: Option<Wakeable>,
    waker: Arc<dyn Wake>,
}

/// The descriptors to wait on, and the time limit.
#[derive(Clone, PartialEq, Eq, Default)]
struct Watched {
    signals: Signals,
    deadline: Option<Instant>,
}

const XPUB: Kind = Kind {
    socket: zmq::XPUB,
    role: Role::Bind,
    sends: true,
    counts: true,
    is_gated: false,
    prepare: |socket| {
        // Reports subscriptions that another subscriber already has, too: each probe must be answered.
        socket.set_xpub_verbose(true)?;
        // All input is subscriptions, and libzmq keeps a hundred times the size of each.
        socket.set_maxmsgsize(MAX_SUBSCRIPTION)
    },
};

/// The longest accepted subscription, in bytes; the library's own are at most 200 bytes long.
const MAX_SUBSCRIPTION: i64 = 16 << 10;

/// Maximum of unanswered probes; further peers ask again.
const MAX_PROBES: usize = 1 << 16;

/// The number of subscriptions that are read before their memory is checked.
const TURN: usize = 1024;

/// The time after which one call reads no more subscriptions.
const READING: Duration = Duration::from_millis(5);

/// Time limit for looking up the name of the address to bind.
const NAME_PATIENCE: Duration = Duration::from_secs(5);

impl ZmqOutbound {
    pub(super) fn open(endpoint: &Endpoint, options: &Settings) -> Result<ZmqOutbound> {
        let (wakeable, waker) = wake::pair()?;
        let waker: Arc<dyn Wake> = waker;
        let mut outbound = ZmqOutbound {
            connection: Connection::open(endpoint.clone(), XPUB, options, Arc::clone(&waker))?,
            census: Census::default(),
            join_frames: options.join_frames,
            probes: Vec::new(),
            has_unread: false,
            trouble: None,
            watched: Arc::default(),
            wakeable: Some(wakeable),
            waker,
        };
        if !outbound.connection.connects() {
            // The bound address has to be known.
            outbound
                .connection
                .wait_for_name(thread::deadline(NAME_PATIENCE))
                .map_err(|e| e.context(format!("cannot bind {endpoint}")))?;
        }
        outbound.look();
        match outbound.trouble.take() {
            Some(e) => Err(e),
            None => Ok(outbound),
        }
    }

    /// Notes changes of connections, and does what is due.
    fn look(&mut self) {
        let now = Instant::now();
        self.take_news(now);
        if self.connection.is_due(now) {
            let trouble = self.connection.tend(now);
            self.trouble = self.trouble.take().or(trouble);
            // libzmq signals only to a reader that has read until nothing was left.
            self.take_news(now);
        }
        let watched = Watched {
            signals: self.connection.line().map_or(Signals::default(), Line::signals),
            deadline: self.connection.deadline(),
        };
        let mut before = self.watched.lock();
        if *before != watched {
            *before = watched;
            self.waker.wake();
        }
    }

    fn take_news(&mut self, now: Instant) {
        while let Some(news) = self.connection.news(now) {
            match news {
                News::Opened(connection) => self.census.opened(connection),
                News::Closed(connection, _) => self.census.closed(connection),
                News::Greeted => {}
            }
        }
    }

    /// Reads the subscriptions in force, so that their connections are known. Returns false if there were too many for
    /// one call, so that a flood does not block senders. The waiter is woken for the rest.
    fn read_all(&mut self) -> Result<bool> {
        let end = Instant::now() + READING;
        loop {
            let is_complete = self.read_turn()?;
            let now = Instant::now();
            self.bound(now);
            if is_complete {
                return Ok(true);
            }
            if now >= end {
                self.waker.wake();
                return Ok(false);
            }
        }
    }

    /// Reads subscriptions until there are none, or as many as are read in one turn. Returns false for the latter.
    fn read_turn(&mut self) -> Result<bool> {
        for _ in 0..TURN {
            let Some(message) = self.read()? else {
                return Ok(true);
            };
            // A subscription is a byte 1 and the topic, its end a byte 0 and the topic; anything else is a stranger's.
            let Some((kind @ (0 | 1), topic)) = message.split_first() else {
                continue;
            };
            let (kind, topic) = (*kind, topic.to_vec());
            // The connection was opened before, and may be closed already.
            self.take_news(Instant::now());
            let who = Who::sent(message);
            match kind {
                0 => self.census.unsubscribed(who, &topic),
                _ => {
                    if self.probes.len() < MAX_PROBES {
                        self.probes.extend(Topic::probe_from(&topic));
                    }
                    self.census.subscribed(who, &topic);
                }
            }
        }
        Ok(false)
    }

    /// Ends the connection that has subscribed to most, if subscriptions take too much memory.
    fn bound(&mut self, now: Instant) {
        if self.connection.endpoint().is_silent() {
            return;
        }
        let Some(connection) = self.census.excess(now) else {
            return;
        };
        let far = self.connection.hang_up(connection);
        let who = far.map_or("a subscriber".to_owned(), |far| far.ip().to_string());
        let address = self.connection.address().unwrap_or_default();
        let context = format!(
            "the subscriptions at {address} exceed {} MiB: a connection of {who} was closed",
            MAX_CHARGE >> 20
        );
        self.trouble = Some(Error::new(ErrorKind::TooLarge, context));
        self.look();
    }

    /// True if every known subscriber takes an array of maps.
    fn is_among_ours(&self) -> bool {
        match self.join_frames {
            JoinFrames::Never => false,
            JoinFrames::Always => true,
            // If libzmq does not name subscribers, they are unknown peers of a multicast, or parts of this process.
            JoinFrames::Auto => match self.connection.endpoint().is_silent() {
                true => self.connection.endpoint().is_inproc(),
                false => !self.census.has_strangers(),
            },
        }
    }

    /// Reads the next subscription.
    fn read(&self) -> Result<Option<zmq::Message>> {
        let Some(line) = self.connection.line() else {
            return Ok(None);
        };
        match patiently(|| line.socket().recv_msg(zmq::DONTWAIT)) {
            Ok(message) => Ok(Some(message)),
            Err(zmq::Error::EAGAIN) => Ok(None),
            Err(e) => {
                let context = format!("cannot see the subscriptions of {}", self.connection.endpoint());
                Err(zmq_error(e, context))
            }
        }
    }
}

impl Outbound for ZmqOutbound {
    fn takes_joined(&self) -> bool {
        self.is_among_ours()
    }

    fn send_joined(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let socket = self.connection.line().map(Line::socket);
        let (Some(socket), true) = (socket, is_joined(payload)) else {
            return self.send(topic, payload, timeout);
        };
        if !self.is_among_ours() {
            return send_parts(self, topic, payload, timeout);
        }
        // The topic fixes the receivers of the message for libzmq. A peer admitted by then has already sent its other
        // subscriptions, and the payload can still be chosen.
        let failed = |e| zmq_error(e, format!("cannot send to {}", self.connection.endpoint()));
        push::begin(socket, topic).map_err(failed)?;
        let seen = self.read_all();
        let parts = match seen.is_ok_and(|is_complete| is_complete) && self.is_among_ours() {
            true => None,
            false => parts(payload),
        };
        let mut parts = parts.unwrap_or_else(|| vec![payload]).into_iter();
        let socket = self.connection.line().map(Line::socket);
        if let (Some(socket), Some(first)) = (socket, parts.next()) {
            let failed = |e| zmq_error(e, format!("cannot send to {}", self.connection.endpoint()));
            push::end(socket, first).map_err(failed)?;
        }
        parts.try_for_each(|part| self.send(topic, part, timeout).map_err(partly_sent))
    }

    fn send(&mut self, topic: &[u8], payload: &[u8], _timeout: Duration) -> Result<()> {
        // Without a line there is no peer to send to.
        let Some(line) = self.connection.line() else {
            return Ok(());
        };
        // libzmq does not refuse; it drops for a subscriber that is too slow.
        push::send(line.socket(), topic, payload)
            .map(drop)
            .map_err(|e| zmq_error(e, format!("cannot send to {}", self.connection.endpoint())))
    }

    fn address(&self) -> Option<String> {
        self.connection.address().map(str::to_owned)
    }

    fn probes(&mut self) -> Result<Vec<Topic>> {
        self.look();
        self.has_unread = !self.read_all()?;
        let probes = std::mem::take(&mut self.probes);
        match self.trouble.take_if(|_| probes.is_empty()) {
            Some(e) => Err(e),
            None => Ok(probes),
        }
    }

    fn has_unread(&self) -> bool {
        self.has_unread
    }

    fn subscribers(&self) -> Option<usize> {
        (!self.connection.endpoint().is_silent()).then_some(self.census.subscribers())
    }

    fn is_subscribed(&self, topic: &Topic) -> Option<bool> {
        match self.connection.endpoint().is_multicast() {
            // Subscribers of a group filter by themselves.
            true => None,
            false => Some(self.census.is_subscribed(filter(topic))),
        }
    }

    fn waiter(&mut self) -> Result<Option<WaiterAndWake>> {
        let Some(wakeable) = self.wakeable.take() else {
            return Ok(None);
        };
        let watched = Arc::clone(&self.watched);
        Ok(Some((
            Box::new(FdWaiter { watched, wakeable }),
            Arc::clone(&self.waker),
        )))
    }
}

impl Drop for ZmqOutbound {
    fn drop(&mut self) {
        self.connection.end();
    }
}

/// Waits on the file descriptors by which libzmq signals that a socket has something to do. They signal once, so
/// [`Outbound::probes`] must be called after each wait, and whenever another call has used the socket.
struct FdWaiter {
    watched: Arc<Mutex<Watched>>,
    wakeable: Wakeable,
}

impl Waiter for FdWaiter {
    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let Watched { signals, deadline } = self.watched.lock().clone();
        let fds = signals.into_iter().flatten().chain([self.wakeable.as_fd().as_raw_fd()]);
        let mut items: Vec<_> = fds.map(|fd| zmq::PollItem::from_fd(fd, zmq::POLLIN)).collect();
        let now = Instant::now();
        let until = timeout.and_then(|timeout| now.checked_add(timeout));
        poll(&mut items, until.into_iter().chain(deadline).min(), now)
            .map_err(|e| zmq_error(e, "cannot wait for subscriptions".into()))?;
        self.wakeable.take();
        Ok(())
    }
}
