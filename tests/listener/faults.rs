//! Answers that are lost, listeners that are slow or taken for dead, and a store that does not answer.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use tablecast::drivers::memory::MemoryDriver;
use tablecast::listener::LISTENERS;
use tablecast::{Action, DbUpdate, ErrorKind, Listener, ListenerOptions, NotifierOptions, Topic};

use crate::common::{eventually, hook, pass, within};
use crate::program::{
    World, counted, listening, no_claims_are_left, notifying, redis_store, server, server_with, status,
};
use crate::servers::Server;
use crate::{LIMIT, LONG};

fn impatient() -> NotifierOptions {
    NotifierOptions {
        ack_timeout: Duration::from_millis(200),
        ..notifying()
    }
}

#[test]
fn an_event_that_two_can_see_is_processed_by_one() {
    within(LIMIT, || {
        let world = World::memory();
        let servers = [server(&world), server(&world)];
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(2, LONG).unwrap();
        // The notifier gets no answer, and thus gives each update to the other one too.
        node.subscriber.stop();
        (0..40).for_each(|key| notifier.notify(status(key)).unwrap());
        eventually(LONG, || notifier.stats().retried >= 40);
        let stats = || servers.iter().map(|server| server.listener.stats());
        eventually(LONG, || {
            stats().map(|stats| stats.left + stats.repeated).sum::<u64>() >= 40
        });
        node.subscriber.daemonize().unwrap();
        notifier.flush(LONG).unwrap();
        no_claims_are_left(&node.store);
        assert_eq!(servers.iter().map(|server| server.seen.len()).sum::<usize>(), 40);
    });
}

/// A slow handler keeps a listener busy that has sent receipts: nothing is sent again.
#[test]
fn a_busy_listener_is_not_asked_again() {
    within(LIMIT, || {
        let world = World::memory();
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, listening(), move |_| {
            let _ = wait.recv_timeout(LONG);
        });
        let node = world.program(0);
        let notifier = node.notifier(NotifierOptions {
            ack_timeout: Duration::from_millis(250),
            ..notifying()
        });
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status("first")).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        (0..20).for_each(|key| notifier.notify(status(key)).unwrap());
        // There is another one.
        let other = server(&world);
        notifier.wait_listeners(2, LONG).unwrap();
        // Several questions.
        pass(Duration::from_secs(4));
        let stats = notifier.stats();
        assert_eq!((stats.pending, stats.sent, stats.retried), (21, 21, 0), "{stats:?}");
        // It states the number of waiting updates, also in the registry.
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!((slow.keys().len(), other.keys().len()), (20, 0));
        assert_eq!(notifier.stats().retried, 0);
    });
}

#[test]
fn an_answer_that_is_lost_is_given_again() {
    within(LIMIT, || {
        let world = World::memory();
        let (go, wait) = bounded::<()>(0);
        let server = server_with(&world, listening(), move |_| {
            let _ = wait.recv_timeout(LONG);
        });
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        server.seen.recv_timeout(LONG).unwrap();
        // The answers are lost.
        node.subscriber.stop();
        go.send(()).unwrap();
        eventually(LONG, || server.listener.stats().handled == 1);
        pass(Duration::from_millis(300));
        assert_eq!(notifier.stats().pending, 1);
        node.subscriber.daemonize().unwrap();
        notifier.flush(LONG).unwrap();
        assert_eq!(server.seen.len(), 0);
        assert!(server.listener.stats().repeated > 0);
        no_claims_are_left(&node.store);
    });
}

#[test]
fn what_one_that_is_taken_for_dead_has_claimed_is_taken_over() {
    within(LIMIT, || {
        let world = World::memory();
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, listening_as("slow"), move |_| {
            let _ = wait.recv_timeout(LONG);
        });
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        let quick = server(&world);
        notifier.wait_listeners(2, LONG).unwrap();
        // The owner is alive, so no other listener processes it.
        pass(Duration::from_millis(700));
        assert_eq!((quick.seen.len(), notifier.stats().pending), (0, 1));
        // As an observer would do it.
        node.store.delete(LISTENERS, "slow").unwrap();
        assert_eq!(quick.seen.recv_timeout(LONG).unwrap().key, "1");
        notifier.flush(LONG).unwrap();
        // Later messages of the first one do no harm.
        drop(go);
        eventually(LONG, || slow.listener.stats().handled == 1);
        no_claims_are_left(&node.store);
        assert_eq!(notifier.stats().acknowledged, 1);
    });
}

fn listening_as(id: &str) -> ListenerOptions {
    ListenerOptions {
        id: Some(id.into()),
        ..listening()
    }
}

#[test]
fn who_is_taken_for_dead_begins_anew_and_two_of_one_id_get_along() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions {
            timeout: Duration::from_millis(900),
            hook,
            ..listening_as("same")
        };
        let first = server_with(&world, options.clone(), |_| ());
        let before = first.listener.member();
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        notifier.wait_listeners(1, LONG).unwrap();
        node.store.delete(LISTENERS, "same").unwrap();
        eventually(LONG, || first.listener.member().address != before.address);
        first.listener.wait_registered(LONG).unwrap();
        assert_eq!(first.listener.member().id, "same");
        notifier.notify(status(1)).unwrap();
        notifier.flush(LONG).unwrap();
        // Another one takes its id.
        let second = server_with(&world, options, |_| ());
        eventually(LONG, || notifier.listeners().len() == 2);
        (0..100).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        let counts = counted(first.keys().into_iter().chain(second.keys()));
        assert_eq!(counts.values().sum::<usize>(), 101);
        assert!(errors.try_iter().any(|(kind, _)| kind == ErrorKind::Conflict));
    });
}

/// A failover loses the writes since a restart: the row of the run before is there again.
#[test]
fn a_row_of_an_earlier_run_that_is_back_is_no_other_listeners() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions {
            hook,
            timeout: Duration::from_secs(3),
            ..listening_as("same")
        };
        let server = server_with(&world, options, |_| ());
        let before = server.listener.member();
        let node = world.program(0);
        let earlier = r#"{"epoch":1,"address":"listener/same/1"}"#;
        node.store.set(LISTENERS, "same", earlier).unwrap();
        // It goes on, since no other listener can have removed its row yet.
        eventually(LONG, || {
            let row = node.store.get(LISTENERS, "same", None).unwrap();
            row.value.contains(&before.address)
        });
        assert_eq!(server.listener.member(), before);
        let replaced = node.store.get(LISTENERS, "same 1", None).unwrap();
        assert!(replaced.value.contains(r#""leaving":true"#), "{}", replaced.value);
        assert!(errors.is_empty(), "{:?}", errors.try_recv());
    });
}

/// A peer that asks about, or answers for, far more updates than anyone has.
#[test]
fn messages_about_too_many_updates_are_refused() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions { hook, ..listening() };
        let server = server_with(&world, options, |_| ());
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        notifier.wait_listeners(1, LONG).unwrap();
        let topic = Topic::new(server.listener.member().address).unwrap();
        let questions = "[1,1,false],".repeat(600_000);
        for number in 0..16 {
            let ask = Action::Other("ask".into());
            let message = DbUpdate::new("\u{10FFFF}tablecast/status", format!("peer {number}"), ask);
            let message = message.value(format!("[0,[{questions}[1,1,false]]]"));
            node.publisher.send_event(&message.topic(topic.clone())).unwrap();
        }
        notifier.notify(status(1)).unwrap();
        notifier.flush(LONG).unwrap();
        let malformed = errors.try_iter().filter(|(kind, _)| *kind == ErrorKind::Malformed);
        assert_eq!(malformed.count(), 16);
    });
}

/// Two servers and a node whose store is a Redis server, and whose messages go through memory.
#[test]
fn while_the_store_does_not_answer_updates_wait() {
    within(LIMIT, || {
        let redis = Server::start();
        let address = "memory://outage";
        let driver = Arc::new(MemoryDriver::new(address).unwrap());
        let world = World::Memory(driver, address.into(), redis_store(&redis, Duration::from_millis(300)));
        let (hook, errors) = hook();
        let options = ListenerOptions {
            timeout: Duration::from_millis(1500),
            hook,
            ..listening()
        };
        let servers = [0, 1].map(|_| server_with(&world, options.clone(), |_| ()));
        let node = world.program(0);
        let notifier = node.notifier(NotifierOptions {
            timeout: Duration::from_millis(1500),
            ..impatient()
        });
        notifier.wait_listeners(2, LONG).unwrap();
        (0..20).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        redis.hang();
        (20..60).for_each(|key| notifier.notify(status(key)).unwrap());
        let dropped = || {
            servers
                .iter()
                .map(|server| server.listener.stats().dropped)
                .sum::<u64>()
        };
        eventually(LONG, || dropped() > 5);
        pass(Duration::from_secs(2));
        assert_eq!(notifier.stats().acknowledged, 20);
        assert!(!errors.is_empty());
        redis.resume();
        notifier.flush(LONG).unwrap();
        let counts = counted(servers.iter().flat_map(|server| server.keys()));
        assert_eq!(counts.len(), 60);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        no_claims_are_left(&redis_store(&redis, LONG));
    });
}

#[test]
fn while_the_publisher_service_is_away_updates_wait() {
    within(LIMIT, || {
        let mut world = World::service();
        let options = || ListenerOptions {
            // A claim whose confirmation was lost with the service is removed after this time.
            retention: Duration::from_secs(5),
            ..listening()
        };
        let servers = [(); 2].map(|()| server_with(&world, options(), |_| ()));
        let node = world.program(0);
        let (hook, errors) = hook();
        let notifier = node.notifier(NotifierOptions { hook, ..impatient() });
        notifier.wait_listeners(2, LONG).unwrap();
        (0..20).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        world.end_service();
        (20..40).for_each(|key| notifier.notify(status(key)).unwrap());
        errors.recv_timeout(LONG).unwrap();
        assert!(notifier.stats().acknowledged < 40);
        world.begin_service();
        notifier.flush(LONG).unwrap();
        let counts = counted(servers.iter().flat_map(|server| server.keys()));
        assert_eq!(counts.len(), 40);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        no_claims_are_left(&node.store);
    });
}

#[test]
fn what_is_malformed_is_reported_and_does_no_harm() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions { hook, ..listening() };
        let server = server_with(&world, options, |_| ());
        let node = world.program(0);
        let topic = Topic::new(server.listener.member().address).unwrap();
        for (key, value) in [("x", "{}"), ("notifier/x/1/2", "{}"), ("notifier/x/1/2", "[")] {
            let update = DbUpdate::new("\u{10FFFF}tablecast/status", key, Action::Set).value(value);
            node.publisher.send_event_to(&topic, &update).unwrap();
            assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Malformed);
        }
        let notifier = node.notifier(notifying());
        notifier.notify(status(1)).unwrap();
        notifier.flush(LONG).unwrap();
        assert_eq!(server.keys(), ["1"]);
    });
}

#[test]
fn an_id_that_makes_no_topic_is_refused() {
    within(LIMIT, || {
        let program = World::memory().program(0);
        let long = "x".repeat(70_000);
        let (subscriber, publisher) = (&program.subscriber, &program.publisher);
        let store = Arc::clone(&program.store);
        let listener = Listener::new(
            store,
            subscriber,
            &program.dispatcher,
            publisher,
            listening_as(&long),
            |_| (),
        );
        assert_eq!(listener.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}
