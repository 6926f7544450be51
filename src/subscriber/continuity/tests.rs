//! Histories with hand-made clocks, and laws over arbitrary ones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::sequence::{MAX_HELD, Missing};
use super::*;
use crate::subscriber::TopicState;
use crate::update::{Action, Origin};

const SECOND: Duration = Duration::from_secs(1);

/// A continuity with the topics a and b, live at the time 0.
struct World {
    start: Instant,
    known: Continuity,
    out: Vec<DbUpdate>,
}

impl World {
    fn new() -> World {
        let start = Instant::now();
        let mut known = Continuity::new(start);
        known.register(topic("a"), 1, start);
        known.register(topic("b"), 2, start);
        known.settle(2, false, start);
        known.cover(start);
        let out = Vec::new();
        World { start, known, out }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// This number of publisher p, sent `idle` milliseconds after the one before.
    fn hear(&mut self, millis: u64, name: &str, seq: u64, idle: u64) {
        self.hear_of("p", 1, millis, name, seq, idle);
    }

    fn hear_of(&mut self, publisher: &str, epoch: u64, millis: u64, name: &str, seq: u64, idle: u64) {
        let mut update = DbUpdate::new("t", seq.to_string(), Action::Set).topic(topic(name));
        update.origin = Some(Origin {
            publisher: publisher.into(),
            epoch,
            seq,
            idle: Duration::from_millis(idle),
        });
        let now = self.at(millis);
        self.known.update("here", update, now, &mut self.out);
    }

    fn hello(&mut self, epoch: u64, millis: u64, topics: &[(&str, u64, u64)], last: bool) {
        let topics = topics.iter().map(|(name, last, age)| ((*name).into(), *last, *age));
        let hello = Hello {
            topics: topics.collect(),
            ..Hello::of(SECOND)
        };
        let now = self.at(millis);
        let from = Sender {
            address: "here",
            publisher: &"p".into(),
            epoch,
        };
        self.known.hello(&from, &hello, last, now);
    }

    /// Lets the time pass to this moment, as the subscriber's thread does, and returns what is told.
    fn pass(&mut self, until: u64) -> Vec<SyncReason> {
        let mut told = Vec::new();
        while let Some(at) = self.known.deadline().filter(|at| *at <= self.at(until)) {
            self.known.drained(at);
            told.extend(self.known.check(at, &mut self.out).syncs);
        }
        told
    }

    fn delivered(&mut self) -> Vec<u64> {
        let out = std::mem::take(&mut self.out);
        out.into_iter()
            .filter_map(|update| update.origin.map(|origin| origin.seq))
            .collect()
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn gap(name: &str, from: u64, to: u64) -> SyncReason {
    SyncReason::Gap {
        publisher: "p".into(),
        topic: topic(name),
        from,
        to,
    }
}

#[test]
fn what_is_in_order_is_delivered_at_once_and_nothing_is_told() {
    let mut world = World::new();
    (1..=5).for_each(|seq| world.hear(seq, "a", seq, 0));
    assert_eq!(world.delivered(), [1, 2, 3, 4, 5]);
    assert_eq!(world.pass(50_000), []);
}

#[test]
fn a_gap_is_told_once_with_its_topic_and_numbers() {
    let mut world = World::new();
    for (millis, seq) in [(1, 1), (2, 4), (3, 5), (4, 7)] {
        world.hear(millis, "a", seq, 0);
    }
    world.hear(5, "b", 1, 0);
    assert_eq!(
        world.delivered(),
        [1, 1],
        "what came early waits for what it has overtaken"
    );
    assert_eq!(world.pass(1_000), [gap("a", 2, 6)]);
    assert_eq!(world.delivered(), [4, 5, 7]);
    let counters = world.known.counters();
    assert_eq!((counters.gaps, counters.lost), (1, 3));
}

#[test]
fn what_comes_late_inside_the_window_is_put_in_order_and_nothing_is_told() {
    let mut world = World::new();
    for (millis, seq) in [(1, 1), (2, 3), (3, 4), (20, 2), (21, 5)] {
        world.hear(millis, "a", seq, 0);
    }
    assert_eq!(world.delivered(), [1, 2, 3, 4, 5]);
    assert_eq!(world.pass(1_000), []);
}

#[test]
fn what_comes_twice_or_too_late_is_not_delivered() {
    let mut world = World::new();
    for seq in [1, 2, 2, 1, 4, 4] {
        world.hear(1, "a", seq, 0);
    }
    assert_eq!(world.pass(500), [gap("a", 3, 3)]);
    world.hear(501, "a", 3, 0);
    assert_eq!(world.delivered(), [1, 2, 4]);
    assert_eq!(world.known.counters().duplicates, 4);
}

#[test]
fn a_full_window_does_not_wait() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    (3..3 + MAX_HELD as u64).for_each(|seq| world.hear(2, "a", seq, 0));
    world.pass(2);
    assert_eq!(world.delivered().len(), 1 + MAX_HELD);
}

#[test]
fn a_lost_last_update_is_told_by_a_hello() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hello(1, 900, &[("a", 3, 800), ("other", 7, 1)], false);
    assert_eq!(world.pass(1_200), [gap("a", 2, 3)]);
    world.hear(1_300, "a", 4, 0);
    assert_eq!(world.delivered(), [1, 4]);
}

#[test]
fn a_publisher_heard_in_the_middle_is_proven_by_its_idle_time() {
    let mut world = World::new();
    // The number before was sent before the topic was live.
    world.hear(1_000, "a", 8, 1_000);
    assert_eq!(world.pass(2_000), []);
    // The number before was sent afterwards, and never came.
    world.hear(2_100, "b", 8, 2_000);
    assert_eq!(
        world.pass(3_000),
        [SyncReason::Unproven {
            topics: vec![topic("b")]
        }]
    );
}

#[test]
fn publishers_heard_in_the_middle_are_told_of_together() {
    let mut world = World::new();
    for (index, publisher) in ["p", "q", "r"].into_iter().enumerate() {
        world.hear_of(publisher, 1, 10 + index as u64, "a", 5, 0);
        world.hear_of(publisher, 1, 11 + index as u64, "b", 5, 0);
    }
    let topics = vec![topic("a"), topic("b")];
    assert_eq!(world.pass(1_000), [SyncReason::Unproven { topics }]);
}

#[test]
fn what_was_lost_before_the_program_was_told_to_read_is_not_told_again() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    let now = world.at(5_000);
    world.known.cover(now);
    world.hear(6_000, "a", 9, 1_001);
    assert_eq!(world.pass(7_000), []);
    world.hear(8_000, "a", 11, 1_000);
    assert_eq!(world.pass(9_000), [gap("a", 10, 10)]);
}

#[test]
fn silence_is_told_once_within_three_periods_and_ends_with_a_word() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    assert_eq!(world.pass(2_500), []);
    assert_eq!(
        world.pass(3_100),
        [SyncReason::Silence {
            publishers: vec!["p".into()]
        }]
    );
    assert_eq!(world.pass(60_000), []);
    world.hear(60_000, "a", 2, 59_800);
    assert_eq!(world.pass(61_000), []);
    assert_eq!(world.delivered(), [1, 2]);
}

#[test]
fn who_was_silent_and_dies_after_an_update_is_told_as_soon_as_anybody() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    assert_eq!(world.pass(10_000).len(), 1);
    world.hear(10_000, "a", 2, 9_800);
    assert_eq!(world.pass(13_000).len(), 1);
}

#[test]
fn of_a_lost_address_no_silence_is_told() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.known.lose("elsewhere");
    world.known.lose("here");
    assert_eq!(world.pass(10_000), []);
    world.hello(1, 10_100, &[], false);
    assert_eq!(world.pass(13_000).len(), 1);
}

#[test]
fn a_goodbye_is_no_silence_but_tells_what_was_lost() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    world.hello(1, 300, &[("a", 2, 50)], true);
    assert_eq!(world.pass(100_000), [gap("a", 2, 2)]);
    assert_eq!(world.known.size, 0, "who is gone is forgotten");
}

#[test]
fn who_says_no_hellos_is_never_silent() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    assert_eq!(world.pass(600_000), []);
    assert_eq!(
        world.known.status(true, world.at(0))[0].publishers[0].state,
        TopicState::Unconfirmed
    );
}

#[test]
fn a_restart_without_a_goodbye_is_told_once() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hear_of("p", 2, 500, "a", 1, 0);
    world.hear_of("p", 2, 501, "a", 2, 0);
    assert_eq!(world.pass(5_000), [SyncReason::Restarted { publisher: "p".into() }]);
    assert_eq!(world.known.counters().clashes, 0);
    assert_eq!(world.delivered(), [1, 1, 2]);
}

#[test]
fn two_publishers_with_one_id_are_reported_and_both_are_followed() {
    let mut world = World::new();
    let mut told = Vec::new();
    for round in 0..10 {
        for epoch in [1, 2] {
            world.hear_of("p", epoch, 400 * round + epoch, "a", round + 1, 0);
            told.extend(world.pass(400 * round + epoch));
        }
    }
    told.extend(world.pass(6_000));
    assert_eq!(told, [SyncReason::Restarted { publisher: "p".into() }]);
    assert_eq!(world.known.counters().clashes, 1);
    world.hear_of("p", 1, 6_001, "a", 12, 0);
    world.hear_of("p", 2, 6_002, "a", 11, 0);
    assert_eq!(world.pass(7_000), [gap("a", 11, 11)]);
}

#[test]
fn nothing_is_told_of_a_topic_that_is_not_live_yet_or_was_unregistered() {
    let mut world = World::new();
    world.known.register(topic("c"), 3, world.at(1));
    world.hear(2, "c", 7, 0);
    world.hear(3, "c", 9, 0);
    world.hear(4, "a", 1, 0);
    world.hear(5, "a", 3, 0);
    world.known.unregister(&topic("a"));
    assert_eq!(world.pass(2_000), []);
    world.known.settle(3, false, world.at(2_000));
    world.hear(2_100, "c", 11, 50);
    assert_eq!(world.pass(3_000), [gap("c", 10, 10)]);
}

#[test]
fn what_was_not_told_because_an_address_was_to_be_told_of_is_told_if_it_is_not() {
    let mut world = World::new();
    world.known.settle(2, true, world.at(1));
    world.hear(2, "a", 1, 0);
    world.hear(3, "a", 3, 0);
    assert_eq!(world.pass(1_000), []);
    world.known.settle(2, false, world.at(1_000));
    assert_eq!(world.pass(1_000), [gap("a", 2, 2)]);
}

#[test]
fn a_process_that_was_stopped_hears_what_waits_before_it_judges() {
    let mut world = World::new();
    world.hello(1, 0, &[], false);
    world.known.drained(world.at(30_000));
    let now = world.at(30_000);
    assert!(world.known.check(now, &mut world.out).syncs.is_empty());
    world.hello(1, 30_001, &[], false);
    assert_eq!(world.pass(32_000), []);
    assert_eq!(
        world.pass(33_500),
        [SyncReason::Silence {
            publishers: vec!["p".into()]
        }]
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut world = World::new();
    for publisher in 0..MAX_SIZE as u64 {
        world.hear_of(&publisher.to_string(), 1, publisher / 1_000, "a", 1, 0);
    }
    assert!(world.known.size <= MAX_SIZE);
    let counted: usize = world
        .known
        .publishers
        .values()
        .flatten()
        .map(|run| 1 + run.topics.len())
        .sum();
    assert_eq!(world.known.size, counted);
    assert!(
        world.known.publishers.contains_key(&*(MAX_SIZE - 1).to_string()),
        "the newest is kept"
    );
}

proptest! {
    /// Whatever is lost, doubled, or comes in another order: what is handed out is in order, no number twice, and what
    /// is not handed out is declared missing. Whatever is only shuffled inside the window is handed out whole.
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
