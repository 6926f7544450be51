//! A topic of a table: its standing, and the reads of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;

use super::ahead::Ahead;
use super::standing::{Heard, Standing};
use crate::replica::stats::ReplicaStats;
use crate::store::{TableVersion, TopicVersions};
use crate::update::{Name, Topic};

/// A read from the store. Its result carries its number.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::replica) enum Read {
    /// The versions of these topics, for [`Core::take_versions`].
    Versions { id: u64, topics: Vec<Topic> },
    /// The changes since, for [`Core::take_changed`], then [`Core::end_changes`]; or [`Core::list_instead`].
    Changes {
        id: u64,
        topic: Arc<Topic>,
        since: TableVersion,
    },
    /// The topic's version and the keys of its held rows, for [`Core::begin_listing`], then its rows for
    /// [`Core::take_listed`], then [`Core::end_listing`].
    Listing { id: u64, topic: Arc<Topic> },
    /// These rows: [`Core::begin_rows`], [`Core::take_row`] for each, then [`Core::end_rows`].
    Rows {
        id: u64,
        topic: Arc<Topic>,
        keys: Vec<Name>,
    },
}

/// The kinds of reads of a topic; later ones include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::replica) enum Want {
    Rows,
    CatchUp,
    List,
}

/// A topic's version in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replica) struct Base {
    /// The last version of the topic, or of the table if the topic's is unknown; with the table's tip.
    pub(in crate::replica) version: TableVersion,
    /// The last version of the table.
    pub(in crate::replica) table: u64,
}

impl Base {
    /// Uses the table's version for a topic whose own is unknown.
    pub(in crate::replica) fn of_table(version: TableVersion) -> Base {
        Base {
            version,
            table: version.version,
        }
    }

    /// All writes of the topic up to here are included: after its own version the table had none on it.
    pub(super) fn last(&self) -> u64 {
        self.version.version.max(self.table)
    }

    /// The version of each topic.
    pub(in crate::replica) fn of_each(versions: &TopicVersions) -> impl Iterator<Item = Base> {
        let (stands, table) = (versions.table, versions.table.version);
        let base = move |&version| Base {
            version: TableVersion { version, ..stands },
            table,
        };
        versions.versions.iter().map(base)
    }
}

/// The most rows of a topic that are read one by one; with more, the topic catches up.
const MAX_ROWS_READ: usize = 256;

/// A topic of the table.
#[derive(Default)]
pub(super) struct OfTopic {
    pub(super) standing: Standing,
    pub(super) ahead: Ahead,
    /// The next read, and when it is due.
    pub(super) due: Option<(Instant, Want)>,
    pub(super) running: Option<Running>,
    /// Rows of it may be held: a listing has begun, or those from an earlier time are still being removed.
    pub(super) may_have_rows: bool,
    /// The rows of updates without a version.
    pub(super) unversioned: HashSet<Name>,
    /// No listing is due before this time: listings take at most half of the time.
    pub(super) list_after: Option<Instant>,
    /// The store went back: the next listing is the truth, and no updates are applied until then.
    pub(super) distrusts: bool,
    /// When a check asked, and the version it found, if there was no position to hold it against.
    pub(super) missed_check: Option<(Instant, u64)>,
    /// The store went back: until this time updates only cause catch-ups.
    pub(super) quarantined_until: Option<Instant>,
}

/// A read of a topic that is under way.
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) asked: Instant,
    /// The highest versions heard of before the read. A store with lower ones went back.
    pub(super) heard: Heard,
    pub(super) listing: Option<Listing>,
}

#[derive(Default)]
pub(super) struct Listing {
    /// The topic's version before the first page.
    pub(super) base: Option<Base>,
    /// The highest version of the updates that came before the base was known, and were dropped.
    pub(super) missed: u64,
    /// The held rows that were on no page so far.
    pub(super) suspects: HashSet<Name>,
    /// The position before the listing, if it comes from updates alone, on a table to which nothing was written when it
    /// was listed: the store may have begun anew since, and come to the same version. Then some row up to there is not
    /// as it is held.
    pub(super) doubted: Option<u64>,
    /// Some row was not.
    pub(super) contradicts: bool,
}

/// The topic while this read of it is under way; the result of any other read is ignored.
pub(super) fn reading<'a>(
    topics: &'a mut BTreeMap<Arc<Topic>, OfTopic>,
    id: u64,
    topic: &Topic,
) -> Option<&'a mut OfTopic> {
    let is_under_way = |of_topic: &&mut OfTopic| of_topic.running.as_ref().is_some_and(|running| running.id == id);
    topics.get_mut(topic).filter(is_under_way)
}

impl OfTopic {
    pub(super) fn listing(&mut self) -> Option<&mut Listing> {
        self.running.as_mut()?.listing.as_mut()
    }

    /// True if this row of the topic is distrusted: the listing that is the truth has not shown it yet.
    pub(super) fn doubts(&self, key: &str) -> bool {
        let listing = self.running.as_ref().and_then(|running| running.listing.as_ref());
        self.distrusts && listing.is_none_or(|listing| listing.base.is_none() || listing.suspects.contains(key))
    }

    pub(super) fn takes_updates(&self, now: Instant) -> bool {
        !self.distrusts && self.quarantined_until.is_none_or(|until| until <= now)
    }

    /// True if reads include, or will include, an update of this version.
    pub(super) fn is_old(&self, version: u64) -> bool {
        let listing = self.running.as_ref().and_then(|running| running.listing.as_ref());
        let base = listing.and_then(|listing| listing.base);
        match (self.standing.position, base) {
            // It was stored before it arrived, and the listing, or the catch-up after it, begins later.
            (None, None) => true,
            (position, base) => position
                .into_iter()
                .chain(base.map(|base| base.version))
                .any(|included| version <= included.version),
        }
    }

    /// Notes an update during a first listing, as long as it is not known what that includes. Returns false otherwise.
    pub(super) fn note_missed(&mut self, version: u64) -> bool {
        let is_first = self.standing.position.is_none();
        let listing = self.listing().filter(|listing| is_first && listing.base.is_none());
        listing.is_some_and(|listing| {
            listing.missed = listing.missed.max(version);
            true
        })
    }

    pub(super) fn position(&self) -> Option<TableVersion> {
        self.standing.position
    }

    /// Reads the row of an update without a version. Returns true if nothing was due before.
    pub(super) fn reread(&mut self, key: &Name, now: Instant) -> bool {
        if self.distrusts {
            // As with other updates, a listing or the check after it is to come.
            return false;
        }
        let want = if self.unversioned.len() < MAX_ROWS_READ {
            self.unversioned.insert(key.clone());
            Want::Rows
        } else {
            Want::CatchUp
        };
        self.want(now, want)
    }

    /// Notes a row that was added during a listing: if no page has it, it is gone.
    pub(super) fn suspect(&mut self, key: &Name, version: u64) {
        if let Some(listing) = self.listing()
            && listing.base.is_none_or(|base| version <= base.last())
        {
            listing.suspects.insert(key.clone());
        }
    }

    /// Schedules at least this read, at that time or earlier. Returns true if that changes anything.
    pub(super) fn want(&mut self, at: Instant, want: Want) -> bool {
        let before = self.due;
        let (due, wanted) = before.unwrap_or((at, want));
        self.due = Some((due.min(at), wanted.max(want)));
        self.due != before
    }

    /// The next read, and when it is due.
    pub(super) fn due(&self) -> Option<(Instant, Want)> {
        if self.running.is_some() {
            return None;
        }
        let owed = self.standing.owed_by().map(|by| (by, Want::CatchUp));
        let (at, want) = match (self.due, owed) {
            (Some((at, want)), Some((by, owed))) => (at.min(by), want.max(owed)),
            (due, owed) => due.or(owed)?,
        };
        match want {
            Want::List => Some((self.list_after.map_or(at, |after| at.max(after)), want)),
            _ => Some((at, want)),
        }
    }

    pub(super) fn begin(
        &mut self,
        id: u64,
        topic: &Arc<Topic>,
        want: Want,
        heard: u64,
        now: Instant,
        counts: &mut ReplicaStats,
    ) -> Read {
        self.due = None;
        let topic = Arc::clone(topic);
        let keys = std::mem::take(&mut self.unversioned);
        let (read, listing) = match (want, self.standing.position) {
            (Want::Rows, _) => {
                let keys = keys.into_iter().collect();
                (Read::Rows { id, topic, keys }, None)
            }
            (Want::CatchUp, Some(since)) => {
                counts.catch_ups += 1;
                (Read::Changes { id, topic, since }, None)
            }
            (Want::CatchUp, None) | (Want::List, _) => {
                counts.listings += 1;
                let listing = Listing {
                    doubted: self.standing.position.map(|position| position.version),
                    ..Listing::default()
                };
                (Read::Listing { id, topic }, Some(listing))
            }
        };
        self.running = Some(Running {
            id,
            asked: now,
            heard: Heard {
                of_table: heard,
                of_topic: self.standing.heard,
            },
            listing,
        });
        read
    }
}
