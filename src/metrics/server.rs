//! The server that metrics are scraped from: one thread, a few connections, all of them bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::request::answer;
use crate::error::{Error, ErrorKind, Result};
use crate::poll::{pair, poll};
use crate::thread::{Failures, Thread, spawn_fallible};

/// Serves metrics over HTTP until it is dropped, which takes no time.
#[derive(Debug)]
#[must_use = "dropping the server ends it"]
pub struct MetricsServer {
    address: SocketAddr,
    /// The thread ends when this is gone.
    alive: Option<UnixStream>,
    thread: Option<Thread>,
}

/// The most connections at a time; for another, the oldest gives way.
const MAX_CLIENTS: usize = 16;

/// Time limit of a connection, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);

impl MetricsServer {
    /// Starts it at this address; `text` makes the metrics that are served.
    pub(super) fn start(text: impl Fn() -> String + Send + 'static, address: &str) -> Result<MetricsServer> {
        let address = with_host(address)?;
        let failed = |e: io::Error| {
            let kind = match e.kind() {
                io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Io,
            };
            Error::new(kind, format!("cannot serve metrics at {address}")).with_source(e)
        };
        let listener = TcpListener::bind(&address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (alive, stop) = pair()?;
        let server = Server {
            listener,
            stop,
            text,
            clients: Vec::new(),
            failures: Failures::default(),
        };
        let thread = spawn_fallible("tc-metrics", None, move || server.run())?;
        Ok(MetricsServer {
            address,
            alive: Some(alive),
            thread: Some(thread),
        })
    }

    /// Returns the address at which it listens; a port of 0 is resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the metrics.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.alive = None;
        self.thread = None;
    }
}

/// The address with a host: loopback if it names none.
fn with_host(address: &str) -> Result<String> {
    let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
    if port.parse::<u16>().is_err() || (host.contains(':') && !host.starts_with('[')) {
        let context = format!(
            "address {address:?} for metrics: expected host:port, or a port alone for loopback; a port is a whole number \
             from 0 to 65535"
        );
        return Err(Error::new(ErrorKind::InvalidInput, context));
    }
    let host = match host {
        "" => "127.0.0.1",
        "*" => "0.0.0.0",
        host => host,
    };
    Ok(format!("{host}:{port}"))
}

struct Server<F> {
    listener: TcpListener,
    stop: UnixStream,
    text: F,
    /// Oldest first.
    clients: Vec<Client>,
    failures: Failures,
}

struct Client {
    stream: TcpStream,
    since: Instant,
    received: Vec<u8>,
    /// It sends nothing more.
    has_ended: bool,
    response: Option<Vec<u8>>,
    sent: usize,
}

impl<F: Fn() -> String> Server<F> {
    fn run(mut self) -> Result<()> {
        loop {
            let ready = match self.wait() {
                Ok(Some(ready)) => ready,
                Ok(None) => return Ok(()),
                Err(e) => {
                    self.fail("waiting", e);
                    continue;
                }
            };
            let mut ready = ready.into_iter();
            let has_new = ready.next() == Some(true);
            let text = &self.text;
            self.clients.retain_mut(|client| {
                let is_ready = ready.next() == Some(true);
                let goes_on = !is_ready || client.go_on(text).unwrap_or(false);
                goes_on && client.since.elapsed() < PATIENCE
            });
            if has_new {
                self.accept();
            }
        }
    }

    /// Waits for sockets: true for the listener and each client that is ready. `None`: it is to stop.
    fn wait(&self) -> io::Result<Option<Vec<bool>>> {
        let mut fds = vec![
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        fds.extend(self.clients.iter().map(|client| client.waits_for()));
        let left = self
            .clients
            .iter()
            .map(|client| PATIENCE.saturating_sub(client.since.elapsed()));
        poll(&mut fds, left.min())?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return Ok(None);
        }
        Ok(Some(ready.collect()))
    }

    fn accept(&mut self) {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match accepted {
            Ok(stream) => {
                self.failures.end();
                if self.clients.len() == MAX_CLIENTS {
                    self.clients.remove(0);
                }
                self.clients.push(Client::new(stream));
            }
            Err(e) if matches!(e.kind(), ConnectionAborted | Interrupted | WouldBlock) => {}
            Err(e) => self.fail("accepting a connection", e),
        }
    }

    fn fail(&mut self, what: &str, error: io::Error) {
        let context = format!("the server of metrics, {what}");
        self.failures
            .add(&Error::new(ErrorKind::Io, context).with_source(error), None);
    }
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            since: Instant::now(),
            received: Vec::new(),
            has_ended: false,
            response: None,
            sent: 0,
        }
    }

    fn waits_for(&self) -> PollFd<'_> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, !self.has_ended);
        events.set(PollFlags::OUT, self.is_sending());
        PollFd::from_borrowed_fd(self.stream.as_fd(), events)
    }

    fn is_sending(&self) -> bool {
        self.response
            .as_ref()
            .is_some_and(|response| self.sent < response.len())
    }

    /// Reads and writes what is possible now; false once it is done.
    fn go_on(&mut self, text: impl Fn() -> String) -> io::Result<bool> {
        self.read()?;
        if self.response.is_none() {
            self.response = answer(&self.received, text);
        }
        if self.is_sending() {
            self.write()?;
        }
        Ok(self.is_sending() || !self.has_ended)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut some = [0; 2048];
        match would_block(self.stream.read(&mut some))? {
            Some(0) => self.has_ended = true,
            // What follows a request is read, so that closing the connection does not reset it, and dropped.
            Some(length) if self.response.is_none() => self.received.extend_from_slice(&some[..length]),
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let response = self.response.as_deref().unwrap_or_default();
        while self.sent < response.len() {
            match would_block(self.stream.write(&response[self.sent..]))? {
                Some(length) => self.sent += length,
                None => return Ok(()),
            }
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

/// The result; `None` if it has to be tried again.
fn would_block(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        done => done.map(Some),
    }
}
