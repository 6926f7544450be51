//! Finds a suitable server, a different one each time.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

use super::address::Servers;
use super::cluster;
use super::conn::Conn;
use super::health::Health;
use super::master::Master;
use super::masters::Masters;
use super::node::{self, Node};
use super::reply::Resp;
use super::rivals;
use super::stream::Limit;
use super::way::Way;

/// Chooses servers: successive connections go to one server after another, beginning at a random one.
#[derive(Debug, Clone)]
pub(crate) struct Finder {
    servers: Vec<Node>,
    way: Way,
    patience: Duration,
    turns: Arc<AtomicUsize>,
    /// All servers, once one has named them.
    known: Vec<Node>,
    /// Servers that have failed; they are tried last.
    shunned: BTreeSet<Node>,
    /// The server, if Sentinels have named it.
    master: Option<Arc<Master>>,
}

/// The turns of servers; processes that start together begin at different ones.
pub(crate) fn turns() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(RandomState::new().hash_one(0) as usize >> 1))
}

impl Finder {
    /// A finder; `patience` is the time limit of a login.
    pub(crate) fn new(servers: Servers, way: Way, patience: Duration, turns: Arc<AtomicUsize>) -> Finder {
        Finder {
            servers: servers.nodes,
            way,
            patience,
            turns,
            known: Vec::new(),
            shunned: BTreeSet::new(),
            master: None,
        }
    }

    /// The server that was connected to last, if Sentinels have named it.
    pub(crate) fn master(&self) -> Option<&Arc<Master>> {
        self.master.as_ref()
    }

    /// True if Sentinels name another server now.
    pub(crate) fn has_moved(&self) -> bool {
        self.master.as_ref().is_some_and(|master| master.is_over())
    }

    /// Waits before the next try, at most until Sentinels name another server; returns false if cancelled.
    pub(crate) fn pause(&self, limit: Limit<'_>, time: Duration) -> bool {
        match &self.master {
            Some(master) => master.pause(limit, time),
            None => limit.pause(time),
        }
    }

    /// Notes that this server failed.
    pub(crate) fn shun(&mut self, node: &Node) {
        match &self.way.masters {
            Some(_) if self.has_moved() => {}
            Some(masters) => masters.doubt(),
            None => _ = self.shunned.insert(node.clone()),
        }
    }

    /// Connects to a server that answers and, in a cluster, is not cut off from it.
    ///
    /// # Errors
    /// The error of the last server tried.
    pub(crate) fn connect(&mut self, limit: Limit<'_>) -> Result<(Conn, Option<Health>)> {
        match self.way.masters.clone() {
            Some(masters) => {
                let connected = self.connect_to_master(&masters, limit);
                connected.inspect_err(|_| masters.doubt())
            }
            None => self.connect_to_any(limit),
        }
    }

    fn connect_to_master(&mut self, masters: &Masters, limit: Limit<'_>) -> Result<(Conn, Option<Health>)> {
        self.master = None;
        let master = self.master.insert(masters.master(limit.share(self.patience))?);
        let limit = master.limit(limit);
        // With it the server says that it is a master.
        let mut conn = Conn::open(&master.node, &self.way.access, limit.share(self.patience))?;
        let health = conn.health(limit.share(self.patience))?;
        master.check()?;
        Ok((conn, health))
    }

    fn connect_to_any(&mut self, limit: Limit<'_>) -> Result<(Conn, Option<Health>)> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let mut error = Error::new(ErrorKind::InvalidInput, "there are no Redis servers to connect to");
        let mut learnt = None;
        if self.known.is_empty() {
            for node in self.in_turn(&self.servers, turn) {
                match self.learn(&node, limit) {
                    Ok(conn) => {
                        learnt = Some(conn);
                        break;
                    }
                    Err(e) => error = e,
                }
            }
        }
        for node in self.candidates(turn) {
            let conn = match learnt.take_if(|conn| *conn.node() == node) {
                Some(conn) => Ok(conn),
                None => self.learn(&node, limit),
            };
            let check = |mut conn: Conn| {
                let health = conn.health(limit.share(self.patience))?;
                self.check_alone(&mut conn, limit)?;
                Ok((health, conn))
            };
            match conn.and_then(check) {
                Ok((health, conn)) => {
                    self.shunned.remove(&node);
                    return Ok((conn, health));
                }
                Err(e) => {
                    self.shun(&node);
                    error = e;
                }
            }
        }
        // All servers may have moved.
        self.known.clear();
        self.shunned.clear();
        Err(error)
    }

    /// Another connection to the same server, for questions, if one with subscriptions takes none.
    ///
    /// # Errors
    /// As [`Conn::open`].
    pub(crate) fn ask_beside(&self, conn: &Conn, limit: Limit<'_>) -> Result<Option<Conn>> {
        match conn.resp {
            Resp::Three => Ok(None),
            Resp::Two => Conn::open(conn.node(), &self.way.access, limit.share(self.patience)).map(Some),
        }
    }

    /// Fails if another one of the configured servers is a master as well.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the names of both.
    pub(crate) fn check_alone(&self, conn: &mut Conn, limit: Limit<'_>) -> Result<()> {
        match self.way.masters {
            Some(_) => Ok(()),
            None => rivals::check(conn, &self.servers, &self.way.access, limit),
        }
    }

    /// True if [`Finder::look_beside`] has a server to ask.
    pub(crate) fn has_others(&self) -> bool {
        self.way.masters.is_none() && self.servers.len() > 1
    }

    /// Fails if another one of the configured servers is a master as well as `node`, which is connected to. `own` is
    /// another connection to it, made if it is needed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the names of both; others if `own` fails.
    pub(crate) fn look_beside(&self, node: &Node, own: &mut Option<Conn>, limit: Limit<'_>) -> Result<()> {
        for mut other in rivals::beside(node, &self.servers, &self.way.access, limit) {
            let own = match own {
                Some(own) => own,
                None => own.insert(Conn::open(node, &self.way.access, limit.share(self.patience))?),
            };
            own.check()?;
            rivals::compare(own, &mut other, limit)?;
        }
        Ok(())
    }

    /// The servers to try: the cluster's, with the configured ones after the first, since those that a cluster names
    /// may be unreachable from here.
    fn candidates(&self, turn: usize) -> Vec<Node> {
        let mut nodes = self.in_turn(&self.known, turn);
        let told: Vec<_> = nodes.clone();
        let ours = self.in_turn(&self.servers, turn);
        let first = nodes.len().min(1);
        nodes.splice(first..first, ours.into_iter().filter(|node| !told.contains(node)));
        nodes.sort_by_key(|node| self.shunned.contains(node));
        nodes
    }

    /// Connects to a server and, in a cluster, asks for the others.
    fn learn(&mut self, node: &Node, limit: Limit<'_>) -> Result<Conn> {
        let mut conn = Conn::open(node, &self.way.access, limit.share(self.patience))?;
        let ranges = match conn.in_cluster {
            true => cluster::ranges(&mut conn, limit.patient(self.patience))?,
            false => Vec::new(),
        };
        let nodes: BTreeSet<_> = ranges.into_iter().flat_map(|range| range.nodes).collect();
        self.known = match nodes.is_empty() {
            true => self.servers.clone(),
            false => nodes.into_iter().collect(),
        };
        let (known, servers) = (&self.known, &self.servers);
        self.shunned
            .retain(|node| known.contains(node) || servers.contains(node));
        Ok(conn)
    }

    /// These servers, beginning with the one whose turn it is, the failed ones last.
    fn in_turn(&self, nodes: &[Node], turn: usize) -> Vec<Node> {
        let mut nodes = node::in_turn(nodes.to_vec(), turn);
        nodes.sort_by_key(|node| self.shunned.contains(node));
        nodes
    }
}
