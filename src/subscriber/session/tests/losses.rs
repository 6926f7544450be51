//! Numbers that are missing, duplicate, early or unproven.

use super::*;

#[test]
fn what_is_in_order_is_delivered_at_once_and_nothing_is_told() {
    let mut world = World::new();
    (1..=5).for_each(|seq| world.hear(seq, "a", seq, 0));
    assert_eq!(world.delivered(), [1, 2, 3, 4, 5]);
    assert_eq!(world.told_by(50_000), []);
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
    assert_eq!(world.told_by(1_000), [gap("a", 2, 6)]);
    assert_eq!(world.delivered(), [4, 5, 7]);
    let stats = world.session.stats();
    assert_eq!((stats.gaps, stats.lost), (1, 3));
}

#[test]
fn what_comes_late_inside_the_window_is_put_in_order_and_nothing_is_told() {
    let mut world = World::new();
    for (millis, seq) in [(1, 1), (2, 3), (3, 4), (20, 2), (21, 5)] {
        world.hear(millis, "a", seq, 0);
    }
    assert_eq!(world.delivered(), [1, 2, 3, 4, 5]);
    assert_eq!(world.told_by(1_000), []);
}

#[test]
fn what_is_overtaken_is_not_given_up_while_there_is_more_to_read_but_after_a_second_in_any_case() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hear(2, "a", 3, 0);
    // The process was stopped and has not read all that came.
    world.millis = 500;
    world.session.tick(world.now());
    world.drive();
    assert_eq!(world.delivered(), [1]);
    world.hear_of("p", 1, "here", "a", 2, 0);
    assert_eq!(world.delivered(), [2, 3]);
    assert_eq!(world.told(), []);
    world.hear_of("p", 1, "here", "a", 5, 0);
    for millis in (500..2_000).step_by(10) {
        world.millis = millis;
        world.session.tick(world.now());
        world.drive();
    }
    assert_eq!(world.told(), [gap("a", 4, 4)]);
}

#[test]
fn what_comes_twice_or_too_late_is_not_delivered() {
    let mut world = World::new();
    for seq in [1, 2, 2, 1, 4, 4] {
        world.hear(1, "a", seq, 0);
    }
    assert_eq!(world.told_by(500), [gap("a", 3, 3)]);
    world.hear(501, "a", 3, 0);
    assert_eq!(world.delivered(), [1, 2, 4]);
    assert_eq!(world.session.stats().duplicates, 4);
}

#[test]
fn a_lost_last_update_is_told_by_a_hello() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hello(1, 900, &[("a", 3, 800), ("other", 7, 1)], false);
    assert_eq!(world.told_by(1_200), [gap("a", 2, 3)]);
    world.hear(1_300, "a", 4, 0);
    assert_eq!(world.delivered(), [1, 4]);
}

#[test]
fn a_publisher_heard_in_the_middle_is_proven_by_its_idle_time() {
    let mut world = World::new();
    // The number before was sent before the topic was live.
    world.hear(1_000, "a", 8, 1_000);
    assert_eq!(world.told_by(2_000), []);
    // The number before was sent later, and never came.
    world.hear(2_100, "b", 8, 2_000);
    assert_eq!(world.told_by(3_000), [unproven(&["b"])]);
}

#[test]
fn publishers_heard_in_the_middle_are_told_of_together() {
    let mut world = World::new();
    for (index, publisher) in (0..).zip(["p", "q", "r"]) {
        world.pass(10 + index);
        world.hear_of(publisher, 1, "here", "a", 5, 0);
        world.hear_of(publisher, 1, "here", "b", 5, 0);
    }
    assert_eq!(world.told_by(1_000), [unproven(&["a", "b"])]);
}

#[test]
fn what_was_lost_before_the_program_was_told_to_read_is_not_told_again() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.pass(5_000);
    world.frame("here", "a", br#"{"table":null,"key":null,"action":"sync"}"#);
    assert_eq!(world.told(), [SyncReason::Requested]);
    world.hear(6_000, "a", 9, 1_001);
    assert_eq!(world.told_by(7_000), []);
    world.hear(8_000, "a", 11, 1_000);
    assert_eq!(world.told_by(9_000), [gap("a", 10, 10)]);
}

/// All frames of a batch have about the same time, which does not cover a loss after a request within the batch.
#[test]
fn a_request_covers_nothing_that_was_sent_after_it() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    let (heard, later) = (world.at(1_000), world.at(1_500));
    let request = br#"{"table":null,"key":null,"action":"sync"}"#;
    world.session.handle_frame("here", b"a", request, heard, || later);
    // The number before this one was sent 100 ms ago: after the request was heard, but before the batch's time.
    let payload = update("p", 1, "a", 3, 100);
    world.session.handle_frame("here", b"a", &payload, heard, || {
        world.start + Duration::from_millis(1_700)
    });
    world.millis = 1_700;
    world.drive();
    assert_eq!(world.told_by(3_000), [SyncReason::Requested, gap("a", 2, 2)]);
}

#[test]
fn a_publisher_first_heard_late_in_its_life_may_have_been_missed() {
    let mut world = World::new();
    world.pass(10_000);
    world.hello_of("p", 1, "here", &round(50, &[]), false);
    let reasons = world.told_by(10_500);
    assert_eq!(
        reasons.iter().map(SyncReason::as_str).collect::<Vec<_>>(),
        ["hellos-missed"]
    );
    // A publisher heard soon after the address became live was there before.
    let mut world = World::new();
    world.pass(900);
    world.hello_of("p", 1, "here", &round(50, &[]), false);
    assert_eq!(world.told_by(1_500), []);
}

/// Events held back for another one that is imminent are emitted after a second at most.
#[test]
fn gaps_are_held_back_while_an_address_is_unsure_for_a_second_at_most() {
    let mut world = World::new();
    world.mute.insert("there".into());
    world.hear(1, "a", 1, 0);
    world.listen("there");
    world.hear(2, "a", 3, 0);
    assert_eq!(world.told_by(900), []);
    assert_eq!(world.told_by(1_100), [gap("a", 2, 2)]);
    // The address is live by then, which covers the loss.
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.mute.insert("there".into());
    world.listen("there");
    world.hear(2, "a", 3, 0);
    world.pass(500);
    world.mute.clear();
    world.connect("there");
    assert_eq!(world.told_by(5_000), [connected("there")]);
}

/// An event that concerns every topic covers the gaps of the same burst.
#[test]
fn a_burst_that_concerns_every_topic_is_told_without_its_gaps() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hear(2, "a", 3, 0);
    world.pass(40);
    world.hear_of("p", 2, "here", "a", 1, 0);
    assert_eq!(world.told_by(5_000), [SyncReason::Restarted { publisher: "p".into() }]);
    let mut world = World::new();
    world.hello_of("p", 1, "here", &round(1, &[]), false);
    world.hear(1, "a", 1, 0);
    for millis in (500..8_000).step_by(500) {
        world.hear(millis, "b", millis / 500, 0);
    }
    world.hello_of("p", 1, "here", &round(7, &[("a", 3, 100)]), false);
    let publishers = vec!["p".into()];
    assert_eq!(world.told_by(9_000), [SyncReason::HellosMissed { publishers }]);
    // A publisher falls silent at the moment at which a gap is reported.
    let mut world = World::new();
    world.hello_of("q", 1, "here", &hello(&[]), false);
    world.hear(1, "a", 1, 0);
    let publishers = vec!["q".into()];
    let silence = SyncReason::Silence { publishers };
    let silent_at = (0..)
        .map(|tick| 2_000 + tick)
        .find(|at| {
            world.pass(*at);
            !world.told.is_empty()
        })
        .unwrap();
    assert_eq!(world.told(), std::slice::from_ref(&silence));
    // The number is given up after 50 ms, and reported after another 50.
    for early in 90..110 {
        let mut world = World::new();
        world.hello_of("q", 1, "here", &hello(&[]), false);
        world.hear(1, "a", 1, 0);
        world.hear(silent_at - early, "a", 3, 0);
        let told = world.told_by(silent_at + 1_000);
        assert!(
            told == [gap("a", 2, 2), silence.clone()] || told == [silence.clone()],
            "{told:?}"
        );
    }
}

/// Another peer forges numbers and hellos of p, which is heard here.
#[test]
fn what_is_said_of_a_publisher_elsewhere_than_where_it_is_heard_counts_for_nothing() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    world.hello_of("p", 1, "there", &round(1_000_000, &[("a", 1_000_000, 0)]), false);
    world.pass(400);
    world.hear(500, "a", 2, 0);
    world.hear(600, "a", 3, 0);
    assert_eq!(world.delivered(), [1, 2, 3]);
    assert_eq!(world.told_by(1_000), []);
    for tick in 6..50 {
        world.pass(tick * 200);
        world.hello_of("p", 1, "there", &hello(&[]), false);
    }
    assert_eq!(world.told(), [silence()]);
}

/// A run is heard at the address that answers, even if another peer sent something of it first.
#[test]
fn a_publisher_is_heard_where_it_answers() {
    let mut world = World::new();
    world.listen("there");
    world.hello_of("p", 1, "there", &hello(&[]), false);
    world.greeting = Some(("p", 1));
    world.connect("here");
    world.pass(1_000);
    world.told.clear();
    world.hear(1_100, "a", 1, 0);
    world.hello(1, 1_200, &[("a", 2, 50)], false);
    assert_eq!(world.told_by(1_500), [gap("a", 2, 2)]);
}

/// The last update is lost, the goodbye shows it, and the connection ends before the number is given up.
#[test]
fn a_publisher_that_is_gone_leaves_no_loss_untold() {
    for given_up in [false, true] {
        let mut world = World::new();
        world.greeting = Some(("p", 1));
        world.connect("here");
        world.pass(1_000);
        world.told.clear();
        world.hear(1_100, "a", 1, 0);
        world.hello(1, 1_110, &[("a", 2, 1)], true);
        match given_up {
            false => world.disconnect("here"),
            true => world.command(Command::GiveUp("here".into())),
        }
        assert_eq!(world.told_by(10_000), [lost("here")], "given up: {given_up}");
    }
}

#[test]
fn the_last_of_all_numbers_comes_once() {
    let mut world = World::new();
    for millis in 1..4 {
        world.hear(millis, "a", u64::MAX, 0);
    }
    assert_eq!(world.delivered(), [u64::MAX]);
}

#[test]
fn a_gap_on_a_topic_that_is_unregistered_before_it_is_told_is_not_told() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hear(2, "a", 3, 0);
    world.pass(70);
    assert_eq!(world.session.stats().gaps, 1);
    world.command(Command::Unsubscribe(topic("a")));
    assert_eq!(world.told_by(1_000), []);
}

#[test]
fn a_topic_that_a_hello_tells_of_first_may_have_been_missed() {
    let mut world = World::new();
    world.hello(1, 1_000, &[("a", 5, 1_200)], false);
    assert_eq!(world.told_by(2_000), [], "before the topic was live");
    world.hello(1, 2_100, &[("b", 5, 100)], false);
    assert_eq!(world.told_by(3_000), [unproven(&["b"])]);
}

/// A program reads the topic when a gap is reported.
#[test]
fn a_gap_covers_what_was_lost_on_its_topic_before() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hear(2, "a", 3, 0);
    assert_eq!(world.told_by(1_000), [gap("a", 2, 2)]);
    // The number before was sent at 50.
    world.hear_of("q", 1, "here", "a", 5, 950);
    assert_eq!(world.told_by(2_000), []);
    world.hear_of("q", 1, "here", "b", 5, 1_950);
    assert_eq!(world.told_by(3_000), [unproven(&["b"])]);
}
