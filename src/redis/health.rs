//! The health of a server, as it says itself.

use ::redis::{Cmd, Value, from_redis_value_ref};

use super::answer::field;
use super::reply::Resp;

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
    pub(crate) fn question(in_cluster: bool, resp: Resp) -> Cmd {
        let mut question = Cmd::new();
        match (in_cluster, resp) {
            (true, _) => question.arg("CLUSTER").arg("INFO"),
            (false, Resp::Three) => question.arg("HELLO"),
            (false, Resp::Two) => question.arg("INFO").arg("replication"),
        };
        question
    }

    /// Reads the answer; `None` if it has no health, for example without permission.
    pub(crate) fn read(answer: &Value) -> Option<Health> {
        if let Some(role) = field(answer, "role").or_else(|| line(answer, "role")) {
            let ok = role == "master";
            return Some(Health { ok, epoch: 0 });
        }
        Some(Health {
            ok: line(answer, "cluster_state")? == "ok",
            epoch: line(answer, "cluster_current_epoch")?.parse().ok()?,
        })
    }
}

/// The value of this name in an answer of lines, such as that of `INFO`.
pub(super) fn line(answer: &Value, name: &str) -> Option<String> {
    let text: String = from_redis_value_ref(answer).ok()?;
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
    text.lines().find_map(value)
}
