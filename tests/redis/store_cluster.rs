//! The store on a cluster that loses masters, and moves slots, while it is written to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tablecast::drivers::redis::RedisOptions;
use tablecast::{Error, ErrorKind, Store, Topic};

use crate::cluster::calm;
use crate::common::{eventually, pass, within};
use crate::rig::{LONG, Rig};
use crate::servers::{Cluster, Server};
use crate::store::{announce, default_store, is_outage, store, store_with};
use crate::{SECOND, options, syncs};

const LIMIT: Duration = Duration::from_secs(60);

/// Tables that are on all three masters.
pub(crate) fn tables(cluster: &Cluster) -> Vec<String> {
    let mut tables = BTreeMap::new();
    for number in 0.. {
        let table = format!("t{number}");
        let owner = cluster.first_owner(cluster.slot(&table));
        tables.entry(owner).or_insert(table);
        if tables.len() == 3 {
            break;
        }
    }
    tables.into_values().collect()
}

#[test]
fn tables_are_on_all_nodes() {
    within(LIMIT, || {
        let cluster = calm();
        let store = store(&cluster.address());
        for table in tables(&cluster) {
            for number in 0..10 {
                store.create(&table, &number.to_string(), "x", &Topic::ALL).unwrap();
            }
            assert_eq!(store.keys(&table, None).count(), 10);
        }
        let listed = store.tables().unwrap();
        let listed: BTreeSet<_> = listed
            .iter()
            .map(|table| (table.name.to_string(), table.rows))
            .collect();
        let expected = tables(&cluster).into_iter().map(|table| (table, Some(10)));
        assert_eq!(listed, expected.collect::<BTreeSet<_>>());
        let sizes: Vec<i64> = cluster
            .masters()
            .iter()
            .map(|master| cluster.nodes[*master].ask(&["DBSIZE"]))
            .collect();
        // Rows, keys, topics, deletes and their order, and the state of the table.
        assert_eq!(sizes, [6, 6, 6]);
    });
}

/// The address that a cluster names leads nowhere, and there is no other one but that which was given.
#[test]
fn the_given_address_stands_in_for_the_announced_one() {
    within(LIMIT, || {
        let server = Server::with(&["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.9"]);
        let () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        // A new master does not serve at once.
        eventually(LONG, || {
            server.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        let store = store(&server.address());
        assert!(store.create_table("t").unwrap());
        assert_eq!(store.get("t", "k", None).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// The results of a writer's calls.
#[derive(Default)]
struct Log {
    ok: BTreeSet<String>,
    failed: Vec<(String, Error)>,
    /// The longest time without a success.
    outage: Duration,
}

/// Writes to the table, about 333 times a second, until it is stopped.
fn write(store: &dyn Store, address: &str, table: &str, stop: &AtomicBool) -> Log {
    let mut log = Log::default();
    let (start, mut last) = (Instant::now(), Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{table}-{number}");
        match announce(store, address, table, &key) {
            Ok(_) => {
                log.ok.insert(key);
                log.outage = log.outage.max(last.elapsed());
                last = Instant::now();
            }
            Err(e) => log.failed.push((key, e)),
        }
        pass((start + number * Duration::from_millis(3)).saturating_duration_since(Instant::now()));
    }
    log
}

/// Runs `fault` while three writers together make about a thousand writes a second; two subscribers listen.
fn under_load(cluster: &mut Cluster, fault: impl FnOnce(&mut Cluster)) -> Vec<Log> {
    let (tables, address) = (tables(cluster), cluster.addresses());
    // The options of a program.
    let driver = crate::with(&address, RedisOptions::default());
    let rigs: Vec<_> = (0..6).map(|_| Rig::new(&driver)).collect();
    for rig in &rigs {
        rig.listen(&["D"], &address);
        syncs(rig, &["connected"]);
    }
    let store = default_store(&address);
    // The announcer knows the address.
    store.create_table(&tables[0]).unwrap();
    let stop = AtomicBool::new(false);
    let logs: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = tables
            .iter()
            .map(|table| {
                let (store, address, stop) = (&store, &address, &stop);
                let body = move || write(store, address, table, stop);
                std::thread::Builder::new().spawn_scoped(scope, body).unwrap()
            })
            .collect();
        pass(SECOND);
        let fault = catch_unwind(AssertUnwindSafe(|| fault(cluster)));
        pass(SECOND);
        stop.store(true, Ordering::Relaxed);
        fault.unwrap_or_else(|panic| resume_unwind(panic));
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    cluster.await_ok();
    let stored = |table: &String| {
        store
            .keys(table, None)
            .map(|key| key.unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let stored: BTreeSet<_> = tables.iter().flat_map(stored).collect();
    let ok: BTreeSet<_> = logs.iter().flat_map(|log| log.ok.iter().cloned()).collect();
    let outage = logs.iter().map(|log| log.outage).max().unwrap();
    let failed: Vec<_> = logs.iter().flat_map(|log| &log.failed).collect();
    println!(
        "{} writes were Ok, {} of them are stored; {} failed, {} of them are stored; none was Ok for {outage:?}",
        ok.len(),
        ok.intersection(&stored).count(),
        failed.len(),
        failed.iter().filter(|(key, _)| stored.contains(key)).count()
    );
    // Only an unconfirmed failed call may have been made.
    for (key, error) in failed {
        assert!(is_outage(error), "{key}: {error}");
        let is_unsure = error.kind() == ErrorKind::Unconfirmed;
        assert!(is_unsure || !stored.contains(key), "{key} was made: {error}");
    }
    // A stored write was received, or a later sync event asks to read the store.
    let last: Vec<_> = tables.iter().map(|table| format!("{table}-last")).collect();
    for rig in &rigs {
        rig.subscriber.wait_live(LONG).unwrap();
    }
    for (table, key) in tables.iter().zip(&last) {
        announce(&store, &address, table, key).unwrap();
    }
    for rig in &rigs {
        let mut seen = BTreeSet::new();
        while !last.iter().all(|key| seen.contains(key)) {
            seen.insert(rig.next_key());
        }
        let told: Vec<_> = rig.syncs.try_iter().map(|sync| sync.as_str()).collect();
        let missed = stored.difference(&seen).count();
        println!(
            "a subscriber has missed {missed} of {}, and was told {told:?}",
            stored.len()
        );
        assert!(missed == 0 || !told.is_empty(), "{missed} missed without a word");
    }
    logs
}

#[test]
fn a_master_is_killed_under_writes() {
    within(2 * LIMIT, || {
        let mut cluster = Cluster::start();
        let logs = under_load(&mut cluster, |cluster| {
            let victim = cluster.masters()[0];
            let heir = cluster.replica_of(victim);
            cluster.nodes[victim].kill();
            eventually(LONG, || cluster.masters().contains(&heir));
            cluster.await_ok();
            pass(SECOND);
        });
        assert!(logs.iter().all(|log| log.ok.len() > 100));
        assert!(logs.iter().all(|log| log.outage < 10 * SECOND));
    });
}

/// On command: nothing fails, nothing is lost.
#[test]
fn a_replica_is_promoted_under_writes() {
    within(2 * LIMIT, || {
        let mut cluster = Cluster::start();
        let logs = under_load(&mut cluster, |cluster| {
            for victim in cluster.masters() {
                cluster.hand_over(victim);
            }
        });
        assert!(logs.iter().all(|log| log.failed.is_empty() && log.ok.len() > 100));
    });
}

/// The number of connections of this process that this port has closed and this process has not.
fn half_closed(port: u16) -> usize {
    let connections = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let is_half_closed = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&end)) && fields.next() == Some("08")
    };
    connections.lines().filter(|line| is_half_closed(line)).count()
}

#[test]
fn connections_to_a_node_that_has_left_are_closed() {
    within(2 * LIMIT, || {
        let mut cluster = Cluster::start();
        let store = store(&cluster.addresses());
        let table = &*tables(&cluster)[0];
        store.create(table, "k", "v", &Topic::ALL).unwrap();
        let leaver = cluster.first_owner(cluster.slot(table));
        // Idle connections.
        eventually(LONG, || {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    let get = || drop(store.get(table, "k", None).unwrap());
                    std::thread::Builder::new().spawn_scoped(scope, get).unwrap();
                }
            });
            cluster.nodes[leaver].clients() > 2
        });
        cluster.hand_over(leaver);
        store.set(table, "k", "w").unwrap();
        cluster.nodes[leaver].kill();
        let port = cluster.nodes[leaver].port();
        eventually(LONG, || {
            store.get(table, "k", None).unwrap();
            half_closed(port) == 0
        });
    });
}

#[test]
fn slots_move_under_writes() {
    within(2 * LIMIT, || {
        let mut cluster = Cluster::start();
        let logs = under_load(&mut cluster, |cluster| {
            for _ in 0..3 {
                for table in tables(cluster) {
                    let slot = cluster.slot(&table);
                    let owner = cluster.first_owner(slot);
                    let (next, after) = ((owner + 1) % 3, (owner + 2) % 3);
                    cluster.move_slot(slot, owner, next);
                    pass(Duration::from_millis(50));
                    cluster.move_slot(slot, next, after);
                    cluster.move_slot(slot, after, owner);
                }
            }
        });
        assert!(logs.iter().all(|log| log.failed.is_empty() && log.ok.len() > 100));
    });
}

#[test]
fn a_master_hangs_under_writes() {
    within(2 * LIMIT, || {
        let mut cluster = Cluster::start();
        let mut hung = 0;
        let logs = under_load(&mut cluster, |cluster| {
            hung = cluster.masters()[0];
            let heir = cluster.replica_of(hung);
            cluster.nodes[hung].hang();
            eventually(LONG, || cluster.nodes[heir].role() == "master");
            pass(5 * SECOND);
            cluster.nodes[hung].resume();
        });
        assert!(logs.iter().all(|log| log.ok.len() > 100));
        assert!(logs.iter().all(|log| log.outage < 10 * SECOND));
    });
}

/// A table whose slot is being moved for a long time: what can be read and written is, and the rest is an outage.
#[test]
fn a_slot_stays_half_moved() {
    within(LIMIT, || {
        let cluster = calm();
        let store = store(&cluster.address());
        for number in 0..100 {
            store.create("t", &number.to_string(), "x", &Topic::ALL).unwrap();
        }
        let slot = cluster.slot("t");
        let owner = cluster.first_owner(slot);
        cluster.begin_move(slot, owner, (owner + 1) % 3);
        let (from, to) = (&cluster.nodes[owner], &cluster.nodes[(owner + 1) % 3]);
        let () = from.ask(&[
            "MIGRATE",
            "127.0.0.1",
            &to.port().to_string(),
            "tablecast{1:t}/rows",
            "0",
            "5000",
        ]);
        // The rows are there, the rest is here.
        assert_eq!(store.get("t", "7", None).unwrap().value, "x");
        assert_eq!(store.get("t", "none", None).unwrap_err().kind(), ErrorKind::NotFound);
        for error in [
            store.set("t", "7", "y").unwrap_err(),
            store.create("t", "new", "y", &Topic::ALL).unwrap_err(),
            store.entries("t", None).next().unwrap().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("TRYAGAIN"), "{error}");
        }
        assert!(store.allocate_unique_key("t").is_ok());
        cluster.move_slot(cluster.slot("t"), owner, (owner + 1) % 3);
        assert_eq!(store.set("t", "7", "y").unwrap(), 101);
        assert_eq!(store.entries("t", None).filter(Result::is_ok).count(), 100);
    });
}

/// Replicas and foreign nodes redirect requests that they get by mistake.
#[test]
fn any_node_is_as_good_to_begin_with() {
    within(LIMIT, || {
        let cluster = calm();
        let mut options = options();
        options.retries = 0;
        for (number, node) in cluster.nodes.iter().enumerate() {
            let store = store_with(&node.address(), options.clone());
            for table in tables(&cluster) {
                store.create(&table, &number.to_string(), "x", &Topic::ALL).unwrap();
                assert_eq!(store.keys(&table, None).count(), number + 1);
                assert!(store.announcer(&cluster.addresses()).is_some());
            }
            assert_eq!(store.tables().unwrap().len(), 3);
        }
        // A user without the right to ask for the slots' owners gets an error.
        for node in &cluster.nodes {
            let () = node.ask(&[
                "ACL",
                "SETUSER",
                "caster",
                "on",
                ">secret",
                "~tablecast*",
                "&*",
                "+@all",
                "-cluster",
            ]);
        }
        (options.user, options.password) = ("caster".into(), tablecast::config::Secret::new("secret"));
        let store = store_with(&cluster.address(), options);
        for table in tables(&cluster) {
            assert_eq!(store.keys(&table, None).count(), 6);
        }
        // The tables of one node are not all.
        assert_eq!(store.tables().unwrap_err().kind(), ErrorKind::Denied);
    });
}
