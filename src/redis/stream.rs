//! The bytes of a connection, plain or over TLS. Waiting is limited, and can be cancelled.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::lookup::Lookup;
use crate::poll::{pair, poll};
use crate::thread;

use super::node::Node;
#[cfg(feature = "redis-tls")]
use super::tls::Session;

/// The time limit of an operation, and the signals that cancel it.
#[derive(Clone, Copy)]
pub(crate) struct Limit<'a> {
    pub(crate) deadline: Instant,
    /// The longest single wait; an operation that progresses piece by piece has until the deadline.
    silence: Duration,
    /// Waits are cancelled when the other end of one of these is dropped; the first is set first.
    cancels: [Option<&'a UnixStream>; 2],
}

impl<'a> Limit<'a> {
    pub(crate) fn until(deadline: Instant) -> Self {
        Limit {
            deadline,
            silence: Duration::MAX,
            cancels: [None; 2],
        }
    }

    /// No limit except cancellation by dropping the other end of `cancel`.
    pub(crate) fn cancelled_by(cancel: &'a UnixStream) -> Self {
        Limit::until(thread::deadline(Duration::MAX)).or_cancelled_by(cancel)
    }

    /// The same, but also cancelled by dropping the other end of `cancel`.
    pub(crate) fn or_cancelled_by(self, cancel: &'a UnixStream) -> Self {
        let cancels = match self.cancels {
            [None, _] => [Some(cancel), None],
            [first, _] => [first, Some(cancel)],
        };
        Limit { cancels, ..self }
    }

    /// The events that cancel.
    fn cancellations(&self) -> impl Iterator<Item = PollFd<'_>> {
        let set = self.cancels.iter().flatten();
        set.map(|cancel| PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN))
    }

    /// The same, but ends at most `time` from now, and at half of the remaining time, so that another server can be
    /// tried.
    pub(crate) fn share(self, time: Duration) -> Self {
        let now = Instant::now();
        let share = self.left_at(now) / 2;
        Limit {
            deadline: now + share.min(time),
            ..self
        }
    }

    /// The same, but with no silence longer than `time` or half of the remaining time. Any input is a sign of life: a
    /// long reply on a slow link may take until the deadline.
    pub(crate) fn patient(self, time: Duration) -> Self {
        let share = self.left_at(Instant::now()) / 2;
        Limit {
            silence: share.min(time),
            ..self
        }
    }

    /// The end of the first of `count` equal parts of the remaining time.
    pub(crate) fn part(&self, count: usize) -> Instant {
        let now = Instant::now();
        now + self.left_at(now) / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
    }

    fn left_at(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// The end of a wait that begins now.
    fn end(&self, now: Instant) -> Instant {
        self.deadline.min(clock::after(now, self.silence))
    }

    /// Waits until one of `flags` holds for `fd`.
    pub(crate) fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        let now = Instant::now();
        self.wait_until(fd, flags, (now, self.end(now)))
    }

    fn wait_until(&self, fd: BorrowedFd<'_>, flags: PollFlags, (mut now, end): (Instant, Instant)) -> io::Result<()> {
        let own = || PollFd::from_borrowed_fd(fd, flags);
        let mut fds = [own(), own(), own()];
        let mut count = 1;
        for (place, cancel) in fds.iter_mut().skip(1).zip(self.cancellations()) {
            *place = cancel;
            count += 1;
        }
        while !self.poll(
            fds.get_mut(..count).unwrap_or_default(),
            end.saturating_duration_since(now),
        )? {
            now = Instant::now();
        }
        Ok(())
    }

    /// Waits until one of these is ready, or until `end`; returns which are ready.
    pub(crate) fn wait_any<'fd>(&'fd self, mut fds: Vec<PollFd<'fd>>, end: Instant) -> io::Result<Vec<bool>> {
        fds.extend(self.cancellations());
        loop {
            let left = end.min(self.deadline).saturating_duration_since(Instant::now());
            match self.poll(&mut fds, left) {
                Ok(false) => continue,
                Err(e) if e.kind() != io::ErrorKind::TimedOut || self.deadline <= end => return Err(e),
                _ => return Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            }
        }
    }

    /// Waits once for one of these, the last of which cancel; returns true if one is ready.
    fn poll(&self, fds: &mut [PollFd<'_>], left: Duration) -> io::Result<bool> {
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        poll(fds, Some(left))?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let mut cancels = fds.iter().rev().take(self.cancels.iter().flatten().count());
        if cancels.any(is_ready) {
            return Err(io::Error::other("cancelled"));
        }
        Ok(fds.iter().any(is_ready))
    }

    /// Waits for `time`, or for the remaining time; returns false if cancelled.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let now = Instant::now();
        let end = now + time.min(self.left_at(now));
        let mut fds: Vec<_> = self.cancellations().collect();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if poll(&mut fds, Some(left)).is_err() || fds.iter().any(|fd| !fd.revents().is_empty()) {
                return false;
            }
        }
    }

    /// True if the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left_at(Instant::now()).is_zero()
    }
}

pub(crate) enum Stream {
    /// A socket that blocks, at most for [`SLICE`].
    Plain(Socket),
    #[cfg(feature = "redis-tls")]
    Tls(Box<Session>, Socket),
}

/// All addresses of a server.
///
/// # Errors
/// As [`Lookup::wait`].
pub(crate) fn look_up(node: &Node, limit: Limit<'_>) -> Result<Vec<SockAddr>> {
    if let Some(path) = node.path() {
        let address = SockAddr::unix(path).map_err(|e| Error::new(ErrorKind::InvalidInput, path).with_source(e))?;
        return Ok(vec![address]);
    }
    let addresses = look_up_host(node, limit)?;
    Ok(addresses.into_iter().map(SockAddr::from).collect())
}

fn look_up_host(node: &Node, limit: Limit<'_>) -> Result<Vec<SocketAddr>> {
    if limit.cancellations().next().is_none() {
        return Lookup::begin(&node.host, node.port, || {}).wait(limit.deadline);
    }
    let (answered, looked_up) = pair()?;
    let lookup = Lookup::begin(&node.host, node.port, move || drop(looked_up));
    let waited = limit.wait(answered.as_fd(), PollFlags::IN);
    lookup.poll().unwrap_or_else(|| {
        Err(match waited {
            Err(e) if e.kind() != io::ErrorKind::TimedOut => {
                Error::new(ErrorKind::Transport, "cannot wait for the name server").with_source(e)
            }
            _ => lookup.unanswered(),
        })
    })
}

/// The most unsent bytes that the system buffers, so that a request that is still being sent shows.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 128 << 10;

/// Begins to connect to a server at this address; once the socket is writable, [`connected`] returns the result.
pub(crate) fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        // A system without this is as good except on slow links.
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT);
    }
    match socket.connect(address) {
        Err(e) if e.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(socket),
    }
}

/// Returns the socket if it is connected.
pub(crate) fn connected(socket: Socket) -> io::Result<Socket> {
    match socket.take_error()? {
        Some(e) => Err(e),
        None => Ok(socket),
    }
}

/// How long a read may block before it looks at the time.
const SLICE: Duration = Duration::from_millis(100);

impl Stream {
    pub(super) fn plain(socket: Socket) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(SLICE))?;
        Ok(Stream::Plain(socket))
    }

    /// Waits for input and reads it. May fail with `WouldBlock` nevertheless.
    pub(crate) fn wait_and_read(&mut self, into: &mut [u8], limit: Limit<'_>) -> io::Result<usize> {
        let mut now = Instant::now();
        let end = limit.end(now);
        if let Stream::Plain(socket) = self
            && limit.cancellations().next().is_none()
        {
            // One call costs less than a poll and then a read.
            while end.saturating_duration_since(now) > 2 * SLICE {
                match rustix::net::recv(&*socket, &mut *into, RecvFlags::empty()) {
                    Err(Errno::AGAIN | Errno::INTR) => now = Instant::now(),
                    done => return Ok(done?.0),
                }
            }
        }
        limit.wait_until(self.as_fd(), self.news(), (now, end))?;
        self.read(into)
    }

    /// Reads the available bytes. Fails with `WouldBlock` if there are none; 0 means that the other side has closed.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Stream::Plain(socket) => Ok(rustix::net::recv(socket, &mut *into, RecvFlags::DONTWAIT)?.0),
            #[cfg(feature = "redis-tls")]
            Stream::Tls(session, socket) => session.read(socket, into),
        })
    }

    /// Writes as much as there is room for. Fails with `WouldBlock` if there is none.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self {
            Stream::Plain(socket) => Ok(rustix::net::send(socket, bytes, SendFlags::DONTWAIT)?),
            #[cfg(feature = "redis-tls")]
            Stream::Tls(session, socket) => session.write(socket, bytes),
        })
    }

    /// Sends the bytes that [`Stream::write`] has buffered. Fails with `WouldBlock` if there is no room.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            #[cfg(feature = "redis-tls")]
            Stream::Tls(session, socket) => retry(|| session.flush(socket)),
        }
    }

    /// A likely reason why a server does not answer a login, which fails like this.
    pub(super) fn doubt(&self, failure: io::ErrorKind) -> Option<&'static str> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match (self, failure) {
            (Stream::Plain(_), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                Some("does it want TLS (rediss://)?")
            }
            #[cfg(feature = "redis-tls")]
            (Stream::Tls(..), BrokenPipe | ConnectionAborted | ConnectionReset | io::ErrorKind::TimedOut) => {
                Some("does it speak TLS at this port?")
            }
            _ => None,
        }
    }

    /// True if a short read means that there is no more: a poll shows bytes in the socket, but not bytes held by TLS.
    pub(crate) fn shows_all(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }

    /// The events to wait for when [`Stream::write`] would have blocked: in a handshake it may be the other side's
    /// turn.
    pub(crate) fn room(&self) -> PollFlags {
        match self {
            Stream::Plain(_) => PollFlags::OUT,
            #[cfg(feature = "redis-tls")]
            Stream::Tls(session, _) if session.wants_write() => PollFlags::OUT,
            #[cfg(feature = "redis-tls")]
            Stream::Tls(..) => PollFlags::IN,
        }
    }

    /// The events to wait for when [`Stream::read`] would have blocked.
    pub(crate) fn news(&self) -> PollFlags {
        match self {
            Stream::Plain(_) => PollFlags::IN,
            #[cfg(feature = "redis-tls")]
            Stream::Tls(session, _) if session.wants_write() => PollFlags::IN | PollFlags::OUT,
            #[cfg(feature = "redis-tls")]
            Stream::Tls(..) => PollFlags::IN,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Plain(socket) => socket.as_fd(),
            #[cfg(feature = "redis-tls")]
            Stream::Tls(_, socket) => socket.as_fd(),
        }
    }
}

fn retry<T>(mut step: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match step() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> (Stream, Socket) {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Stream::plain(ours).unwrap(), theirs)
    }

    #[test]
    fn a_read_waits_as_long_as_its_limit() {
        let (mut stream, theirs) = plain();
        let mut read = |limit| stream.wait_and_read(&mut [0; 8], limit);
        let times = [3 * SLICE + SLICE / 2, SLICE / 2];
        for time in times {
            let start = Instant::now();
            let impatient = Limit {
                silence: time,
                ..Limit::until(start + 600 * SLICE)
            };
            for limit in [Limit::until(start + time), impatient] {
                let start = Instant::now();
                assert_eq!(read(limit).unwrap_err().kind(), io::ErrorKind::TimedOut);
                assert!(start.elapsed() < 100 * SLICE);
            }
            assert!(start.elapsed() >= time);
        }
        let late = thread::spawn("late", None, move || {
            thread::pause(2 * SLICE);
            theirs.send(b"late").unwrap();
        });
        assert_eq!(read(Limit::until(Instant::now() + 600 * SLICE)).unwrap(), 4);
        drop(late);
        assert_eq!(read(Limit::until(Instant::now() + 600 * SLICE)).unwrap(), 0);
    }

    #[test]
    fn without_waiting_nothing_blocks() {
        let (mut stream, theirs) = plain();
        let blocks = |e: io::Error| e.kind() == io::ErrorKind::WouldBlock;
        assert!(blocks(stream.read(&mut [0; 8]).unwrap_err()));
        let full = loop {
            if let Err(e) = stream.write(&[0; 1 << 16]) {
                break e;
            }
        };
        assert!(blocks(full));
        drop(theirs);
    }
}
