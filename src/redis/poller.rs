//! The thread of one Sentinel, which asks it and hears of failovers.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::clock;
use crate::error::Result;

use super::access::Access;
use super::conn::{Conn, lost};
use super::node::Node;
use super::options::RedisOptions;
use super::reply::Resp;
use super::sentinel;
use super::stream::Limit;
use super::watch::Watch;

/// The thread of one Sentinel.
pub(super) struct Poller {
    pub(super) number: usize,
    pub(super) node: Node,
    pub(super) name: String,
    pub(super) access: Access,
    pub(super) options: RedisOptions,
    pub(super) watch: Arc<Watch>,
    pub(super) wake: UnixStream,
    pub(super) stop: Arc<UnixStream>,
}

/// The shortest pause between two questions to a Sentinel.
const PACE: Duration = Duration::from_millis(50);

impl Poller {
    /// Asks the Sentinel until stopped.
    pub(super) fn run(self) {
        let limit = Limit::cancelled_by(&self.stop);
        let mut wait = Duration::ZERO;
        loop {
            let mut round = self.watch.begin();
            if let Err(e) = self.follow(&mut round, &mut wait, limit) {
                self.watch.heard(self.number, round, Err(e));
            }
            wait = self.options.next_wait(wait);
            if !limit.pause(PACE) || !self.pause(limit, wait) {
                return;
            }
        }
    }

    /// Asks a Sentinel again and again, until that fails.
    fn follow(&self, round: &mut u64, wait: &mut Duration, limit: Limit<'_>) -> Result<()> {
        let patience = self.options.heartbeat_timeout;
        let mut conn = Conn::open(&self.node, &self.access, limit.share(patience))?;
        // In RESP2 a connection with subscriptions takes no questions.
        let mut events = match conn.resp {
            Resp::Three => None,
            Resp::Two => Some(Conn::open(&self.node, &self.access, limit.share(patience))?),
        };
        sentinel::subscribe(events.as_mut().unwrap_or(&mut conn), limit.share(patience))?;
        loop {
            *round = self.watch.begin();
            let said = sentinel::ask(&mut conn, &self.name, limit.share(patience))?;
            self.watch.heard(self.number, *round, Ok(said));
            *wait = Duration::ZERO;
            if !limit.pause(PACE) {
                return Ok(());
            }
            self.await_news(events.as_mut().unwrap_or(&mut conn), *round, limit)?;
        }
    }

    /// Waits until the Sentinel has an event, another round of questions is asked for, or time has passed.
    fn await_news(&self, conn: &mut Conn, round: u64, limit: Limit<'_>) -> Result<()> {
        let end = clock::after(Instant::now(), self.options.heartbeat_interval);
        let mut has_event = false;
        loop {
            if conn.next(usize::MAX)?.is_some() {
                has_event = true;
                continue;
            }
            if !conn.is_drained() {
                conn.fill()?;
                continue;
            }
            if has_event || !self.watch.is_newest(round) || Instant::now() >= end {
                return Ok(());
            }
            let news = vec![
                PollFd::from_borrowed_fd(conn.as_fd(), conn.news()),
                PollFd::new(&self.wake, PollFlags::IN),
            ];
            let waited = limit.wait_any(news, end).map(drop);
            waited.map_err(|e| lost(&self.node, e))?;
            self.take_wakes();
            conn.may_read();
        }
    }

    /// Waits for `wait`, or until another round of questions is asked for; returns false if stopped.
    fn pause(&self, limit: Limit<'_>, wait: Duration) -> bool {
        let wake = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let waited = limit.wait_any(wake, clock::after(Instant::now(), wait)).is_ok();
        self.take_wakes();
        waited
    }

    fn take_wakes(&self) {
        let _ = (&self.wake).read(&mut [0; 64]);
    }
}
