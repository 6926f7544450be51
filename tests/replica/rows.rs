//! Rows come, change and go; handlers, indexes, snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde::{Deserialize, Serialize};
use tablecast::database::Entry;
use tablecast::replica::{MalformedRow, ReplicaOptions, RowChange};
use tablecast::{ErrorKind, Table, Topic};

use crate::common::{eventually, hook, within};
use crate::told::Told;
use crate::{LONG, World, held, holds, stored, topic};

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Port {
    chassis: String,
}

const PORTS: Table<Port> = Table::new("ports");

fn port(chassis: &str) -> Port {
    Port {
        chassis: chassis.into(),
    }
}

#[test]
fn it_has_what_is_there_and_what_changes() {
    within(LONG, || {
        let world = World::new(0);
        let ports = world.database.rows(PORTS);
        ports.create("a", &port("one")).unwrap();
        let replica = world.replica(holds(&["D"]));
        let table = replica.table(PORTS).unwrap();
        replica.wait_synced(LONG).unwrap();
        assert_eq!(table.get("a").unwrap().unwrap().row, port("one"));
        assert_eq!((table.len(), table.get("b").unwrap().is_none()), (1, true));

        let (changes, changed) = unbounded::<RowChange<Port>>();
        let guard = table.on_change(changes);
        let RowChange::Added { new } = changed.recv_timeout(LONG).unwrap() else {
            panic!()
        };
        assert_eq!((&*new.key, &new.row), ("a", &port("one")));
        let version = ports.set("a", &port("two")).unwrap().unwrap();
        let RowChange::Changed { old, new } = changed.recv_timeout(LONG).unwrap() else {
            panic!()
        };
        assert_eq!((&old.row, &new.row, new.version), (&port("one"), &port("two"), version));
        let gone = ports.delete("a").unwrap();
        let RowChange::Removed { key, old, version } = changed.recv_timeout(LONG).unwrap() else {
            panic!()
        };
        assert_eq!((&*key, &old.unwrap().row, version), ("a", &port("two"), gone));
        assert!(table.is_empty());

        drop(guard);
        ports.create("b", &port("one")).unwrap();
        replica.wait_current(LONG).unwrap();
        assert!(changed.is_empty());
        assert_eq!(*table.get("b").unwrap().unwrap().topic, Topic::ALL);
    });
}

#[test]
fn a_row_that_does_not_decode_is_seen_as_such() {
    within(LONG, || {
        let world = World::new(0);
        let (hook, errors) = hook();
        let replica = world.replica(ReplicaOptions { hook, ..holds(&["D"]) });
        let table = replica.table(PORTS).unwrap();
        let (changes, changed) = unbounded::<RowChange<Port>>();
        let _guard = table.on_change(changes);
        let next = || changed.recv_timeout(LONG).unwrap();
        let text = Table::<String>::new("ports");
        let raw = world.database.rows(text);

        raw.create("a", &"no port".into()).unwrap();
        let RowChange::Malformed { old: None, new } = next() else {
            panic!()
        };
        let MalformedRow { key, text, error, .. } = &*new;
        assert_eq!(
            (&**key, &**text, error.kind()),
            ("a", "\"no port\"", ErrorKind::Malformed)
        );
        let refused = table.get("a").unwrap_err();
        assert_eq!(
            (refused.kind(), refused.row()),
            (ErrorKind::Malformed, Some(("ports", "a")))
        );
        assert_eq!(refused.to_string().matches("malformed").count(), 1, "{refused}");
        assert_eq!((table.len(), table.snapshot().malformed().count()), (1, 1));

        let ports = world.database.rows(PORTS);
        ports.set("a", &port("one")).unwrap();
        let RowChange::Added { new } = next() else { panic!() };
        assert_eq!(new.row, port("one"));
        raw.set("a", &"again".into()).unwrap();
        let RowChange::Malformed { old: Some(old), .. } = next() else {
            panic!()
        };
        assert_eq!(old.row, port("one"));
        assert!(table.get("a").is_err() && table.snapshot().get("a").is_err());
        // Who comes later is first told the last state that decoded.
        let (changes, late) = unbounded::<RowChange<Port>>();
        let _late = table.on_change(changes);
        let RowChange::Added { new } = late.recv_timeout(LONG).unwrap() else {
            panic!()
        };
        let RowChange::Malformed { old: Some(old), .. } = late.recv_timeout(LONG).unwrap() else {
            panic!()
        };
        assert!(Arc::ptr_eq(&old, &new) && old.row == port("one"));
        let by_chassis = table.index(|row| [row.row.chassis.clone()]);
        assert_eq!(by_chassis.get("one").len(), 1);
        raw.delete("a").unwrap();
        let RowChange::Removed { old: Some(old), .. } = next() else {
            panic!()
        };
        assert_eq!(old.row, port("one"));
        assert!(table.get("a").unwrap().is_none());

        raw.create("b", &"no port".into()).unwrap();
        next();
        raw.delete("b").unwrap();
        let RowChange::Removed { old: None, .. } = next() else {
            panic!()
        };
        let errors: Vec<_> = errors.try_iter().collect();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors.iter().all(|(kind, _)| *kind == ErrorKind::Malformed));
        assert!(errors[0].1.contains(r#"table "ports" key "a""#), "{errors:?}");
    });
}

/// A row type whose code panics at a value.
#[derive(Debug)]
struct Touchy;

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Touchy, D::Error> {
        assert_ne!(String::deserialize(deserializer)?, "touched");
        Ok(Touchy)
    }
}

#[test]
fn a_row_type_that_panics_is_told_as_malformed() {
    within(LONG, || {
        let world = World::new(0);
        let texts = world.database.rows(Table::<String>::new("t"));
        texts.create("a", &"touched".into()).unwrap();
        let replica = world.replica(holds(&["D"]));
        let table = replica.table(Table::<Touchy>::new("t")).unwrap();
        replica.wait_synced(LONG).unwrap();
        assert_eq!(table.get("a").unwrap_err().kind(), ErrorKind::Malformed);
        texts.create("b", &"touched".into()).unwrap();
        texts.set("a", &"well".into()).unwrap();
        replica.wait_current(LONG).unwrap();
        assert!(table.get("a").unwrap().is_some());
        let [row] = &table.snapshot().malformed().collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert_eq!((&*row.key, row.error.kind()), ("b", ErrorKind::Panicked));
    });
}

/// A row type that panics when a certain value is dropped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Explosive(String);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(self.0 != "armed" || std::thread::panicking());
    }
}

/// A row whose old value panics when it is dropped costs no row that is read with it its change.
#[test]
fn a_row_that_panics_when_dropped_costs_no_other_its_change() {
    for workers in [0, 2] {
        within(LONG, move || {
            let world = World::new(workers);
            let key = |number: usize| format!("{number}");
            for number in 0..10 {
                let value = if number == 4 { "\"armed\"" } else { "\"x\"" };
                world.store.create("t", &key(number), value, &Topic::ALL).unwrap();
            }
            let replica = world.replica(ReplicaOptions {
                check_interval: Duration::from_secs(600),
                ..holds(&["D"])
            });
            let table = replica.table(Table::<Explosive>::new("t")).unwrap();
            replica.wait_synced(LONG).unwrap();
            let (changes, changed) = unbounded();
            let _guard = table.on_change(move |change: &RowChange<Explosive>| {
                changes.send((change.key().to_string(), change.version())).unwrap();
            });
            (0..10).for_each(|_| drop(changed.recv_timeout(LONG).unwrap()));
            for round in 2..4 {
                let mut versions: Vec<_> = (0..10)
                    .map(|number| (key(number), world.store.set("t", &key(number), "\"y\"").unwrap()))
                    .collect();
                replica.wait_current(LONG).unwrap();
                let heard = |_| {
                    changed
                        .recv_timeout(LONG)
                        .unwrap_or_else(|e| panic!("round {round}: {e}"))
                };
                let mut heard: Vec<_> = (0..10).map(heard).collect();
                heard.sort();
                versions.sort();
                assert_eq!(heard, versions);
            }
        });
    }
}

/// A row for which an index's function panics has no keys, rather than those of its state before.
#[test]
fn an_index_whose_function_panics_has_no_old_row() {
    within(LONG, || {
        let world = World::new(0);
        let ports = world.database.rows(PORTS);
        ports.create("a", &port("one")).unwrap();
        ports.create("b", &port("one")).unwrap();
        let replica = world.replica(holds(&["D"]));
        let table = replica.table(PORTS).unwrap();
        replica.wait_synced(LONG).unwrap();
        let index = table.index(|port: &Entry<Port>| {
            assert_ne!(port.row.chassis, "bad");
            [port.row.chassis.clone()]
        });
        assert_eq!(index.get("one").len(), 2);
        ports.set("a", &port("bad")).unwrap();
        replica.wait_current(LONG).unwrap();
        assert_eq!(table.get("a").unwrap().unwrap().row, port("bad"));
        let keys = |key: &str| index.get(key).iter().map(|row| row.key.to_string()).collect::<Vec<_>>();
        assert_eq!(keys("one"), ["b"]);
        assert_eq!(world.dispatcher.stats().panics, 1);
        ports.set("a", &port("two")).unwrap();
        replica.wait_current(LONG).unwrap();
        assert_eq!((keys("one"), keys("two")), (vec!["b".to_owned()], vec!["a".to_owned()]));
    });
}

#[test]
fn topics_and_tables_come_and_go() {
    within(LONG, || {
        let world = World::new(2);
        let write = |key: &str, name: &str| world.store.create("t", key, key, &topic(name)).unwrap();
        write("a1", "a");
        write("b1", "b");
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        let (told, _guard) = Told::of(&table);
        replica.wait_synced(LONG).unwrap();
        assert_eq!(held(&table), stored(&*world.store, "t", &["a"]));

        assert!(replica.add_topic(&topic("b")).unwrap());
        assert!(!replica.add_topic(&topic("b")).unwrap());
        replica.wait_synced(LONG).unwrap();
        assert_eq!(held(&table), stored(&*world.store, "t", &["a", "b"]));
        let of_b = tablecast::store::Write::create("t", "b2", "b2");
        let of_b = of_b.topic(const { &Topic::ALL });
        world.database.write(&of_b, 5).unwrap();

        assert!(replica.remove_topic(&topic("a")));
        eventually(LONG, || held(&table) == stored(&*world.store, "t", &["b"]));
        eventually(LONG, || told.rows() == held(&table));
        assert!(replica.position("t", &topic("a")).is_none());
        assert_eq!(replica.table(PORTS).unwrap().name(), &*PORTS.name());
        assert_eq!(replica.raw_table("ports").unwrap_err().kind(), ErrorKind::InvalidInput);
        // Texts as they are, and texts that are decoded.
        replica.raw_table("texts").unwrap();
        let decoded = replica.table(Table::<String>::new("texts"));
        assert_eq!(decoded.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(replica.raw_table("texts").is_ok());
        assert!(replica.remove_table("t") && !replica.remove_table("t"));
        eventually(LONG, || table.is_empty() && told.rows().is_empty());
    });
}

/// Two replicas and the program itself use one topic: it is unregistered with the last replica, unless the program has
/// registered it, before them or since.
#[test]
fn topics_are_shared() {
    within(LONG, || {
        let world = World::new(0);
        let (one, two) = (world.replica(holds(&["a", "b"])), world.replica(holds(&["a", "b"])));
        assert!(!world.subscriber.register_topic(&topic("a")).unwrap());
        drop(one);
        assert!(!world.subscriber.register_topic(&topic("b")).unwrap());
        drop(two);
        for name in ["a", "b"] {
            assert!(
                !world.subscriber.register_topic(&topic(name)).unwrap(),
                "it is the program's"
            );
            assert!(world.subscriber.unregister_topic(&topic(name)));
        }
        // A replica keeps what the program gives up.
        world.subscriber.register_topic(&topic("b")).unwrap();
        let three = world.replica(holds(&["b"]));
        assert!(world.subscriber.unregister_topic(&topic("b")));
        assert!(!world.subscriber.unregister_topic(&topic("b")));
        assert!(!world.subscriber.register_topic(&topic("b")).unwrap());
        assert!(world.subscriber.unregister_topic(&topic("b")));
        drop(three);
        assert!(world.subscriber.register_topic(&topic("b")).unwrap());
    });
}

#[test]
fn snapshots_stay_and_indexes_follow() {
    within(LONG, || {
        let world = World::new(0);
        let ports = world.database.rows(PORTS);
        for number in 0..100 {
            ports
                .create(&number.to_string(), &port(["one", "two"][number % 2]))
                .unwrap();
        }
        let replica = world.replica(holds(&["D"]));
        let table = replica.table(PORTS).unwrap();
        replica.wait_synced(LONG).unwrap();
        let snapshot = table.snapshot();
        let by_chassis = table.index(|port| [port.row.chassis.clone()]);
        assert_eq!((by_chassis.get("one").len(), by_chassis.get("two").len()), (50, 50));

        for number in 0..50 {
            ports.set(&number.to_string(), &port("three")).unwrap();
        }
        for number in 90..100 {
            ports.delete(&number.to_string()).unwrap();
        }
        replica.wait_current(LONG).unwrap();
        eventually(LONG, || by_chassis.get("three").len() == 50);
        eventually(LONG, || by_chassis.get("one").len() == 20);
        assert_eq!(by_chassis.keys(), ["one", "three", "two"]);
        assert_eq!((snapshot.len(), snapshot.iter().count(), table.len()), (100, 100, 90));
        assert!(snapshot.iter().all(|port| port.row.chassis != "three"));
        assert!(snapshot.get("95").unwrap().is_some() && table.get("95").unwrap().is_none());
        drop(by_chassis);
    });
}

/// A handler registered during changes gets the present rows, without a gap or a repeat, whatever the number of
/// workers.
#[test]
fn handlers_come_while_rows_change() {
    for workers in [0, 1, 4] {
        within(LONG, move || {
            let world = Arc::new(World::new(workers));
            let replica = world.replica(holds(&["a", "b"]));
            let table = replica.raw_table("t").unwrap();
            let is_over = Arc::new(AtomicBool::new(false));
            let write = |seed: u64, name: &'static str| {
                let (world, is_over) = (Arc::clone(&world), Arc::clone(&is_over));
                move || {
                    let mut chance = fastrand::Rng::with_seed(seed);
                    // As many as a busy machine can report to twenty handlers in time.
                    for _ in 0..3_000 {
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        let key = format!("{name}{}", chance.u8(0..40));
                        let topic = topic(name);
                        use tablecast::store::Write;
                        let write = match chance.u8(0..3) {
                            0 => Write::delete("t", &key),
                            _ => Write::set("t", &key, "x"),
                        };
                        if world.database.write(&write.topic(&topic), 5).is_err() {
                            let create = Write::create("t", &key, "new").topic(&topic);
                            let _ = world.database.write(&create, 5);
                        }
                    }
                }
            };
            let writers =
                [(1, "a"), (2, "b")].map(|(seed, name)| std::thread::Builder::new().spawn(write(seed, name)).unwrap());
            let mut handlers = Vec::new();
            for _ in 0..20 {
                handlers.push(Told::of(&table));
                crate::common::pass(Duration::from_millis(20));
                // Changing rows are read again too.
                replica.remove_topic(&topic("b"));
                replica.add_topic(&topic("b")).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            replica.wait_current(LONG).unwrap();
            let wanted = stored(&*world.store, "t", &["a", "b"]);
            eventually(LONG, || held(&table) == wanted);
            for (told, _) in &handlers {
                eventually(LONG, || told.count() > 0 && told.rows() == wanted);
            }
            assert!(replica.verify(LONG).unwrap().is_empty());
        });
    }
}

#[test]
fn a_handler_may_do_anything_and_may_panic() {
    within(LONG, || {
        let world = Arc::new(World::new(0));
        let replica = Arc::new(world.replica(holds(&["D"])));
        let table = replica.raw_table("t").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let (called, inner, about) = (Arc::clone(&calls), table.clone(), Arc::downgrade(&replica));
        let _panics = table.on_change(move |change: &RowChange<String>| {
            called.fetch_add(1, Ordering::Relaxed);
            assert!(inner.get(change.key()).unwrap().is_some());
            let replica = about.upgrade().unwrap();
            replica.raw_table(format!("of {}", change.key())).unwrap();
            inner.on_change(|_: &RowChange<String>| ()).detach();
            panic!("as handlers do");
        });
        let (told, _guard) = Told::of(&table);
        for key in ["a", "b", "c"] {
            let create = tablecast::store::Write::create("t", key, "x");
            world.database.write(&create, 5).unwrap();
        }
        eventually(LONG, || told.count() == 3 && calls.load(Ordering::Relaxed) == 3);
        assert_eq!(world.dispatcher.stats().panics, 3);
        replica.wait_synced(LONG).unwrap();
    });
}
