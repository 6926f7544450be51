//! A TCP proxy that makes a network bad: cut, silent, slow, or one byte at a time.
#![allow(dead_code, reason = "every test target uses a part of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The fault of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Bytes vanish in both directions, without an error.
    Silence,
    /// Bytes from the server vanish; bytes to it arrive.
    MuteServer,
    /// Every piece is delayed by this time, in both directions.
    Delay(Duration),
    /// Bytes from the server come one in a packet.
    Trickle,
    /// Bytes from the server come at this many per second.
    Rate(usize),
    /// Bytes to the server come at this many per second.
    SlowRequest(usize),
    /// The server's next bytes vanish, and with them the connection; then the fault ends.
    LoseAnswer,
    /// The next bytes to the server arrive only at [`Proxy::release`], even if the connection is given up before.
    HoldRequest,
}

/// Listens until it is dropped, which cuts every connection.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: u16,
    fault: Mutex<Fault>,
    refusing: AtomicBool,
    accepted: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    /// Connections with numbers below this were forgotten.
    forgotten: AtomicUsize,
    over: AtomicBool,
    released: AtomicBool,
}

impl Proxy {
    /// A proxy in front of this port.
    pub(crate) fn to(target: u16) -> Proxy {
        Proxy::at("127.0.0.1:0", target)
    }

    /// A proxy at this address.
    pub(crate) fn at(address: &str, target: u16) -> Proxy {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(Fault::None),
            refusing: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            streams: Mutex::default(),
            forgotten: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            released: AtomicBool::new(false),
        });
        let accept = Arc::clone(&shared);
        spawn(move || accept.accept(&listener));
        Proxy { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sets the fault, for existing connections too.
    pub(crate) fn set(&self, fault: Fault) {
        self.shared.released.store(false, Ordering::SeqCst);
        *self.shared.fault.lock() = fault;
    }

    pub(crate) fn fault(&self) -> parking_lot::MutexGuard<'_, Fault> {
        self.shared.fault.lock()
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        for stream in self.shared.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on everything on the existing connections vanishes, as when a firewall has forgotten them.
    pub(crate) fn forget(&self) {
        self.shared.forgotten.store(self.accepted(), Ordering::SeqCst);
    }

    /// Closes every new connection at once, or stops doing so.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Passes on what was held.
    pub(crate) fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// Number of accepted connections.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept(self: Arc<Shared>, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(near) = near else { continue };
            if self.refusing.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(far) = TcpStream::connect(("127.0.0.1", self.target)) else {
                continue;
            };
            // A small buffer, so that no backlog hides in the proxy.
            rustix::net::sockopt::set_socket_recv_buffer_size(&near, 64 << 10).unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
                self.streams.lock().push(stream.try_clone().unwrap());
            }
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (up, down) = (Arc::clone(&self), Arc::clone(&self));
            spawn(move || up.pass(near, far, number, false));
            spawn(move || down.pass(far_too, near_too, number, true));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, number: usize, of_server: bool) {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if number < self.forgotten.load(Ordering::SeqCst) {
                continue;
            }
            let fault = *self.fault.lock();
            let piece = match fault {
                Fault::Silence => continue,
                Fault::MuteServer if of_server => continue,
                Fault::Delay(time) => {
                    let _ = crossbeam_channel::never::<()>().recv_timeout(time);
                    count
                }
                Fault::Rate(rate) | Fault::SlowRequest(rate) if of_server == matches!(fault, Fault::Rate(_)) => {
                    // Little by little, as a slow link passes bytes on.
                    for piece in bytes[..count].chunks((rate / 50).max(1)) {
                        let time = Duration::from_secs_f64(piece.len() as f64 / rate as f64);
                        let _ = crossbeam_channel::never::<()>().recv_timeout(time);
                        if to.write_all(piece).is_err() {
                            break;
                        }
                    }
                    continue;
                }
                Fault::Trickle if of_server => 1,
                Fault::LoseAnswer if of_server => {
                    *self.fault.lock() = Fault::None;
                    break;
                }
                Fault::HoldRequest if !of_server => {
                    *self.fault.lock() = Fault::None;
                    while !self.released.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                        let _ = crossbeam_channel::never::<()>().recv_timeout(Duration::from_millis(1));
                    }
                    count
                }
                _ => count,
            };
            for piece in bytes[..count].chunks(piece) {
                if to.write_all(piece).is_err() {
                    break;
                }
            }
        }
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name("proxy".into()).spawn(body).unwrap();
}
