//! Compares the writers' reports with a subscriber's.

use std::collections::BTreeMap;

use super::ledger::{History, TrackHistory};

/// The number of updates that each writer sent on each topic.
pub(super) type Sent = BTreeMap<String, BTreeMap<String, u64>>;

/// The verdict on one subscriber.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(super) struct Verdict {
    /// Updates sent on its topics.
    pub(super) sent: u64,
    /// Different updates received on its topics.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
    /// Updates that it should not have received: unnumbered, never sent, or not on its topics.
    pub(super) stray: u64,
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.stray == 0
    }
}

/// Judges the history of a subscriber of these topics.
pub(super) fn judge(sent: &Sent, topics: &[String], history: &History) -> Verdict {
    let mut verdict = Verdict {
        stray: history.unnumbered,
        ..Verdict::default()
    };
    let mut tracks: BTreeMap<_, _> = history
        .tracks
        .iter()
        .map(|track| ((track.publisher.as_str(), track.topic.as_str()), track))
        .collect();
    for (writer, numbers) in sent {
        for (topic, sent) in numbers.iter().filter(|(topic, _)| topics.contains(topic)) {
            verdict.sent += sent;
            match tracks.remove(&(writer.as_str(), topic.as_str())) {
                Some(track) => verdict.add(track, *sent),
                None => verdict.lost += sent,
            }
        }
    }
    let strays = tracks.values().map(|track| track.delivered + track.duplicated);
    verdict.stray += strays.sum::<u64>();
    verdict
}

impl Verdict {
    fn add(&mut self, track: &TrackHistory, sent: u64) {
        self.delivered += track.delivered;
        self.duplicated += track.duplicated;
        self.out_of_order += track.out_of_order;
        self.lost += track.missing + sent.saturating_sub(track.highest);
        self.stray += track.highest.saturating_sub(sent);
    }
}

#[cfg(test)]
mod tests {
    use tablecast::{Action, DbUpdate, Origin, Topic};

    use super::super::ledger::Ledger;
    use std::time::Duration;

    use super::*;

    /// The verdict on a subscriber of `a` that received these (writer, topic, key, number), after the writer `w` sent 4
    /// updates on `a` and 2 on `b`.
    fn verdict(got: &[(&str, &str, &str, u64)]) -> Verdict {
        let sent = BTreeMap::from([("a".into(), 4), ("b".into(), 2)]);
        let sent = BTreeMap::from([("w".into(), sent)]);
        let mut ledger = Ledger::default();
        for (writer, topic, key, seq) in got {
            let mut update = DbUpdate::new("lport", *key, Action::Set).topic(Topic::new(*topic).unwrap());
            update.origin = Some(Origin {
                publisher: (*writer).into(),
                epoch: 1,
                seq: *seq,
                idle: Duration::ZERO,
            });
            ledger.record(&update, update.timestamp + 100);
        }
        judge(&sent, &["a".into()], &ledger.history(Vec::new()))
    }

    const GOOD: Verdict = Verdict {
        sent: 4,
        delivered: 4,
        lost: 0,
        duplicated: 0,
        out_of_order: 0,
        stray: 0,
    };

    #[test]
    fn all_in_order_is_good() {
        let verdict = verdict(&[
            ("w", "a", "k", 1),
            ("w", "a", "k", 2),
            ("w", "a", "k", 3),
            ("w", "a", "k", 4),
        ]);
        assert_eq!(verdict, GOOD);
        assert!(verdict.is_good());
    }

    #[test]
    fn rows_may_overtake_each_other() {
        let verdict = verdict(&[
            ("w", "a", "k", 3),
            ("w", "a", "m", 1),
            ("w", "a", "m", 2),
            ("w", "a", "k", 4),
        ]);
        assert_eq!(verdict, GOOD);
    }

    #[test]
    fn a_row_must_keep_its_order() {
        let verdict = verdict(&[
            ("w", "a", "k", 1),
            ("w", "a", "k", 3),
            ("w", "a", "k", 2),
            ("w", "a", "k", 4),
        ]);
        assert_eq!(
            verdict,
            Verdict {
                out_of_order: 1,
                ..GOOD
            }
        );
        assert!(!verdict.is_good());
    }

    #[test]
    fn losses_count_in_the_middle_and_at_either_end() {
        let one = Verdict {
            delivered: 3,
            lost: 1,
            ..GOOD
        };
        for lost in 1..=4 {
            let got: Vec<_> = (1..=4).filter(|seq| *seq != lost).collect();
            let got: Vec<_> = got.into_iter().map(|seq| ("w", "a", "k", seq)).collect();
            assert_eq!(verdict(&got), one, "{lost}");
            assert!(!one.is_good());
        }
        assert_eq!(
            verdict(&[]),
            Verdict {
                delivered: 0,
                lost: 4,
                ..GOOD
            }
        );
    }

    #[test]
    fn duplicates_count_at_once_and_late() {
        for twice in 1..=4 {
            let mut got: Vec<_> = (1..=4).map(|seq| ("w", "a", "k", seq)).collect();
            got.push(("w", "a", "k", twice));
            assert_eq!(verdict(&got), Verdict { duplicated: 1, ..GOOD });
            got.swap(4, twice as usize % 4);
            assert_eq!(verdict(&got).duplicated, 1);
        }
        assert!(!Verdict { duplicated: 1, ..GOOD }.is_good());
    }

    #[test]
    fn strays_are_foreign_or_invented() {
        let good: Vec<_> = (1..=4).map(|seq| ("w", "a", "k", seq)).collect();
        let invented = ("w", "a", "k", 5);
        for stray in [("w", "b", "k", 1), ("x", "a", "k", 1), ("w", "c", "k", 1)] {
            let got: Vec<_> = good.iter().copied().chain([stray]).collect();
            assert_eq!(verdict(&got), Verdict { stray: 1, ..GOOD });
        }
        let got: Vec<_> = good.iter().copied().chain([invented]).collect();
        assert!(verdict(&got).stray == 1 && !verdict(&got).is_good());
    }
}
