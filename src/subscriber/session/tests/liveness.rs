//! Liveness of an address, as its input shows it.

use super::*;

#[test]
fn an_address_is_told_once_and_asked_about_once_a_period() {
    let mut world = World::with(SubscriberOptions::default());
    world.register("a");
    world.listen("here");
    assert_eq!(world.told(), [connected("here")]);
    assert_eq!(world.count(is_probe), 1);
    for second in 1..60 {
        world.hello(1, second * 1_000, &[], false);
    }
    assert_eq!(world.told(), []);
    let probes = world.count(is_probe);
    assert!((50..70).contains(&probes), "{probes}");
    assert_eq!(world.state("here"), AddressState::Live);
}

#[test]
fn an_address_that_is_quiet_is_asked_and_stays_live() {
    let mut world = World::new();
    assert_eq!(world.told_by(60_000), []);
    assert_eq!(world.state("here"), AddressState::Live);
}

/// The more subscribers there are, the more rarely each asks.
#[test]
fn a_crowd_asks_rarely() {
    let mut world = World::with_owner();
    world.count(is_probe);
    for number in 1..=60 {
        world.pass(1_000 + number * 1_000);
        let hello = Hello {
            crowd: 1_000,
            ..said(number, number * 1_000)
        };
        world.hello_of("p", 1, "here", &hello, false);
    }
    let probes = world.count(is_probe);
    assert!((15..22).contains(&probes), "{probes}");
}

/// Over a multicast the publisher hears no questions: its hellos are the answers, and come in its own period.
#[test]
fn an_address_that_answers_by_its_hellos_is_judged_by_their_period() {
    let mut world = World::with(SubscriberOptions::default());
    world.mute.insert("here".into());
    world.register("a");
    world.listen("here");
    let hello = |number: u64| Hello {
        every: 3_000,
        ..said(number, number * 3_000)
    };
    let answer = |world: &mut World, number| {
        world.pass(number * 3_000);
        world.answer("here", &hello_payload("p", 1, &hello(number), false));
    };
    answer(&mut world, 0);
    assert_eq!(world.told(), [connected("here")]);
    for number in 1..20 {
        answer(&mut world, number);
    }
    assert_eq!(world.told_by(57_000 + 7_500), []);
    assert_eq!(world.state("here"), AddressState::Live);
    assert_eq!(world.told_by(57_000 + 9_000), [lost("here")]);
}

/// Everything from the address arrives, but it receives nothing: hellos overtake the question.
#[test]
fn an_address_that_does_not_hear_us_is_lost_within_three_periods() {
    let mut world = World::with_owner();
    world.rounds(1..=5);
    assert_eq!(world.told(), []);
    world.mute.insert("here".into());
    world.rounds(6..=7);
    // Further messages do not keep a connection that does not carry questions.
    for tick in 71..110 {
        world.pass(tick * 100);
        world.frame("here", "x", b"");
    }
    assert_eq!(world.told(), [lost("here")]);
    assert_ne!(world.state("here"), AddressState::Live);
    assert_eq!(world.count(is_disconnect), 1);
}

/// Behind a backlog the same hellos prove nothing, since the answer stands behind it too.
#[test]
fn an_answer_behind_a_backlog_is_waited_for() {
    let mut world = World::with_owner();
    world.hello_of("p", 1, "here", &said(1, 1_000), false);
    world.mute.insert("here".into());
    for number in 2..60 {
        world.pass(number * 1_000 + 10_000);
        world.received.insert("here".into(), number);
        world.hello_of("p", 1, "here", &said(number, number * 1_000), false);
        if number == 2 {
            world.told.clear();
        }
    }
    assert_eq!(world.told(), []);
}

/// Even the first hellos stand behind a backlog, so that none seems later than those before it.
#[test]
fn what_has_always_been_behind_a_backlog_proves_nothing() {
    let mut world = World::with_owner();
    world.mute.insert("here".into());
    for number in 2..60 {
        world.pass(number * 1_000 + 10_000 - number * 90);
        world.received.insert("here".into(), number);
        world.hello_of("p", 1, "here", &said(number, number * 1_000), false);
    }
    assert_eq!(world.told(), [lost("here")], "once: nothing has come for ten seconds");
}

#[test]
fn an_address_from_which_nothing_comes_is_lost_within_three_periods_and_begun_anew() {
    let mut world = World::new();
    world.hello(1, 1_000, &[], false);
    world.mute.insert("here".into());
    assert_eq!(world.told_by(2_200), []);
    assert_eq!(world.told_by(4_000), [lost("here")], "and no silence");
    assert_ne!(world.state("here"), AddressState::Live);
    world.pass(5_000);
    assert_eq!(world.count(is_disconnect), 1);
    world.mute.clear();
    world.connect("here");
    assert_eq!(world.told_by(9_000), [reconnected("here")]);
}

/// An answer may stand behind a backlog for any time: other input proves that the connection is alive.
#[test]
fn an_unanswered_probe_does_not_count_while_frames_come() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.register("c");
    for number in 1..600u64 {
        world.hear(number * 100, "a", number, 100);
    }
    assert_eq!(world.told(), []);
    assert_eq!(world.count(is_disconnect), 0);
    assert_eq!(
        world.state("here"),
        AddressState::Unconfirmed,
        "the new topic is not confirmed"
    );
}

/// A large frame on a slow link takes long to arrive, but its bytes do not.
#[test]
fn an_unanswered_probe_does_not_count_while_bytes_come() {
    let mut world = World::new();
    world.hello(1, 1, &[], false);
    world.mute.insert("here".into());
    for second in 1..60 {
        world.received.insert("here".into(), second * 1_000_000);
        world.pass(second * 1_000);
    }
    assert_eq!(world.told(), [], "neither lost, nor silent");
    assert_eq!(world.count(is_disconnect), 0);
    assert_eq!(world.told_by(64_000), [lost("here")], "no bytes come any more");
}

/// Messages queued for a connection are not thrown away to find out whether it is alive.
#[test]
fn an_address_that_was_lost_and_delivers_again_is_not_begun_anew() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.pass_while_live();
    world.hear(world.millis + 50, "b", 1, 0);
    assert_eq!(world.told_by(3_000), [lost("here")]);
    // Overloaded for long, the address delivers one frame a second.
    for number in 1..20u64 {
        world.hear(3_000 + number * 1_000, "a", number, 1_000);
    }
    assert_eq!(world.done.iter().filter(|action| is_disconnect(action)).count(), 0);
    world.answer("here", &[]);
    world.mute.clear();
    assert_eq!(world.told_by(23_000), [reconnected("here")]);
}

#[test]
fn an_address_that_never_answers_sends_no_hellos_and_gates_no_other() {
    let mut world = World::new();
    world.mute.insert("old".into());
    world.listen("old");
    assert_eq!(world.told_by(5_000), [connected("old")]);
    assert_eq!(world.state("old"), AddressState::NoHello);
    // A gap on a new topic at the other address is reported at once.
    world.pass(100_000);
    world.register("c");
    world.hear(100_010, "c", 1, 0);
    world.hear(100_020, "c", 3, 0);
    assert_eq!(world.told_by(101_200), [gap("c", 2, 2)]);
}

#[test]
fn a_publisher_that_has_answered_before_is_given_more_time() {
    let mut world = World::new();
    world.disconnect("here");
    world.pass(1_000);
    world.told.clear();
    world.mute.insert("here".into());
    world.connect("here");
    assert_eq!(world.told_by(9_000), []);
    assert_eq!(world.told_by(20_000), [reconnected("here")]);
    assert_eq!(world.state("here"), AddressState::NoHello);
}

#[test]
fn the_driver_is_asked_again_for_a_connection_that_could_not_be_begun() {
    let mut world = World::with(SubscriberOptions::default());
    world.command(Command::Connect("here".into(), 1));
    for _ in 0..8 {
        assert_eq!(world.count(is_connect), 1);
        let now = world.now();
        world.session.handle_not_connecting("here", now);
        world.pass(world.millis + 2_001);
    }
}

#[test]
fn an_address_that_was_unregistered_is_not_connected_again() {
    let mut world = World::new();
    world.listen("there");
    world.mute.extend(["here".into(), "there".into()]);
    world.pass(2_700);
    world.command(Command::Disconnect("there".into()));
    world.count(is_connect);
    world.pass(60_000);
    let connected = world
        .done
        .iter()
        .filter(|action| matches!(action, Action::Connect(to) if to == "there"));
    assert_eq!(connected.count(), 0);
}

#[test]
fn many_subscribers_do_not_do_the_same_at_once() {
    let mut lost_at = BTreeSet::new();
    let mut asked_at = BTreeSet::new();
    for seed in 0..100 {
        let mut world = World::new();
        world.session.jitter = fastrand::Rng::with_seed(seed);
        world.hello(1, 1_000, &[], false);
        let deadline = world.session.deadline().unwrap();
        asked_at.insert((deadline - world.start).as_millis() / 10);
        world.disconnect("here");
        world.pass(3_000);
        let (at, _) = world.told[0].clone();
        lost_at.insert(at / 10);
    }
    assert!(lost_at.len() > 25, "{lost_at:?}");
    assert!(lost_at.iter().all(|at| *at <= 150));
    let mut stalled_at = BTreeSet::new();
    for seed in 0..100 {
        let mut world = World::with(SubscriberOptions::default());
        world.session = Session::new(&SubscriberOptions::default(), Memory::default(), 0, seed, world.start);
        world.register("a");
        world.listen("here");
        world.mute.insert("here".into());
        world.told.clear();
        world.pass(4_000);
        stalled_at.insert(world.told[0].0 / 10);
    }
    assert!(stalled_at.len() > 25, "{stalled_at:?}");
    assert!(stalled_at.iter().all(|at| *at <= 301), "{stalled_at:?}");
}

#[test]
fn options_of_every_size_are_borne() {
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let options = SubscriberOptions {
            live_timeout: time,
            retry_interval: time,
            retry_max: time,
            hello_interval: time,
            resync_without_hellos: time,
            ..SubscriberOptions::default()
        };
        let mut world = World::with(options);
        world.register("a");
        world.listen("here");
        world.mute.insert("here".into());
        world.hello_of("p", 1, "here", &Hello::of(Duration::from_millis(1)), false);
        world.pass(10_000);
        world.disconnect("here");
        world.pass(20_000);
        assert!(world.count(is_probe) < 2_000);
    }
}

#[test]
fn a_peer_that_makes_no_sense_is_named_once() {
    let mut world = World::new();
    for _ in 0..100 {
        world.frame("here", "a", b"nonsense");
    }
    assert_eq!(world.errors.len(), 1);
    assert!(world.errors[0].contains("here"), "{}", world.errors[0]);
    let mut world = World::new();
    world.hear(1, "a", 1, 0);
    for _ in 0..100 {
        world.frame("here", "a", b"nonsense");
    }
    assert_eq!(world.errors.len(), 0, "one of them did");
    assert_eq!(world.session.stats().malformed, 100);
}

/// A service that rewrites messages, such as Dragonflow's, leaves out the publisher of a hello.
#[test]
fn a_hello_of_nobody_is_not_malformed() {
    let mut world = World::new();
    let hello = br#"{"table":null,"key":null,"action":"hello","value":"{\"every\":1000}","topic":"x"}"#;
    world.frame("here", Topic::hello().as_str(), hello);
    let stats = world.session.stats();
    assert_eq!((stats.malformed, stats.filtered), (0, 1));
}

/// The answer is unread behind the hello while the process has no processor.
#[test]
fn an_answer_that_is_still_to_be_read_is_waited_for() {
    let mut world = World::with_owner();
    world.rounds(1..=5);
    world.mute.insert("here".into());
    world.rounds(6..=7);
    // The answer was due at 7,200.
    for millis in (7_210..8_000).step_by(10) {
        world.tick(millis);
    }
    world.answer("here", &world.greeting());
    world.mute.clear();
    assert_eq!(world.told_by(8_100), []);
    assert_eq!(world.count(is_disconnect), 0);
    // The same after a stop: input that came meanwhile is read before the verdict.
    let mut world = World::with_owner();
    world.rounds(1..=5);
    world.mute.insert("here".into());
    world.rounds(6..=7);
    world.wake_up(8_000);
    world.answer("here", &world.greeting());
    assert_eq!(world.state("here"), AddressState::Live);
    assert_eq!(world.told_by(8_500), []);
}

/// While there is always more to read, the next hello decides, since everything sent before it was read.
#[test]
fn a_flood_does_not_hide_that_an_address_does_not_hear_us() {
    let mut world = World::with_owner();
    world.mute.insert("here".into());
    for millis in 1_001..8_000u64 {
        world.millis = millis;
        if millis % 1_000 == 0 {
            world.hello_of("p", 1, "here", &said(millis / 1_000, millis), false);
        }
        world.frame("here", "x", b"");
        if world.session.deadline().is_some_and(|at| at <= world.now()) {
            world.session.tick(world.now());
        }
        world.drive();
    }
    assert_eq!(world.told(), [lost("here")]);
}

/// Another address keeps the thread busy, so that there is always more to read.
#[test]
fn a_flood_from_one_address_does_not_hide_that_another_is_cut() {
    for tells_bytes in [true, false] {
        let mut world = World::new();
        world.listen("there");
        world.told.clear();
        world.hello_of("q", 1, "there", &hello(&[]), false);
        world.mute.insert("there".into());
        if tells_bytes {
            world.received.insert("there".into(), 7);
        }
        for number in 1..1_300 {
            world.millis = number * 5;
            world.hear_of("p", 1, "here", "a", number, 5);
            if world.session.deadline().is_some_and(|at| at <= world.now()) {
                world.session.tick(world.now());
            }
            world.drive();
        }
        assert_eq!(world.told(), [lost("there")], "{tells_bytes}");
    }
}

/// The address delivers again, but this process has no processor to read it.
#[test]
fn a_lost_address_is_not_begun_anew_before_what_has_come_is_read() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.pass_while_live();
    for _ in 0..200 {
        world.tick(world.millis + 10);
    }
    assert_eq!(world.count(is_disconnect), 0);
    // But not for ever.
    for _ in 0..600 {
        world.tick(world.millis + 10);
    }
    assert_eq!(world.count(is_disconnect), 1);
}

/// Meanwhile the question is repeated.
#[test]
fn an_address_is_lost_within_three_periods_however_long_they_are() {
    for seconds in [1, 3, 10, 60] {
        let mut world = World::with(SubscriberOptions {
            hello_interval: Duration::from_secs(seconds),
            ..SubscriberOptions::default()
        });
        world.register("a");
        world.listen("here");
        world.told.clear();
        world.mute.insert("here".into());
        assert_eq!(world.told_by(3_000 * seconds), [lost("here")], "{seconds} s");
    }
}

/// The period is longer than the wait for an answer: bytes that come between two questions count as well.
#[test]
fn bytes_count_between_two_questions() {
    let mut world = World::with(SubscriberOptions {
        hello_interval: Duration::from_secs(10),
        ..SubscriberOptions::default()
    });
    world.register("a");
    world.listen("here");
    world.told.clear();
    world.received.insert("here".into(), 1);
    world.pass(9_000);
    world.mute.insert("here".into());
    while world.count(is_probe) == 0 {
        world.pass(world.millis + 10);
    }
    let asked = world.millis;
    world.received.insert("here".into(), 2);
    assert_eq!(
        world.told_by(asked + 14_500),
        [],
        "they came within two seconds of the question"
    );
    assert_eq!(world.told_by(asked + 40_000), [lost("here")]);
}

/// After a goodbye another publisher appears, which answers nothing; its end is a loss.
#[test]
fn the_goodbye_of_a_publisher_says_nothing_of_the_next_one() {
    let mut world = World::with_owner();
    world.hello_of("p", 1, "here", &hello(&[]), true);
    world.disconnect("here");
    assert_eq!(world.told_by(1_500), []);
    world.mute.insert("here".into());
    world.connect("here");
    assert_eq!(world.told_by(20_000), [reconnected("here")]);
    assert_eq!(world.state("here"), AddressState::NoHello);
    world.disconnect("here");
    assert_eq!(world.told_by(25_000), [lost("here")]);
}

#[test]
fn an_address_that_was_lost_is_told_of_when_it_is_unregistered() {
    let mut world = World::new();
    world.disconnect("here");
    world.command(Command::Disconnect("here".into()));
    assert_eq!(world.told_by(5_000), [lost("here")]);
}

/// Behind a server that refuses a topic, the question whether all topics are in force is never answered: the only input
/// is the server's response to each question.
#[test]
fn an_address_that_says_something_to_each_question_lives() {
    let mut world = World::new();
    world.received.insert("here".into(), 1);
    world.pass(900);
    world.mute.insert("here".into());
    world.count(is_probe);
    for tick in 90..6_000 {
        world.pass(tick * 10);
        if world.count(is_probe) > 0 {
            *world.received.get_mut("here").unwrap() += 10;
        }
    }
    assert_eq!(world.told(), []);
}

/// The same address is then cut off, which is noticed within three periods at any time.
#[test]
fn a_cut_is_noticed_in_time_also_while_a_question_has_no_answer() {
    for tells_bytes in [true, false] {
        for cut_at in (20_000..23_000).step_by(110) {
            let mut world = World::new();
            if tells_bytes {
                world.received.insert("here".into(), 1);
            }
            world.mute.insert("here".into());
            for millis in (10..cut_at).step_by(10) {
                world.pass(millis);
                match tells_bytes {
                    true if world.count(is_probe) > 0 => *world.received.get_mut("here").unwrap() += 10,
                    false if millis % 700 == 0 => world.frame("here", "x", b""),
                    _ => {}
                }
            }
            assert_eq!(world.told(), [], "{tells_bytes}");
            assert_eq!(world.told_by(cut_at + 3_000), [lost("here")], "{tells_bytes} {cut_at}");
        }
    }
}

#[test]
fn an_address_that_was_never_connected_is_reported_once() {
    let mut world = World::with(SubscriberOptions::default());
    world.registrations += 1;
    world.command(Command::Connect("there".into(), world.registrations));
    world.pass(9_999);
    assert_eq!(world.errors, Vec::<String>::new());
    world.pass(60_000);
    assert_eq!(world.errors.len(), 1);
    assert!(
        world.errors[0].contains("no connection yet to there"),
        "{:?}",
        world.errors
    );
    world.connect("there");
    // A connection that was lost is told of by an event.
    world.disconnect("there");
    world.listen("here");
    world.pass(120_000);
    assert_eq!(world.errors.len(), 1);
}

/// Otherwise each hello would put off its renewal, and updates would come of which no loss shows.
#[test]
fn a_lost_address_that_sends_hellos_and_hears_no_question_is_begun_anew() {
    let mut world = World::with_owner();
    world.rounds(1..=5);
    world.mute.insert("here".into());
    world.pass_while_live();
    world.done.clear();
    let is_renewed = (6..106).any(|number| {
        let millis = world.millis + 100;
        world.pass(millis);
        world.hello_of("p", 1, "here", &said(number, millis), false);
        world.done.iter().any(is_disconnect)
    });
    assert!(is_renewed);
}
