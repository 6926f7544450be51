//! Two masters among the servers of one address, as after a failover whose old master came back.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use ::redis::{Cmd, Script, Value, cmd};

use crate::error::{Error, ErrorKind, Result};

use super::access::{Access, Unasked};
use super::answer::refused;
use super::conn::{Conn, IsReplica};
use super::health::line;
use super::node::Node;
use super::stream::Limit;

/// A server that takes longer to answer does not count.
const SHORT: Duration = Duration::from_millis(500);

/// Fails if another of these servers is a master as well: which one replicas follow is not known here.
///
/// # Errors
/// [`ErrorKind::Unavailable`], with the names of both.
pub(super) fn check(conn: &mut Conn, servers: &[Node], access: &Access, limit: Limit<'_>) -> Result<()> {
    if conn.in_cluster {
        return Ok(());
    }
    let node = conn.node().clone();
    beside(&node, servers, access, limit).try_for_each(|mut other| compare(conn, &mut other, limit))
}

/// Connections to those servers beside `node` that say that they are masters.
pub(super) fn beside<'a>(
    node: &'a Node,
    servers: &'a [Node],
    access: &'a Access,
    limit: Limit<'a>,
) -> impl Iterator<Item = Conn> + 'a {
    let others = servers.iter().filter(move |other| *other != node);
    let opened = others.filter_map(move |node| {
        let opened = Conn::open(node, access, limit.share(SHORT));
        note(&access.unasked, node, opened.as_ref().err());
        opened.ok()
    });
    opened.filter(|conn| !conn.in_cluster)
}

/// Fails unless these are connections to one server, by two of its addresses.
///
/// # Errors
/// As [`check`]; others if a connection fails.
pub(super) fn compare(one: &mut Conn, other: &mut Conn, limit: Limit<'_>) -> Result<()> {
    let both = format!("{} and {} both say that they are the master", one.node(), other.node());
    match are_one(one, other, limit)? {
        Ok(true) => Ok(()),
        Ok(false) => {
            let context = format!("{both}; make one a replica of the other");
            Err(Error::new(ErrorKind::Unavailable, context))
        }
        Err(refusal) => {
            let context = format!(
                "{both}; make one a replica of the other, or, if they are one server, permit its user INFO, or EVAL \
                 and EVALSHA"
            );
            Err(Error::new(ErrorKind::Unavailable, context).with_source(refusal))
        }
    }
}

/// True if these are connections to one server; a refusal if it does not let that be seen.
fn are_one(one: &mut Conn, other: &mut Conn, limit: Limit<'_>) -> Result<Result<bool, Error>> {
    if let (Some(own), Some(other)) = (run_id(one, limit)?, run_id(other, limit)?) {
        return Ok(Ok(own == other));
    }
    // The server that has run a script knows it by its hash, and no other does.
    let script = format!("return '{:016x}'", one.mark);
    let hash = Script::new(&script).get_hash().to_owned();
    if let Value::ServerError(why) = answer(one, cmd("EVAL").arg(script).arg(0), limit)? {
        return Ok(Err(refused(one.node(), &why)));
    }
    Ok(match answer(other, cmd("EVALSHA").arg(hash).arg(0), limit)? {
        Value::ServerError(why) if why.code() == "NOSCRIPT" => Ok(false),
        Value::ServerError(why) => Err(refused(other.node(), &why)),
        _ => Ok(true),
    })
}

/// The id of the server's run; `None` without permission to ask.
fn run_id(conn: &mut Conn, limit: Limit<'_>) -> Result<Option<String>> {
    let about = answer(conn, cmd("INFO").arg("server"), limit)?;
    Ok(line(&about, "run_id"))
}

/// The answer, which may be a refusal.
fn answer(conn: &mut Conn, request: &Cmd, limit: Limit<'_>) -> Result<Value> {
    let limit = limit.share(SHORT);
    conn.push(request);
    conn.flush(limit)?;
    conn.reply(limit)
}

/// Notes why a server was not connected to, and warns of one that is there and refuses: it may be a master.
fn note(unasked: &Unasked, node: &Node, error: Option<&Error>) {
    let Some(error) = error.filter(|error| !is_replica(error)) else {
        unasked.remove(node);
        return;
    };
    if !is_away(error) && unasked.add(node) {
        log::warn!("cannot ask {node} whether it is a master as well, so it does not count: {error}");
    }
}

fn is_replica(error: &Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<IsReplica>())
}

/// True if there is no server, or it is silent.
fn is_away(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData};
    let is_answer = |e: &io::Error| matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | InvalidData);
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<io::Error>() {
            return !is_answer(failure);
        }
        cause = error.source();
    }
    error.kind() == ErrorKind::Timeout
}
