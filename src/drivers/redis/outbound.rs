//! The publishing end: a connection to one node, repaired by the send that finds it broken.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Value, cmd};
use parking_lot::Mutex;

use crate::codec;
use crate::config::JoinFrames;
use crate::error::{Error, ErrorKind, Result};
use crate::poll::pair;
use crate::redis::{Conn, Finder, Limit, RedisOptions, refused};
use crate::thread;
use crate::transport::{Outbound, Wake, partly_sent};

use super::audience::{Audience, REPLIES, Reached};

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
    audience: Audience,
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
        Ok(Link {
            audience: Audience::new(self.joins == JoinFrames::Auto && !conn.in_cluster),
            conn,
            checked: now,
        })
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
        self.within(timeout, |outbound, limit| outbound.send_all(topic, &[payload], limit))
    }

    fn takes_joined(&self) -> bool {
        match self.joins {
            JoinFrames::Always => true,
            JoinFrames::Never => false,
            JoinFrames::Auto => self.link.as_ref().is_some_and(|link| link.audience.has_ours()),
        }
    }

    fn confirms(&self) -> bool {
        true
    }

    fn send_joined(&mut self, topic: &[u8], payload: &[u8], timeout: Duration) -> Result<()> {
        self.within(timeout, |outbound, limit| match outbound.joins {
            JoinFrames::Always => outbound.send_all(topic, &[payload], limit),
            JoinFrames::Never => outbound.send_parts(topic, payload, limit),
            JoinFrames::Auto => match outbound.send_to_ours(topic, payload, limit)? {
                Reached::All => Ok(()),
                // This library's receive them twice, and take each number once.
                Reached::Ours => outbound.send_parts(topic, payload, limit).map_err(partly_sent),
                Reached::None => outbound.send_parts(topic, payload, limit),
            },
        })
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
    fn within(
        &mut self,
        timeout: Duration,
        send: impl FnOnce(&mut RedisOutbound, Limit<'_>) -> Result<()>,
    ) -> Result<()> {
        let timeout = if timeout.is_zero() { AT_ONCE } else { timeout };
        let cancel = self.cancel.take();
        let limit = Limit::until(thread::deadline(timeout));
        let sent = send(self, cancel.as_ref().map_or(limit, |it| limit.or_cancelled_by(it)));
        self.cancel = cancel;
        sent
    }

    /// Sends the maps of an array in one round trip.
    fn send_parts(&mut self, topic: &[u8], payload: &[u8], limit: Limit<'_>) -> Result<()> {
        let parts = codec::parts(payload);
        self.send_all(topic, parts.as_deref().unwrap_or(&[payload]), limit)
    }

    /// Sends joined updates in one message to subscribers of this library, unless others are likely to be there.
    fn send_to_ours(&mut self, topic: &[u8], payload: &[u8], limit: Limit<'_>) -> Result<Reached> {
        if self.link.is_none() || !codec::is_joined(payload) {
            return Ok(Reached::None);
        }
        // `send_all` tries longer.
        let Ok(mut link) = self.link(limit) else {
            return Ok(Reached::None);
        };
        if !link.audience.publish(&mut link.conn, topic, payload) {
            self.link = Some(link);
            return Ok(Reached::None);
        }
        let master = self.finder.master().cloned();
        let limit = master.as_ref().map_or(limit, |master| master.limit(limit));
        if let Err(e) = link.conn.flush(limit) {
            self.finder.shun(link.conn.node());
            // A transaction whose end is missing is not made, unless the user may not begin one.
            return match link.conn.has_begun() {
                true => Err(partly_sent(e)),
                false => Ok(Reached::None),
            };
        }
        let replies = self.received(&mut link, REPLIES, limit)?;
        if let Some(reached) = link.audience.published(topic, &replies) {
            self.link = Some(link);
            return Ok(reached);
        }
        // The user may not do it, or the server does not know it.
        let is_final = |reply: &Value| match reply {
            Value::ServerError(why) => {
                why.code() == "ERR" || refused(link.conn.node(), why).kind() == ErrorKind::Denied
            }
            _ => false,
        };
        if replies.iter().any(is_final) {
            self.joins = JoinFrames::Never;
        }
        // Without the right to begin a transaction, what follows was done at once.
        Ok(match replies.get(1) {
            Some(Value::Int(_)) => Reached::Ours,
            _ => Reached::None,
        })
    }

    /// Sends messages in one round trip.
    fn send_all(&mut self, topic: &[u8], payloads: &[&[u8]], limit: Limit<'_>) -> Result<()> {
        loop {
            let failed = match self.link(limit) {
                Ok(mut link) => {
                    let master = self.finder.master().cloned();
                    let limit = master.as_ref().map_or(limit, |master| master.limit(limit));
                    // Before the messages: whoever has not received all of the output has not received the last one.
                    let asks = link
                        .audience
                        .ask(&mut link.conn, topic, payloads.len() > 1, Instant::now());
                    for payload in payloads {
                        link.conn.push(cmd("PUBLISH").arg(topic).arg(payload));
                    }
                    match link.conn.flush(limit) {
                        Ok(()) => return self.confirm(link, topic, asks, payloads.len(), limit),
                        // The server may have done what it has received.
                        Err(e) if payloads.len() > 1 && link.conn.has_begun() => {
                            self.finder.shun(link.conn.node());
                            return Err(partly_sent(e));
                        }
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

    /// Waits for the answers to a question, if there was one, and to `count` messages, and keeps the connection if they
    /// come.
    fn confirm(&mut self, mut link: Link, topic: &[u8], asks: bool, count: usize, limit: Limit<'_>) -> Result<()> {
        let replies = self.received(&mut link, usize::from(asks) + count, limit)?;
        let (answer, replies) = replies.split_at(usize::from(asks));
        for answer in answer {
            link.audience.answered(topic, answer);
        }
        let (mut refusals, mut first, mut is_good) = (0, None, true);
        for reply in replies {
            if let Value::ServerError(why) = reply {
                let refusal = refused(link.conn.node(), why);
                refusals += 1;
                is_good &= refusal.kind() == ErrorKind::Denied;
                first.get_or_insert(refusal);
            }
        }
        if is_good {
            self.link = Some(link);
        }
        match first {
            Some(refusal) if refusals == count => Err(refusal),
            Some(refusal) => Err(partly_sent(refusal)),
            None => Ok(()),
        }
    }

    /// The next replies. Fails if some are missing, or if they come from a server that is not the master any more: it
    /// has no subscribers.
    fn received(&mut self, link: &mut Link, count: usize, limit: Limit<'_>) -> Result<Vec<Value>> {
        let replies: Result<_> = (0..count).map(|_| link.conn.reply(limit)).collect();
        let is_master = || self.finder.master().map_or(Ok(()), |master| master.check());
        let checked = replies.and_then(|replies| is_master().map(|()| replies));
        checked.map_err(|e| {
            self.finder.shun(link.conn.node());
            let context = "a message was sent, but it was not confirmed";
            Error::new(ErrorKind::Unconfirmed, context).with_source(e)
        })
    }
}
