//! Who is there, judged by versions. No threads, no store, and the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Member, Version};
use crate::store::Row;
use crate::update::Name;

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceState {
    /// It was seen to renew its row within the timeout.
    Alive,
    /// Its row is there, and was not yet watched for long enough to tell.
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

/// A member, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// What its row says.
    pub member: Member,
    /// Whether it is there.
    pub state: PresenceState,
    /// How long its row was watched since it was last seen to change.
    pub age: Duration,
}

/// The rows of a table as they were last seen.
#[derive(Debug)]
pub(super) struct Roster {
    timeout: Duration,
    rows: BTreeMap<Name, Seen>,
    /// When it was last looked.
    looked: Option<Instant>,
    /// The time since then counts for nobody.
    is_unwatched: bool,
}

#[derive(Debug)]
struct Seen {
    /// `None`: somebody else's row.
    member: Option<Member>,
    version: u64,
    /// Since when it has this version, as far as it was watched.
    since: Instant,
    was_renewed: bool,
}

impl Seen {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

impl Roster {
    pub(super) fn new(timeout: Duration) -> Roster {
        Roster {
            timeout,
            rows: BTreeMap::new(),
            looked: None,
            is_unwatched: false,
        }
    }

    /// The store could not be read or written: since the last look nobody could be seen to renew.
    pub(super) fn skip(&mut self) {
        self.is_unwatched = true;
    }

    /// Whether somebody has not been seen to renew for so long that it matters whether the store takes writes.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        let mut rows = self.rows.values();
        rows.any(|seen| seen.member.is_some() && seen.age(now) > self.timeout / 2)
    }

    /// Takes note of all rows of the table, as they were read `now`.
    pub(super) fn look(&mut self, rows: Vec<Row>, now: Instant) {
        let last = self.looked.replace(now).unwrap_or(now);
        let gap = now.saturating_duration_since(last);
        let is_unwatched = std::mem::take(&mut self.is_unwatched) || gap > self.timeout / 2;
        let unwatched = if is_unwatched { gap } else { Duration::ZERO };
        let mut before = std::mem::take(&mut self.rows);
        for row in rows {
            let seen = match before.remove(&row.key) {
                Some(mut seen) if seen.version == row.version => {
                    seen.since += unwatched;
                    seen
                }
                older => Seen {
                    member: Member::from_row(&row).inspect_err(|e| log::debug!("skipped: {e}")).ok(),
                    version: row.version,
                    since: now,
                    was_renewed: older.is_some(),
                },
            };
            self.rows.insert(row.key, seen);
        }
    }

    /// The rows whose owners are gone, in the versions in which they were seen.
    pub(super) fn stale(&self, now: Instant) -> Vec<Version> {
        let rows = self.rows.iter();
        let stale = rows.filter(|(_, seen)| seen.member.is_some() && seen.age(now) > self.timeout);
        stale.map(|(key, seen)| (key.clone(), seen.version)).collect()
    }

    /// A row was removed.
    pub(super) fn forget(&mut self, key: &Name) {
        self.rows.remove(key);
    }

    pub(super) fn presences(&self, now: Instant) -> Vec<Presence> {
        let members = self.rows.values().filter_map(|seen| {
            let age = seen.age(now);
            let state = match (age > self.timeout, seen.was_renewed) {
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
    use crate::update::Topic;

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
            roster.look(vec![row("a", second + 1), row("b", 1)], now);
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
        roster.look(vec![row("a", 1)], start);
        let now = start + Duration::from_secs(3600);
        roster.look(vec![row("a", 1)], now);
        assert!(roster.stale(now).is_empty());
        // From then on it does.
        for second in 1..=3 {
            roster.look(vec![row("a", 1)], now + Duration::from_secs(second));
        }
        assert!(roster.stale(now + Duration::from_secs(3)).is_empty());
        assert_eq!(roster.stale(now + Duration::from_millis(3001)).len(), 1);
    }

    #[test]
    fn time_in_which_nobody_could_renew_counts_for_nobody() {
        let start = Instant::now();
        let mut roster = Roster::new(TIMEOUT);
        roster.look(vec![row("a", 1)], start);
        let second = |seconds| start + Duration::from_secs(seconds);
        let mut longest = Duration::ZERO;
        for now in (1..100).map(second) {
            if roster.is_in_doubt(now) {
                roster.skip();
            }
            roster.look(vec![row("a", 1)], now);
            longest = roster.presences(now)[0].age.max(longest);
        }
        assert_eq!(longest, Duration::from_secs(1));
        // The store takes writes again.
        roster.look(vec![row("a", 1)], second(100));
        assert!(roster.is_in_doubt(second(100)) && roster.stale(second(100)).is_empty());
        roster.look(vec![row("a", 2)], second(101));
        assert_eq!(states(&roster, second(101)), ["alive"]);
        assert!(!roster.is_in_doubt(second(102)));
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
            roster.look(vec![other.clone()], start + Duration::from_secs(second));
        }
        assert!(roster.stale(start + Duration::from_secs(10)).is_empty());
        assert!(roster.presences(start).is_empty());
    }
}
