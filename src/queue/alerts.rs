//! The pending sync events: each once, joined where there are many, and always bounded.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::event::SyncReason;
use crate::update::{Name, Topic};

/// How many gaps, and how many restarts, are kept apart; peers can forge them.
const MAX_OF_PEERS: Limit = Limit {
    count: 64,
    bytes: 64 << 10,
};

/// How many events about addresses are kept apart; the program and its registry name the addresses.
const MAX_OF_ADDRESSES: Limit = Limit {
    count: 1024,
    bytes: 1 << 20,
};

/// How many publishers one [`SyncReason::Silence`] or [`SyncReason::HellosMissed`] names; it concerns every topic in
/// any case.
const MAX_PUBLISHERS: Limit = Limit {
    count: 1024,
    bytes: 64 << 10,
};

/// How many topics a joined reason names; beyond that it concerns every topic.
const MAX_TOPICS: Limit = Limit {
    count: 1 << 17,
    bytes: 8 << 20,
};

/// The pending sync events.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    /// Events kept apart, in the order in which they are handed out.
    words: BTreeMap<u64, SyncReason>,
    places: HashMap<What, u64>,
    next: u64,
    kinds: [Share; 3],
    silent: Option<Names<Name>>,
    missed: Option<Names<Name>>,
    unproven: Option<Names<Topic>>,
    joined: Option<Joined>,
    dropped: Option<u64>,
}

/// A number of names, and their total length.
#[derive(Debug, Clone, Copy, Default)]
struct Limit {
    count: usize,
    bytes: usize,
}

/// The events that share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gap,
    Restarted,
    Address,
}

/// The part of its limit that a kind uses.
#[derive(Debug, Default)]
struct Share {
    used: Limit,
    /// The limit was exceeded: all events of the kind go to [`Alerts::joined`] until that is handed out.
    joins: bool,
}

#[derive(Debug)]
struct Joined {
    events: u64,
    /// `None`: every topic.
    topics: Option<Names<Topic>>,
}

/// Identifies an event, so that it is reported once.
#[derive(Debug, PartialEq, Eq, Hash)]
enum What {
    Gap(Name, Topic),
    Other(SyncReason),
}

impl What {
    fn of(reason: &SyncReason) -> What {
        match reason {
            SyncReason::Gap { publisher, topic, .. } => What::Gap(publisher.clone(), topic.clone()),
            other => What::Other(other.clone()),
        }
    }
}

impl Kind {
    /// The kind of an event that may be joined to others, and the length of its names.
    fn of(word: &SyncReason) -> Option<(Kind, usize)> {
        match word {
            SyncReason::Gap { publisher, topic, .. } => Some((Kind::Gap, publisher.len() + topic.as_str().len())),
            SyncReason::Restarted { publisher } => Some((Kind::Restarted, publisher.len())),
            SyncReason::Connected { address }
            | SyncReason::Reconnected { address }
            | SyncReason::AddressLost { address } => Some((Kind::Address, address.len())),
            _ => None,
        }
    }

    fn limit(self) -> Limit {
        match self {
            Kind::Gap | Kind::Restarted => MAX_OF_PEERS,
            Kind::Address => MAX_OF_ADDRESSES,
        }
    }
}

impl Alerts {
    /// Puts a reason last, even if it is already pending, so that the last event about an address stays the last.
    pub(super) fn put(&mut self, reason: SyncReason) {
        match reason {
            SyncReason::Overflow { dropped } => {
                self.dropped = Some(self.dropped.unwrap_or(0).saturating_add(dropped));
            }
            SyncReason::Silence { publishers } => {
                self.silent
                    .get_or_insert_default()
                    .insert_some(publishers, MAX_PUBLISHERS);
            }
            SyncReason::HellosMissed { publishers } => {
                self.missed
                    .get_or_insert_default()
                    .insert_some(publishers, MAX_PUBLISHERS);
            }
            SyncReason::Unproven { topics } => {
                let unproven = self.unproven.get_or_insert_default();
                if !unproven.insert_all(&topics, MAX_TOPICS) {
                    self.unproven = None;
                    self.join(1, None);
                }
            }
            SyncReason::Joined { topics, events } => self.join(events, topics.as_deref()),
            word => self.put_word(word),
        }
    }

    /// The next event other than [`SyncReason::Overflow`].
    pub(super) fn pop(&mut self) -> Option<SyncReason> {
        if let Some((_, word)) = self.words.pop_first() {
            self.forget(&word);
            return Some(word);
        }
        if let Some(silent) = self.silent.take() {
            let publishers = silent.into_vec();
            return Some(SyncReason::Silence { publishers });
        }
        if let Some(missed) = self.missed.take() {
            let publishers = missed.into_vec();
            return Some(SyncReason::HellosMissed { publishers });
        }
        if let Some(unproven) = self.unproven.take() {
            let topics = unproven.into_vec();
            return Some(SyncReason::Unproven { topics });
        }
        let Joined { events, topics } = self.joined.take()?;
        self.kinds.iter_mut().for_each(|kind| kind.joins = false);
        let topics = topics.map(Names::into_vec);
        Some(SyncReason::Joined { topics, events })
    }

    /// Takes out the [`SyncReason::Overflow`], if any, and returns the number of dropped updates.
    pub(super) fn pop_overflow(&mut self) -> Option<u64> {
        self.dropped.take()
    }

    pub(super) fn has_overflow(&self) -> bool {
        self.dropped.is_some()
    }

    /// The number of events other than [`SyncReason::Overflow`].
    pub(super) fn waiting(&self) -> usize {
        let others = [
            self.silent.is_some(),
            self.missed.is_some(),
            self.unproven.is_some(),
            self.joined.is_some(),
        ];
        self.words.len() + others.into_iter().filter(|is_there| *is_there).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0 && !self.has_overflow()
    }

    fn put_word(&mut self, mut word: SyncReason) {
        let kind = Kind::of(&word);
        if let Some((kind, _)) = kind
            && self.kinds[kind as usize].joins
        {
            return self.join(1, word.topics());
        }
        let before = self.places.get(&What::of(&word)).copied();
        if let Some(before) = before.and_then(|place| self.words.remove(&place)) {
            self.forget(&before);
            join_gaps(&before, &mut word);
        }
        self.next += 1;
        self.places.insert(What::of(&word), self.next);
        self.words.insert(self.next, word);
        if let Some((kind, bytes)) = kind {
            let used = &mut self.kinds[kind as usize].used;
            used.count += 1;
            used.bytes += bytes;
            if used.exceeds(kind.limit()) {
                self.join_all(kind);
            }
        }
    }

    /// Forgets an event that was removed from `words`.
    fn forget(&mut self, word: &SyncReason) {
        self.places.remove(&What::of(word));
        if let Some((kind, bytes)) = Kind::of(word) {
            let used = &mut self.kinds[kind as usize].used;
            used.count -= 1;
            used.bytes -= bytes;
        }
    }

    fn join_all(&mut self, kind: Kind) {
        let is_kind = |word: &SyncReason| Kind::of(word).is_some_and(|(other, _)| other == kind);
        let words = std::mem::take(&mut self.words);
        let (joined, kept) = words.into_iter().partition(|(_, word)| is_kind(word));
        self.words = kept;
        for word in BTreeMap::into_values(joined) {
            self.forget(&word);
            self.join(1, word.topics());
        }
        self.kinds[kind as usize].joins = true;
    }

    /// Adds events that concern these topics; `None`: every topic.
    fn join(&mut self, events: u64, topics: Option<&[Topic]>) {
        let joined = self.joined.get_or_insert_with(|| Joined {
            events: 0,
            topics: Some(Names::default()),
        });
        joined.events = joined.events.saturating_add(events);
        let all = match (&mut joined.topics, topics) {
            (Some(names), Some(topics)) => !names.insert_all(topics, MAX_TOPICS),
            _ => true,
        };
        if all {
            joined.topics = None;
        }
    }
}

impl Limit {
    fn exceeds(self, limit: Limit) -> bool {
        self.count > limit.count || self.bytes > limit.bytes
    }
}

fn join_gaps(before: &SyncReason, word: &mut SyncReason) {
    if let (
        SyncReason::Gap {
            from: first, to: last, ..
        },
        SyncReason::Gap { from, to, .. },
    ) = (before, word)
    {
        (*from, *to) = (*first.min(from), *last.max(to));
    }
}

/// A sorted set of names.
#[derive(Debug)]
struct Names<T> {
    names: BTreeSet<T>,
    bytes: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            names: BTreeSet::new(),
            bytes: 0,
        }
    }
}

impl<T: Ord + Borrow<str>> Names<T> {
    /// Returns false if there is no room for the name within `limit`.
    fn insert(&mut self, name: T, limit: Limit) -> bool {
        let length = name.borrow().len();
        let with = Limit {
            count: self.names.len() + 1,
            bytes: self.bytes + length,
        };
        if with.exceeds(limit) {
            return self.names.contains::<T>(&name);
        }
        if self.names.insert(name) {
            self.bytes += length;
        }
        true
    }

    /// Inserts the names for which there is room.
    fn insert_some(&mut self, names: Vec<T>, limit: Limit) {
        for name in names {
            self.insert(name, limit);
        }
    }

    /// Returns false if there is no room for all of them.
    fn insert_all(&mut self, names: &[T], limit: Limit) -> bool
    where
        T: Clone,
    {
        names.iter().all(|name| self.insert(name.clone(), limit))
    }

    fn into_vec(self) -> Vec<T> {
        self.names.into_iter().collect()
    }
}
