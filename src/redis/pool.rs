//! The connections to all servers, and the known owners of slots, shared by all threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};

use super::address::Servers;
use super::cluster;
use super::conn::Conn;
use super::master::{self, Master};
use super::masters::Masters;
use super::node::{Node, in_turn};
use super::options::RedisOptions;
use super::rivals;
use super::slots::Slots;
use super::stream::Limit;
use super::way::Way;

pub(crate) struct Pool {
    servers: Servers,
    way: Way,
    options: RedisOptions,
    known: Mutex<Known>,
    /// The idle connections.
    idle: Mutex<HashMap<Node, Vec<Pooled>>>,
    /// When they are next looked through for those that their servers have closed.
    next_sweep: Mutex<Instant>,
    /// The turn of the server to ask.
    turn: AtomicUsize,
    /// When several single servers are next asked whether two are masters.
    next_check: Mutex<Instant>,
}

#[derive(Default)]
struct Known {
    slots: Slots,
    /// The owners may have changed, so a server is asked again.
    is_stale: bool,
    /// Servers that were reached at a configured address instead of the one that the cluster names.
    aliases: HashMap<Node, Node>,
}

/// A connection of the pool.
pub(crate) struct Pooled {
    pub(crate) conn: Conn,
    /// When the server was last known to be healthy.
    checked: Instant,
}

/// The most idle connections kept for a server.
const MAX_IDLE: usize = 16;

impl Pool {
    /// A pool without connections yet.
    pub(crate) fn new(servers: Servers, options: &RedisOptions) -> Result<Pool> {
        Ok(Pool {
            way: Way::new(options, &servers)?,
            servers,
            options: options.bounded(),
            known: Mutex::default(),
            idle: Mutex::default(),
            turn: AtomicUsize::new(0),
            next_sweep: Mutex::new(Instant::now()),
            next_check: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(crate) fn options(&self) -> &RedisOptions {
        &self.options
    }

    /// True if one of these is known to be a server of this pool.
    pub(crate) fn knows(&self, servers: &Servers) -> bool {
        let known = self.known.lock();
        let mut ours = known.slots.nodes().chain(&self.servers.nodes);
        let are_alike = servers.tls == self.servers.tls && servers.master == self.servers.master;
        are_alike && ours.any(|node| servers.nodes.contains(node))
    }

    /// The owner of this slot; asks servers if it is unknown.
    pub(crate) fn node_of(&self, slot: u16, limit: Limit<'_>) -> Result<Node> {
        if let Some(masters) = &self.way.masters {
            let master = masters.master(limit.share(self.options.heartbeat_timeout))?;
            return Ok(master.node.clone());
        }
        let known = self.known.lock();
        if let Some(node) = known.slots.node(slot).filter(|_| !known.is_stale) {
            return Ok(node.clone());
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // The configured servers first, since those that a cluster names may be unreachable from here.
        let mut candidates = in_turn(self.servers.nodes.clone(), turn);
        let mut others: Vec<_> = known.slots.nodes().cloned().collect();
        drop(known);
        others.sort();
        others.dedup();
        others.retain(|node| !candidates.contains(node));
        candidates.extend(in_turn(others, turn));
        let mut error = Error::new(ErrorKind::InvalidInput, "there are no Redis servers to ask");
        for candidate in candidates {
            match self.learn(&candidate, limit) {
                Ok(slots) => {
                    let node = slots.node(slot).cloned().unwrap_or(candidate);
                    self.known.lock().set(slots);
                    return Ok(node);
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// The first slot of each range with its master, as a server says now; 0 with the only server without a cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if slots have no master, [`ErrorKind::Denied`] if a cluster does not name them.
    pub(crate) fn owners(&self, limit: Limit<'_>) -> Result<Vec<(u16, Node)>> {
        if self.way.masters.is_none() {
            self.doubt();
        }
        let node = self.node_of(0, limit)?;
        let owners = self.known.lock().slots.owners();
        let Some(owners) = owners else {
            let context = "the cluster is down: some slots have no master";
            return Err(Error::new(ErrorKind::Unavailable, context));
        };
        if !owners.is_empty() {
            return Ok(owners);
        }
        if self.way.masters.is_none() {
            let pooled = self.take(&node, limit.share(self.options.heartbeat_timeout))?;
            let in_cluster = pooled.conn.in_cluster;
            self.put(pooled);
            if in_cluster {
                let context = format!("the cluster of {node} does not name its masters: CLUSTER SLOTS must be allowed");
                return Err(Error::new(ErrorKind::Denied, context));
            }
        }
        Ok(vec![(0, node)])
    }

    /// Notes from time to time, while the caller has a connection, that another one of several single servers has
    /// become a master as well.
    fn check_alone(&self, pooled: &mut Pooled, limit: Limit<'_>) -> Result<()> {
        let start = Instant::now();
        let interval = self.options.heartbeat_interval;
        if pooled.conn.in_cluster || self.servers.nodes.len() < 2 || self.way.masters.is_some() {
            return Ok(());
        }
        {
            let mut next = self.next_check.lock();
            if start < *next {
                return Ok(());
            }
            *next = clock::after(start, interval);
        }
        let checked = rivals::check(&mut pooled.conn, &self.servers.nodes, &self.way.access, limit);
        // Servers that do not answer take a tenth of the time at most.
        *self.next_check.lock() = clock::after(start, interval.max(10 * start.elapsed()));
        checked.inspect_err(|_| self.doubt())
    }

    fn learn(&self, node: &Node, limit: Limit<'_>) -> Result<Slots> {
        let patience = self.options.heartbeat_timeout;
        let mut pooled = self.take(node, limit.share(patience))?;
        let ranges = match pooled.conn.in_cluster {
            true => cluster::ranges(&mut pooled.conn, limit.patient(patience))?,
            false => Vec::new(),
        };
        rivals::check(&mut pooled.conn, &self.servers.nodes, &self.way.access, limit)?;
        self.put(pooled);
        Ok(Slots::new(ranges, node.clone()))
    }

    /// Notes that this server now has this slot.
    pub(crate) fn moved(&self, slot: u16, node: &Node) {
        self.known.lock().slots.moved(slot, node.clone());
    }

    /// The possible addresses of a server that `from` has named.
    pub(crate) fn places(&self, node: &Node, from: Option<&Node>) -> Vec<Node> {
        let known = self.known.lock();
        let Some(from) = from.filter(|_| node.is_unnamed()) else {
            return known.aliases.get(node).into_iter().chain([node]).cloned().collect();
        };
        let all = known.slots.nodes().chain(&self.servers.nodes);
        let is_candidate = |other: &&Node| other.port == node.port && *other != from;
        let mut places: Vec<_> = all.filter(is_candidate).cloned().collect();
        places.sort();
        places.dedup();
        if places.is_empty() {
            places.push(Node {
                host: from.host.clone(),
                port: node.port,
            });
        }
        places
    }

    /// Other possible addresses of a cluster's node that is unreachable at its own: the configured ones that no other
    /// node has.
    pub(crate) fn stand_ins(&self, node: &Node) -> Vec<Node> {
        let known = self.known.lock();
        let is_known = |given: &&Node| *given == node || known.slots.named().any(|other| other == *given);
        let given = self.servers.nodes.iter().filter(|_| known.slots.is_cluster());
        given.filter(|given| !is_known(given)).cloned().collect()
    }

    /// Notes that this server was reached at `place`.
    pub(crate) fn found(&self, node: &Node, place: &Node) {
        let mut known = self.known.lock();
        match node == place {
            true => known.aliases.remove(node),
            false => known.aliases.insert(node.clone(), place.clone()),
        };
    }

    /// Notes that the owners of slots, or the master, may have changed.
    pub(crate) fn doubt(&self) {
        match &self.way.masters {
            Some(masters) => masters.doubt(),
            None => self.known.lock().is_stale = true,
        }
    }

    /// The master, if Sentinels name it, and it is still this server.
    ///
    /// # Errors
    /// [`ErrorKind::Transport`] if another server is the master now.
    pub(crate) fn hold(&self, node: &Node) -> Result<Option<Arc<Master>>> {
        let Some(masters) = &self.way.masters else {
            return Ok(None);
        };
        match masters.current().filter(|master| master.node == *node) {
            Some(master) => Ok(Some(master)),
            None => {
                self.lose(node);
                Err(master::over(node))
            }
        }
    }

    /// Waits before the next try, at most until Sentinels name another master.
    pub(crate) fn pause(&self, limit: Limit<'_>, time: Duration) {
        match self.way.masters.as_ref().and_then(Masters::current) {
            Some(master) => master.pause(limit, time),
            None => limit.pause(time),
        };
    }

    /// Takes a connection that is good as far as is known. A single server has to be a master.
    pub(crate) fn take(&self, node: &Node, limit: Limit<'_>) -> Result<Pooled> {
        while let Some(mut pooled) = self.take_idle(node) {
            if pooled.conn.check().is_err() {
                continue;
            }
            // Leaves time for a new connection.
            match pooled.check(self.options.heartbeat_interval, limit.share(Duration::MAX)) {
                Ok(()) => {
                    self.check_alone(&mut pooled, limit.share(Duration::MAX))?;
                    return Ok(pooled);
                }
                Err(_) => self.lose(node),
            }
        }
        let conn = Conn::open(node, &self.way.access, limit)?;
        let checked = Instant::now();
        Ok(Pooled { conn, checked })
    }

    /// Releases the lock on return, since using the connection takes a while.
    fn take_idle(&self, node: &Node) -> Option<Pooled> {
        self.idle.lock().get_mut(node)?.pop()
    }

    /// Returns a connection without outstanding replies to the pool.
    pub(crate) fn put(&self, pooled: Pooled) {
        let mut idle = self.idle.lock();
        let node = pooled.conn.node();
        match idle.get_mut(node) {
            Some(conns) if conns.len() < MAX_IDLE => conns.push(pooled),
            Some(_) => {}
            None => {
                idle.insert(node.clone(), vec![pooled]);
            }
        }
        drop(idle);
        self.sweep();
    }

    /// Drops from time to time the idle connections that were closed, also those to servers that are used no more.
    fn sweep(&self) {
        let now = Instant::now();
        match self.next_sweep.try_lock() {
            Some(mut next) if now >= *next => *next = clock::after(now, self.options.heartbeat_interval),
            _ => return,
        }
        let mut closed = Vec::new();
        let mut idle = self.idle.lock();
        idle.retain(|_, conns| {
            closed.extend(conns.extract_if(.., |pooled| pooled.conn.check().is_err()));
            !conns.is_empty()
        });
        drop(idle);
    }

    /// Drops the idle connections of a lost server.
    pub(crate) fn lose(&self, node: &Node) {
        let lost = self.idle.lock().remove(node);
        drop(lost);
    }
}

impl Known {
    fn set(&mut self, slots: Slots) {
        self.aliases.retain(|node, _| slots.nodes().any(|other| other == node));
        (self.slots, self.is_stale) = (slots, false);
    }
}

impl Pooled {
    /// Checks the health of a single server from time to time; a cluster's server refuses misdirected requests itself.
    fn check(&mut self, interval: Duration, limit: Limit<'_>) -> Result<()> {
        if !self.conn.in_cluster {
            let now = Instant::now();
            if now.duration_since(self.checked) >= interval {
                self.conn.health(limit)?;
                self.checked = now;
            }
        }
        Ok(())
    }
}
