//! A table of a replica without the type of its rows, and the results of its reads.

use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "metrics")]
use super::core::OnTopic;
use super::core::{Base, Read};
use super::stats::ReplicaStats;
use crate::error::Error;
use crate::store::{Row, StoredChange, TableVersion};
use crate::update::{Name, Topic};

/// A table of a replica without the type of its rows.
pub(super) trait Part: Send + Sync {
    fn name(&self) -> &Name;
    fn add_topic(&self, topic: &Topic);
    fn remove_topic(self: Arc<Self>, topic: &Topic);
    /// Removes all rows, calls the handlers for each, and ends: the table is no longer held.
    fn close(self: Arc<Self>);
    /// Takes in nothing and calls no handler from now on.
    fn end(&self);
    fn handle_loss(&self);
    /// Asks the store for its versions now.
    fn check(&self);
    /// Asks the store now, and catches up at once.
    fn demand(&self);
    fn distrust(&self);
    /// The next thing to read.
    fn poll(&self) -> Option<Read>;
    fn deadline(&self) -> Option<Instant>;
    /// False if the result of this read is ignored.
    fn is_reading(&self, read: &Read) -> bool;
    /// False if no row of the topic is held.
    fn may_have_rows(&self, topic: &Topic) -> bool;
    /// The keys of the rows of these topics; visits all rows.
    fn keys(&self, is_of: &dyn Fn(&Topic) -> bool) -> Vec<Name>;
    /// The version of a row, and a sum of its text; `None` also if its topic is no longer held, and it is being removed.
    fn stamp(&self, key: &str) -> Option<(u64, u32)>;
    fn sum(&self, text: &str) -> u32;
    /// Takes a result, to merge it in order on a dispatcher's thread.
    fn put(self: Arc<Self>, found: Found);
    /// The number of results not merged yet.
    fn waiting(&self) -> usize;
    fn is_synced(&self) -> bool;
    fn is_current(&self, since: Instant) -> bool;
    /// The last merged change, for [`Part::has_indexed`]; `None` if the indexes have all.
    fn unindexed(&self) -> Option<u64>;
    /// True if the indexes have everything up to this change.
    fn has_indexed(&self, number: u64) -> bool;
    fn holds(&self, topic: &Topic) -> bool;
    fn position(&self, topic: &Topic) -> Option<TableVersion>;
    fn proven(&self, topic: &Topic) -> Option<Instant>;
    /// Everything written before this time is proven to be included; `None` if a topic is without a proof.
    fn oldest_proof(&self) -> Option<Instant>;
    fn count(&self, stats: &mut ReplicaStats);
    /// Some of its topics, in order, after this one, or from the first; none at the end.
    #[cfg(feature = "metrics")]
    fn standings(&self, after: Option<&Topic>) -> Vec<OnTopic>;
}

/// A result of a [`Read`].
pub(super) struct Found {
    pub(super) read: Arc<Read>,
    pub(super) what: What,
}

pub(super) enum What {
    /// The versions of the topics; `None` if the store has no versions.
    Stands(Option<Vec<Base>>),
    /// A listing begins, with the held keys.
    Begins(Option<Base>, Vec<Name>),
    Rows(Vec<Row>),
    /// The listing is complete.
    Ends,
    Changes(Vec<StoredChange>),
    /// The changes are complete up to here.
    CompleteTo(TableVersion),
    /// The store does not know the changes.
    Unknown,
    /// Rows read by their keys.
    Picked(Option<Base>, Vec<(Name, Option<Row>)>),
    Failed(Error),
}
