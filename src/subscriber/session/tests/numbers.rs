//! The law of one sequence of numbers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::subscriber::session::continuity::sequence::{Accepted, LATE, MAX_HELD, Missing, Sequence, WINDOW};

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
    let missing = sequence.give_up(start, &mut out).unwrap();
    assert_eq!((missing.from, missing.to, out.len()), (2, 2, MAX_HELD));
}

#[test]
fn what_a_hello_has_shown_missing_is_given_up_once() {
    let start = Instant::now();
    let mut sequence = Sequence::after(4);
    let mut out = Vec::new();
    sequence.learn(8, start, start);
    let missing = sequence.give_up(start + WINDOW, &mut out);
    assert_eq!(missing.map(|missing| (missing.from, missing.to)), Some((5, 8)));
    sequence.learn(8, start, start + WINDOW);
    assert_eq!(
        sequence.accept(7, 7, start, start + WINDOW, &mut out),
        Accepted::InOrder
    );
    let sent_by = start + 2 * WINDOW;
    assert_eq!(sequence.accept(9, 9, sent_by, sent_by, &mut out), Accepted::InOrder);
    assert_eq!(sequence.accept(8, 8, start, sent_by, &mut out), Accepted::Duplicate);
    assert_eq!((sequence.deadline(), out), (None, vec![7, 9]));
}

/// A sender of hellos can name numbers that were never sent.
#[test]
fn a_lie_about_what_was_sent_hides_no_later_loss() {
    let start = Instant::now();
    let later = start + 2 * LATE;
    for lie in [6, 7, 8, u64::MAX] {
        let given_up = || {
            let mut sequence = Sequence::after(4);
            sequence.learn(lie, start, start);
            let missing = sequence.give_up(start, &mut Vec::new());
            assert_eq!(missing.map(|missing| (missing.from, missing.to)), Some((5, lie)));
            sequence
        };
        let heard_of = || Sequence::told(lie, start);
        for (mut sequence, next) in [(given_up(), 5), (heard_of(), 1)] {
            let mut out = Vec::new();
            assert!(sequence.is_next(next));
            assert_eq!(sequence.accept(next, next, start, later, &mut out), Accepted::InOrder);
            // One is sent later, and lost. What shows it is the next update, or the next hello.
            let mut of_hello = sequence.clone();
            assert_eq!(
                sequence.accept(next + 2, next + 2, later, later, &mut out),
                Accepted::Early
            );
            let missing = |missing: Option<Missing>| missing.map(|it| (it.from, it.to, it.count));
            let lost = missing(sequence.give_up(later, &mut out));
            assert_eq!((lost, &out), (Some((next + 1, next + 1, 1)), &vec![next, next + 2]));
            assert!(sequence.is_next(next + 3));
            of_hello.learn(next + 1, later, later);
            assert_eq!(
                missing(of_hello.give_up(later, &mut out)),
                Some((next + 1, next + 1, 1))
            );
        }
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
                declare(sequence.give_up(now, &mut out), &out)?;
            }
            sent.insert(number);
            sequence.accept(number, number, now, now, &mut out);
        }
        let highest = *sent.last().unwrap();
        if shuffled_only && sent.len() as u64 == highest {
            prop_assert_eq!(out.len() as u64, highest);
        }
        sequence.learn(70, now, now);
        declare(sequence.give_up(now, &mut out), &out)?;
        prop_assert!(sequence.deadline().is_none());
        prop_assert!(out.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice: {:?}", out);
        prop_assert_eq!(out.len() + missing.len(), 70, "{:?} {:?}", out, missing);
    }
}
