//! A network between a publisher and its subscribers that can be cut without an error at either end, and that can lose,
//! double, delay and reorder messages.

mod pump;
#[cfg(test)]
mod tests;
mod zmtp;

use std::fmt;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub(crate) use zmtp::Message;

/// Fate of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    Drop,
    Twice,
    /// The message and everything after it waits this long: a stream keeps its order.
    Late(Duration),
    /// The next message goes first.
    Behind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToSubscriber,
    ToPublisher,
}

/// All directions of a cut.
pub(crate) const BOTH_WAYS: &[Way] = &[Way::ToSubscriber, Way::ToPublisher];

/// Decides on each message to a subscriber, in order.
pub(crate) type Judge = Box<dyn FnMut(&Message) -> Fate + Send>;

/// A running proxy. Dropping it closes all connections.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: String,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    /// True if the traffic is ZMTP.
    has_messages: bool,
    state: Mutex<State>,
    changed: Condvar,
    judge: Mutex<Judge>,
    streams: Mutex<Vec<TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    cut: Vec<Way>,
    dribbles: bool,
    ended: bool,
}

impl Proxy {
    /// A proxy in front of the publisher at this address, `tcp://host:port`, which need not exist yet.
    pub(crate) fn to(target: &str) -> Proxy {
        Proxy::start(target.strip_prefix("tcp://").unwrap(), true)
    }

    /// A proxy in front of a server of another protocol at this `host:port`, which has clients rather than subscribers.
    pub(crate) fn plain(target: &str) -> Proxy {
        Proxy::start(target, false)
    }

    fn start(target: &str, has_messages: bool) -> Proxy {
        let target = target.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            has_messages,
            state: Mutex::default(),
            changed: Condvar::new(),
            judge: Mutex::new(Box::new(|_| Fate::Pass)),
            streams: Mutex::default(),
            threads: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let accept = move || accepting.accept(&listener, &target);
        let acceptor = std::thread::Builder::new().name("proxy".into()).spawn(accept).unwrap();
        Proxy {
            shared,
            address: format!("tcp://{address}"),
            acceptor: Some(acceptor),
        }
    }

    /// The address that subscribers connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Passes nothing on in these directions any more, on new connections too, without an error.
    pub(crate) fn cut(&self, ways: &[Way]) {
        self.shared.state.lock().cut = ways.to_vec();
    }

    /// Ends the cut: waiting bytes are passed on.
    pub(crate) fn mend(&self) {
        self.shared.state.lock().cut.clear();
        self.shared.changed.notify_all();
    }

    /// Lets `judge` decide on every message to a subscriber from now on.
    pub(crate) fn judge(&self, judge: impl FnMut(&Message) -> Fate + Send + 'static) {
        *self.shared.judge.lock() = Box::new(judge);
    }

    /// Sends every byte on its own from now on, or stops doing so.
    pub(crate) fn dribble(&self, on: bool) {
        self.shared.state.lock().dribbles = on;
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener, target: &str) {
        while let Ok((near, _)) = listener.accept() {
            if self.state.lock().ended {
                return;
            }
            // Without a publisher the connection ends at once.
            let Ok(far) = TcpStream::connect(target) else {
                continue;
            };
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
                self.streams.lock().push(stream.try_clone().unwrap());
            }
            pump::start(self, Way::ToPublisher, &near, &far);
            pump::start(self, Way::ToSubscriber, &far, &near);
        }
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body).unwrap();
        self.threads.lock().push(thread);
    }

    /// Waits while this direction is cut. Returns false at the end of the proxy.
    fn wait_open(&self, way: Way) -> bool {
        let mut state = self.state.lock();
        while !state.ended && state.cut.contains(&way) {
            self.changed.wait(&mut state);
        }
        !state.ended
    }

    fn wait_until(&self, at: Instant) {
        let mut state = self.state.lock();
        while !state.ended && Instant::now() < at {
            self.changed.wait_until(&mut state, at);
        }
    }

    fn dribbles(&self) -> bool {
        self.state.lock().dribbles
    }

    fn judge(&self, message: &Message) -> Fate {
        self.judge.lock()(message)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
        // Ends the wait for the next connection.
        let _ = TcpStream::connect(self.address.trim_start_matches("tcp://"));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self.shared.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
