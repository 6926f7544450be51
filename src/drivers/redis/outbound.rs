//! The publishing end: a connection to one node, repaired by the send that finds it broken.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Value, cmd};
use parking_lot::Mutex;

use crate::config::JoinFrames;
use crate::drivers::parts::send_parts;
use crate::error::{Error, ErrorKind, Result};
use crate::poll::pair;
use crate::redis::{Conn, Finder, Limit, RedisOptions, refused};
use crate::thread;
use crate::transport::{Outbound, Wake};

pub(super) struct RedisOutbound {
    finder: Finder,
    address: String,
    /// Interval after which a node's health is asked for again.
    interval: Duration,
    /// How long the node may then be silent.
    patience: Duration,
    joins: JoinFrames,
    link: Option<Link>,
    /// Waits are cancelled when the other end is dropped.
    cancel: Option<UnixStream>,
}

/// The other end.
struct Interrupt(Mutex<Option<UnixStream>>);

impl Wake for Interrupt {
    fn wake(&self) {
        *self.0.lock() = None;
    }
}

struct Link {
    conn: Conn,
    checked: Instant,
}

/// How long to wait when no node is usable.
const PAUSE: Duration = Duration::from_millis(20);

/// Time limit for "without waiting", since every message is confirmed.
const AT_ONCE: Duration = Duration::from_millis(100);

impl RedisOutbound {
    pub(super) fn new(finder: Finder, address: String, options: &RedisOptions) -> RedisOutbound {
        RedisOutbound {
            finder,
            address,
            interval: options.heartbeat_interval,
            patience: options.heartbeat_timeout,
            joins: options.join_frames,
            link: None,
            cancel: None,
        }
    }

    /// A connection that is good as far as is known.
    fn link(&mut self, limit: Limit<'_>) -> Result<Link> {
        let now = Instant::now();
        let is_current = |_: &Link| !self.finder.has_moved();
        if let Some(mut link) = self.link.take().filter(is_current) {
            let master = self.finder.master().cloned();
            let limit = master.as_ref().map_or(limit, |master| master.limit(limit));
            match link.check(now, self.interval, &self.finder, limit.share(self.patience)) {
                Ok(()) => return Ok(link),
                Err(_) => self.finder.shun(link.conn.node()),
            }
        }
        let (conn, _) = self.finder.connect(limit)?;
        Ok(Link { conn, checked: now })
    }
}

impl Link {
    fn check(&mut self, now: Instant, interval: Duration, finder: &Finder, limit: Limit<'_>) -> Result<()> {
        self.conn.check()?;
        if now.duration_since(self.checked) >= interval {
            self.conn.health(limit)?;
            finder.check_alone(&mut self.conn, limit)?;
            // Servers that do not answer take a tenth of the time at most.
            self.checked = now + 10 * now.elapsed();
        }
        Ok(())
    }
}

impl Outbound for RedisOutbound {
    /// Waits until the node has confirmed the message. If the message was certainly never sent, another node is tried
    /// while there is time.
    fn send(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        let timeout = if timeout.is_zero() { AT_ONCE } else { timeout };
        let cancel = self.cancel.take();
        let limit = Limit::until(thread::deadline(timeout));
        let sent = self.send_within(
            topic,
            payload,
            cancel.as_ref().map_or(limit, |it| limit.or_cancelled_by(it)),
        );
        self.cancel = cancel;
        sent
    }

    fn takes_joined(&self) -> bool {
        self.joins == JoinFrames::Always
    }

    fn send_joined(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        match self.joins {
            JoinFrames::Never => send_parts(self, topic, payload, timeout),
            JoinFrames::Auto | JoinFrames::Always => self.send(topic, payload, timeout),
        }
    }

    fn address(&self) -> Option<String> {
        Some(self.address.clone())
    }

    fn interrupt(&mut self) -> Result<Option<Arc<dyn Wake>>> {
        let (cancel, other) = pair()?;
        self.cancel = Some(cancel);
        Ok(Some(Arc::new(Interrupt(Mutex::new(Some(other))))))
    }
}

impl RedisOutbound {
    fn send_within(&mut self, topic: &[u8], payload: &[u8], limit: Limit<'_>) -> Result<()> {
        loop {
            let failed = match self.link(limit) {
                Ok(mut link) => {
                    let master = self.finder.master().cloned();
                    let limit = master.as_ref().map_or(limit, |master| master.limit(limit));
                    link.conn.push(cmd("PUBLISH").arg(topic).arg(payload));
                    match link.conn.flush(limit) {
                        Ok(()) => return self.confirm(link, limit),
                        Err(e) => {
                            self.finder.shun(link.conn.node());
                            e
                        }
                    }
                }
                Err(e) => e,
            };
            if failed.kind() == ErrorKind::Denied {
                return Err(failed);
            }
            if !limit.pause(PAUSE) || limit.is_over() {
                let context = format!("no server takes messages at {}", self.address);
                return Err(Error::new(ErrorKind::Timeout, context).with_source(failed));
            }
        }
    }

    /// Waits for the answer to the message, and keeps the connection if it comes.
    fn confirm(&mut self, mut link: Link, limit: Limit<'_>) -> Result<()> {
        let reply = link.conn.reply(limit);
        // A server that is not the master any more has no subscribers.
        let checked = self.finder.master().map_or(Ok(()), |master| master.check());
        match reply.and_then(|reply| checked.map(|()| reply)) {
            Ok(Value::ServerError(why)) => {
                let error = refused(link.conn.node(), &why);
                if error.kind() == ErrorKind::Denied {
                    self.link = Some(link);
                }
                Err(error)
            }
            Ok(_) => {
                self.link = Some(link);
                Ok(())
            }
            Err(e) => {
                self.finder.shun(link.conn.node());
                let context = "a message was sent, but it was not confirmed";
                Err(Error::new(ErrorKind::Unconfirmed, context).with_source(e))
            }
        }
    }
}
