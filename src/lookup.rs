//! Host names to socket addresses, on threads for that alone.
//!
//! The system's look-up takes as long as it likes (10 s and more if the name server is silent) and cannot be called
//! off. Here only a thread that serves nothing else waits for it; a caller waits for as long as it wants to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::thread;

/// A look-up that has begun. Dropping it abandons it.
pub(crate) struct Lookup {
    host: String,
    port: u16,
    slot: Arc<Slot>,
}

/// Maximum of names that are looked up at once; others wait. Names that hang delay others only above this.
const MAX_THREADS: usize = 32;

/// Time that an answer is kept for the next caller when its callers have given up.
const KEPT: Duration = Duration::from_secs(30);

/// Maximum of kept answers.
const MAX_KEPT: usize = 64;

/// As the system gave it. Many may read it.
type Answer = Arc<Result<Vec<SocketAddr>, String>>;

type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Place for the answer to one caller.
struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

enum State {
    Waiting(Box<dyn FnOnce() + Send>),
    Answered(Answer),
}

impl Lookup {
    /// Begins to look up a host name, or takes part in the look-up of that name which is on its way.
    ///
    /// An IP address, also in brackets and with a scope as in `fe80::1%eth0`, is answered at once. `done` is called
    /// once, on any thread, when [`Lookup::poll`] has the answer: perhaps before this returns, and not at all if the
    /// look-up is dropped first.
    pub(crate) fn begin(host: &str, port: u16, done: impl FnOnce() + Send + 'static) -> Lookup {
        static RESOLVER: LazyLock<Arc<Resolver>> = LazyLock::new(|| Arc::new(Resolver::new(resolve)));
        RESOLVER.begin(host, port, done)
    }

    /// The answer, if it is there: all addresses of the host, in the system's order. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] if there is no address.
    pub(crate) fn poll(&self) -> Option<Result<Vec<SocketAddr>>> {
        match &*self.slot.state.lock() {
            State::Waiting(_) => None,
            State::Answered(answer) => Some(self.read(answer)),
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`Lookup::poll`]; [`ErrorKind::Timeout`] if there is none at the deadline.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<Vec<SocketAddr>> {
        let mut state = self.slot.state.lock();
        loop {
            if let State::Answered(answer) = &*state {
                return self.read(answer);
            }
            if self.slot.answered.wait_until(&mut state, deadline).timed_out() && matches!(*state, State::Waiting(_)) {
                return Err(self.unanswered());
            }
        }
    }

    /// The error for an answer that did not come in time.
    pub(crate) fn unanswered(&self) -> Error {
        let context = format!("the name server has not answered in time for the host {:?}", self.host);
        Error::new(ErrorKind::Timeout, context)
    }

    fn read(&self, answer: &Answer) -> Result<Vec<SocketAddr>> {
        let failed = |why: &String| {
            let context = format!("cannot look up the host {:?}", self.host);
            Error::new(ErrorKind::Transport, context).with_source(why.clone())
        };
        let mut addresses = answer.as_ref().as_ref().map_err(failed)?.clone();
        addresses.iter_mut().for_each(|address| address.set_port(self.port));
        Ok(addresses)
    }
}

impl Slot {
    fn answer(&self, answer: Answer) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Answered(answer));
        self.answered.notify_all();
        if let State::Waiting(done) = before {
            done();
        }
    }
}

/// Looks names up on threads that end when there is nothing to look up.
struct Resolver {
    resolve: Box<Resolve>,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    /// For each name that waits or is being looked up, the callers that wait for it.
    callers: HashMap<String, Vec<Weak<Slot>>>,
    /// The names that wait for a thread.
    waiting: VecDeque<String>,
    threads: usize,
    /// Answers that came late, and when.
    late: HashMap<String, (Instant, Answer)>,
}

impl Resolver {
    fn new(resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Resolver {
        Resolver {
            resolve: Box::new(resolve),
            jobs: Mutex::default(),
        }
    }

    fn begin(self: &Arc<Self>, host: &str, port: u16, done: impl FnOnce() + Send + 'static) -> Lookup {
        let host = host
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .unwrap_or(host);
        let lookup = Lookup {
            host: host.to_owned(),
            port,
            slot: Arc::new(Slot {
                state: Mutex::new(State::Waiting(Box::new(done))),
                answered: Condvar::new(),
            }),
        };
        let answer = match is_numeric(host) {
            // An address; no server is asked.
            true => Some(Arc::new(answer(resolve(host)))),
            false => self.enter(host, &lookup.slot),
        };
        if let Some(answer) = answer {
            lookup.slot.answer(answer);
        }
        lookup
    }

    /// Has `slot` answered later, or returns the answer if there is one already.
    fn enter(self: &Arc<Self>, host: &str, slot: &Arc<Slot>) -> Option<Answer> {
        let mut jobs = self.jobs.lock();
        let kept = jobs.late.remove(host).filter(|(since, _)| since.elapsed() < KEPT);
        if let Some((_, answer)) = kept {
            return Some(answer);
        }
        if let Some(callers) = jobs.callers.get_mut(host) {
            callers.retain(|caller| caller.strong_count() > 0);
            callers.push(Arc::downgrade(slot));
            return None;
        }
        if jobs.threads < MAX_THREADS {
            let resolver = Arc::clone(self);
            match thread::spawn("tc-lookup", None, move || resolver.run()) {
                Ok(thread) => {
                    // It may hang for longer than anything here lives.
                    thread.detach();
                    jobs.threads += 1;
                }
                Err(e) if jobs.threads == 0 => return Some(Arc::new(Err(e.to_string()))),
                // One that is there takes this name too.
                Err(_) => {}
            }
        }
        jobs.callers.insert(host.to_owned(), vec![Arc::downgrade(slot)]);
        jobs.waiting.push_back(host.to_owned());
        None
    }

    /// The loop of each thread.
    fn run(&self) {
        while let Some(host) = self.next() {
            let answer = Arc::new(answer((self.resolve)(&host)));
            let callers = self.jobs.lock().finish(&host, &answer);
            for caller in callers {
                caller.answer(Arc::clone(&answer));
            }
        }
    }

    /// The next name that a caller waits for; the thread ends when there is none.
    fn next(&self) -> Option<String> {
        let mut jobs = self.jobs.lock();
        while let Some(host) = jobs.waiting.pop_front() {
            let callers = jobs.callers.get(&host);
            if callers.is_some_and(|callers| callers.iter().any(|caller| caller.strong_count() > 0)) {
                return Some(host);
            }
            jobs.callers.remove(&host);
        }
        jobs.threads -= 1;
        None
    }
}

impl Jobs {
    /// The callers that still wait for this name, which has been looked up.
    fn finish(&mut self, host: &str, answer: &Answer) -> Vec<Arc<Slot>> {
        let callers = self.callers.remove(host).unwrap_or_default();
        let callers: Vec<_> = callers.iter().filter_map(Weak::upgrade).collect();
        if callers.is_empty() && answer.is_ok() {
            self.late.retain(|_, (since, _)| since.elapsed() < KEPT);
            if self.late.len() < MAX_KEPT {
                let answer = (Instant::now(), Arc::clone(answer));
                self.late.insert(host.to_owned(), answer);
            }
        }
        callers
    }
}

fn is_numeric(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _scope)| address);
    host.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok()
}

fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    (host, 0).to_socket_addrs().map(Iterator::collect)
}

/// Each address once, and why there is none as a text, since many read it.
fn answer(resolved: io::Result<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for address in resolved.map_err(|e| e.to_string())? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err("it has no address".into()),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests;
