//! What a server of a cluster knows of the cluster.

use crate::error::{Error, ErrorKind, Result};

use super::conn::Conn;
use super::node::Node;
use super::resp::Value;
use super::stream::Limit;

/// A range of slots, its ends included, and who has it: the master first.
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
    pub(crate) fn question(in_cluster: bool) -> &'static [&'static [u8]] {
        if in_cluster {
            &[b"CLUSTER", b"INFO"]
        } else {
            &[b"HELLO"]
        }
    }

    /// Reads the answer; `None` if it says nothing, as for a user who may not ask.
    pub(crate) fn read(answer: &Value) -> Option<Health> {
        if let Some(role) = answer.entry("role") {
            let ok = role.text() == Some("master");
            return Some(Health { ok, epoch: 0 });
        }
        let lines = || answer.text().unwrap_or_default().lines();
        let field = |name: &str| lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Some(Health {
            ok: field("cluster_state")? == "ok",
            epoch: field("cluster_current_epoch")?.parse().ok()?,
        })
    }

    /// Asks a server, and fails if it is not well; `None` if we may not ask.
    pub(crate) fn check(conn: &mut Conn, limit: Limit<'_>) -> Result<Option<Health>> {
        match conn.ask(Health::question(conn.in_cluster), limit) {
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

/// Asks a server who has which slots; nothing if we may not.
pub(crate) fn ranges(conn: &mut Conn, limit: Limit<'_>) -> Result<Vec<Range>> {
    let answer = match conn.ask(&[b"CLUSTER", b"SLOTS"], limit) {
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(Vec::new()),
        answer => answer?,
    };
    let ranges = answer
        .list()
        .unwrap_or_default()
        .iter()
        .map(|range| read(range, conn.node()));
    let ranges: Option<Vec<_>> = ranges.collect();
    ranges.ok_or_else(|| conn.nonsense("no answer to CLUSTER SLOTS"))
}

/// One range: its ends, then for each node a host, a port, and more.
fn read(range: &Value, asked: &Node) -> Option<Range> {
    let (ends, nodes) = range.list()?.split_at_checked(2)?;
    let slot = |value: &Value| match value {
        Value::Number(slot) => u16::try_from(*slot).ok(),
        _ => None,
    };
    let node = |value: &Value| {
        let host = match value.list()?.first()? {
            // It does not know its own name, or is not to tell: it is where we asked.
            Value::Null => &asked.host,
            host => match host.text()? {
                "" | "?" => &asked.host,
                host => host,
            },
        };
        let port = slot(value.list()?.get(1)?)?;
        Some(Node {
            host: host.to_owned(),
            port,
        })
    };
    Some(Range {
        slots: (slot(ends.first()?)?, slot(ends.last()?)?),
        nodes: nodes.iter().map(node).collect::<Option<_>>()?,
    })
}
