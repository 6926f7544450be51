//! Two masters among the servers of one address, as after a failover whose old master came back.

use std::time::Duration;

use ::redis::{cmd, from_redis_value};

use crate::error::{Error, ErrorKind, Result};

use super::Access;
use super::conn::Conn;
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
    for node in servers {
        if node == conn.node() {
            continue;
        }
        // A replica is refused.
        let Ok(mut other) = Conn::open(node, access, limit.share(SHORT)) else {
            continue;
        };
        if !other.in_cluster && !are_one(conn, &mut other, limit) {
            let context = format!(
                "{} and {node} both say that they are the master; make one a replica of the other",
                conn.node()
            );
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
    }
    Ok(())
}

/// True if these are connections to one server, by two of its addresses.
fn are_one(one: &mut Conn, other: &mut Conn, limit: Limit<'_>) -> bool {
    let run = |conn: &mut Conn| {
        let about = conn.ask(cmd("INFO").arg("server"), limit.share(SHORT)).ok()?;
        let about: String = from_redis_value(about).ok()?;
        let run = about.lines().find_map(|line| line.strip_prefix("run_id:"));
        run.map(str::to_owned)
    };
    run(one).is_some_and(|own| Some(own) == run(other))
}
