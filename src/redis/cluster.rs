//! A cluster as one of its servers knows it.

use ::redis::{Cmd, Value, cmd, from_redis_value, from_redis_value_ref};

use crate::error::{Error, ErrorKind, Result};

use super::conn::Conn;
use super::field;
use super::node::Node;
use super::stream::Limit;

/// A range of slots, its ends included, and its servers: the master first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) slots: (u16, u16),
    pub(crate) nodes: Vec<Node>,
}

/// How a server stands with those that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// In a cluster: it reaches most of it, and every slot is served. Otherwise: it is no replica.
    pub(crate) ok: bool,
    /// Raised by every failover of the cluster.
    pub(crate) epoch: u64,
}

impl Health {
    /// The request whose answer [`Health::read`] reads.
    pub(crate) fn question(in_cluster: bool) -> Cmd {
        match in_cluster {
            true => cluster("INFO"),
            false => cmd("HELLO"),
        }
    }

    /// Reads the answer; `None` if it says nothing, as for a user without permission.
    pub(crate) fn read(answer: &Value) -> Option<Health> {
        if let Some(role) = field(answer, "role") {
            let ok = role == "master";
            return Some(Health { ok, epoch: 0 });
        }
        let text: String = from_redis_value_ref(answer).ok()?;
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Some(Health {
            ok: line("cluster_state")? == "ok",
            epoch: line("cluster_current_epoch")?.parse().ok()?,
        })
    }

    /// Asks a server, and fails if it is not well; `None` without permission to ask.
    pub(crate) fn check(conn: &mut Conn, limit: Limit<'_>) -> Result<Option<Health>> {
        match conn.ask(&Health::question(conn.in_cluster), limit) {
            Ok(answer) => match Health::read(&answer) {
                Some(health) if !health.ok => Err(cut_off(conn)),
                health => Ok(health),
            },
            Err(e) if e.kind() == ErrorKind::Denied => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The error for a server whose [`Health`] is not well.
pub(crate) fn cut_off(conn: &Conn) -> Error {
    conn.nonsense(match conn.in_cluster {
        true => "its cluster is down, or it is cut off from it",
        false => "it is a replica: its master does not hear what is published there",
    })
}

/// Asks a server for the owners of slots; nothing without permission.
pub(crate) fn ranges(conn: &mut Conn, limit: Limit<'_>) -> Result<Vec<Range>> {
    let answer = match conn.ask(&cluster("SLOTS"), limit) {
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(Vec::new()),
        answer => answer?,
    };
    let ranges = answer.into_sequence().unwrap_or_default().into_iter();
    let ranges: Option<Vec<_>> = ranges.map(|range| read(range, conn.node())).collect();
    ranges.ok_or_else(|| conn.nonsense("no answer to CLUSTER SLOTS"))
}

fn cluster(what: &str) -> Cmd {
    let mut question = cmd("CLUSTER");
    question.arg(what);
    question
}

/// One range: its ends, then for each node a host, a port, an id, and other names of the host.
fn read(range: Value, asked: &Node) -> Option<Range> {
    let mut parts = range.into_sequence().ok()?.into_iter();
    let slots = (number(parts.next()?)?, number(parts.next()?)?);
    let node = |value: Value| {
        let mut parts = value.into_sequence().ok()?.into_iter();
        let host: Option<String> = from_redis_value(parts.next()?).ok()?;
        let port = number(parts.next()?)?;
        // A server that hides its host is where it was asked.
        let host = asked.host_told(host.as_deref().unwrap_or_default());
        let node = Node { host, port };
        if !node.is_unnamed() {
            return Some(node);
        }
        let ip = parts.nth(1).and_then(|names| field(&names, "ip")).unwrap_or_default();
        Some(Node {
            host: asked.host_told(&ip),
            port,
        })
    };
    let mut nodes = parts.map(node).collect::<Option<Vec<_>>>()?;
    // Of one that the server has lost even the port is missing.
    nodes.retain(|node| node.port != 0);
    Some(Range { slots, nodes })
}

fn number(value: Value) -> Option<u16> {
    u16::try_from(from_redis_value::<i64>(value).ok()?).ok()
}
