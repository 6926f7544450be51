//! An acknowledged update is not processed again, and no update is acknowledged that others could process again: slow
//! stops, stores that are cut off, and the number of store calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use tablecast::config::Resubscribe;
use tablecast::listener::LISTENERS;
use tablecast::store::{Write, Written};
use tablecast::stores::memory::MemoryStore;
use tablecast::{Error, ErrorKind, ListenerOptions, NotifierOptions, Result, Store, Topic};

use crate::common::{eventually, hook, pass, within};
use crate::front::pass_on;
use crate::program::{World, listening, no_claims_are_left, notifying, server, server_with, status};
use crate::swap::Swap;
use crate::{LIMIT, LONG};

/// One program's view of a store.
#[derive(Debug)]
struct View {
    store: Arc<dyn Store>,
    is_cut: AtomicBool,
    /// The next step panics.
    panics: AtomicBool,
    /// How long each write takes, and the number of writes.
    delay: Duration,
    writes: AtomicUsize,
}

impl View {
    fn of(world: &World, delay: Duration) -> (Arc<View>, World) {
        let World::Memory(driver, address, store) = world else {
            panic!("a world in memory");
        };
        let view = Arc::new(View {
            store: Arc::clone(store),
            is_cut: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            delay,
            writes: AtomicUsize::new(0),
        });
        let world = World::Memory(Arc::clone(driver), address.clone(), Arc::clone(&view) as _);
        (view, world)
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<&dyn Store> {
        match self.is_cut.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "the store is cut off")),
            false => Ok(&*self.store),
        }
    }

    fn reach_to_write(&self) -> Result<&dyn Store> {
        let store = self.reach()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        if !self.delay.is_zero() {
            pass(self.delay);
        }
        Ok(store)
    }
}

impl Store for View {
    fn write_each(&self, writes: &[Write<'_>]) -> Result<Vec<Result<Written>>> {
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "the store was told to panic"
        );
        self.reach_to_write()?.write_each(writes)
    }

    pass_on!(|this| this.reach_to_write()?; write delete_rows);
    pass_on!(|this| this.reach()?; get page_of_entries page_of_keys create_table delete_table allocate_unique_key);
}

fn named(id: &str) -> ListenerOptions {
    ListenerOptions {
        id: Some(id.into()),
        ..listening()
    }
}

fn impatient() -> NotifierOptions {
    NotifierOptions {
        ack_timeout: Duration::from_millis(50),
        ..notifying()
    }
}

#[test]
fn a_stop_that_takes_long_keeps_what_it_processes_from_a_new_listener_of_its_id() {
    within(LIMIT, || {
        let world = World::memory();
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, named("same"), move |_| assert!(wait.recv().is_err()));
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        slow.listener.stop();
        let next = server_with(&world, named("same"), |_| ());
        let address = next.listener.member().address;
        eventually(LONG, || {
            notifier.listeners().iter().any(|member| member.address == address)
        });
        notifier.notify(status(2)).unwrap();
        assert_eq!(next.seen.recv_timeout(LONG).unwrap().key, "2");
        // Long enough for each of many tries.
        pass(Duration::from_secs(1));
        assert_eq!((next.seen.len(), notifier.stats().pending), (0, 1));
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!(next.seen.len(), 0);
        no_claims_are_left(&node.store);
        eventually(LONG, || node.store.keys(LISTENERS, None).count() == 1);
    });
}

/// Renews its row within a second, and is not taken for dead in a pause of two.
fn renewing(id: &str) -> ListenerOptions {
    ListenerOptions {
        timeout: Duration::from_secs(3),
        ..named(id)
    }
}

/// The version of a listener's row; 0 if it is missing.
fn version(store: &Arc<dyn Store>, key: &str) -> u64 {
    store.get(LISTENERS, key, None).map_or(0, |row| row.version)
}

/// The new listener removes the row of their id before the first one notices that it has another.
#[test]
fn it_keeps_it_also_if_the_new_listener_stops_first() {
    within(LIMIT, || {
        let world = World::memory();
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, renewing("same"), move |_| assert!(wait.recv().is_err()));
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        slow.listener.stop();
        drop(server_with(&world, named("same"), |_| ()));
        let kept = format!("same {}", slow.listener.member().epoch);
        let before = version(&node.store, &kept);
        assert!(before > 0);
        let other = server(&world);
        // It renews that row from now on.
        eventually(LONG, || version(&node.store, &kept) > before);
        pass(Duration::from_millis(500));
        assert_eq!((other.seen.len(), notifier.stats().pending), (0, 1));
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!(other.seen.len(), 0);
        eventually(LONG, || node.store.keys(LISTENERS, None).count() == 1);
    });
}

/// A new listener of its id replaces it, whose clock is behind.
#[test]
fn one_whose_clock_is_behind_is_no_earlier_one() {
    within(LIMIT, || {
        let world = World::memory();
        let (hook, errors) = hook();
        let options = ListenerOptions {
            hook,
            ..renewing("same")
        };
        let first = server_with(&world, options, |_| ());
        let member = first.listener.member();
        let node = world.program(0);
        let kept = format!("same {}", member.epoch);
        let row = node.store.get(LISTENERS, "same", None).unwrap();
        let writes = [
            Write::create(LISTENERS, &kept, &row.value),
            Write::set(LISTENERS, "same", r#"{"epoch":1,"address":"listener/same/1"}"#),
        ];
        for written in node.store.write_each(&writes).unwrap() {
            written.unwrap();
        }
        let before = version(&node.store, &kept);
        eventually(LONG, || version(&node.store, &kept) > before);
        assert_eq!(first.listener.member(), member);
        assert_eq!(errors.recv_timeout(LONG).unwrap().0, ErrorKind::Conflict);
    });
}

#[test]
fn what_is_processed_while_the_store_loses_everything_stays_its_own() {
    within(LIMIT, || {
        let mut world = World::memory();
        let World::Memory(_, _, store) = &mut world else {
            panic!("a world in memory");
        };
        let swap = Swap::new(Arc::clone(store));
        *store = Arc::clone(&swap) as _;
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, renewing("slow"), move |_| {
            let _ = wait.recv_timeout(LONG);
        });
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        let other = server_with(&world, renewing("other"), |_| ());
        notifier.wait_listeners(2, LONG).unwrap();
        let members = [&slow, &other].map(|server| server.listener.member());
        swap.at_once(|store| *store = Arc::new(MemoryStore::new()));
        eventually(LONG, || ["slow", "other"].iter().all(|id| version(&node.store, id) > 0));
        pass(Duration::from_millis(500));
        assert_eq!((other.seen.len(), notifier.stats().pending), (0, 1));
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!((slow.seen.len(), other.seen.len()), (0, 0));
        assert_eq!([&slow, &other].map(|server| server.listener.member()), members);
        no_claims_are_left(&node.store);
    });
}

#[test]
fn a_stop_that_takes_longer_than_claims_are_kept_is_waited_for() {
    within(LIMIT, || {
        let world = World::memory();
        let options = ListenerOptions {
            retention: Duration::from_millis(100),
            ..named("slow")
        };
        let (go, wait) = bounded::<()>(0);
        let slow = server_with(&world, options, move |_| assert!(wait.recv().is_err()));
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        slow.seen.recv_timeout(LONG).unwrap();
        let other = server(&world);
        slow.listener.stop();
        pass(Duration::from_millis(500));
        assert!(version(&node.store, "slow") > 0);
        assert_eq!((other.seen.len(), notifier.stats().pending), (0, 1));
        drop(go);
        notifier.flush(LONG).unwrap();
        assert_eq!(other.seen.len(), 0);
        eventually(LONG, || version(&node.store, "slow") == 0);
    });
}

/// Another listener has tried to take its id, and has left a row for it, in vain.
#[test]
fn a_second_row_of_a_run_as_leaving_does_not_hide_it() {
    within(LIMIT, || {
        let world = World::memory();
        let server = server_with(&world, named("same"), |_| ());
        let node = world.program(0);
        let row = node.store.get(LISTENERS, "same", None).unwrap();
        let leaving = row.value.replace(r#""leaving":false"#, r#""leaving":true"#);
        assert_ne!(leaving, row.value);
        node.store.create(LISTENERS, "same 1", &leaving, &Topic::ALL).unwrap();
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        notifier.flush(LONG).unwrap();
        assert_eq!(server.keys(), ["1"]);
    });
}

#[test]
fn what_is_not_marked_in_the_store_is_not_acknowledged() {
    within(LIMIT, || {
        let world = World::memory();
        let (view, cut_world) = View::of(&world, Duration::ZERO);
        let (go, wait) = bounded::<()>(0);
        let cut = server_with(&cut_world, listening(), move |_| {
            let _ = wait.recv_timeout(LONG);
        });
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        notifier.notify(status(1)).unwrap();
        cut.seen.recv_timeout(LONG).unwrap();
        let other = server(&world);
        notifier.wait_listeners(2, LONG).unwrap();
        view.cut(true);
        drop(go);
        eventually(LONG, || cut.listener.stats().handled == 1);
        // It is processed, but if its process died now, others would have to process it again.
        pass(Duration::from_millis(500));
        assert_eq!((notifier.stats().acknowledged, other.seen.len()), (0, 0));
        // Neither does it begin anything; others do.
        (2..20).for_each(|key| notifier.notify(status(key)).unwrap());
        eventually(LONG, || notifier.stats().acknowledged == 18);
        assert_eq!((cut.seen.len(), other.keys().len()), (0, 18));
        view.cut(false);
        notifier.flush(LONG).unwrap();
        assert_eq!((cut.seen.len(), other.seen.len()), (0, 0));
        no_claims_are_left(&node.store);
    });
}

#[test]
fn a_panic_of_the_store_is_a_failure_like_others() {
    within(LIMIT, || {
        let world = World::memory();
        let (view, its_world) = View::of(&world, Duration::ZERO);
        let server = server(&its_world);
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        notifier.wait_listeners(1, LONG).unwrap();
        for key in 0..5 {
            view.panics.store(true, Ordering::SeqCst);
            notifier.notify(status(key)).unwrap();
            notifier.flush(LONG).unwrap();
        }
        assert_eq!(server.seen.len(), 5);
        no_claims_are_left(&node.store);
    });
}

#[test]
fn claims_marks_and_removals_are_made_in_bundles() {
    within(LIMIT, || {
        let world = World::memory();
        let (view, slow_world) = View::of(&world, Duration::from_millis(5));
        let server = server(&slow_world);
        let node = world.program(0);
        let notifier = node.notifier(notifying());
        notifier.wait_listeners(1, LONG).unwrap();
        let before = view.writes.load(Ordering::SeqCst);
        (0..2000).for_each(|key| notifier.notify(status(key)).unwrap());
        notifier.flush(LONG).unwrap();
        assert_eq!(server.seen.len(), 2000);
        eventually(LONG, || server.listener.stats().claims == 0);
        // Without bundles there would be three writes for each update.
        let writes = view.writes.load(Ordering::SeqCst) - before;
        assert!(writes < 600, "{writes} writes");
        no_claims_are_left(&node.store);
    });
}

#[test]
fn with_manual_resubscription_they_register_their_topics_again() {
    within(LIMIT, || {
        let mut world = World::service();
        if let World::Config { config, .. } = &mut world {
            config.resubscribe = Resubscribe::Manual;
        }
        let server = server(&world);
        let node = world.program(0);
        let notifier = node.notifier(impatient());
        for round in 0..3 {
            notifier.wait_listeners(1, LONG).unwrap();
            notifier.notify(status(round)).unwrap();
            notifier.flush(LONG).unwrap();
            world.end_service();
            let is_live = |program: &crate::program::Program| program.subscriber.wait_live(Duration::ZERO).is_ok();
            eventually(LONG, || !is_live(&node) && !is_live(&server.program));
            world.begin_service();
        }
        assert_eq!(server.keys(), ["0", "1", "2"]);
    });
}
