//! Numbers that are missing, duplicate, early or unproven, and publishers that fall silent.

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
fn silence_is_told_once_within_three_periods_and_ends_with_a_word() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    assert_eq!(world.told_by(2_500), []);
    assert_eq!(world.told_by(3_200), [silence()]);
    assert_eq!(world.told_by(60_000), []);
    world.hear(60_000, "a", 2, 59_800);
    assert_eq!(world.told_by(61_000), []);
    assert_eq!(world.delivered(), [1, 2]);
}

#[test]
fn a_publisher_that_was_silent_and_dies_after_an_update_is_told_as_any_other() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    assert_eq!(world.told_by(10_000), [silence()]);
    world.hear(10_000, "a", 2, 9_800);
    assert_eq!(world.told_by(13_100), [silence()]);
}

#[test]
fn a_publisher_with_a_short_period_delays_no_word_about_others() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    let quick = Hello::of(Duration::from_millis(10));
    for millis in (100..4_000).step_by(10) {
        // The process is repeatedly late by more than the shorter period.
        world.millis = millis;
        if millis % 70 == 0 {
            world.pass(millis);
        }
        world.hello_of("quick", 1, "here", &quick, false);
    }
    assert_eq!(world.told(), [silence()]);
}

#[test]
fn of_a_lost_address_no_silence_is_told() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.disconnect("here");
    world.pass(200);
    assert_eq!(world.told_by(10_000), [lost("here")]);
    world.connect("here");
    world.hello(1, 10_100, &[], false);
    assert_eq!(world.told_by(13_200), [reconnected("here"), silence()]);
}

#[test]
fn of_an_address_that_is_not_registered_any_more_no_silence_is_told() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hello_of("q", 1, "there", &hello(&[]), false);
    world.hello(1, 100, &[], false);
    world.command(Command::Disconnect("there".into()));
    assert_eq!(world.told_by(10_000), [silence()]);
}

#[test]
fn a_goodbye_is_no_silence_but_tells_what_was_lost() {
    let mut world = World::new();
    world.hello(1, 100, &[], false);
    world.hear(200, "a", 1, 0);
    world.hello(1, 300, &[("a", 2, 50)], true);
    assert_eq!(world.told_by(200_000), [gap("a", 2, 2)]);
    assert!(
        world.session.continuity.as_ref().unwrap().is_empty(),
        "what is gone is forgotten"
    );
}

/// A peer cannot say goodbye for a publisher that is heard elsewhere, nor change its period.
#[test]
fn a_goodbye_counts_where_the_publisher_is_heard() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hello(1, 100, &[], false);
    let forged = Hello::of(Duration::from_secs(3600));
    world.hello_of("p", 1, "there", &forged, false);
    world.hello_of("p", 1, "there", &forged, true);
    assert_eq!(world.told_by(3_300), [silence()]);
    // A goodbye followed by hellos does not count either.
    world.hello(1, 4_000, &[], true);
    world.hello(1, 6_000, &[], false);
    assert_eq!(world.told_by(10_000), [silence()]);
}

#[test]
fn a_publisher_without_hellos_is_never_silent() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    assert_eq!(world.told_by(600_000), []);
    let topics = world.session.topics(world.now());
    assert_eq!(
        topics[0].publishers[0].state,
        crate::subscriber::TopicState::Unconfirmed
    );
}

#[test]
fn a_process_that_was_stopped_hears_what_waits_before_it_judges() {
    let mut world = World::new();
    world.hello(1, 0, &[], false);
    world.millis = 30_000;
    world.session.handle_drained(world.now());
    world.session.tick(world.now());
    world.drive();
    assert_eq!(world.told(), []);
    world.hello(1, 30_001, &[], false);
    assert_eq!(world.told_by(32_000), []);
    assert_eq!(world.told_by(33_500), [silence()]);
}

/// A topic is named in five rounds of hellos. If none of them arrives, its last update may be lost silently.
#[test]
fn too_many_missed_hellos_are_told() {
    let missed = || SyncReason::HellosMissed {
        publishers: vec!["p".into()],
    };
    for (next, told) in [(2, vec![]), (6, vec![]), (7, vec![missed()]), (100, vec![missed()])] {
        let mut world = World::new();
        world.hello_of("p", 1, "here", &round(1, &[]), false);
        for millis in (500..8_000).step_by(500) {
            // Other input arrives, so that nothing seems silent.
            world.hear(millis, "b", millis / 500, 0);
        }
        world.hello_of("p", 1, "here", &round(next, &[]), false);
        assert_eq!(world.told_by(8_300), told, "round {next}");
        world.hello_of("p", 1, "here", &round(next + 1, &[]), false);
        assert_eq!(world.told_by(8_600), []);
    }
}

#[test]
fn a_round_counts_when_all_its_parts_have_come() {
    let mut world = World::new();
    let part = |number, part, more| Hello {
        part,
        more,
        ..round(number, &[])
    };
    world.hello_of("p", 1, "here", &round(1, &[]), false);
    for number in 2..9 {
        world.hear(number * 1_000, "b", number - 1, 0);
        world.hello_of("p", 1, "here", &part(number, 0, true), false);
        // The second of three parts is always lost.
        world.hello_of("p", 1, "here", &part(number, 2, false), false);
    }
    let reasons = world.told_by(9_000);
    assert_eq!(
        reasons.iter().map(SyncReason::as_str).collect::<Vec<_>>(),
        ["hellos-missed"]
    );
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

/// There is always more to read, but everything sent before the answer to a question was read when it came.
#[test]
fn a_flood_does_not_hide_silence() {
    let mut world = World::new();
    world.hello_of("q", 1, "here", &hello(&[]), false);
    for number in 1..800 {
        world.millis = number * 5;
        world.hear_of("p", 1, "here", "a", number, 5);
        if world.session.deadline().is_some_and(|at| at <= world.now()) {
            world.session.tick(world.now());
        }
        world.drive();
    }
    let publishers = vec!["q".into()];
    assert_eq!(world.told(), [SyncReason::Silence { publishers }]);
}

/// A flood from an address that answers no question says nothing of the others: a publisher's silence is reported, and
/// a gap.
#[test]
fn a_flood_from_an_address_without_hellos_hides_nothing_of_the_others() {
    let mut world = World::new();
    world.mute.insert("old".into());
    world.listen("old");
    world.pass(5_000);
    assert_eq!(world.state("old"), AddressState::NoHello);
    world.hello_of("q", 1, "here", &hello(&[]), false);
    world.hear_of("p", 1, "here", "a", 1, 0);
    world.told.clear();
    for millis in (5_002..12_000).step_by(2) {
        world.millis = millis;
        // There is always more to read.
        world.frame("old", "a", br#"{"table":"t","key":"k","action":"set"}"#);
        if millis % 1_000 == 0 {
            world.hello_of("p", 1, "here", &hello(&[]), false);
        }
        if millis == 9_000 {
            world.hear_of("p", 1, "here", "a", 3, 0);
        }
        if world.session.deadline().is_some_and(|at| at <= world.now()) {
            world.session.tick(world.now());
        }
        world.drive();
    }
    let publishers = vec!["q".into()];
    let told: Vec<_> = std::mem::take(&mut world.told);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].1, SyncReason::Silence { publishers });
    assert!(
        told[0].0 < 9_000,
        "within three periods and the time that is left for what is unread: {told:?}"
    );
    assert_eq!(told[1].1, gap("a", 2, 2));
    assert!(told[1].0 < 11_500, "{told:?}");
    assert_eq!(world.delivered().len(), 2, "of p; the others have no numbers");
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

/// A new connection may bring more, so its answer is awaited.
#[test]
fn silence_is_not_told_while_an_answer_is_awaited() {
    let mut world = World::new();
    world.disconnect("here");
    world.mute.insert("here".into());
    world.connect("here");
    world.pass(600);
    world.hello(1, 700, &[], false);
    assert_eq!(world.told(), [lost("here")]);
    assert_eq!(world.told_by(9_000), []);
    // The answer does not come.
    assert_eq!(world.told_by(20_000), [reconnected("here"), silence()]);
}

#[test]
fn a_topic_that_a_hello_tells_of_first_may_have_been_missed() {
    let mut world = World::new();
    world.hello(1, 1_000, &[("a", 5, 1_200)], false);
    assert_eq!(world.told_by(2_000), [], "before the topic was live");
    world.hello(1, 2_100, &[("b", 5, 100)], false);
    assert_eq!(world.told_by(3_000), [unproven(&["b"])]);
}

/// A topic is named in five rounds, and there is at least one round each period.
#[test]
fn how_long_ago_untold_updates_were_sent_is_known() {
    for (millis, count) in [(2_500, 0), (4_500, 1)] {
        let mut world = World::new();
        world.pass(millis);
        world.hello_of("p", 1, "here", &round(50, &[]), false);
        assert_eq!(world.told_by(millis + 500).len(), count, "{millis}");
    }
}

/// The round that shows that others were missed is not whole itself.
#[test]
fn a_part_of_a_round_does_not_make_it_whole() {
    let mut world = World::new();
    let part = |number, more| Hello {
        more,
        ..round(number, &[])
    };
    world.pass(5_000);
    world.hello_of("p", 1, "here", &part(1, false), false);
    for (number, told) in [(7, 1), (12, 1)] {
        for millis in (500..8_000).step_by(500) {
            world.hear(number * 10_000 + millis, "b", number * 100 + millis / 500, 0);
        }
        world.pass(number * 10_000 + 8_000);
        world.told.clear();
        world.hello_of("p", 1, "here", &part(number, true), false);
        let reasons = world.told_by(number * 10_000 + 8_500);
        let missed = reasons.iter().filter(|reason| reason.as_str() == "hellos-missed");
        assert_eq!(missed.count(), told, "round {number}: {reasons:?}");
    }
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

/// No later hello names the topics of a part that has not come.
#[test]
fn a_goodbye_of_which_a_part_is_missing_is_told() {
    for is_whole in [true, false] {
        let mut world = World::new();
        world.hear(10, "a", 1, 0);
        world.pass(20);
        let part = |part, more, topics| Hello {
            part,
            more,
            ..round(1, topics)
        };
        if is_whole {
            world.hello_of("p", 1, "here", &part(0, true, &[("a", 1, 0)]), false);
        }
        world.hello_of("p", 1, "here", &part(1, false, &[]), true);
        let publishers = vec!["p".into()];
        let missed = (!is_whole).then_some(SyncReason::HellosMissed { publishers });
        assert_eq!(world.told_by(9_000), Vec::from_iter(missed));
    }
}
