//! The findings of the Sentinels' threads, shared by all parts that use the master.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};

use crate::error::{Error, ErrorKind, Result};
use crate::poll::pair;

use super::master::Master;
use super::node::Node;
use super::sentinel::Configuration;
use super::sentinels::{Sentinels, Verdict};
use super::stream::Limit;

/// The known master, and the questions about it.
pub(super) struct Watch {
    /// The Sentinels' address, for logs.
    address: String,
    /// Wake the threads.
    wakes: Vec<UnixStream>,
    state: Mutex<State>,
}

struct State {
    sentinels: Sentinels,
    master: Option<Arc<Master>>,
    /// No connection to the master has failed since the Sentinels named it.
    is_trusted: bool,
    /// The last round of questions that is asked for, and the last one that a thread has begun.
    round: u64,
    begun: u64,
    /// Dropped at each answer.
    waiting: Vec<UnixStream>,
}

impl Watch {
    pub(super) fn new(address: String, wakes: Vec<UnixStream>) -> Watch {
        Watch {
            address,
            state: Mutex::new(State {
                sentinels: Sentinels::new(wakes.len(), Instant::now()),
                master: None,
                is_trusted: false,
                round: 0,
                begun: 0,
                waiting: Vec::new(),
            }),
            wakes,
        }
    }

    /// The master, as far as is known without asking.
    pub(super) fn current(&self) -> Option<Arc<Master>> {
        self.state.lock().master.clone()
    }

    /// Notes that the master failed, so that the Sentinels are asked again.
    pub(super) fn doubt(&self) {
        self.state.lock().is_trusted = false;
    }

    /// The master. The Sentinels are asked if it is not known, or was doubted.
    pub(super) fn master(&self, limit: Limit<'_>) -> Result<Arc<Master>> {
        let round = {
            let mut state = self.state.lock();
            if let Some(master) = state.master.as_ref().filter(|_| state.is_trusted) {
                return Ok(Arc::clone(master));
            }
            // A round that no thread has begun yet does for all.
            if state.begun == state.round {
                state.round += 1;
            }
            state.round
        };
        for mut wake in &self.wakes {
            // One that is full wakes as well.
            let _ = wake.write(&[1]);
        }
        loop {
            let (answered, end) = {
                let mut state = self.state.lock();
                match state.sentinels.verdict(round, Instant::now()) {
                    Verdict::Master(node) => return state.appoint(node),
                    Verdict::Failed(e) => return Err(e),
                    Verdict::Wait(end) => {
                        let (answered, waiting) = pair()?;
                        state.waiting.push(waiting);
                        (answered, end)
                    }
                }
            };
            let news = vec![PollFd::new(&answered, PollFlags::IN)];
            let waited = limit.wait_any(news, end.unwrap_or(limit.deadline));
            waited.map_err(|e| {
                let kind = match limit.is_over() {
                    true => ErrorKind::Timeout,
                    false => ErrorKind::Unavailable,
                };
                Error::new(kind, "no Sentinel has answered").with_source(e)
            })?;
        }
    }

    /// Begins the round of questions that was asked for last.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.begun = state.round;
        state.round
    }

    /// True if no later round of questions is asked for.
    pub(super) fn is_newest(&self, round: u64) -> bool {
        self.state.lock().round <= round
    }

    /// Takes the answer of the Sentinel of this number, or the reason why there is none.
    pub(super) fn heard(&self, number: usize, round: u64, said: Result<Configuration>) {
        let mut state = self.state.lock();
        state.sentinels.heard(number, round, said, Instant::now());
        let replaced = state.replace(&self.address);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop((replaced, waiting));
    }
}

impl State {
    /// Takes this server for the master.
    fn appoint(&mut self, node: Node) -> Result<Arc<Master>> {
        if let Some(old) = self.master.take_if(|master| master.node != node) {
            old.end();
        }
        let master = self.master.take().map_or_else(|| Master::new(node), Ok)?;
        self.is_trusted = true;
        Ok(Arc::clone(self.master.insert(master)))
    }

    /// Ends the master if another one is named; returns the old one.
    fn replace(&mut self, address: &str) -> Option<Arc<Master>> {
        let old = self.master.take_if(|master| !self.sentinels.stands(&master.node))?;
        old.end();
        match self.sentinels.master().cloned() {
            Some(node) => {
                log::warn!("the master of {address} is {node}, and no longer {}", old.node);
                // Without descriptors for it the next question is the next try.
                self.is_trusted = Master::new(node).map(|new| self.master = Some(new)).is_ok();
            }
            None => {
                log::warn!("the Sentinels of {address} disagree about the master");
                self.is_trusted = false;
            }
        }
        Some(old)
    }
}
