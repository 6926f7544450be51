//! A cluster, as one of its servers knows it.

use ::redis::{Value, cmd, from_redis_value};

use crate::error::{ErrorKind, Result};

use super::answer::field;
use super::conn::Conn;
use super::node::Node;
use super::stream::Limit;

/// A range of slots, including its ends, and its servers, the master first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) slots: (u16, u16),
    pub(crate) nodes: Vec<Node>,
}

/// Asks a server for the owners of slots; empty without permission.
pub(crate) fn ranges(conn: &mut Conn, limit: Limit<'_>) -> Result<Vec<Range>> {
    let answer = match conn.ask(cmd("CLUSTER").arg("SLOTS"), limit) {
        Err(e) if e.kind() == ErrorKind::Denied => return Ok(Vec::new()),
        answer => answer?,
    };
    let ranges = answer.into_sequence().unwrap_or_default().into_iter();
    let ranges: Option<Vec<_>> = ranges.map(|range| read(range, conn.node())).collect();
    ranges.ok_or_else(|| conn.nonsense("no answer to CLUSTER SLOTS"))
}

/// One range: its ends, then for each node a host, a port, an id, and other names of the host.
pub(super) fn read(range: Value, asked: &Node) -> Option<Range> {
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
