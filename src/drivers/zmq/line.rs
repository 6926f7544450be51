//! One socket of libzmq and its parts: it is bound, or tries one connection and is then replaced.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::error::Result;

use super::calls::{millis, patiently, zmq_error};
use super::context::Seat;
use super::copy::{Connection, Ends, Miss};
use super::cut::Cut;
use super::endpoint::{Endpoint, Role};
use super::gate::Gate;
use super::keepalive::Keepalive;
use super::monitor::{Change, Monitor};
use super::multicast::Group;
use super::path_lock::PathLock;
use super::room::{self, Doorkeeper};
use super::settings::Settings;
use super::story::Story;
use super::traffic;
use super::zap::Door;

/// Use of a line.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) socket: zmq::SocketType,
    /// Role for an address that states none.
    pub(super) role: Role,
    /// True for a sending socket, false for a receiving one.
    pub(super) sends: bool,
    /// True if the socket distinguishes its peers.
    pub(super) counts: bool,
    /// True if no peer may greet at a bound Unix socket before it is admitted.
    pub(super) is_gated: bool,
    pub(super) prepare: fn(&zmq::Socket) -> zmq::Result<()>,
}

/// The descriptors to wait on, of a socket, of its monitor, and of its gate. libzmq signals there once, so all must be
/// read until they are empty.
pub(super) type Signals = [Option<RawFd>; 3];

pub(super) struct Line {
    // Fields drop in order: the lock after the socket, and the context last.
    socket: zmq::Socket,
    monitor: Option<Monitor>,
    gate: Option<Gate>,
    signals: Signals,
    /// The address in numbers, with the real port.
    uri: String,
    /// The bound address, with the real port, and the public key that connecting to it needs.
    address: Option<String>,
    keepalive: Keepalive,
    /// Only for a bound socket.
    doorkeeper: Option<Doorkeeper>,
    /// A connection was turned away.
    is_crowded: bool,
    /// The open TCP connections by descriptor, if the system shows them.
    ends: HashMap<u32, Ends>,
    /// The number of greetings.
    greetings: u64,
    /// Their number at the start of each connection, which may have greeted if there are more by now: the event of a
    /// greeting does not name its connection.
    greeted: HashMap<u32, u64>,
    /// A connection has failed to greet, and is closed next.
    is_failing: bool,
    story: Story,
    lock: Option<PathLock>,
    /// Checks the clients of a bound socket with keys.
    door: Option<Door>,
    cut: Cut,
    _seat: Seat,
}

impl Line {
    /// Binds or connects to `uri`, which is the endpoint in numbers.
    pub(super) fn open(endpoint: &Endpoint, uri: String, kind: &Kind, options: &Settings) -> Result<Line> {
        let role = endpoint.role_or(kind.role);
        // libzmq aborts if it cannot accept a connection over a Unix socket.
        let is_paced = role == Role::Bind && endpoint.is_ipc();
        let is_gated = kind.is_gated && is_paced;
        let seat = match is_gated {
            true => Seat::alone(),
            false => Seat::take(endpoint.is_inproc(), kind.sends),
        };
        let failed = |e| match e {
            // Other threads have taken the descriptors.
            zmq::Error::EMFILE => room::crowded(endpoint.uri()).with_source(e),
            e => zmq_error(e, format!("cannot open a ZeroMQ socket for {endpoint}")),
        };
        let socket = set_up(&seat, kind, role, options).map_err(failed)?;
        let door = options.curve.secure(&socket, endpoint, role, &seat)?;
        let gate = is_gated.then(|| Gate::of(&socket, &seat)).transpose().map_err(failed)?;
        let uri = endpoint.group().map_or(Ok(uri), Group::open)?;
        let monitor = if !endpoint.is_silent() {
            Some(Monitor::of(&socket, &seat, is_paced).map_err(failed)?)
        } else {
            None
        };
        // From here on the monitor is removed whatever happens.
        let mut line = Line {
            signals: Signals::default(),
            socket,
            monitor,
            gate,
            address: None,
            keepalive: Keepalive::of(options, kind.sends),
            doorkeeper: (role == Role::Bind).then(|| Doorkeeper::new(is_paced)),
            is_crowded: false,
            ends: HashMap::new(),
            greetings: 0,
            greeted: HashMap::new(),
            is_failing: false,
            story: Story::default(),
            uri,
            lock: None,
            door,
            cut: Cut::None,
            _seat: seat,
        };
        let monitor = line.monitor.as_ref().map(Monitor::socket);
        line.signals = [
            Some(line.socket.get_fd().map_err(failed)?),
            monitor.map(zmq::Socket::get_fd).transpose().map_err(failed)?,
            line.gate.as_ref().map(Gate::signal).transpose().map_err(failed)?,
        ];
        match role {
            Role::Connect => endpoint.connect(&line.socket, &line.uri)?,
            Role::Bind => {
                let (bound, lock) = endpoint.bind(&line.socket, &line.uri, options)?;
                line.address = Some(options.curve.advertised(endpoint, &bound));
                (line.uri, line.lock) = (bound, lock);
            }
        }
        Ok(line)
    }

    /// True if the line can try again: no connection came of its attempt.
    pub(super) fn is_unused(&self) -> bool {
        self.story.retried && !self.story.opened
    }

    /// Tries again, if no connection came of the last attempt.
    pub(super) fn retry(&mut self, endpoint: &Endpoint, uri: String) -> Result<()> {
        let forgotten = patiently(|| self.socket.disconnect(&self.uri));
        forgotten.map_err(|e| zmq_error(e, format!("cannot connect to {endpoint} again")))?;
        endpoint.connect(&self.socket, &uri)?;
        (self.uri, self.story) = (uri, Story::default());
        Ok(())
    }

    #[inline]
    pub(super) fn socket(&self) -> &zmq::Socket {
        &self.socket
    }

    pub(super) fn monitor(&self) -> Option<&zmq::Socket> {
        self.monitor.as_ref().map(Monitor::socket)
    }

    pub(super) fn signals(&self) -> Signals {
        self.signals
    }

    pub(super) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// Takes out the history, if there was a connection.
    pub(super) fn take_story(&mut self) -> Option<Story> {
        self.story.opened.then(|| std::mem::take(&mut self.story))
    }

    /// The next change of a connection, if any.
    pub(super) fn next(&mut self) -> Option<Change> {
        let change = loop {
            let change = self.monitor.as_mut()?.next().or_else(|| self.cut.next());
            if change.is_some() || !self.let_greet() {
                break change?;
            }
        };
        match &change {
            Change::Opened(fd, address) => {
                self.story.opened = true;
                if self.greeted.insert(*fd, self.greetings).is_some()
                    && let Some(doorkeeper) = &mut self.doorkeeper
                {
                    doorkeeper.closed();
                }
                // The number may have been another connection's.
                self.ends.remove(fd);
                if let Some(doorkeeper) = &mut self.doorkeeper
                    && !doorkeeper.admits(*fd, address)
                {
                    self.is_crowded = true;
                    if doorkeeper.is_helpless() {
                        self.cut.want();
                    }
                } else if address.starts_with("tcp:")
                    && let Ok(connection) = Connection::copy(*fd, address)
                {
                    connection.keep_alive(self.keepalive);
                    self.ends.extend(connection.ends().map(|ends| (*fd, ends)));
                }
            }
            Change::Greeted => {
                self.story.greeted = true;
                self.greetings += 1;
            }
            Change::Failed(failure) => (self.story.failure, self.is_failing) = (Some(*failure), true),
            Change::Closed(fd) => {
                self.ends.remove(fd);
                if let Some(doorkeeper) = self.doorkeeper.as_mut().filter(|_| self.greeted.contains_key(fd)) {
                    doorkeeper.closed();
                }
            }
            Change::Retried => self.story.retried = true,
            Change::Unbound => self.cut.unbound(self.greeted.keys().copied()),
        }
        Some(change)
    }

    /// Lets those greet that were not refused. Returns false if nobody waits for it, or must go on waiting.
    fn let_greet(&mut self) -> bool {
        let may_greet = !self.is_busy() && self.cut.is_none();
        self.gate.as_mut().is_some_and(|gate| gate.step(may_greet))
    }

    /// Closing the line waits up to `time` until the open connections have taken what was sent to them.
    pub(super) fn linger(&self, time: Duration) {
        if self.monitor.is_none() || !self.greeted.is_empty() {
            let _ = patiently(|| self.socket.set_linger(millis(time)));
        }
    }

    /// True if [`Line::keep`] is to be called now and then.
    pub(super) fn needs_looks(&self) -> bool {
        self.lock.is_some() || self.door.is_some() || !self.cut.is_none()
    }

    /// True if [`Line::keep`] is to be called at once.
    pub(super) fn is_cutting(&self) -> bool {
        match self.cut {
            Cut::None | Cut::Begun => false,
            Cut::Wanted => true,
            // A crowd would come back at once.
            Cut::Done(_) => !self.doorkeeper.as_ref().is_some_and(Doorkeeper::is_helpless),
        }
    }

    /// Keeps a bound line in order: binds a Unix socket again that something else has removed, and closes all
    /// connections if a client's key was taken off the list, or if too many peers came that cannot be refused. Returns
    /// true if a socket was bound again that was removed.
    pub(super) fn keep(&mut self, endpoint: &Endpoint) -> Result<bool> {
        if self.cut.is_none() && self.door.as_ref().is_some_and(Door::has_unlisted) {
            log::warn!("a client's key was taken off the list: the connections of {endpoint} are begun anew");
            self.cut.want();
        }
        match &self.cut {
            Cut::Wanted => self.begin_cut(endpoint)?,
            Cut::Done(_) => {
                self.bind_again(endpoint)?;
                self.cut = Cut::None;
            }
            Cut::None | Cut::Begun => {}
        }
        self.keep_path(endpoint)
    }

    fn begin_cut(&mut self, endpoint: &Endpoint) -> Result<()> {
        let begun = self.cut.begin(&self.socket, &self.known_uri());
        begun.map_err(|e| zmq_error(e, format!("cannot cut off the clients of {endpoint}")))
    }

    /// The address under which libzmq knows the socket.
    fn known_uri(&self) -> String {
        self.lock.as_ref().map_or_else(|| self.uri.clone(), PathLock::uri)
    }

    fn bind_again(&mut self, endpoint: &Endpoint) -> Result<()> {
        let mut bind = || match &mut self.lock {
            Some(lock) => endpoint.bind_again(&self.socket, lock),
            None => patiently(|| self.socket.bind(&self.uri))
                .map_err(|e| zmq_error(e, format!("cannot bind {endpoint} again"))),
        };
        match &mut self.monitor {
            Some(monitor) => monitor.reading(bind)?,
            None => bind(),
        }
    }

    /// Binds the Unix socket again if something else has removed it. Returns true if it was.
    fn keep_path(&mut self, endpoint: &Endpoint) -> Result<bool> {
        if !self.lock.as_ref().is_some_and(PathLock::is_lost) {
            return Ok(false);
        }
        self.bind_again(endpoint)?;
        log::warn!("the socket of {endpoint} was removed by something else: bound again");
        Ok(true)
    }

    /// Ends an accepted connection, or all if it is not known, or cannot be ended alone. Returns its other end.
    pub(super) fn hang_up(&mut self, fd: Option<u32>) -> Option<SocketAddr> {
        let ends = fd.and_then(|fd| self.ends.get(&fd)).copied();
        let near = ends.map_or_else(|| self.known_uri(), |ends| format!("tcp://{}", ends.local));
        match fd.map_or(Err(Miss::Denied), |fd| Connection::copy(fd, &near)) {
            Ok(connection) => connection.hang_up(),
            // It is closed already, or tried again.
            Err(Miss::Gone | Miss::NoRoom) => {}
            Err(Miss::Denied) if self.doorkeeper.is_some() => self.cut.want(),
            Err(Miss::Denied) => {}
        }
        ends.map(|ends| ends.remote)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// True if a peer is still to be refused by [`Line::turn_away`].
    pub(super) fn is_busy(&self) -> bool {
        self.doorkeeper.as_ref().is_some_and(Doorkeeper::is_busy)
    }

    pub(super) fn turn_away(&mut self) {
        if let Some(doorkeeper) = &mut self.doorkeeper {
            doorkeeper.turn_away();
        }
    }

    /// True if a connection was refused since the last call, for lack of descriptors.
    pub(super) fn take_crowded(&mut self) -> bool {
        std::mem::take(&mut self.is_crowded)
    }

    /// True if the connection whose end [`Line::next`] has just returned may have spoken ZeroMQ: other connections end
    /// with the same event. `None` if its end was returned before, as one that was cut off.
    pub(super) fn may_have_greeted(&mut self, fd: u32) -> Option<bool> {
        let is_failing = std::mem::take(&mut self.is_failing);
        Some(self.greeted.remove(&fd)? < self.greetings && !is_failing)
    }

    /// Number of bytes received on the open connections, if the system says so.
    pub(super) fn received_bytes(&self) -> Option<u64> {
        traffic::received(self.ends.values())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // libzmq closes sockets later, and until then no other could be bound at the address.
        if self.address.is_some() && self.uri.starts_with("inproc://") {
            let _ = patiently(|| self.socket.unbind(&self.uri));
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.detach(&self.socket);
        }
    }
}

/// The greatest rate of a multicast, in kilobits per second, and the longest time that it is kept.
const MAX_RATE: u32 = 1_000_000;
const MAX_RECOVERY: Duration = Duration::from_secs(60);

/// A socket with its options, which must be set before it is bound or connected.
fn set_up(seat: &Seat, kind: &Kind, role: Role, options: &Settings) -> zmq::Result<zmq::Socket> {
    let socket = seat.socket(kind.socket)?;
    // Only at the end does a sender wait, if it has peers: libzmq may also wait for those that have just gone.
    socket.set_linger(0)?;
    socket.set_maxmsgsize(options.max_frame_bytes)?;
    // Not ZMTP's own heartbeats: libzmq aborts the process if one falls due on a connection that was lost while its
    // receive queue was full.
    let keepalive = Keepalive::of(options, kind.sends);
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(keepalive.interval.into())?;
    socket.set_tcp_keepalive_intvl(keepalive.interval.into())?;
    socket.set_tcp_keepalive_cnt(keepalive.checks.into())?;
    // libzmq never reconnects by itself: it ends a session for good on a protocol error, and knows one address of a
    // name.
    socket.set_reconnect_ivl(i32::MAX)?;
    if role == Role::Connect {
        // This timer cuts off a peer of ZMTP 2 even after its greeting; a connecting peer has a timer of its own.
        socket.set_handshake_ivl(0)?;
    }
    socket.set_sndhwm(options.send_hwm)?;
    socket.set_rcvhwm(options.receive_hwm)?;
    // libzmq holds a rate in bits a second in 31 bits, and ends the process if it does not fit.
    socket.set_rate(options.multicast_rate.clamp(1, MAX_RATE).cast_signed())?;
    socket.set_recovery_ivl(millis(options.multicast_recovery.min(MAX_RECOVERY)).max(1))?;
    (kind.prepare)(&socket)?;
    Ok(socket)
}
