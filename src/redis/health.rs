//! The health of a server, as it says itself.

use ::redis::{Cmd, Value, cmd, from_redis_value_ref};

use super::field;

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
            true => {
                let mut question = cmd("CLUSTER");
                question.arg("INFO");
                question
            }
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
}
