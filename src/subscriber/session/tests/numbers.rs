//! The law of one sequence of numbers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::subscriber::session::continuity::sequence::{Accepted, MAX_HELD, Missing, Sequence, WINDOW};

#[test]
fn a_full_window_does_not_wait() {
    let start = Instant::now();
    let mut sequence = Sequence::after(1);
    let mut out = Vec::new();
    for number in 3..3 + MAX_HELD as u64 {
        sequence.accept(number, number, start, start, &mut out);
    }
    assert_eq!(sequence.deadline(), Some(start));
    assert!(sequence.is_full());
    let missing = sequence.give_up(&mut out).unwrap();
    assert_eq!((missing.from, missing.to, out.len()), (2, 2, MAX_HELD));
}

#[test]
fn what_a_hello_has_shown_missing_is_reported_once() {
    let start = Instant::now();
    let mut sequence = Sequence::after(4);
    let mut out = Vec::new();
    sequence.learn(8, start, start);
    assert_eq!(
        sequence.give_up(&mut out).map(|missing| (missing.from, missing.to)),
        Some((5, 8))
    );
    sequence.reported(start + WINDOW);
    assert_eq!(
        sequence.accept(7, 7, start, start + WINDOW, &mut out),
        Accepted::InOrder
    );
    let sent_by = start + Duration::from_millis(1);
    assert_eq!(
        sequence.accept(9, 9, sent_by, start + 2 * WINDOW, &mut out),
        Accepted::InOrder
    );
    assert_eq!(
        sequence.accept(8, 8, start, start + 2 * WINDOW, &mut out),
        Accepted::Duplicate
    );
    assert_eq!((sequence.deadline(), out), (None, vec![7, 9]));
}

/// Whoever may send hellos can name numbers that were never sent.
#[test]
fn a_lie_about_what_was_sent_hides_no_later_loss() {
    let start = Instant::now();
    for lie in [6, 7, 8, u64::MAX] {
        let mut sequence = Sequence::after(4);
        let mut out = Vec::new();
        sequence.learn(lie, start, start);
        assert_eq!(
            sequence.give_up(&mut out).map(|missing| (missing.from, missing.to)),
            Some((5, lie))
        );
        sequence.reported(start + WINDOW);
        let later = start + Duration::from_secs(1);
        assert!(sequence.is_next(5));
        assert_eq!(sequence.accept(5, 5, start, later, &mut out), Accepted::InOrder);
        // The sixth was sent after the report, and is lost.
        assert_eq!(sequence.accept(7, 7, later, later, &mut out), Accepted::Early);
        let missing = sequence
            .give_up(&mut out)
            .map(|missing| (missing.from, missing.to, missing.count));
        assert_eq!((missing, &out), (Some((6, 6, 1)), &vec![5, 7]));
        assert!(sequence.is_next(8));
    }
}

proptest! {
    /// Of numbers that are lost, doubled or reordered, those handed out are in order and none comes twice; the others
    /// are declared missing. Numbers only reordered inside the window are all handed out.
    #[test]
    fn every_number_is_handed_out_or_declared(
        numbers in prop::collection::vec((1..60u64, 0..30u64), 1..120),
        shuffled_only in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut sequence = Sequence::after(0);
        let (mut out, mut missing) = (Vec::new(), BTreeSet::new());
        let mut sent = BTreeSet::new();
        let mut declare = |lost: Option<Missing>, out: &Vec<u64>| {
            if let Some(lost) = lost {
                let absent: Vec<_> = (lost.from..=lost.to).filter(|number| !out.contains(number)).collect();
                prop_assert_eq!(absent.len() as u64, lost.count);
                missing.extend(absent);
            }
            Ok(())
        };
        for (number, wait) in numbers {
            now += if shuffled_only { Duration::ZERO } else { Duration::from_millis(wait) };
            if sequence.deadline().is_some_and(|at| at <= now) {
                declare(sequence.give_up(&mut out), &out)?;
            }
            sent.insert(number);
            sequence.accept(number, number, now, now, &mut out);
        }
        let highest = *sent.last().unwrap();
        if shuffled_only && sent.len() as u64 == highest {
            prop_assert_eq!(out.len() as u64, highest);
        }
        sequence.learn(70, now, now);
        declare(sequence.give_up(&mut out), &out)?;
        prop_assert!(sequence.deadline().is_none());
        prop_assert!(out.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice: {:?}", out);
        prop_assert_eq!(out.len() + missing.len(), 70, "{:?} {:?}", out, missing);
    }
}
