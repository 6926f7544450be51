//! Publishers that begin anew, two publishers under one id, and what is remembered of them.

use super::*;
use crate::subscriber::session::continuity::MAX_SIZE;

fn restarted() -> SyncReason {
    SyncReason::Restarted { publisher: "p".into() }
}

#[test]
fn a_restart_without_a_goodbye_is_told_once() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.pass(500);
    world.hear_of("p", 2, "here", "a", 1, 0);
    world.hear_of("p", 2, "here", "a", 2, 0);
    assert_eq!(world.told_by(5_000), [restarted()]);
    assert_eq!(world.session.stats().clashes, 0);
    assert_eq!(world.delivered(), [1, 1, 2]);
}

#[test]
fn a_restart_after_a_goodbye_is_not_told() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.hello(1, 100, &[("a", 1, 99)], true);
    world.pass(500);
    world.hear_of("p", 2, "here", "a", 1, 0);
    assert_eq!(world.told_by(5_000), []);
}

/// A silent run may have sent updates after its silence was reported.
#[test]
fn a_restart_after_silence_is_told() {
    let mut world = World::new();
    world.hello(1, 1, &[], false);
    assert_eq!(world.told_by(10_000), [silence()]);
    world.hear_of("p", 2, "here", "a", 1, 0);
    assert_eq!(world.told_by(11_000), [restarted()]);
}

#[test]
fn a_restart_that_a_lost_connection_goes_with_is_told_once() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.disconnect("here");
    assert_eq!(world.told_by(1_000), [lost("here")]);
    world.mute.insert("here".into());
    world.connect("here");
    world.hello_of("p", 2, "here", &hello(&[]), false);
    world.answer("here", &hello_payload("p", 2, &hello(&[]), false));
    assert_eq!(world.told_by(3_000), [reconnected("here")]);
}

/// A publisher is heard through two addresses, and its next run at the one that stays.
#[test]
fn a_restart_after_one_of_two_addresses_was_removed_is_told() {
    for goes_silent in [false, true] {
        let mut world = World::new();
        world.listen("there");
        world.told_by(1_000);
        for address in ["here", "there"] {
            world.hello_of("p", 1, address, &hello(&[]), false);
        }
        world.command(Command::Disconnect("here".into()));
        match goes_silent {
            true => assert_eq!(world.told_by(10_000), [silence()]),
            false => {
                world.hello_of("p", 2, "there", &hello(&[]), false);
                assert_eq!(world.told_by(1_500), [restarted()]);
            }
        }
    }
}

/// A publisher moves to another address, and its old one is removed: its last updates may be lost, unless the new one is
/// connected later.
#[test]
fn a_restart_at_another_address_is_told() {
    for is_new in [false, true] {
        let mut world = World::new();
        if !is_new {
            world.listen("there");
        }
        world.told_by(1_000);
        world.hello_of("p", 1, "here", &hello(&[]), false);
        world.command(Command::Disconnect("here".into()));
        world.pass(1_100);
        if is_new {
            world.listen("there");
            assert_eq!(world.told_by(1_500), [connected("there")]);
        }
        world.hello_of("p", 2, "there", &hello(&[]), false);
        assert_eq!(world.told_by(2_000), if is_new { vec![] } else { vec![restarted()] });
    }
}

/// A machine restored to an older state counts anew within one run.
#[test]
fn numbers_that_go_backwards_are_a_restart() {
    let mut world = World::new();
    for number in 1..=20 {
        world.pass(number * 1_000);
        world.hear_of("p", 1, "here", "a", number, 0);
        world.hello_of("p", 1, "here", &round(number, &[("a", number, 0)]), false);
    }
    world.told.clear();
    world.delivered.clear();
    for number in 6..=16 {
        world.pass((number + 15) * 1_000);
        world.hear_of("p", 1, "here", "a", number, 1_000);
        world.hello_of("p", 1, "here", &round(number, &[("a", number, 0)]), false);
    }
    let reasons = world.told_by(32_000);
    assert!(reasons.contains(&restarted()), "{reasons:?}");
    assert_eq!(world.delivered(), [14, 15, 16], "from the eighth on");
    // A network that delivers everything twice, the second time late, is no restart, even when the quicker path ends.
    let mut world = World::new();
    for number in 1..=20u64 {
        world.pass(number * 1_000);
        if number < 15 {
            world.hello_of("p", 1, "here", &round(number, &[]), false);
        }
        if number > 3 {
            world.hello_of("p", 1, "here", &round(number - 3, &[]), false);
        }
    }
    assert_eq!(world.told(), []);
}

#[test]
fn two_publishers_with_one_id_are_reported_and_both_are_followed() {
    let mut world = World::new();
    for number in 0..10 {
        for epoch in [1, 2] {
            world.pass(400 * number + epoch);
            world.hear_of("p", epoch, "here", "a", number + 1, 0);
        }
    }
    assert_eq!(world.told_by(6_000), [restarted()]);
    assert_eq!(world.session.stats().clashes, 1);
    assert_eq!(world.errors.len(), 1, "{:?}", world.errors);
    world.hear_of("p", 1, "here", "a", 12, 0);
    world.hear_of("p", 2, "here", "a", 11, 0);
    assert_eq!(world.told_by(7_000), [gap("a", 11, 11)]);
}

/// A peer can make up any number of them, and each would be a line of the log.
#[test]
fn of_many_ids_that_are_used_twice_a_few_are_reported() {
    let mut world = World::new();
    for (millis, epoch) in [(1, 1), (2, 2), (2_000, 1)] {
        world.pass(millis);
        for publisher in 0..100 {
            world.hear_of(&publisher.to_string(), epoch, "here", "a", millis, 0);
        }
    }
    world.pass(3_000);
    assert_eq!(world.session.stats().clashes, 100);
    assert_eq!(world.errors.len(), 16);
}

#[test]
fn what_a_peer_makes_us_remember_is_bounded_and_does_not_push_out_what_comes_from_others() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hello(1, 1, &[], false);
    world.hear(1, "a", 1, 0);
    for publisher in 0..MAX_SIZE as u64 {
        world.hear_of(&publisher.to_string(), 1, "there", "a", 1, 0);
    }
    let continuity = world.session.continuity.as_ref().unwrap();
    assert!(continuity.len() <= MAX_SIZE + 2);
    continuity.check_sizes();
    assert!(continuity.knows("p"), "an honest publisher elsewhere");
    assert!(continuity.knows(&(MAX_SIZE - 1).to_string()), "the newest");
    // Losses of the genuine publisher are still found.
    world.hear(2, "a", 3, 0);
    assert_eq!(world.told_by(1_000), [gap("a", 2, 2)]);
}

/// The registered topics are the program's own choice: their numbers are all remembered, and load alone tells nothing.
#[test]
fn many_topics_of_one_publisher_are_all_followed() {
    let mut world = World::with(SubscriberOptions::default());
    let count = MAX_SIZE as u64 + 5_000;
    let names: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    for name in &names {
        world.generation += 1;
        let command = Command::Subscribe(topic(name), world.generation);
        world.session.handle_command(command, world.start);
    }
    world.session.handled_commands(world.start);
    world.drive();
    world.done.clear();
    world.listen("here");
    world.told.clear();
    for round in 1..=2 {
        for (number, name) in (0..).zip(&names) {
            world.hear(round * 100_000 + number, name, round, 100_000);
        }
    }
    assert_eq!(world.told_by(300_000).len(), 0);
    world.hear(300_001, &names[0], 4, 0);
    assert_eq!(world.told_by(301_000), [gap(&names[0], 3, 3)]);
}

/// Messages on their way when another run began are not a second publisher.
#[test]
fn what_comes_late_of_a_run_that_was_replaced_is_no_clash() {
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    world.pass(500);
    world.hear_of("p", 2, "here", "a", 1, 0);
    world.pass(600);
    world.hear_of("p", 1, "here", "a", 2, 0);
    assert_eq!(world.session.stats().clashes, 0);
    assert_eq!(world.delivered(), [1, 1, 2]);
}

/// The address was unregistered, so the end of the run is of no interest.
#[test]
fn a_restart_of_what_was_heard_through_an_unregistered_address_is_not_told() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hello(1, 1, &[], false);
    assert_eq!(world.told_by(10_000), [silence()]);
    world.command(Command::Disconnect("here".into()));
    world.hear_of("p", 2, "there", "a", 1, 0);
    assert_eq!(world.told_by(11_000), []);
}

/// The parts of one round count as one.
#[test]
fn rounds_in_parts_that_go_backwards_are_a_restart() {
    let mut world = World::new();
    world.hello_of("p", 1, "here", &round(100, &[]), false);
    world.pass(500);
    world.told.clear();
    for number in 6..=16 {
        world.pass((number - 5) * 1_000);
        for (part, more) in [(0, true), (1, false)] {
            let hello = Hello {
                part,
                more,
                ..round(number, &[])
            };
            world.hello_of("p", 1, "here", &hello, false);
        }
    }
    assert_eq!(world.told_by(12_000), [restarted()]);
}

/// Each message searches the runs of its publisher.
#[test]
fn made_up_runs_of_one_publisher_are_few() {
    let mut world = World::new();
    world.listen("there");
    world.told.clear();
    world.hear(1, "a", 1, 0);
    for epoch in 2..1_000 {
        world.hear_of("p", epoch, "there", "a", 1, 0);
        world.millis += 1;
        world.hear_of("p", 1, "here", "a", epoch, 0);
    }
    let continuity = world.session.continuity.as_ref().unwrap();
    assert!(continuity.len() <= 32, "{}", continuity.len());
    continuity.check_sizes();
    // The genuine run is not pushed out.
    world.told_by(5_000);
    world.delivered.clear();
    world.hear_of("p", 1, "here", "a", 1_001, 0);
    assert_eq!(world.told_by(6_000), [gap("a", 1_000, 1_000)]);
    assert_eq!(world.delivered(), [1_001]);
}

/// Publisher p answers at one address, and a liar at another.
fn with_a_liar() -> World {
    let mut world = World::with(SubscriberOptions::default());
    world.register("a");
    for (name, epoch, address) in [("p", 1, "here"), ("liar", 9, "there")] {
        world.greeting = Some((name, epoch));
        world.listen(address);
    }
    world.told.clear();
    world
}

#[test]
fn updates_in_the_name_of_a_run_that_answers_elsewhere_hide_nothing() {
    let mut world = with_a_liar();
    world.hear(1, "a", 1, 0);
    for number in [u64::MAX, 2] {
        world.hear_of("p", 1, "there", "a", number, 0);
    }
    world.pass(200);
    for number in [2, 4] {
        world.hear_of("p", 1, "here", "a", number, 0);
    }
    assert_eq!(world.told_by(900), [gap("a", 3, 3)]);
    assert_eq!(world.delivered(), [1, 2, 4]);
}

#[test]
fn made_up_runs_of_a_publisher_that_answers_elsewhere_replace_nothing() {
    let mut world = with_a_liar();
    world.hear(1, "a", 1, 0);
    for epoch in 2..100 {
        world.hear_of("p", epoch, "there", "a", 1, 0);
    }
    assert_eq!(world.told_by(200), []);
    world.hear_of("p", 1, "here", "a", 3, 0);
    assert_eq!(world.told_by(900), [gap("a", 2, 2)]);
}

#[test]
fn two_publishers_with_one_id_at_addresses_of_their_own_are_reported_once() {
    let mut world = World::with(SubscriberOptions::default());
    world.register("a");
    for (epoch, address) in [(1, "here"), (2, "there")] {
        world.greeting = Some(("p", epoch));
        world.listen(address);
        world.mute.insert(address.into());
    }
    world.told.clear();
    for number in 1..=20 {
        world.pass(100 * number);
        for (epoch, address) in [(1, "here"), (2, "there")] {
            world.hear_of("p", epoch, address, "a", number, 100);
            world.hello_of("p", epoch, address, &round(number, &[]), false);
        }
    }
    world.pass(2_100);
    assert_eq!(
        (world.session.stats().clashes, world.errors.len()),
        (1, 1),
        "{:?}",
        world.errors
    );
    // Both are followed.
    assert_eq!(world.delivered().len(), 40);
    world.hear_of("p", 1, "here", "a", 22, 100);
    assert_eq!(world.told_by(2_600), [gap("a", 21, 21)]);
}

/// Nothing was heard on the topic, and the lie comes through the publisher's own address, as over Redis.
#[test]
fn a_hello_that_lies_about_a_topic_hides_no_update() {
    let mut world = World::new();
    world.hello(1, 1, &[("a", u64::MAX, 0)], false);
    world.told_by(500);
    world.told.clear();
    for number in [1, 2] {
        world.hear(600, "a", number, 0);
    }
    assert_eq!(world.delivered(), [1, 2]);
}
