//! The handler that libzmq asks about clients at bound sockets with keys (ZAP), one for each context.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::drivers::wake::{self, Wakeable};
use crate::error::Result;
use crate::thread::{self, Thread};
use crate::transport::Wake;

use super::calls::{patiently, poll, zmq_error};
use super::clients::Clients;
use super::key::Key;

/// The handler of a context. Without one libzmq would let everyone in, so it is there before the first socket that
/// needs it, and its socket stays open even if its thread fails: then no client is let in any more.
pub(super) struct Zap {
    doors: Arc<Doors>,
    is_over: Arc<AtomicBool>,
    waker: Arc<dyn Wake>,
    thread: Option<Thread>,
    socket: Option<Arc<Mutex<zmq::Socket>>>,
}

/// The bound sockets by the domain that they state when they ask.
type Doors = Mutex<HashMap<String, Arc<Guests>>>;

/// The clients of a bound socket.
#[derive(Debug)]
struct Guests {
    /// Those that may be let in; `None` for all that know the socket's key.
    listed: Option<Arc<Clients>>,
    /// The listed ones that were let in.
    let_in: Mutex<HashSet<Key>>,
}

/// A bound socket that asks who is let in, until this is dropped.
pub(super) struct Door {
    domain: String,
    guests: Arc<Guests>,
    doors: Arc<Doors>,
}

impl Zap {
    /// Starts the handler of this context.
    pub(super) fn start(context: &zmq::Context) -> Result<Zap> {
        let socket = context.socket(zmq::REP).and_then(|socket| {
            socket.set_linger(0)?;
            socket.bind("inproc://zeromq.zap.01")?;
            Ok(socket)
        });
        let socket = socket.map_err(|e| zmq_error(e, "cannot start the check of keys".into()))?;
        let socket = Arc::new(Mutex::new(socket));
        let (wakeable, waker) = wake::pair()?;
        let (doors, is_over) = (Arc::<Doors>::default(), Arc::<AtomicBool>::default());
        let handler = Handler {
            socket: Arc::clone(&socket),
            doors: Arc::clone(&doors),
            is_over: Arc::clone(&is_over),
            wakeable,
        };
        let thread = thread::spawn_fallible("tc-zap", None, move || handler.run())?;
        Ok(Zap {
            doors,
            is_over,
            waker,
            thread: Some(thread),
            socket: Some(socket),
        })
    }

    /// Lets a bound socket ask.
    pub(super) fn door(&self, listed: Option<Arc<Clients>>) -> Door {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let domain = format!("tablecast/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let guests = Arc::new(Guests {
            listed,
            let_in: Mutex::default(),
        });
        self.doors.lock().insert(domain.clone(), Arc::clone(&guests));
        Door {
            domain,
            guests,
            doors: Arc::clone(&self.doors),
        }
    }
}

impl Drop for Zap {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake();
        self.thread = None;
        // The context is closed next, and would wait for this.
        self.socket = None;
    }
}

impl Door {
    /// The socket's domain, by which its requests are known.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    /// True if a client was let in whose key has been taken off the list since the last call.
    pub(super) fn has_unlisted(&self) -> bool {
        let Some(listed) = &self.guests.listed else {
            return false;
        };
        let mut let_in = self.guests.let_in.lock();
        let before = let_in.len();
        let_in.retain(|key| listed.contains(key));
        let_in.len() < before
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.doors.lock().remove(&self.domain);
    }
}

impl Guests {
    fn admit(&self, key: Key) -> bool {
        let Some(listed) = &self.listed else {
            return true;
        };
        // Noted first: a key that is taken off the list from here on is found.
        let mut let_in = self.let_in.lock();
        let is_listed = listed.admits(&key);
        if is_listed {
            let_in.insert(key);
        }
        is_listed
    }
}

/// The handler's thread.
struct Handler {
    socket: Arc<Mutex<zmq::Socket>>,
    doors: Arc<Doors>,
    is_over: Arc<AtomicBool>,
    wakeable: Wakeable,
}

impl Handler {
    fn run(mut self) -> Result<()> {
        let socket = Arc::clone(&self.socket);
        let socket = socket.lock();
        let failed = |e| zmq_error(e, "cannot check keys".into());
        while !self.is_over.load(Ordering::Acquire) {
            match patiently(|| socket.recv_multipart(zmq::DONTWAIT)) {
                Ok(request) => self.answer(&socket, &request).map_err(failed)?,
                Err(zmq::Error::EAGAIN) => {
                    let wakeable = self.wakeable.as_fd().as_raw_fd();
                    let mut items = [
                        socket.as_poll_item(zmq::POLLIN),
                        zmq::PollItem::from_fd(wakeable, zmq::POLLIN),
                    ];
                    poll(&mut items, None, Instant::now()).map_err(failed)?;
                    self.wakeable.take();
                }
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }

    /// Answers a request: version, number, domain, address, identity, mechanism, and the client's public key.
    fn answer(&self, socket: &zmq::Socket, request: &[Vec<u8>]) -> zmq::Result<()> {
        let key = match request {
            [version, _, _, _, _, mechanism, key] if version == b"1.0" && mechanism == b"CURVE" => Key::of_bytes(key),
            _ => None,
        };
        let domain = request.get(2).map(|domain| String::from_utf8_lossy(domain));
        let guests = domain.and_then(|domain| self.doors.lock().get(&*domain).cloned());
        let name = key.as_ref().map_or("", Key::as_str).to_owned();
        let is_admitted = key.zip(guests).is_some_and(|(key, guests)| guests.admit(key));
        if !is_admitted {
            let address = request.get(3).map(|address| String::from_utf8_lossy(address));
            log::debug!(
                "a client at {} is not let in: key {name:?}",
                address.unwrap_or_default()
            );
        }
        let (status, text) = match is_admitted {
            true => ("200", "OK"),
            false => ("400", "this key is not let in"),
        };
        let number = request.get(1).map_or(&[][..], Vec::as_slice);
        let reply: [&[u8]; 6] = [b"1.0", number, status.as_bytes(), text.as_bytes(), name.as_bytes(), b""];
        patiently(|| socket.send_multipart(reply, 0))
    }
}
