//! A subscriber's record of its updates, in little memory however many they are.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tablecast::{DbUpdate, Name, Topic};

use super::rows::Held;
use tablecast::listener::Latency;

/// The updates of one subscriber so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By publisher and topic.
    tracks: HashMap<(Name, Topic), Track>,
    unnumbered: u64,
    /// Different updates, of all tracks.
    delivered: u64,
    latency: Latency,
    /// When the first update was sent and the last one came, in microseconds.
    span: Option<(i64, i64)>,
}

/// The updates of one publisher on one topic.
#[derive(Debug, Default)]
struct Track {
    delivered: u64,
    duplicated: u64,
    out_of_order: u64,
    highest: u64,
    /// Missing numbers below `highest`: the first and the last of each gap.
    gaps: BTreeMap<u64, u64>,
    /// The last number of each row.
    rows: HashMap<(Name, Name), u64>,
}

/// A ledger as it is reported.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) tracks: Vec<TrackHistory>,
    /// Updates without a publisher's number.
    pub(super) unnumbered: u64,
    /// Different updates a second, from the first send to the last receipt.
    pub(super) rate: f64,
    /// Latencies from send to callback, in microseconds.
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
    /// The rows of its replica, if there is a store.
    pub(super) rows: Vec<Held>,
}

/// The reported updates of one publisher on one topic.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TrackHistory {
    pub(super) publisher: String,
    pub(super) topic: String,
    /// Different updates.
    pub(super) delivered: u64,
    /// Updates received again.
    pub(super) duplicated: u64,
    /// Updates received after a later one of their row.
    pub(super) out_of_order: u64,
    /// The highest number received.
    pub(super) highest: u64,
    /// Numbers below it that are missing.
    pub(super) missing: u64,
}

impl Ledger {
    /// Records an update received at `now`, in microseconds since the Unix epoch.
    pub(super) fn record(&mut self, update: &DbUpdate, now: i64) {
        self.latency.record(u64::try_from(now - update.timestamp).unwrap_or(0));
        let (first, _) = self.span.unwrap_or((update.timestamp, now));
        self.span = Some((first.min(update.timestamp), now));
        let Some(origin) = &update.origin else {
            self.unnumbered += 1;
            return;
        };
        let whose = (origin.publisher.clone(), update.topic.clone());
        let track = self.tracks.entry(whose).or_default();
        self.delivered += u64::from(track.record(update, origin.seq));
    }

    /// The number of different updates.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The ledger, with these rows.
    pub(super) fn history(&self, rows: Vec<Held>) -> History {
        let tracks = self.tracks.iter().map(|((publisher, topic), track)| TrackHistory {
            publisher: publisher.to_string(),
            topic: topic.to_string(),
            delivered: track.delivered,
            duplicated: track.duplicated,
            out_of_order: track.out_of_order,
            highest: track.highest,
            missing: track.gaps.iter().map(|(first, last)| last - first + 1).sum(),
        });
        let (first, last) = self.span.unwrap_or((0, 0));
        History {
            tracks: tracks.collect(),
            unnumbered: self.unnumbered,
            rate: self.delivered as f64 * 1e6 / (last - first).max(1) as f64,
            p50: self.latency.quantile(0.50),
            p99: self.latency.quantile(0.99),
            max: self.latency.max(),
            rows,
        }
    }
}

impl Track {
    /// Returns true if this number is new.
    fn record(&mut self, update: &DbUpdate, seq: u64) -> bool {
        if !self.is_new(seq) {
            self.duplicated += 1;
            return false;
        }
        self.delivered += 1;
        let last = self.rows.entry((update.table.clone(), update.key.clone())).or_insert(0);
        if seq < *last {
            self.out_of_order += 1;
        }
        *last = seq.max(*last);
        true
    }

    fn is_new(&mut self, seq: u64) -> bool {
        if seq > self.highest {
            if seq > self.highest + 1 {
                self.gaps.insert(self.highest + 1, seq - 1);
            }
            self.highest = seq;
            return true;
        }
        let gap = self.gaps.range(..=seq).next_back().map(|(first, last)| (*first, *last));
        let Some((first, last)) = gap.filter(|(_, last)| seq <= *last) else {
            return false;
        };
        self.gaps.remove(&first);
        if first < seq {
            self.gaps.insert(first, seq - 1);
        }
        if seq < last {
            self.gaps.insert(seq + 1, last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The gaps are equivalent to a set of all received numbers.
        #[test]
        fn gaps_are_a_set(numbers in prop::collection::vec(1u64..40, 0..80)) {
            let (mut track, mut seen) = (Track::default(), HashSet::new());
            for seq in numbers {
                prop_assert_eq!(track.is_new(seq), seen.insert(seq));
            }
            let missing: u64 = track.gaps.iter().map(|(first, last)| last - first + 1).sum();
            prop_assert_eq!(missing + seen.len() as u64, track.highest);
        }
    }
}
