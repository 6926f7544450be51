//! Topics that come into force, are refused, and are cleared.

use super::*;
use crate::config::Resubscribe;

fn manual() -> World {
    let mut world = World::with(SubscriberOptions {
        resubscribe: Resubscribe::Manual,
        ..SubscriberOptions::default()
    });
    for name in ["a", "b"] {
        world.register(name);
    }
    for address in ["here", "there"] {
        world.listen(address);
    }
    world.told.clear();
    world.done.clear();
    world
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| topic(name)).collect()
}

fn cleared(names: &[&str]) -> SyncReason {
    SyncReason::Cleared {
        address: "here".into(),
        topics: topics(names),
    }
}

fn resubscribed(names: &[&str]) -> SyncReason {
    SyncReason::Resubscribed { topics: topics(names) }
}

#[test]
fn nothing_is_told_of_a_topic_that_is_not_live_yet_or_was_unregistered() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.register("c");
    world.hear(2, "c", 7, 0);
    world.hear(3, "c", 9, 0);
    world.hear(4, "a", 1, 0);
    world.hear(5, "a", 3, 0);
    world.command(Command::Unsubscribe(topic("a")));
    assert_eq!(world.told_by(1_000), []);
    world.answer("here", &[]);
    world.hear(1_100, "c", 11, 50);
    assert_eq!(world.told_by(2_000), [gap("c", 10, 10)]);
}

/// Each address confirms for itself: a loss at one address between its answer and another's is reported.
#[test]
fn a_late_answer_of_one_address_covers_nothing_that_was_lost_at_another() {
    let mut world = World::new();
    world.listen("slow");
    world.told.clear();
    world.mute.insert("slow".into());
    world.register("c");
    for millis in [500, 1_000, 1_400] {
        world.pass(millis);
        world.frame("slow", "x", b"");
    }
    world.hear(1_450, "c", 1, 450);
    world.pass(1_500);
    // Number 2 is lost at 1,480; the slow address answers at 1,500; a hello says so at 1,600.
    world.answer("slow", &[]);
    world.hello(1, 1_600, &[("c", 2, 120)], false);
    assert_eq!(world.told_by(2_500), [gap("c", 2, 2)]);
}

#[test]
fn a_refused_topic_is_asked_for_again_and_confirmed_only_then() {
    let mut world = World::new();
    world.generation += 1;
    let now = world.now();
    world.session.handle_command(Command::Subscribe(topic("c"), 3), now);
    world.session.handled_commands(now);
    // The driver refuses subscriptions before it takes the probe that follows them.
    let mut refused = false;
    while let Some(action) = world.session.poll() {
        match action {
            Action::Subscribe(topic) => {
                world.session.handle_refused(topic, now);
                refused = true;
            }
            Action::Probe(address, probe) => {
                let probe = probe.as_str().as_bytes();
                world.session.handle_answer(&address, probe, &[], now);
            }
            _ => {}
        }
    }
    assert!(refused);
    assert_eq!(world.state("here"), AddressState::Unconfirmed);
    world.pass(1_000);
    assert_eq!(world.state("here"), AddressState::Live);
}

/// Each time a question to every address follows.
#[test]
fn a_topic_that_stays_refused_is_asked_for_ever_more_rarely() {
    let mut world = World::new();
    world.refused.insert(topic("c"));
    world.register("c");
    world.done.clear();
    world.pass(60_000);
    let asked = world.count(is_probe);
    assert!(asked < 120, "{asked}");
    world.refused.clear();
    world.pass(62_500);
    assert_eq!(world.state("here"), AddressState::Live);
    // Another one is asked for again soon.
    world.refused.insert(topic("d"));
    world.register("d");
    world.refused.clear();
    world.pass(62_700);
    assert_eq!(world.state("here"), AddressState::Live);
}

#[test]
fn topics_that_were_unregistered_before_the_start_are_not_waited_for() {
    let start = Instant::now();
    let mut world = World::new();
    world.session = Session::new(&SubscriberOptions::default(), Memory::default(), 9, 1, start);
    world.start = start;
    world.generation = 9;
    world.listen("here");
    assert_eq!(world.state("here"), AddressState::Live);
}

#[test]
fn a_lost_address_clears_every_topic_and_it_is_told_when_they_are_back() {
    let mut world = manual();
    world.disconnect("here");
    assert_eq!(
        world.told(),
        [lost("here"), cleared(&["a", "b"])],
        "another one is live"
    );
    world.register("a");
    assert_eq!(world.told(), [resubscribed(&["a"])]);
    world.connect("here");
    assert_eq!(world.told_by(5_000), [reconnected("here")]);
}

#[test]
fn what_is_registered_again_before_it_is_told_is_told_when_it_is_in_force() {
    let mut world = manual();
    world.command(Command::Disconnect("there".into()));
    world.disconnect("here");
    assert_eq!(world.told(), [lost("here")]);
    world.register("a");
    world.mute.insert("here".into());
    world.connect("here");
    // The topic was registered after the probe was sent, so the answer does not confirm it.
    world.register("b");
    world.answer("here", &[]);
    assert_eq!(world.told_by(500), [reconnected("here")], "covers a");
    world.answer("here", &[]);
    assert_eq!(world.told(), [resubscribed(&["b"])]);
}

#[test]
fn an_address_that_does_not_answer_delays_resubscribed_for_the_live_timeout_at_most() {
    let mut world = manual();
    world.disconnect("here");
    world.told.clear();
    world.mute.insert("here".into());
    world.connect("here");
    world.pass(20_000);
    world.told.clear();
    world.register("a");
    let told = world.told_by(22_200);
    assert_eq!(told, [resubscribed(&["a"])]);
    // Over a link with a backlog the answer comes late, so there are two reports.
    let mut world = manual();
    world.disconnect("here");
    world.connect("here");
    world.pass(500);
    world.told.clear();
    world.mute.insert("there".into());
    world.register("b");
    for number in 6..100 {
        world.pass(number * 100);
        world.frame("there", "x", b"");
    }
    assert_eq!(world.told(), [resubscribed(&["b"])]);
    world.answer("there", &[]);
    assert_eq!(world.told(), [resubscribed(&["b"])]);
}

/// Over a transport that reorders, numbers 11 and 10 of a topic that was registered again arrive in this order.
#[test]
fn what_overtakes_on_a_topic_that_is_registered_again_is_put_in_order() {
    let mut world = manual();
    for number in 1..=5 {
        world.hear(number, "a", number, 0);
    }
    world.disconnect("here");
    world.connect("here");
    world.register("a");
    world.pass(1_000);
    world.told.clear();
    world.delivered.clear();
    world.hear_of("p", 1, "here", "a", 11, 1);
    world.hear_of("p", 1, "here", "a", 10, 500);
    let told = world.told_by(2_000);
    let delivered = world.delivered();
    assert!(
        delivered == [10, 11] || told == [unproven(&["a"])],
        "{delivered:?} {told:?}"
    );
}

#[test]
fn what_was_cleared_is_said_to_the_handle_with_its_generation() {
    let mut world = manual();
    world.disconnect("here");
    let cleared = world.done.iter().find_map(|action| match action {
        Action::Clear(topics) => Some(topics.clone()),
        _ => None,
    });
    assert_eq!(cleared, Some(BTreeMap::from([(topic("a"), 1), (topic("b"), 2)])));
}

#[test]
fn an_address_that_is_given_up_is_a_loss_unless_its_publisher_said_goodbye() {
    let answer = |world: &mut World, epoch| {
        world.answer("q", &hello_payload("q", epoch, &hello(&[]), false));
    };
    let mut world = World::new();
    world.mute.insert("q".into());
    world.listen("q");
    answer(&mut world, 1);
    assert_eq!(world.told(), [connected("q")]);
    world.command(Command::GiveUp("q".into()));
    assert_eq!(world.told(), [lost("q")]);
    // The publisher said goodbye, and its next run is already heard elsewhere.
    world.listen("q");
    answer(&mut world, 2);
    world.told.clear();
    world.hello_of("q", 2, "q", &hello(&[]), true);
    world.hello_of("q", 3, "here", &hello(&[]), false);
    world.disconnect("q");
    assert_eq!(world.told_by(2_000), []);
    world.command(Command::GiveUp("q".into()));
    assert_eq!(world.told(), []);
    // The address never was live.
    world.listen("q");
    world.command(Command::GiveUp("q".into()));
    assert_eq!(world.told(), [lost("q")]);
}

#[test]
fn an_address_that_is_given_up_without_having_answered_is_a_loss() {
    let mut world = World::new();
    world.mute.insert("q".into());
    world.listen("q");
    assert_eq!(world.told_by(5_000), [connected("q")]);
    world.command(Command::GiveUp("q".into()));
    assert_eq!(world.told(), [lost("q")]);
    // The address is a broker's, which has no name.
    world.command(Command::GiveUp("here".into()));
    assert_eq!(world.told(), []);
}

#[test]
fn a_topic_is_live_only_where_every_address_answers() {
    use crate::subscriber::TopicState;
    let state = |world: &World| world.session.topics(world.now())[0].state;
    let mut world = World::new();
    assert_eq!(state(&world), TopicState::Live);
    world.mute.insert("old".into());
    world.listen("old");
    assert_eq!(state(&world), TopicState::Stale);
    world.pass(5_000);
    assert_eq!(world.state("old"), AddressState::NoHello);
    assert_eq!(state(&world), TopicState::Unconfirmed);
    // Nor where there is no other, whatever the program was told.
    let mut world = World::with(resyncing(1_000));
    world.register("a");
    world.mute.insert("old".into());
    world.listen("old");
    world.pass(60_000);
    assert_eq!(state(&world), TopicState::Unconfirmed);
}

/// A session that has the program read everything at least once in so many milliseconds for the sake of addresses
/// without hellos.
fn resyncing(period: u64) -> SubscriberOptions {
    SubscriberOptions {
        resync_without_hellos: Duration::from_millis(period),
        ..SubscriberOptions::default()
    }
}

/// Whether or not losses are looked for.
#[test]
fn for_an_address_without_hellos_the_program_reads_everything_from_time_to_time() {
    for continuity in [true, false] {
        let mut world = World::with(SubscriberOptions {
            continuity,
            ..resyncing(10_000)
        });
        world.register("a");
        world.mute.extend(["old".into(), "older".into()]);
        world.listen("old");
        world.listen("older");
        world.pass(5_000);
        assert_eq!(world.told(), [connected("old"), connected("older")]);
        let start = world.millis;
        world.pass(start + 100_000);
        let told = std::mem::take(&mut world.told);
        // One for both, at most a fifth more often than it has to be.
        assert!((10..=13).contains(&told.len()), "{told:?}");
        let mut before = start;
        for (at, reason) in told {
            assert_eq!(reason, SyncReason::NoHellos);
            assert!(at - before <= 10_000, "{before} {at}");
            before = at;
        }
        // Whatever else has the program read everything does as well.
        world.pass(before + 7_000);
        world.told.clear();
        world.disconnect("older");
        world.pass(before + 7_900);
        assert_eq!(world.told(), [lost("older")]);
        world.pass(before + 14_500);
        assert_eq!(world.told(), []);
        // One that answers after all is proven.
        world.mute.clear();
        world.answer("old", &[]);
        world.told.clear();
        assert_eq!(world.told_by(before + 200_000), []);
    }
}

/// A service or a server answers for publishers behind it that send no numbers.
#[test]
fn for_updates_without_numbers_the_program_reads_everything_from_time_to_time() {
    use crate::subscriber::TopicState;
    for continuity in [true, false] {
        let mut world = World::with(SubscriberOptions {
            continuity,
            ..resyncing(10_000)
        });
        world.register("a");
        world.register("b");
        world.listen("here");
        world.told.clear();
        assert_eq!(world.told_by(50_000), []);
        world.frame(
            "here",
            "a",
            br#"{"table": "t", "key": "k", "action": "set", "topic": "a"}"#,
        );
        let told = world.told_by(150_000);
        assert!((10..=13).contains(&told.len()), "{told:?}");
        assert!(told.iter().all(|reason| *reason == SyncReason::NoHellos));
        let topics = world.session.topics(world.now());
        let states: Vec<_> = topics.iter().map(|topic| topic.state).collect();
        if continuity {
            assert_eq!(states, [TopicState::Unconfirmed, TopicState::Live]);
        }
        world.command(Command::Unsubscribe(topic("a")));
        assert_eq!(world.told_by(300_000), []);
    }
}

#[test]
fn without_the_option_and_for_other_addresses_nothing_is_read_from_time_to_time() {
    let mut world = World::with(resyncing(1_000));
    world.register("a");
    world.listen("here");
    world.command(Command::Connect("nowhere".into(), 9));
    world.mute.insert("new".into());
    world.listen("new");
    // Connected, and not asked for long enough.
    world.told.clear();
    assert_eq!(world.told_by(1_900), []);
    world.disconnect("new");
    assert_eq!(world.told_by(60_000), []);
    let mut world = World::new();
    world.mute.insert("old".into());
    world.listen("old");
    assert_eq!(world.told_by(600_000), [connected("old")]);
}

#[test]
fn subscribers_do_not_read_everything_at_once_for_addresses_without_hellos() {
    let mut periods = BTreeSet::new();
    for seed in 0..50 {
        let mut world = World::with(resyncing(10_000));
        world.session = Session::new(&resyncing(10_000), Memory::default(), 0, seed, world.start);
        world.mute.insert("old".into());
        world.listen("old");
        world.pass(20_000);
        let told: Vec<_> = world.told.iter().map(|(at, _)| at / 100).collect();
        periods.insert(told[1] - told[0]);
    }
    assert!(periods.len() > 10, "{periods:?}");
}

#[test]
fn a_refused_topic_that_is_unregistered_is_not_asked_for_again() {
    let mut world = World::new();
    world.generation += 1;
    let now = world.now();
    world.session.handle_command(Command::Subscribe(topic("c"), 3), now);
    world.session.handle_refused(topic("c"), now);
    world.command(Command::Unsubscribe(topic("c")));
    world.done.clear();
    world.pass(5_000);
    assert_eq!(world.count(|action| matches!(action, Action::Subscribe(_))), 0);
    world.register("d");
    assert_eq!(world.state("here"), AddressState::Live);
}

/// A topic that was registered again is cleared again before it was in force.
#[test]
fn a_topic_that_is_cleared_twice_is_not_told_to_be_in_force_in_between() {
    let mut world = manual();
    world.disconnect("here");
    world.mute.insert("there".into());
    world.register("a");
    world.told.clear();
    world.disconnect("there");
    world.mute.clear();
    world.connect("there");
    let told = world.told_by(5_000);
    let resubscribed = told.iter().filter(|reason| reason.as_str() == "resubscribed");
    assert_eq!(resubscribed.count(), 0, "{told:?}");
}

/// After a while an address without hellos is assumed to have every topic, except one that the driver has refused.
#[test]
fn a_refused_topic_is_not_taken_to_be_in_force() {
    let mut world = World::new();
    world.mute.insert("here".into());
    world.disconnect("here");
    world.connect("here");
    world.pass(30_000);
    assert_eq!(world.state("here"), AddressState::NoHello);
    let now = world.now();
    world.session.handle_command(Command::Subscribe(topic("c"), 3), now);
    world.session.handled_commands(now);
    world.session.handle_refused(topic("c"), now);
    while world.now() < now + Duration::from_secs(20) {
        world.pass(world.millis + 10);
        if world.count(|action| matches!(action, Action::Subscribe(_))) > 0 {
            let now = world.now();
            world.session.handle_refused(topic("c"), now);
        }
    }
    assert_eq!(world.session.peers["here"].generation(), 2);
}

/// A topic that was registered before its clearing was reported is reported with the next address that is live: until
/// then there is nothing to do, however long that takes.
#[test]
fn nothing_is_due_for_a_topic_that_waits_for_an_address() {
    let mut world = manual();
    world.command(Command::Disconnect("there".into()));
    world.disconnect("here");
    world.register("a");
    world.millis = 10_000;
    for _ in 0..3 {
        world.session.handle_drained(world.now());
        world.session.tick(world.now());
        world.drive();
    }
    let now = world.now();
    assert!(world.session.deadline().is_none_or(|due| due > now));
    world.told.clear();
    world.connect("here");
    let told = world.told_by(20_000);
    assert_eq!(told, [reconnected("here"), cleared(&["b"])], "covers a");
}

#[test]
fn what_was_received_before_a_topic_was_unregistered_is_not_delivered_after_it() {
    let mut world = World::new();
    let now = world.now();
    for name in ["a", "b"] {
        let payload = update("p", 1, name, 1, 0);
        world
            .session
            .handle_frame("here", name.as_bytes(), &payload, now, || now);
    }
    world.command(Command::Unsubscribe(topic("a")));
    world.pass(1_000);
    let topics: Vec<_> = world.delivered.iter().map(|update| update.topic.clone()).collect();
    assert_eq!(topics, [topic("b")]);
}
