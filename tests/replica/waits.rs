//! Waiting, staleness, and changes that are found without an update.

use std::thread;
use std::time::{Duration, Instant};

use tablecast::registry::Member;
use tablecast::replica::ReplicaOptions;
use tablecast::store::TableVersion;
use tablecast::{Action, Config, DbUpdate, ErrorKind, Node, RegistryOptions, Result, Topic};

use crate::common::{eventually, hook, pass, within};
use crate::{LONG, World, held, holds, stored, topic};

/// A row written straight to the store without an update is there after a wait, and by itself within a check.
#[test]
fn what_is_never_told_is_found() {
    within(LONG, || {
        let world = World::new(0);
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        for number in 0..35 {
            world.store.create("t", &number.to_string(), "x", &topic("a")).unwrap();
        }
        replica.wait_current(LONG).unwrap();
        assert_eq!(held(&table), stored(&*world.store, "t", &["a"]));
        world.store.delete("t", "7").unwrap();
        eventually(LONG, || table.get("7").unwrap().is_none());
        world.store.delete_table("t").unwrap();
        replica.wait_current(LONG).unwrap();
        assert!(table.is_empty());
        let stats = replica.stats();
        assert!(stats.catch_ups >= 2 && stats.changes >= 36, "{stats:?}");
    });
}

/// Catching up costs as much as has changed, not as the table.
#[test]
fn catching_up_reads_what_has_changed() {
    within(LONG, || {
        let world = World::new(0);
        for number in 0..1_000 {
            world.store.create("t", &number.to_string(), "x", &Topic::ALL).unwrap();
        }
        let replica = world.replica(holds(&["D"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        for number in 0..5 {
            world.store.set("t", &number.to_string(), "y").unwrap();
        }
        replica.wait_current(LONG).unwrap();
        assert_eq!(held(&table), stored(&*world.store, "t", &["D"]));
        let stats = replica.stats();
        assert_eq!(
            (stats.listings, stats.listed, stats.changes),
            (1, 1_000, 5),
            "{stats:?}"
        );
    });
}

#[test]
fn staleness_is_the_age_of_a_proof() {
    within(LONG, || {
        let world = World::new(0);
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_millis(100),
            ..holds(&["a"])
        });
        assert_eq!(replica.staleness(&topic("a")), None);
        replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        let before = Instant::now();
        crate::common::pass(Duration::from_millis(50));
        eventually(LONG, || replica.staleness(&topic("a")).unwrap() < before.elapsed());
        assert_eq!(replica.staleness(&topic("b")), None);
    });
}

#[test]
fn positions_are_waited_for() {
    within(LONG, || {
        let world = World::new(1);
        let replica = world.replica(holds(&["a"]));
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        let create = tablecast::store::Write::create("t", "k", "x").topic(const { &Topic::ALL });
        world.database.write(&create, 5).unwrap();
        let a = topic("a");
        let create = tablecast::store::Write::create("t", "l", "x").topic(&a);
        let written = world.database.write(&create, 5).unwrap();
        let at = TableVersion {
            version: written.version,
            ..world.store.table_version("t").unwrap().unwrap()
        };
        replica.wait_version("t", &a, at, LONG).unwrap();
        assert!(table.get("l").unwrap().is_some());
        assert!(replica.position("t", &a).unwrap().version >= written.version);
        let later = TableVersion { version: 99, ..at };
        let wait = |table: &str, topic: &Topic| {
            let waited = replica.wait_version(table, topic, later, Duration::from_millis(50));
            waited.unwrap_err().kind()
        };
        assert_eq!(wait("t", &a), ErrorKind::Timeout);
        assert_eq!(
            (wait("t", &Topic::ALL), wait("u", &a)),
            (ErrorKind::NotFound, ErrorKind::NotFound)
        );
    });
}

/// Updates without a version, such as Dragonflow's, cause their rows to be read.
#[test]
fn updates_without_a_version_make_their_rows_be_read() {
    within(LONG, || {
        let world = World::new(0);
        let replica = world.replica(ReplicaOptions {
            check_interval: Duration::from_secs(600),
            ..holds(&["a"])
        });
        let table = replica.raw_table("t").unwrap();
        replica.wait_synced(LONG).unwrap();
        world.come_to_rest([&replica]);
        let tell = |action| {
            let update = DbUpdate::new("t", "k", action).topic(topic("a"));
            world.database.publisher().send_event(&update).unwrap();
        };
        world.store.create("t", "k", "x", &topic("a")).unwrap();
        tell(Action::Create);
        eventually(LONG, || table.get("k").unwrap().is_some_and(|row| row.row == "x"));
        world.store.set("t", "k", "y").unwrap();
        tell(Action::Set);
        eventually(LONG, || table.get("k").unwrap().is_some_and(|row| row.row == "y"));
        world.store.delete("t", "k").unwrap();
        tell(Action::Delete);
        eventually(LONG, || table.get("k").unwrap().is_none());
        eventually(LONG, || replica.stats().unversioned == 3);
    });
}

/// A writer waits for replicas with an id until they have its write; a replica that does not apply it is named.
#[test]
fn writers_wait_for_replicas() {
    within(LONG, || {
        let world = World::new(0);
        let open = |id: &str| {
            world.replica(ReplicaOptions {
                id: Some(id.into()),
                ..holds(&["a"])
            })
        };
        let (one, two) = (open("one"), open("two"));
        let tables = [&one, &two].map(|replica| replica.raw_table("t").unwrap());
        for replica in [&one, &two] {
            replica.wait_synced(LONG).unwrap();
        }
        world.subscriber.wait_live(LONG).unwrap();
        let write = |key: &str| {
            let topic = topic("a");
            let written = world
                .database
                .write(&tablecast::store::Write::create("t", key, "x").topic(&topic), 5);
            let version = written.unwrap().version;
            world
                .database
                .barrier("t", &topic, version, Duration::from_secs(5))
                .unwrap()
        };
        let mut number = 0;
        eventually(LONG, || {
            number += 1;
            write(&number.to_string()).replicas() == 2
        });
        let done = write("last");
        assert_eq!((done.applied, done.missing), (2, vec![]));
        assert!(tables.iter().all(|table| table.get("last").unwrap().is_some()));
    });
}

/// However short its life, a replica's registration ends with it.
#[test]
fn a_replica_leaves_no_row() {
    within(LONG, || {
        let world = World::new(0);
        let replica = world.replica(ReplicaOptions {
            id: Some("one".into()),
            ..holds(&["a"])
        });
        let row = || world.store.get("replica", "one", None);
        eventually(LONG, || row().is_ok());
        drop(replica);
        assert_eq!(row().unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// A wait for a table or topic ends with it, whatever else the dispatcher has to do.
#[test]
fn nothing_waits_for_what_is_let_go() {
    within(LONG, || {
        let world = World::new(0);
        let replica = world.replica(holds(&["a"]));
        for table in ["t", "u"] {
            replica.raw_table(table).unwrap();
        }
        replica.wait_synced(LONG).unwrap();
        // From now on nothing is read.
        world.dispatcher.stop();
        let waits = |wait: &(dyn Fn() -> Result<()> + Sync), let_go: &dyn Fn() -> bool| {
            thread::scope(|scope| {
                let waiting = scope.spawn(wait);
                pass(Duration::from_millis(50));
                assert!(!waiting.is_finished() && let_go());
                waiting.join().unwrap()
            })
        };
        let (b, later) = (topic("b"), TableVersion::default());
        replica.add_topic(&b).unwrap();
        let version = || replica.wait_version("t", &b, later, LONG * 2);
        let ended = waits(&version, &|| replica.remove_topic(&b));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotFound);
        let current = || replica.wait_current(LONG * 2);
        let ended = waits(&current, &|| replica.remove_table("t") && replica.remove_table("u"));
        assert!(ended.is_ok());
    });
}

/// Rows of replicas that ended under an earlier version of the library are removed by the next writer that waits, and
/// not waited for.
#[test]
fn a_writer_removes_what_ended_replicas_have_left() {
    within(LONG, || {
        let world = World::new(0);
        let row = |leaving| {
            let detail = r#"{"host":"h","tables":["t"],"topics":["a"],"answers":[]}"#;
            let member = Member {
                leaving,
                detail: detail.into(),
                ..Member::default()
            };
            serde_json::to_string(&member).unwrap()
        };
        for (id, leaving) in [("ended", true), ("there", false)] {
            world.store.create("replica", id, &row(leaving), &Topic::ALL).unwrap();
        }
        let barrier = world.database.barrier("t", &topic("a"), 1, Duration::from_millis(10));
        assert_eq!(barrier.unwrap().missing, ["there"]);
        let kind = |id| world.store.get("replica", id, None).map_err(|e| e.kind());
        assert_eq!(kind("ended").unwrap_err(), ErrorKind::NotFound);
        assert!(kind("there").is_ok());
    });
}

/// A replica hears of failures of its registration without a hook for it.
#[test]
fn two_replicas_of_one_id_are_reported() {
    within(LONG, || {
        let world = World::new(0);
        let (hook, errors) = hook();
        let open = || {
            world.replica(ReplicaOptions {
                id: Some("same".into()),
                registry: RegistryOptions {
                    timeout: Duration::from_millis(300),
                    ..RegistryOptions::default()
                },
                hook: hook.clone(),
                ..holds(&["a"])
            })
        };
        let _replicas = [open(), open()];
        let (_, error) = errors.recv_timeout(LONG).unwrap();
        assert!(error.contains("another member is registered as \"same\""), "{error}");
    });
}

/// Limits of topics and keys are for those of the program, not for those of the library itself.
#[test]
fn short_limits_leave_room_for_the_librarys_own_topics() {
    within(LONG, || {
        let mut config = Config::in_memory("short-limits");
        (config.max_topic_bytes, config.max_key_bytes) = (1, 1);
        let node = Node::open(&config).unwrap();
        let replica = node
            .replica_with(ReplicaOptions {
                id: Some("one".into()),
                ..holds(&["D"])
            })
            .unwrap();
        assert_eq!(
            replica.add_topic(&topic("ab")).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        replica.raw_table("t").unwrap();
        let (sender, handled) = crossbeam_channel::unbounded();
        let _listener = node
            .listener(move |update| sender.send(update.key.clone()).unwrap())
            .unwrap();
        let notifier = node.notifier().unwrap();
        eventually(LONG, || notifier.listeners().len() == 1);
        notifier.notify(DbUpdate::new("t", "k", Action::Set)).unwrap();
        assert_eq!(handled.recv_timeout(LONG).unwrap(), "k");
        let long = notifier.notify(DbUpdate::new("t", "kk", Action::Set));
        assert_eq!(long.unwrap_err().kind(), ErrorKind::InvalidInput);
        let create = tablecast::store::Write::create("t", "k", "x");
        let database = node.database().unwrap();
        let version = database.write(&create, 5).unwrap().version;
        let store = node.store().unwrap();
        eventually(LONG, || store.get("replica", "one", None).is_ok());
        let applied = || database.barrier("t", &Topic::ALL, version, LONG).unwrap().applied;
        eventually(LONG, || applied() == 1);
    });
}
