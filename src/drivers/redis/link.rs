//! A connection with subscriptions: the requests made on it, and its known state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use ::redis::{PushKind, ServerError, Value, cmd};
use rustix::event::PollFd;

use crate::clock::after;
use crate::error::{Error, Result};
use crate::redis::{Conn, Health, Incoming, RedisOptions, refused};
use crate::update::Topic;

use super::channels;
use super::side::Side;

/// A connection to one node.
pub(super) struct Link {
    conn: Conn,
    pub(super) since: Instant,
    /// Where the health is asked for, if not on the connection itself.
    side: Option<Side>,
    /// Requests that wait for answers, in order.
    asked: VecDeque<Asked>,
    /// Topics are subscribed to with their channels for joined updates.
    joins: bool,
    /// The user may not have some of these channels.
    may_not_join: bool,
    /// The number of topics that are asked for again without those.
    again: usize,
    /// Topics that the node has refused, with the reason.
    refused: BTreeMap<Topic, ServerError>,
    /// When the node's health was last asked for.
    beat: Instant,
    beating: bool,
    health: Option<Health>,
    /// The cluster had a failover that is not reported yet.
    failed_over: bool,
    /// Since when the node has not been healthy.
    failing: Option<Instant>,
}

enum Asked {
    Subscribe(Topic, Channels),
    Unsubscribe(Channels),
    Probe(Topic),
    Beat,
}

/// The channels in a request, each of which has its own answer, or one refusal for all.
enum Channels {
    One,
    /// The first of two is not answered yet.
    Two,
    /// One, since two were refused.
    Again,
}

/// Outcome of a read.
pub(super) enum Read {
    /// A message; [`Link::message`] has it.
    Message,
    /// A message above the size limit.
    TooLarge,
    /// All subscriptions requested before this probe are in force.
    Confirmed(Topic),
    /// Some subscriptions requested before a probe are not in force.
    Refused(Error),
    /// The cluster had a failover: earlier confirmations may no longer hold.
    Failover,
}

impl Link {
    /// `joins` if joined updates are understood.
    pub(super) fn new(mut conn: Conn, side: Option<Conn>, health: Option<Health>, joins: bool) -> Link {
        let now = Instant::now();
        conn.will_subscribe();
        Link {
            since: now,
            side: side.map(Side::new),
            asked: VecDeque::new(),
            // Publishers in a cluster do not see its subscribers.
            joins: joins && !conn.in_cluster,
            may_not_join: false,
            again: 0,
            conn,
            refused: BTreeMap::new(),
            beat: now,
            beating: false,
            health,
            failed_over: false,
            failing: None,
        }
    }

    pub(super) fn conn(&self) -> &Conn {
        &self.conn
    }

    /// The event to wait for beside the connection.
    pub(super) fn news_beside(&self) -> Option<PollFd<'_>> {
        self.side.as_ref()?.news()
    }

    /// Notes that there may be something to read.
    pub(super) fn may_read(&mut self) {
        self.conn.may_read();
    }

    pub(super) fn subscribe(&mut self, topic: &Topic) {
        self.refused.remove(topic);
        let channels = self.push("SUBSCRIBE", topic, self.joins && !self.may_not_join);
        self.asked.push_back(Asked::Subscribe(topic.clone(), channels));
    }

    /// Pushes a request about a topic.
    fn push(&mut self, request: &str, topic: &Topic, joins: bool) -> Channels {
        let joined = channels::for_joined(topic.as_str().as_bytes()).filter(|_| joins);
        self.conn.push(cmd(request).arg(topic.as_str()).arg(&joined));
        match joined {
            Some(_) => Channels::Two,
            None => Channels::One,
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: &Topic) {
        self.refused.remove(topic);
        // Both, since earlier topics may have both.
        let channels = self.push("UNSUBSCRIBE", topic, self.joins);
        self.asked.push_back(Asked::Unsubscribe(channels));
    }

    /// Requests refused subscriptions again, and then a reply that follows all of them.
    pub(super) fn probe(&mut self, probe: &Topic) {
        for topic in std::mem::take(&mut self.refused).into_keys() {
            self.subscribe(&topic);
        }
        self.push_probe(probe.clone());
    }

    fn push_probe(&mut self, probe: Topic) {
        self.conn.push(cmd("PING").arg(probe.as_str()));
        self.asked.push_back(Asked::Probe(probe));
    }

    /// The next input, without waiting; `topics` are those still wanted. An error means that the connection is lost.
    pub(super) fn read(&mut self, max_payload: usize, topics: &BTreeSet<Topic>) -> Result<Option<Read>> {
        loop {
            if std::mem::take(&mut self.failed_over) {
                return Ok(Some(Read::Failover));
            }
            match self.conn.next(max_payload)? {
                Some(Incoming::Message) => return Ok(Some(Read::Message)),
                Some(Incoming::TooLarge) => return Ok(Some(Read::TooLarge)),
                Some(Incoming::Value(value)) => {
                    if let Some(read) = self.answered(value, topics)? {
                        return Ok(Some(read));
                    }
                }
                None if self.conn.is_drained() => match self.hear_beside()? {
                    true => {}
                    false => return Ok(None),
                },
                None => {
                    self.conn.fill()?;
                }
            }
        }
    }

    /// Takes an answer beside the connection; returns true if there was one.
    fn hear_beside(&mut self) -> Result<bool> {
        let Some(side) = &mut self.side else {
            return Ok(false);
        };
        let answer = side.answer().map_err(about_health)?;
        answer.iter().for_each(|answer| self.on_health(answer));
        Ok(answer.is_some())
    }

    /// The topic and the payload of the message that was just read.
    pub(super) fn message(&self) -> [&[u8]; 2] {
        let [channel, payload] = self.conn.message();
        [channels::topic_of(channel), payload]
    }

    /// Handles a reply. The server replies in the order of the requests; its own messages come in between.
    fn answered(&mut self, value: Value, topics: &BTreeSet<Topic>) -> Result<Option<Read>> {
        let is_push = match &value {
            Value::Push { kind, .. } if !matches!(kind, PushKind::Subscribe | PushKind::Unsubscribe) => {
                return Ok(None);
            }
            Value::Push { .. } => true,
            _ => false,
        };
        match (self.asked.pop_front(), value) {
            (Some(Asked::Subscribe(topic, channels)), Value::ServerError(why)) => {
                self.again -= usize::from(matches!(channels, Channels::Again));
                match channels {
                    // It was unsubscribed meanwhile.
                    _ if !topics.contains(&topic) => {}
                    Channels::Two => {
                        self.may_not_join = true;
                        self.again += 1;
                        self.push("SUBSCRIBE", &topic, false);
                        self.asked.push_back(Asked::Subscribe(topic, Channels::Again));
                    }
                    Channels::One | Channels::Again => _ = self.refused.insert(topic, why),
                }
                Ok(None)
            }
            (Some(Asked::Subscribe(topic, Channels::Two)), _) if is_push => {
                self.asked.push_front(Asked::Subscribe(topic, Channels::One));
                Ok(None)
            }
            (Some(Asked::Subscribe(_, channels)), _) if is_push => {
                self.again -= usize::from(matches!(channels, Channels::Again));
                Ok(None)
            }
            (Some(Asked::Unsubscribe(_)), Value::ServerError(_)) => Ok(None),
            (Some(Asked::Unsubscribe(Channels::Two)), _) if is_push => {
                self.asked.push_front(Asked::Unsubscribe(Channels::One));
                Ok(None)
            }
            (Some(Asked::Unsubscribe(_)), _) if is_push => Ok(None),
            // It went out before topics that are asked for again.
            (Some(Asked::Probe(probe)), Value::BulkString(_)) if self.again > 0 => {
                self.push_probe(probe);
                Ok(None)
            }
            (Some(Asked::Probe(_)), Value::ServerError(why)) => {
                Ok(Some(Read::Refused(refused(self.conn.node(), &why))))
            }
            (Some(Asked::Probe(probe)), Value::BulkString(_)) => Ok(Some(match self.refused.first_key_value() {
                None => Read::Confirmed(probe),
                Some((first, why)) => {
                    let count = self.refused.len();
                    let context = format!("{count} topics cannot be subscribed, among them {first}");
                    let cause = refused(self.conn.node(), why);
                    Read::Refused(cause.context(context))
                }
            })),
            (Some(Asked::Beat), answer) if !is_push => {
                self.beating = false;
                self.on_health(&answer);
                Ok(None)
            }
            _ => Err(self.conn.nonsense("an answer without a request")),
        }
    }

    /// Takes an answer that may have the health.
    fn on_health(&mut self, answer: &Value) {
        let Some(health) = Health::read(answer) else {
            return;
        };
        if !health.ok {
            self.failing.get_or_insert_with(Instant::now);
            return;
        }
        self.failing = None;
        let before = self.health.replace(health);
        self.failed_over |= before.is_some_and(|before| before.epoch != health.epoch);
    }

    /// The next time at which [`Link::tend`] has something to do.
    pub(super) fn next_beat(&self, options: &RedisOptions) -> Instant {
        match self.beating {
            true => after(self.conn.heard.max(self.beat), options.heartbeat_timeout),
            false => after(self.beat, options.heartbeat_interval),
        }
    }

    /// Sends what is waiting, and checks that the node is alive and healthy. An error means that it is not.
    pub(super) fn tend(&mut self, now: Instant, options: &RedisOptions) -> Result<()> {
        self.hear_beside()?;
        if self.next_beat(options) <= now {
            if !self.beating {
                match &mut self.side {
                    None => self.conn.push(&Health::question(self.conn.in_cluster, self.conn.resp)),
                    Some(side) => {
                        self.conn.push(&cmd("PING"));
                        side.ask(now, options.heartbeat_timeout).map_err(about_health)?;
                    }
                }
                self.asked.push_back(Asked::Beat);
                self.beating = true;
                self.beat = now;
            } else if !self.conn.fill()? {
                // The server was silent; this process did not merely pause.
                return Err(self.conn.silent(options.heartbeat_timeout));
            }
        }
        if self
            .failing
            .is_some_and(|since| now.duration_since(since) > options.heartbeat_timeout)
        {
            return Err(self.conn.cut_off());
        }
        self.conn.send_some().map(drop)
    }
}

/// Says which of the two connections is lost.
fn about_health(e: Error) -> Error {
    e.context("the connection that asks for the server's health")
}
