//! Publishers that fall silent, hellos that are missed, and goodbyes.

use super::*;

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
