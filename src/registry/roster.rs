//! Members, judged by versions. It is pure state, without threads or store, and the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::member::Member;
use crate::store::Row;
use crate::update::{Name, Topic};

/// The presence of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub enum PresenceState {
    /// It has renewed its row within the timeout.
    Alive,
    /// Its row exists, but was not watched for long enough yet.
    Unknown,
    /// It has not renewed its row for the timeout.
    Stale,
}

impl PresenceState {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            PresenceState::Alive => "alive",
            PresenceState::Unknown => "unknown",
            PresenceState::Stale => "stale",
        }
    }
}

/// A member and its presence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct Presence {
    /// The member of the row.
    pub member: Member,
    /// Its presence.
    pub state: PresenceState,
    /// How long its row was watched since its last change.
    pub age: Duration,
}

/// A row's key and version, as seen.
pub(super) type Version = (Name, u64);

/// What rows lack that were seen before.
#[derive(Debug, Default)]
pub(super) struct Less {
    /// True if one is older than it was, or another one of the same version: the store went back.
    pub(super) is_older: bool,
    /// The missing rows by topic, with their last versions: they were deleted, or the store went back.
    pub(super) missing: BTreeMap<Topic, BTreeMap<Name, u64>>,
}

/// The rows of a table, as last seen.
#[derive(Debug)]
pub(super) struct Roster {
    timeout: Duration,
    rows: BTreeMap<Name, Seen>,
    /// Members whose rows were lost when the store went back. Live ones write them again.
    missed: BTreeMap<Name, Seen>,
    /// The time of the last look.
    looked: Option<Instant>,
    /// The time since the last look does not count.
    is_unwatched: bool,
}

#[derive(Debug)]
struct Seen {
    /// `None`: a row of another kind.
    member: Option<Member>,
    topic: Topic,
    version: u64,
    value: String,
    /// Since when it has this version, without unwatched time.
    since: Instant,
    was_renewed: bool,
}

impl Seen {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// True if this is the member of the `other` row, or a later run of it.
    fn is_same_or_later(&self, other: &Seen) -> bool {
        match (&self.member, &other.member) {
            (Some(this), Some(other)) => this.is_run_of(other) || this.epoch > other.epoch,
            _ => false,
        }
    }
}

impl Roster {
    pub(super) fn new(timeout: Duration) -> Roster {
        Roster {
            timeout,
            rows: BTreeMap::new(),
            missed: BTreeMap::new(),
            looked: None,
            is_unwatched: false,
        }
    }

    /// The store could not be read or written: since the last look no renewal could be seen.
    pub(super) fn skip(&mut self) {
        self.is_unwatched = true;
    }

    /// True if a member has gone without a renewal so long that it matters whether the store accepts writes.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        let mut rows = self.rows.values().chain(self.missed.values());
        rows.any(|seen| seen.member.is_some() && seen.age(now) > self.timeout / 2)
    }

    /// Compares `rows` with those last seen.
    pub(super) fn compare(&self, rows: &[Row]) -> Less {
        let rows: BTreeMap<&Name, &Row> = rows.iter().map(|row| (&row.key, row)).collect();
        let mut less = Less::default();
        for (key, seen) in &self.rows {
            match rows.get(key) {
                Some(row) => {
                    less.is_older |= row.version < seen.version;
                    less.is_older |= row.version == seen.version && row.value != seen.value;
                }
                None => {
                    let of_topic = less.missing.entry(seen.topic.clone()).or_default();
                    of_topic.insert(key.clone(), seen.version);
                }
            }
        }
        less
    }

    /// The highest version among the rows.
    pub(super) fn version(&self) -> u64 {
        self.rows.values().map(|seen| seen.version).max().unwrap_or(0)
    }

    /// Takes all rows of the table, as read `now`. If the store `went_back`, no process has deleted the missing rows.
    pub(super) fn look(&mut self, rows: Vec<Row>, now: Instant, went_back: bool) {
        let last = self.looked.replace(now).unwrap_or(now);
        let gap = now.saturating_duration_since(last);
        let is_unwatched = std::mem::take(&mut self.is_unwatched) || gap > self.timeout / 2;
        let unwatched = if is_unwatched { gap } else { Duration::ZERO };
        self.missed.values_mut().for_each(|seen| seen.since += unwatched);
        let mut before = std::mem::take(&mut self.rows);
        for row in rows {
            let seen = match before.remove(&row.key) {
                Some(mut seen) if seen.version == row.version && seen.value == row.value => {
                    seen.since += unwatched;
                    seen
                }
                older => {
                    let is_known = older.is_some();
                    if let Some(older) = older.filter(|_| went_back) {
                        self.miss(row.key.clone(), older, now);
                    }
                    Seen {
                        member: Member::from_row(&row).inspect_err(|e| log::debug!("skipped: {e}")).ok(),
                        topic: row.topic,
                        version: row.version,
                        value: row.value,
                        since: now,
                        was_renewed: is_known && !went_back,
                    }
                }
            };
            self.rows.insert(row.key, seen);
        }
        if went_back {
            before.into_iter().for_each(|(key, seen)| self.miss(key, seen, now));
        }
        let (rows, timeout) = (&self.rows, self.timeout);
        self.missed.retain(|key, missed| {
            let is_back = rows.get(key).is_some_and(|seen| seen.is_same_or_later(missed));
            !is_back && missed.age(now) <= timeout
        });
    }

    /// Restarts the time of a member whose row was lost, so that it can write it again.
    fn miss(&mut self, key: Name, seen: Seen, now: Instant) {
        let missed = Seen { since: now, ..seen };
        if missed.member.is_some() {
            self.missed.insert(key, missed);
        }
    }

    /// The rows whose owners are gone, with the versions seen.
    pub(super) fn stale(&self, now: Instant) -> Vec<Version> {
        let rows = self.rows.iter();
        let stale = rows.filter(|(_, seen)| seen.member.is_some() && seen.age(now) > self.timeout);
        stale.map(|(key, seen)| (key.clone(), seen.version)).collect()
    }

    /// Forgets a removed row.
    pub(super) fn forget(&mut self, key: &Name) {
        self.rows.remove(key);
    }

    pub(super) fn presences(&self, now: Instant) -> Vec<Presence> {
        let rows = self.rows.values().map(|seen| (seen, seen.was_renewed));
        let missed = self.missed.values().map(|seen| (seen, false));
        let members = rows.chain(missed).filter_map(|(seen, was_renewed)| {
            let age = seen.age(now);
            let state = match (age > self.timeout, was_renewed) {
                (true, _) => PresenceState::Stale,
                (false, true) => PresenceState::Alive,
                (false, false) => PresenceState::Unknown,
            };
            Some(Presence {
                member: seen.member.clone()?,
                state,
                age,
            })
        });
        members.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn row(key: &str, version: u64) -> Row {
        Row {
            key: key.into(),
            value: r#"{"epoch":1,"address":"tcp://host:1"}"#.into(),
            topic: Topic::ALL,
            version,
        }
    }

    fn states(roster: &Roster, now: Instant) -> Vec<&'static str> {
        let presences = roster.presences(now);
        presences.iter().map(|presence| presence.state.as_str()).collect()
    }

    #[test]
    fn who_renews_stays_and_who_does_not_goes() {
        let start = Instant::now();
        let mut roster = Roster::new(TIMEOUT);
        for second in 0..4 {
            let now = start + Duration::from_secs(second);
            roster.look(vec![row("a", second + 1), row("b", 1)], now, false);
            assert!(roster.stale(now).is_empty());
            assert_eq!(
                states(&roster, now),
                [if second == 0 { "unknown" } else { "alive" }, "unknown"]
            );
        }
        let now = start + Duration::from_millis(3001);
        assert_eq!(roster.stale(now), [("b".into(), 1)]);
        assert_eq!(states(&roster, now), ["alive", "stale"]);
        roster.forget(&"b".into());
        assert!(roster.stale(now).is_empty());
    }

    #[test]
    fn time_in_which_nobody_looked_counts_for_nobody() {
        let start = Instant::now();
        let mut roster = Roster::new(TIMEOUT);
        roster.look(vec![row("a", 1)], start, false);
        let now = start + Duration::from_secs(3600);
        roster.look(vec![row("a", 1)], now, false);
        assert!(roster.stale(now).is_empty());
        // From then on time counts.
        for second in 1..=3 {
            roster.look(vec![row("a", 1)], now + Duration::from_secs(second), false);
        }
        assert!(roster.stale(now + Duration::from_secs(3)).is_empty());
        assert_eq!(roster.stale(now + Duration::from_millis(3001)).len(), 1);
    }

    #[test]
    fn time_in_which_nobody_could_renew_counts_for_nobody() {
        let start = Instant::now();
        let mut roster = Roster::new(TIMEOUT);
        roster.look(vec![row("a", 1)], start, false);
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut longest = Duration::ZERO;
        for now in (1..100).map(second) {
            if roster.is_in_doubt(now) {
                roster.skip();
            }
            roster.look(vec![row("a", 1)], now, false);
            longest = roster.presences(now)[0].age.max(longest);
        }
        assert_eq!(longest, Duration::from_secs(1));
        // The store accepts writes again.
        roster.look(vec![row("a", 1)], second(100), false);
        assert!(roster.is_in_doubt(second(100)) && roster.stale(second(100)).is_empty());
        roster.look(vec![row("a", 2)], second(101), false);
        assert_eq!(states(&roster, second(101)), ["alive"]);
        assert!(!roster.is_in_doubt(second(102)));
    }

    #[test]
    fn whose_row_went_with_the_store_has_the_timeout_to_write_it_again() {
        let start = Instant::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut roster = Roster::new(TIMEOUT);
        roster.look(vec![row("a", 5), row("b", 6), row("c", 7)], start, false);
        let now = vec![row("b", 6), row("c", 1)];
        let less = roster.compare(&now);
        assert!(less.is_older && roster.version() == 7);
        assert_eq!(
            less.missing,
            BTreeMap::from([(Topic::ALL, BTreeMap::from([("a".into(), 5)]))])
        );
        roster.look(now, second(1), true);
        // `b` may be unchanged, `c` has an earlier state of the same run, and `a` is missing.
        assert_eq!(roster.presences(second(1)).len(), 3);
        for seconds in 2..=4 {
            let renewed = vec![row("b", 5 + seconds), row("c", seconds)];
            roster.look(renewed, second(seconds), false);
            assert!(roster.stale(second(seconds)).is_empty());
            assert_eq!(states(&roster, second(seconds)), ["alive", "alive", "unknown"]);
        }
        assert!(roster.is_in_doubt(second(4)));
        roster.look(vec![row("b", 10), row("c", 5)], second(5), false);
        assert_eq!(states(&roster, second(5)), ["alive", "alive"]);
        // A deleted row is not a loss of the store.
        roster.look(vec![row("b", 11)], second(6), false);
        assert_eq!(states(&roster, second(6)), ["alive"]);
        // A different row may have the same version.
        let other = Row {
            value: r#"{"epoch":2,"address":"tcp://host:2"}"#.into(),
            ..row("b", 11)
        };
        assert!(!roster.compare(&[row("b", 11)]).is_older && roster.compare(std::slice::from_ref(&other)).is_older);
        roster.look(vec![other], second(7), true);
        let present = roster.presences(second(7));
        assert_eq!((present.len(), present[0].member.epoch), (1, 2));
    }

    #[test]
    fn rows_of_others_are_left_alone() {
        let start = Instant::now();
        let mut roster = Roster::new(TIMEOUT);
        let other = Row {
            value: "whatever".into(),
            ..row("a", 1)
        };
        for second in 0..10 {
            roster.look(vec![other.clone()], start + Duration::from_secs(second), false);
        }
        assert!(roster.stale(start + Duration::from_secs(10)).is_empty());
        assert!(roster.presences(start).is_empty());
    }
}
