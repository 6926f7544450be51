//! Questions to an address, their times, and the proofs of its answers.

use super::*;

#[test]
fn a_crowd_does_not_delay_the_word_of_silence() {
    let mut world = World::with_owner();
    let crowd = |number| Hello {
        crowd: 30_000,
        ..said(number, number * 1_000)
    };
    for number in 1..=10 {
        world.pass(number * 1_000);
        world.hello_of("p", 1, "here", &crowd(number), false);
    }
    world.hello_of("q", 1, "here", &hello(&[]), false);
    for number in 11..=13 {
        world.pass(number * 1_000);
        world.hello_of("p", 1, "here", &crowd(number), false);
    }
    let publishers = vec!["q".into()];
    assert_eq!(world.told(), [SyncReason::Silence { publishers }]);
}

/// Bytes received before the question are no sign of life.
#[test]
fn bytes_count_from_the_question_on() {
    let mut world = World::new();
    world.received.insert("here".into(), 5);
    world.pass(1_000);
    world.received.insert("here".into(), 9);
    world.mute.insert("here".into());
    assert_eq!(world.told_by(3_000), [lost("here")]);
}

#[test]
fn a_lost_address_that_delivers_is_asked_again_in_its_time() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.pass_while_live();
    world.done.clear();
    let start = world.millis;
    for tick in 1..200 {
        world.pass(start + tick * 20);
        world.frame("here", "x", b"");
    }
    assert!((1..4).contains(&world.count(is_probe)));
}

#[test]
fn one_that_was_taken_to_send_no_hellos_is_asked_when_it_sends_one() {
    let mut world = World::new();
    world.mute.insert("there".into());
    world.listen("there");
    world.pass(100_000);
    assert_eq!(world.state("there"), AddressState::NoHello);
    world.mute.clear();
    world.hello_of("q", 1, "there", &hello(&[]), false);
    world.pass(105_000);
    assert_eq!(world.state("there"), AddressState::Live);
}

/// The answer to a question asked before a publisher seemed silent proves nothing about it.
#[test]
fn an_answer_proves_what_was_sent_before_the_question() {
    let mut world = World::with_owner();
    world.pass(1_100);
    world.hello_of("q", 1, "here", &hello(&[]), false);
    world.mute.insert("here".into());
    // The address is asked within a period, and its answer stands behind a backlog.
    for millis in (1_150..3_800).step_by(50) {
        world.pass(millis);
        world.frame("here", "x", b"");
    }
    world.answer("here", &world.greeting());
    world.pass(3_810);
    world.hello_of("q", 1, "here", &hello(&[]), false);
    world.mute.clear();
    assert_eq!(world.told_by(4_300), []);
}

#[test]
fn after_a_stop_an_address_is_given_time_to_be_heard() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.pass(1_500);
    world.wake_up(9_000);
    assert_eq!(world.told(), []);
    world.frame("here", "x", b"");
    assert_eq!(world.told_by(9_900), []);
    // The same on a new connection.
    let mut world = World::with(SubscriberOptions::default());
    world.register("a");
    world.mute.insert("here".into());
    world.listen("here");
    world.wake_up(9_000);
    assert_eq!(world.state("here"), AddressState::Unconfirmed);
    world.answer("here", &[]);
    assert_eq!(world.state("here"), AddressState::Live);
}

#[test]
fn what_is_unread_is_waited_for() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.pass(1_500);
    for millis in (1_500..3_500).step_by(5) {
        world.tick(millis);
    }
    world.frame("here", "x", b"");
    assert_eq!(world.told_by(3_600), []);
    // The same on a new connection.
    let mut world = World::with(SubscriberOptions::default());
    world.register("a");
    world.mute.insert("here".into());
    world.listen("here");
    for millis in (0..3_000).step_by(5) {
        world.tick(millis);
    }
    assert_eq!(world.state("here"), AddressState::Unconfirmed);
    // But not for ever.
    for millis in (3_000..7_000).step_by(5) {
        world.tick(millis);
    }
    assert_eq!(world.state("here"), AddressState::NoHello);
}

/// One that always comes late to read, and never reads all, notices a dead address as well.
#[test]
fn a_reader_that_is_always_late_judges_too() {
    for tells_bytes in [true, false] {
        let mut world = World::with_owner();
        world.hello_of("q", 1, "there", &hello(&[]), false);
        world.mute.insert("here".into());
        if tells_bytes {
            world.received.insert("here".into(), 1);
        }
        for number in 1..20 {
            world.tick(1_000 + number * 1_500);
        }
        assert!(world.told().contains(&lost("here")), "{tells_bytes}");
    }
}

/// The question is behind thousands of subscriptions on a slow way up, and hellos are not.
#[test]
fn a_question_behind_subscriptions_is_waited_for() {
    let mut world = World::with_owner();
    world.hello_of("p", 1, "here", &said(1, 1_000), false);
    world.mute.insert("here".into());
    for number in 0..3_000 {
        world.register(&number.to_string());
    }
    // To the question behind the first; the next one is behind the others.
    world.answer("here", &world.greeting());
    world.rounds(2..=3);
    world.pass(3_900);
    world.answer("here", &world.greeting());
    assert_eq!(world.told(), []);
}

/// Over a slow network answers take half a period; hellos do not overtake them.
#[test]
fn what_answers_usually_take_is_waited_for() {
    let mut world = World::with_owner();
    world.mute.insert("here".into());
    let mut due: Option<u64> = None;
    for tick in 101..3_000 {
        world.pass(tick * 10);
        if tick % 100 == 0 {
            let number = tick / 100;
            world.hello_of("p", 1, "here", &said(number, number * 1_000), false);
        }
        if world.count(is_probe) > 0 {
            due = Some(tick + 60);
        }
        if due == Some(tick) {
            let probe = world.session.peers["here"].asked().expect("it was asked");
            let (now, greeting) = (world.now(), world.greeting());
            let probe = probe.as_str().as_bytes();
            world.session.handle_answer("here", probe, &greeting, now);
            world.drive();
        }
    }
    assert_eq!(world.told(), []);
}

#[test]
fn an_address_that_was_deaf_and_answers_is_as_any_other() {
    let mut world = World::with_owner();
    world.rounds(1..=5);
    world.mute.insert("here".into());
    world.rounds(6..=7);
    world.pass_while_live();
    world.answer("here", &world.greeting());
    world.pass(world.millis + 600);
    assert_eq!(world.told(), [lost("here"), reconnected("here")]);
    world.pass_while_live();
    world.done.clear();
    for _ in 1..100 {
        world.pass(world.millis + 100);
        world.frame("here", "x", b"");
    }
    assert_eq!(world.count(is_disconnect), 0, "it delivers");
}

#[test]
fn one_that_did_not_answer_is_given_less_time_on_its_next_connection() {
    let mut world = World::new();
    world.mute.insert("here".into());
    for (connected_at, patience) in [(0, 10_000), (20_000, 2_000)] {
        world.pass(connected_at);
        world.disconnect("here");
        world.connect("here");
        world.pass(connected_at + patience - 100);
        assert_eq!(world.state("here"), AddressState::Unconfirmed);
        world.pass(connected_at + patience + 100);
        assert_eq!(world.state("here"), AddressState::NoHello);
    }
}

#[test]
fn the_driver_is_asked_soon_again_after_a_connection() {
    let mut world = World::with(SubscriberOptions::default());
    world.command(Command::Connect("here".into(), 1));
    let refuse = |world: &mut World| {
        let now = world.now();
        world.session.handle_not_connecting("here", now);
    };
    for _ in 0..8 {
        refuse(&mut world);
        world.pass(world.millis + 2_001);
    }
    world.connect("here");
    world.disconnect("here");
    let retry = u64::try_from(SubscriberOptions::default().retry_interval.as_millis()).unwrap();
    world.pass(world.millis + retry);
    world.done.clear();
    refuse(&mut world);
    world.pass(world.millis + retry);
    assert_eq!(world.count(is_connect), 1);
}

/// An address is never reported live again before it was reported lost.
#[test]
fn words_on_an_address_are_told_in_order() {
    for seed in 0..50 {
        let mut world = World::new();
        world.session.jitter = fastrand::Rng::with_seed(seed);
        world.disconnect("here");
        world.connect("here");
        assert_eq!(world.told_by(2_000), [lost("here"), reconnected("here")]);
    }
}

/// Also if it counts as one without hellos before its loss is due to be told.
#[test]
fn words_on_an_address_without_hellos_are_told_in_order() {
    let options = SubscriberOptions {
        hello_interval: 10 * SECOND,
        ..SubscriberOptions::default()
    };
    for seed in 0..50 {
        let mut world = World::with(options.clone());
        world.session.jitter = fastrand::Rng::with_seed(seed);
        world.mute.insert("old".into());
        world.register("a");
        world.listen("old");
        assert_eq!(world.told_by(20_000), [connected("old")]);
        world.disconnect("old");
        world.connect("old");
        assert_eq!(world.told_by(60_000), [lost("old"), reconnected("old")]);
    }
}

#[test]
fn a_goodbye_says_nothing_of_who_connects_afterwards() {
    let mut world = World::with_owner();
    world.hello_of("p", 1, "here", &hello(&[]), true);
    world.disconnect("here");
    world.mute.insert("here".into());
    world.connect("here");
    world.command(Command::GiveUp("here".into()));
    assert_eq!(world.told(), [lost("here")]);
}

/// A publisher's goodbye does not hold for others at its address.
#[test]
fn others_at_the_address_of_one_that_has_said_goodbye_are_missed() {
    let mut world = World::with_owner();
    world.pass(1_500);
    world.hello_of("q", 1, "here", &hello(&[]), false);
    world.hello_of("p", 1, "here", &hello(&[]), true);
    world.disconnect("here");
    let publishers = vec!["q".into()];
    assert_eq!(world.told_by(4_500), [SyncReason::Silence { publishers }]);
}

/// Of many confirmations some are forgotten, but a topic that was in force early stays so.
#[test]
fn a_topic_is_in_force_since_its_confirmation() {
    let mut world = World::new();
    world.hear(100, "a", 1, 0);
    for number in 1..100 {
        world.pass(number * 1_000);
        world.register(&format!("other {number}"));
        let hello = hello(&[]);
        world.hello_of("p", 1, "here", &hello, false);
    }
    world.hello(1, 99_500, &[("a", 2, 99_200)], false);
    assert_eq!(world.told_by(99_900), [gap("a", 2, 2)]);
}

mod runs {
    //! State from an earlier run of the subscriber.

    use super::*;
    use crate::config::Resubscribe;

    fn again(world: &mut World, options: &SubscriberOptions) {
        let memory = world.session.memory();
        let now = world.now();
        world.session = Session::new(options, memory, world.generation, 3, now);
    }

    #[test]
    fn an_address_that_was_live_is_told_to_be_live_again() {
        let mut world = World::new();
        let options = SubscriberOptions::default();
        again(&mut world, &options);
        world.command(Command::Connect("here".into(), world.registrations));
        world.connect("here");
        assert_eq!(world.told_by(1_000), [reconnected("here")]);
        // Another registration of the same address counts as new.
        again(&mut world, &options);
        world.listen("here");
        assert_eq!(world.told_by(2_000), [connected("here")]);
    }

    #[test]
    fn topics_that_were_cleared_are_told_once() {
        let options = SubscriberOptions {
            resubscribe: Resubscribe::Manual,
            ..SubscriberOptions::default()
        };
        let mut world = World::with(options.clone());
        world.register("a");
        world.listen("here");
        world.listen("there");
        world.told.clear();
        world.disconnect("here");
        world.told.clear();
        world.mute.insert("there".into());
        world.register("a");
        again(&mut world, &options);
        world.mute.clear();
        world.command(Command::Subscribe(topic("a"), world.generation));
        world.command(Command::Connect("there".into(), 2));
        world.connect("there");
        assert_eq!(world.told_by(5_000), [reconnected("there")]);
    }
}
