//! A cluster, as one of its servers knows it.

use ::redis::{Cmd, Value, cmd, from_redis_value, from_redis_value_ref};

use crate::error::{Error, ErrorKind, Result};

use super::conn::Conn;
use super::field;
use super::node::Node;
use super::stream::Limit;

/// A range of slots, including its ends, and its servers, the master first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) slots: (u16, u16),
    pub(crate) nodes: Vec<Node>,
}

/// The health of a server within its cluster or replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// In a cluster: the server reaches most of it, and every slot is served. Otherwise: it is no replica.
    pub(crate) ok: bool,
    /// Raised by every failover of the cluster.
    pub(crate) epoch: u64,
}

impl Health {
    /// The request for [`Health::read`].
    pub(crate) fn question(in_cluster: bool) -> Cmd {
        match in_cluster {
            true => cluster("INFO"),
            false => cmd("HELLO"),
        }
    }

    /// Reads the answer; `None` if it has no health, for example without permission.
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

    /// Asks a server, and fails if it is not healthy, or still loads its data; `None` without permission to ask.
    pub(crate) fn check(conn: &mut Conn, limit: Limit<'_>) -> Result<Option<Health>> {
        // Meanwhile a server answers HELLO, and takes subscriptions that it does not confirm.
        if !conn.in_cluster
            && let Err(e) = conn.ask(&cmd("PING"), limit)
            && e.kind() != ErrorKind::Denied
        {
            return Err(e);
        }
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

/// The error for an unhealthy server.
pub(crate) fn cut_off(conn: &Conn) -> Error {
    conn.nonsense(match conn.in_cluster {
        true => "the cluster is down, or this server is cut off from it",
        false => "it is a replica: its master does not receive messages published there",
    })
}

/// Asks a server for the owners of slots; empty without permission.
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
        // A server that hides its host is at the address that was asked.
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
    // A lost server has not even a port.
    nodes.retain(|node| node.port != 0);
    Some(Range { slots, nodes })
}

fn number(value: Value) -> Option<u16> {
    u16::try_from(from_redis_value::<i64>(value).ok()?).ok()
}
