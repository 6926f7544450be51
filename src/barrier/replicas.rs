//! The rows of the replicas that writers can wait for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::registry::Member;
use crate::store::Store;
use crate::update::{Name, Topic};

/// The table of the replicas that writers can wait for.
#[doc(hidden)]
pub const REPLICAS: &str = "replica";

/// The key of the row in which writers leave the times that they have watched; see [`super::unrenewed`].
pub(super) const WATCHED: &str = "tablecast/watched";

/// The registration of a replica that writers can wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct Registered {
    /// Its unique id.
    pub id: Name,
    /// The epoch of its run; later runs have higher ones.
    pub epoch: u64,
    /// The name of its host; `host` if that has none.
    pub host: Name,
    /// The tables that it holds.
    pub tables: Vec<Name>,
    /// The topics that it holds, in order; `None` if they are too many for the row.
    pub topics: Option<Vec<Name>>,
    /// The age of the oldest of its proofs that nothing of a topic is missing, when it last renewed its registration;
    /// `None` if it had not read all topics.
    pub staleness: Option<Duration>,
}

impl Registered {
    /// Reads a member of the table [`REPLICAS`].
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if the member is no replica.
    pub fn of(member: &Member) -> Result<Registered> {
        let detail = Detail::of(member)?;
        Ok(Registered::new(member.clone(), detail))
    }

    fn new(member: Member, detail: Detail) -> Registered {
        Registered {
            id: member.id.into(),
            epoch: member.epoch,
            host: detail.host.into(),
            tables: detail.tables,
            topics: detail.topics,
            staleness: detail.staleness_ms.map(Duration::from_millis),
        }
    }
}

/// The replicas registered in this store, in the order of their ids. A killed replica is included until its
/// registration expires.
///
/// # Errors
/// The store's errors.
#[doc(hidden)]
pub fn registered(store: &dyn Store) -> Result<Vec<Registered>> {
    let there = Rows::read(store)?.there.into_iter();
    Ok(there.map(|(member, detail)| Registered::new(member, detail)).collect())
}

/// The rows of the replicas.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) there: Vec<(Member, Detail)>,
    /// The keys and versions of rows that are left of replicas which have ended: an earlier version of this library
    /// marked them as leaving, for others to remove.
    pub(super) left: Vec<(Name, u64)>,
}

impl Rows {
    pub(super) fn read(store: &dyn Store) -> Result<Rows> {
        let mut rows = Rows::default();
        for row in store.entries(REPLICAS, None) {
            let row = row?;
            if row.key == *WATCHED {
                continue;
            }
            match Member::from_row(&row).and_then(|member| Ok((Detail::of(&member)?, member))) {
                Ok((_, member)) if member.leaving => rows.left.push((row.key, row.version)),
                Ok((detail, member)) => {
                    let version = row.version;
                    rows.there.push((member, Detail { version, ..detail }));
                }
                Err(e) => log::debug!("skipped: {e}"),
            }
        }
        Ok(rows)
    }
}

/// The content of [`Member::detail`] in a replica's row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) host: String,
    pub(super) tables: Vec<Name>,
    /// `None`: too many to name.
    pub(super) topics: Option<Vec<Name>>,
    #[serde(default)]
    pub(super) staleness_ms: Option<u64>,
    /// Time without a renewal after which the replica counts as gone.
    #[serde(default)]
    pub(super) timeout_ms: Option<u64>,
    /// The version of the row.
    #[serde(skip)]
    pub(super) version: u64,
    /// The last answers, by question: true if the version is applied, false if the topic is not held.
    pub(super) answers: Vec<(Name, bool)>,
}

impl Detail {
    fn of(member: &Member) -> Result<Detail> {
        serde_json::from_str(&member.detail).map_err(|e| {
            let context = format!("the row of {:?} describes no replica", member.id);
            Error::new(ErrorKind::Malformed, context).with_source(e)
        })
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    /// True if the replica may hold this topic of the table.
    pub(super) fn may_hold(&self, table: &str, topic: &Topic) -> bool {
        let has_topic = |topics: &Vec<Name>| topics.iter().any(|name| *name == *topic.as_str());
        self.tables.iter().any(|name| *name == *table) && self.topics.as_ref().is_none_or(has_topic)
    }
}
