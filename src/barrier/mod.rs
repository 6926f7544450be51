//! Waiting until the replicas that are there have applied what was written.
//!
//! A replica that is to be waited for registers in the table [`REPLICAS`], with the tables and topics that it has. Who waits sends a
//! question behind the write, to all of them: is this version applied? Each answers in its row once it is, so an answer
//! needs neither a publisher at the replica nor a subscriber at the writer.

mod answers;
mod wait;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::registry::Member;
use crate::store::{Store, TableVersion};
use crate::update::{Name, Topic};

pub(crate) use answers::{Answers, Applied};
pub use wait::Barrier;

/// The table in which replicas are registered that can be waited for.
pub const REPLICAS: &str = "replica";

/// A replica that can be waited for, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// Its id, which no other one has.
    pub id: Name,
    /// Which run of it; later runs have higher ones.
    pub epoch: u64,
    /// The name of its host; empty if it has none.
    pub host: Name,
    /// The tables that it holds.
    pub tables: Vec<Name>,
    /// The topics that it holds, in order; `None` if they are too many for the row.
    pub topics: Option<Vec<Name>>,
}

/// The replicas that are registered in this store, in the order of their ids. One that was killed is there until its
/// registration is over.
///
/// # Errors
/// Those of an outage of the store.
pub fn registered(store: &dyn Store) -> Result<Vec<Registered>> {
    let there = rows(store)?.into_iter().map(|(member, detail)| Registered {
        id: member.id.into(),
        epoch: member.epoch,
        host: detail.host.into(),
        tables: detail.tables,
        topics: detail.topics,
    });
    Ok(there.collect())
}

/// The rows of the replicas that are there.
fn rows(store: &dyn Store) -> Result<Vec<(Member, Detail)>> {
    let mut there = Vec::new();
    for row in store.entries(REPLICAS, None) {
        match Member::from_row(&row?).and_then(|member| Ok((Detail::of(&member)?, member))) {
            Ok((detail, member)) if !member.leaving => there.push((member, detail)),
            Ok(_) => {}
            Err(e) => log::debug!("skipped: {e}"),
        }
    }
    Ok(there)
}

/// The topic on which replicas are asked, and the table that a question names.
const TOPIC: &str = "replica/barrier";
const TABLE: &str = "replica_barrier";

/// Asks whether a version of a topic of a table is applied; the update's key is the question's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    table: Name,
    topic: Name,
    incarnation: u64,
    version: u64,
}

/// What a replica's row says of it, in [`Member::detail`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Detail {
    host: String,
    tables: Vec<Name>,
    /// `None`: too many to name.
    topics: Option<Vec<Name>>,
    /// The last questions that it has answered: true if it has what was asked for, false if it does not hold the topic.
    answers: Vec<(Name, bool)>,
}

impl Question {
    fn at(&self) -> TableVersion {
        TableVersion {
            incarnation: self.incarnation,
            version: self.version,
        }
    }
}

impl Detail {
    fn of(member: &Member) -> Result<Detail> {
        serde_json::from_str(&member.detail).map_err(|e| {
            let context = format!("the row of {:?} tells of no replica", member.id);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })
    }

    /// Whether the replica may hold this topic of the table.
    fn may_hold(&self, table: &str, topic: &Topic) -> bool {
        let has_topic = |topics: &Vec<Name>| topics.iter().any(|name| *name == *topic.as_str());
        self.tables.iter().any(|name| *name == *table) && self.topics.as_ref().is_none_or(has_topic)
    }
}
