//! Questions to one Sentinel.

use ::redis::{Cmd, Value, cmd, from_redis_value_ref};

use crate::error::Result;

use super::answer::{field, refused};
use super::conn::Conn;
use super::node::Node;
use super::stream::Limit;

/// The master as a Sentinel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Raised by every failover.
    pub(super) epoch: u64,
    pub(super) master: Node,
}

/// The events after which a Sentinel may name another master.
const EVENTS: [&str; 2] = ["+switch-master", "+promoted-slave"];

/// How often a question is repeated because the configuration changed while it was answered.
const MAX_TRIES: u32 = 3;

/// Subscribes to the events. A Sentinel that refuses is only asked from time to time.
///
/// # Errors
/// As [`Conn::flush`] and [`Conn::reply`].
pub(super) fn subscribe(conn: &mut Conn, limit: Limit<'_>) -> Result<()> {
    conn.will_subscribe();
    conn.push(cmd("SUBSCRIBE").arg(&EVENTS));
    // A success is no reply, so that one of this request is the first.
    conn.push(&cmd("PING"));
    conn.flush(limit)?;
    if let Value::ServerError(why) = conn.reply(limit)? {
        log::warn!("no events of failovers: {}", refused(conn.node(), &why));
        conn.reply(limit)?;
    }
    Ok(())
}

/// Asks which server is the master of this name.
///
/// # Errors
/// As [`Conn::ask`]; [`ErrorKind::Transport`](crate::ErrorKind::Transport) if the Sentinel has no master of this name.
pub(super) fn ask(conn: &mut Conn, name: &str, limit: Limit<'_>) -> Result<Configuration> {
    let question = |what| sentinel(what, name);
    for _ in 0..MAX_TRIES {
        // `MASTER` names the old address until the end of a failover, so the address is asked for alone, and belongs to
        // the epoch only if that is the same before and after.
        let before = epoch(conn, &question("MASTER"), limit)?;
        let address = conn.ask(&question("GET-MASTER-ADDR-BY-NAME"), limit)?;
        let master = read_address(&address, conn.node());
        let after = epoch(conn, &question("MASTER"), limit)?;
        if let Some(master) = master
            && before == after
        {
            return Ok(Configuration { epoch: after, master });
        }
    }
    Err(conn.nonsense(&format!("the Sentinel does not say which server is {name}")))
}

fn sentinel(what: &str, name: &str) -> Cmd {
    let mut question = cmd("SENTINEL");
    question.arg(what).arg(name);
    question
}

fn epoch(conn: &mut Conn, question: &Cmd, limit: Limit<'_>) -> Result<u64> {
    let answer = conn.ask(question, limit)?;
    let epoch = field(&answer, "config-epoch").and_then(|epoch| epoch.parse().ok());
    epoch.ok_or_else(|| conn.nonsense("no answer to SENTINEL MASTER"))
}

/// Reads a host and a port; `None` if there are none.
pub(super) fn read_address(answer: &Value, sentinel: &Node) -> Option<Node> {
    let (host, port): (String, u16) = from_redis_value_ref(answer).ok()?;
    (port != 0).then(|| Node {
        host: sentinel.host_told(&host),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let sentinel = Node::told("fe80::1%eth0:26379", &Node::at_path("/")).unwrap();
        let text = |text: &str| Value::BulkString(text.into());
        let read = |host, port| read_address(&Value::Array(vec![text(host), text(port)]), &sentinel);
        for (host, expected) in [("10.0.0.1", "10.0.0.1"), ("db1", "db1"), ("fe80::2", "fe80::2%eth0")] {
            assert_eq!(read(host, "6379").unwrap().host, expected);
        }
        assert_eq!(read("db1", "0"), None);
        assert_eq!(read("db1", "x"), None);
        for none in [Value::Nil, Value::Array(Vec::new()), Value::Okay] {
            assert_eq!(read_address(&none, &sentinel), None);
        }
    }
}
